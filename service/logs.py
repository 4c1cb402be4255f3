"""Structured logs on stderr: one line an event, never message content, never secrets."""

import logging
import sys
from typing import Any, cast

import orjson
import structlog

from service.domain.log import Log


def set_up(level: str, log_format: str | None) -> Log:
    """Configure logging for the process and return its logger; None = console on a terminal, else JSON."""
    is_console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    renderer: Any
    if is_console:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        factory: Any = structlog.WriteLoggerFactory(file=sys.stderr)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
        factory = structlog.BytesLoggerFactory(file=sys.stderr.buffer)
    minimum = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _route_libraries(max(minimum, logging.WARNING))
    return cast(Log, structlog.get_logger())


def _to_json(event: dict[str, Any], **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


class _ToStructlog(logging.Handler):
    """Writes what libraries log in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


def _route_libraries(minimum: int) -> None:
    logging.basicConfig(handlers=[_ToStructlog()], level=minimum, force=True)
    # A refused call is logged by the pipeline; grpc would add a traceback of its abort.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
