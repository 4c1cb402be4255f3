"""Structured logs on stderr: one line an event, never message content, never secrets."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, BinaryIO, TextIO, cast

import orjson
import structlog

from service.domain.log import Log


def set_up(level: str, log_format: str | None) -> Log:
    """Configure logging for the process and return its logger; None = console on a terminal, else JSON."""
    is_console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    processors: list[Any]
    if is_console:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        processors = [structlog.processors.TimeStamper(fmt="iso", utc=True), renderer]
        factory: Any = structlog.WriteLoggerFactory(file=cast(TextIO, _Lines(sys.stderr)))
    else:
        as_json = structlog.processors.JSONRenderer(serializer=_to_json)
        processors = [_add_time, structlog.processors.format_exc_info, as_json]
        factory = structlog.BytesLoggerFactory(file=cast(BinaryIO, _Lines(sys.stderr.buffer)))
    minimum = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[structlog.processors.add_log_level, *processors],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _route_libraries(max(minimum, logging.WARNING))
    return cast(Log, structlog.get_logger())


def _add_time(_log: Any, _level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["timestamp"] = datetime.now(UTC)  # orjson writes it at less cost than `isoformat` does
    return event


def _to_json(event: dict[str, Any], **_: Any) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z)


class _Lines:
    """A file that lines are written to as long as somebody takes them: what is logged must not end what is done.

    On an event loop, the lines of one turn go out together at its end: a line costs little, a call of the system much.
    """

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._flushes_in: asyncio.AbstractEventLoop | None = None

    def write(self, line: Any) -> None:
        """Write a line, or lose it."""
        self._try(partial(self._file.write, line))

    def flush(self) -> None:
        """Pass on what was written, now or when the loop's turn ends."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._try(self._file.flush)
            return
        if self._flushes_in is not loop:
            self._flushes_in = loop
            loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._flushes_in = None
        self._try(self._file.flush)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except BrokenPipeError:
            # Nobody will read it any more. What is in the buffer would fail again and again, at the very end too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._file.fileno())
            os.close(nowhere)
        except OSError:
            pass  # the disk is full, perhaps: later lines may go through


class _ToStructlog(logging.Handler):
    """Writes what libraries log in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


def _route_libraries(minimum: int) -> None:
    logging.basicConfig(handlers=[_ToStructlog()], level=minimum, force=True)
    # A refused call is logged by the pipeline; grpc would add a traceback of its abort.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
