"""The well-known types that have a form as text: Timestamp, Duration, FieldMask and the wrappers."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.rest import values
from service.rest.values import InvalidValue

SetText = Callable[[Any, str], None]
"""Sets a message from its text. Raises InvalidValue."""

TIMESTAMP: Final = "google.protobuf.Timestamp"
DURATION: Final = "google.protobuf.Duration"
FIELD_MASK: Final = "google.protobuf.FieldMask"
ANY: Final = "google.protobuf.Any"
STRUCT: Final = "google.protobuf.Struct"
VALUE: Final = "google.protobuf.Value"
LIST_VALUE: Final = "google.protobuf.ListValue"
HTTP_BODY: Final = "google.api.HttpBody"

_OPAQUE: Final = frozenset({TIMESTAMP, DURATION, FIELD_MASK, ANY, STRUCT, VALUE, LIST_VALUE})
_WRAPPERS_FILE: Final = "google/protobuf/wrappers.proto"
_EPOCH: Final = datetime(1970, 1, 1)
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_MAX_DURATION_S: Final = 315_576_000_000

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_MASK_PATH = re.compile(r"(?:\*|[a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)*)")
_SNAKE_PATH = re.compile(r"(?:\*|[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*(?:\.[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*)*)")
_CAPITAL = re.compile(r"[A-Z]")
_HUMP = re.compile(r"_([a-z])")


def is_wrapper(message: Descriptor) -> bool:
    """Tell StringValue and its like from other messages."""
    return bool(message.file.name == _WRAPPERS_FILE)


def is_opaque(message: Descriptor) -> bool:
    """Whether such a message is shown as something other than its fields, so that they cannot be named."""
    return is_wrapper(message) or message.full_name in _OPAQUE


def has_text_form(field: FieldDescriptor) -> bool:
    """Whether one value of the field can stand in a path or a query string."""
    return field.message_type is None or text_setter(field.message_type) is not None


def text_setter(message: Descriptor) -> SetText | None:
    """Return what sets such a message from text, or None if it has no text form."""
    if is_wrapper(message):
        return _wrapper_setter(values.from_text(message.fields_by_name["value"]))
    return _SETTERS.get(message.full_name)


def _wrapper_setter(parse: values.FromText) -> SetText:
    def set_text(message: Any, text: str) -> None:
        message.value = parse(text)

    return set_text


def set_timestamp(message: Any, text: str) -> None:
    """Set a Timestamp from RFC 3339, upper case, at most nine digits, no leap second."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise InvalidValue("must be a time such as 2026-01-02T03:04:05Z")
    *parts, fraction, sign, hours, minutes = match.groups()
    try:
        elapsed = datetime(*map(int, parts)) - _EPOCH  # type: ignore[arg-type]
    except ValueError:
        raise InvalidValue("is not a date that exists") from None
    seconds = elapsed.days * 86_400 + elapsed.seconds
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise InvalidValue("has an offset that does not exist")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise InvalidValue("must be from year 1 to 9999")
    message.seconds, message.nanos = seconds, _nanos(fraction)


def set_duration(message: Any, text: str) -> None:
    """Set a Duration from seconds such as `1.5s`."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[2]) > _MAX_DURATION_S or (int(match[2]) == _MAX_DURATION_S and _nanos(match[3])):
        raise InvalidValue("must be seconds such as 1.5s, at most 315576000000s")
    sign = -1 if match[1] else 1
    message.seconds, message.nanos = sign * int(match[2]), sign * _nanos(match[3])


def _nanos(fraction: str | None) -> int:
    return int(fraction.ljust(9, "0")) if fraction else 0


def set_field_mask(message: Any, text: str) -> None:
    """Set a FieldMask from camelCase paths, joined by commas."""
    _set_paths(message, text)


def _set_loose_field_mask(message: Any, text: str) -> None:
    """As set_field_mask, and take proto names too, as everywhere else in a query string."""
    _set_paths(message, _HUMP.sub(lambda hump: hump[1].upper(), text))


def _set_paths(message: Any, text: str) -> None:
    paths = text.split(",") if text else []
    if not all(_MASK_PATH.fullmatch(path) for path in paths):
        raise InvalidValue("must be camelCase field names, joined by commas")
    message.Clear()
    message.paths.extend(_CAPITAL.sub(lambda capital: "_" + capital[0].lower(), path) for path in paths)


_SETTERS: Final[dict[str, SetText]] = {
    TIMESTAMP: set_timestamp,
    DURATION: set_duration,
    FIELD_MASK: _set_loose_field_mask,
}


def timestamp_text(message: Any) -> str:
    """Return a Timestamp as RFC 3339 with 0, 3, 6 or 9 digits. Raises ValueError if it is out of range."""
    seconds, nanos = message.seconds, message.nanos
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND or not 0 <= nanos <= 999_999_999:
        raise ValueError("a Timestamp is out of range")
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}{_fraction(nanos)}Z"


def duration_text(message: Any) -> str:
    """Return a Duration as seconds with 0, 3, 6 or 9 digits. Raises ValueError if it is out of range."""
    seconds, nanos = message.seconds, message.nanos
    if abs(seconds) > _MAX_DURATION_S or abs(nanos) > 999_999_999 or seconds * nanos < 0:
        raise ValueError("a Duration is out of range")
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    if not nanos:
        return ""
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}"


def field_mask_text(message: Any) -> str:
    """Return a FieldMask's paths in camelCase. Raises ValueError if one could not be read back."""
    if not all(_SNAKE_PATH.fullmatch(path) for path in message.paths):
        raise ValueError("a FieldMask has a path without a camelCase form")
    return _HUMP.sub(lambda hump: hump[1].upper(), ",".join(message.paths))
