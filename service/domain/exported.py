"""Exported sessions: the lines of the file, and back.

A line is canonical JSON: what is read from it, written again, is the same line to the byte. So nothing can be read that
this service would not have written: no field too many, none of another type, no text that is not Unicode.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from service.domain.checks import check_id, check_message, check_request_id, check_session_settings, check_settings
from service.domain.entities import (
    Ending,
    Failure,
    FinishReason,
    ModelSettings,
    Principal,
    Session,
    Turn,
    TurnState,
    Usage,
)
from service.domain.errors import InvalidField, InvalidImport

T = TypeVar("T")

FORMAT = "chatsession.export.v1"
CONTENT_TYPE = "application/x-ndjson"
# A turn of this size still fits into a document of MongoDB.
MAX_LINE_BYTES = 12 * 1024 * 1024
# Of a line without its texts: labels are the most that there can be.
_MAX_BARE_BYTES = 16 * 1024

# Linear in any line: a text that does not end is taken to the end of the line.
_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{64})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_INT = 2**31 - 1
_MILLISECOND = timedelta(milliseconds=1)
_NOBODY = Principal("", "")
_SETTINGS: Mapping[str, type[Any]] = {
    "model": str, "temperature": float, "top_p": float, "max_output_tokens": int, "seed": int,
}  # fmt: skip
_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class End:
    """The last line. sha256: of all bytes before it, in hex."""

    turns: int
    sha256: str


# Writing


def session_line(session: Session, last_seq: int) -> bytes:
    """Return the first line. last_seq: number of the newest message that is exported."""
    return _line(
        kind="session",
        format=FORMAT,
        session_id=session.session_id,
        title=session.title or None,
        labels=dict(session.labels) or None,
        instructions=session.instructions or None,
        settings=_settings_to(session.settings),
        create_time=_time_to(session.create_time),
        update_time=_time_to(session.update_time),
        expire_time=session.expire_time and _time_to(session.expire_time),
        idle_ttl_ms=session.idle_ttl and session.idle_ttl // _MILLISECOND,
        last_seq=last_seq,
        settings_version=session.settings_version,
        fingerprint=session.fingerprint or None,
    )


def turn_line(turn: Turn) -> bytes:
    """Return the line of a turn that is over."""
    ending = turn.ending
    assert ending is not None
    failure, usage = ending.failure, ending.usage
    return _line(
        kind="turn",
        turn_id=turn.turn_id,
        request_id=turn.request_id,
        first_seq=turn.first_seq,
        last_seq=ending.last_seq,
        create_time=_time_to(turn.create_time),
        end_time=_time_to(ending.end_time),
        state=ending.state.value,
        finish_reason=ending.finish_reason and ending.finish_reason.value,
        failure=failure and {"reason": failure.reason, "message": failure.message},
        message=turn.user_text,
        response=ending.text if ending.message_count > 1 else None,
        model=ending.model,
        sent_settings=_settings_to(turn.sent_settings),
        settings=_settings_to(turn.settings),
        settings_version=turn.settings_version,
        attempt=turn.attempt,
        fence=ending.fence,
        usage=usage and _usage_to(usage),
    )


def end_line(end: End) -> bytes:
    """Return the last line."""
    return _line(kind="end", turns=end.turns, sha256=end.sha256)


def _line(**values: Any) -> bytes:
    present = {name: value for name, value in values.items() if value is not None}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _settings_to(settings: ModelSettings) -> dict[str, Any] | None:
    present = {f.name: value for f in fields(settings) if (value := getattr(settings, f.name)) not in (None, ())}
    return present or None


def _usage_to(usage: Usage) -> dict[str, Any]:
    counts = {name: value for name in _COUNTS if (value := getattr(usage, name)) is not None}
    return counts | ({"estimated": True} if usage.estimated else {})


def _time_to(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


# Reading


def read_session(line: bytes) -> Session:
    """Read the first line; raises InvalidImport. The session has no owner and no uid; its last_seq is to be checked."""
    values = _parse(1, line)
    if values.get("kind") != "session":
        raise InvalidImport(1, "is not the first line of an exported session")
    if values.get("format") != FORMAT:
        raise InvalidImport(1, f"is of a format that this server does not know; it knows {FORMAT}")
    return _read(1, line, lambda: _session_from(values), lambda session: session_line(session, session.last_seq))


def read_turn(number: int, line: bytes) -> Turn | End:
    """Read any further line; raises InvalidImport."""
    values = _parse(number, line)
    if values.get("kind") == "end":
        return _read(number, line, lambda: _end_from(values), end_line)
    if values.get("kind") != "turn":
        raise InvalidImport(number, "is neither a turn nor the last line of an exported session")
    return _read(number, line, lambda: _turn_from(values), turn_line)


def _parse(number: int, line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise InvalidImport(number, f"is cut, or longer than {MAX_LINE_BYTES} bytes")
    if len(line) > _MAX_BARE_BYTES and len(_TEXTS.sub(b"", line)) > _MAX_BARE_BYTES:
        raise InvalidImport(number, "has more values than an exported session")
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError:
        raise InvalidImport(number, "is not UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidImport(number, "is not JSON") from None
    if type(values) is not dict:
        raise InvalidImport(number, "is not a JSON object")
    return values


def _read(number: int, line: bytes, read: Callable[[], T], write: Callable[[T], bytes]) -> T:
    try:
        found = read()
        if write(found) == line:
            return found
    except InvalidField as error:
        raise InvalidImport(number, str(error)) from None
    except (KeyError, ValueError, TypeError, OverflowError):  # also text that is not Unicode
        pass
    raise InvalidImport(number, "is not as this service writes it")


def _session_from(values: dict[str, Any]) -> Session:
    check_id("session_id", _get(values, "session_id", str))
    title, instructions = _get(values, "title", str, ""), _get(values, "instructions", str, "")
    labels = _get(values, "labels", dict, {})
    settings = _settings_from(_get(values, "settings", dict, {}))
    if not all(isinstance(label, str) for label in labels.values()):
        raise InvalidField("labels", "must be texts")
    check_session_settings(title, labels, instructions)
    if not _FINGERPRINT.fullmatch(fingerprint := _get(values, "fingerprint", str, "")):
        raise InvalidField("fingerprint", "is none")
    idle_ttl_ms = values.get("idle_ttl_ms")
    return Session(
        session_id=values["session_id"],
        uid="",
        owner=_NOBODY,
        create_time=_time_from(values, "create_time"),
        update_time=_time_from(values, "update_time"),
        title=title,
        labels=labels,
        instructions=instructions,
        settings=settings,
        expire_time=_time_from(values, "expire_time") if "expire_time" in values else None,
        idle_ttl=None if idle_ttl_ms is None else _positive(values, "idle_ttl_ms", 2**53) * _MILLISECOND,
        last_seq=_count(values, "last_seq"),
        settings_version=_positive(values, "settings_version"),
        fingerprint=fingerprint,
    )


def _turn_from(values: dict[str, Any]) -> Turn:
    turn_id, request_id = _get(values, "turn_id", str), values.get("request_id")
    check_id("turn_id", turn_id)
    if request_id is not None:
        check_request_id("request_id", request_id)
    message = _get(values, "message", str)
    check_message("message", message)
    turn = Turn(
        turn_id=turn_id,
        request_key=f"s:{turn_id}" if request_id is None else f"c:{request_id}",
        user_text=message,
        sent_settings=_settings_from(_get(values, "sent_settings", dict, {})),
        settings=_settings_from(_get(values, "settings", dict, {})),
        first_seq=_positive(values, "first_seq"),
        attempt=_positive(values, "attempt"),
        create_time=_time_from(values, "create_time"),
        settings_version=_positive(values, "settings_version"),
    )
    return replace(turn, ending=_ending_from(values, turn.first_seq))


def _ending_from(values: dict[str, Any], first_seq: int) -> Ending:
    state, response = TurnState(values["state"]), values.get("response")
    count = 1 if response is None else 2
    if state is TurnState.RUNNING:
        raise InvalidField("state", "must be an ending")
    if state is TurnState.COMPLETED and count == 1:
        raise InvalidField("response", "is missing")
    if (state is TurnState.FAILED) != ("failure" in values):
        raise InvalidField("failure", "must be there if the turn FAILED, and only then")
    if _positive(values, "last_seq") != first_seq + count - 1:
        raise InvalidField("last_seq", "does not fit first_seq")
    return Ending(
        state=state,
        text="" if response is None else _get(values, "response", str),
        message_count=count,
        last_seq=values["last_seq"],
        fence=_positive(values, "fence"),
        end_time=_time_from(values, "end_time"),
        finish_reason=FinishReason(values["finish_reason"]) if "finish_reason" in values else None,
        failure=_failure_from(_get(values, "failure", dict)) if "failure" in values else None,
        usage=_usage_from(_get(values, "usage", dict)) if "usage" in values else None,
        model=_get(values, "model", str) if "model" in values else None,
    )


def _end_from(values: dict[str, Any]) -> End:
    end = End(_count(values, "turns"), _get(values, "sha256", str))
    if not _SHA256.fullmatch(end.sha256):
        raise InvalidField("sha256", "is none")
    return end


def _failure_from(values: dict[str, Any]) -> Failure:
    return Failure(_get(values, "reason", str), _get(values, "message", str))


def _settings_from(values: dict[str, Any]) -> ModelSettings:
    given: dict[str, Any] = {name: _get(values, name, kind) for name, kind in _SETTINGS.items() if name in values}
    stops = _get(values, "stop_sequences", list, [])
    if not all(isinstance(stop, str) for stop in stops):
        raise InvalidField("settings.stop_sequences", "must be texts")
    settings = ModelSettings(**given, stop_sequences=tuple(stops))
    check_settings("settings", settings)
    if not -_MAX_INT - 1 <= (settings.seed or 0) <= _MAX_INT or (settings.max_output_tokens or 0) > _MAX_INT:
        raise InvalidField("settings", "are out of range")
    return settings


def _usage_from(values: dict[str, Any]) -> Usage:
    counts = {name: _count(values, name) for name in _COUNTS if name in values}
    return Usage(**counts, estimated=_get(values, "estimated", bool, False))


def _get(values: dict[str, Any], name: str, kind: type[T], otherwise: T | None = None) -> T:
    value = values[name] if otherwise is None else values.get(name, otherwise)
    if type(value) is not kind:
        raise TypeError(name)
    return value


def _count(values: dict[str, Any], name: str, most: int = _MAX_INT) -> int:
    value = _get(values, name, int)
    if not 0 <= value <= most:
        raise InvalidField(name, "is out of range")
    return value


def _positive(values: dict[str, Any], name: str, most: int = _MAX_INT) -> int:
    value = _count(values, name, most)
    if value == 0:
        raise InvalidField(name, "must be at least 1")
    return value


def _time_from(values: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(_get(values, name, str))
