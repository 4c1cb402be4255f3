"""Scalar and enum values: from the text of a URL, and from and to JSON."""

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any, Final, Self

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

FromText = Callable[[str], Any]
FromJson = Callable[[Any], Any]
ToJson = Callable[[Any], str]

_INT32: Final = (-(2**31), 2**31 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)
_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_SPECIAL_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BOOLS: Final = {"true": True, "false": False, "1": True, "0": False}

_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BASE64 = re.compile(r"([A-Za-z0-9+/_-]*)(={0,2})")
_URL_SAFE = str.maketrans("-_", "+/")

NULL_VALUE: Final = "google.protobuf.NullValue"


class InvalidValue(ValueError):
    """What was given is not a value of the field; the text says what would be, without quoting what was given.

    path: where, below the message that is being read, such as `parts[2].labels["a"]`.
    """

    def __init__(self, description: str, path: str = "") -> None:
        super().__init__(description)
        self.path = path

    def under(self, name: str) -> Self:
        """Put a field's name, or a `[…]`, in front of the path."""
        self.path = f"{name}.{self.path}" if self.path and self.path[0] != "[" else name + self.path
        return self


# --- from text -------------------------------------------------------------------------------------------------------


def from_text(field: FieldDescriptor) -> FromText:
    """Return the parser for a scalar or enum field as it stands in a path or a query string."""
    if field.type in _INTEGERS:
        return _integer_from_text(*_INTEGERS[field.type])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum_from_text(_enum_of(field))
    return _FROM_TEXT[field.type]


def _enum_of(field: FieldDescriptor) -> EnumDescriptor:
    assert field.enum_type is not None
    return field.enum_type


def _integer_from_text(low: int, high: int) -> FromText:
    problem = f"must be a whole number from {low} to {high}"

    def parse(text: str) -> int:
        if not _DECIMAL.fullmatch(text) or (text[0] == "-" and low == 0):
            raise InvalidValue(problem)
        number = int(text)
        if not low <= number <= high:
            raise InvalidValue(problem)
        return number

    return parse


def _enum_from_text(enum: EnumDescriptor) -> FromText:
    names = {name: value.number for name, value in enum.values_by_name.items()}
    numbers = frozenset(names.values())
    problem = _enum_problem(enum)

    def parse(text: str) -> int:
        number = names.get(text)
        if number is not None:
            return number
        if not _DECIMAL.fullmatch(text) or int(text) not in numbers:
            raise InvalidValue(problem)
        return int(text)

    return parse


def _enum_problem(enum: EnumDescriptor) -> str:
    names = list(enum.values_by_name)
    listed = ", ".join(names[:16])
    return f"must be one of {listed}" + (", …" if len(names) > 16 else "")


def _bool_from_text(text: str) -> bool:
    try:
        return _BOOLS[text]
    except KeyError:
        raise InvalidValue("must be true or false") from None


def _float_from_text(text: str) -> float:
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    if not _NUMBER.fullmatch(text):
        raise InvalidValue("must be a number")
    return _finite(float(text))


def _float32_from_text(text: str) -> float:
    return _float32(_float_from_text(text))


def _finite(number: float) -> float:
    if math.isinf(number):
        raise InvalidValue("is out of range")
    return number


def _float32(number: float) -> float:
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise InvalidValue("is out of range") from None
    return number


def bytes_from_text(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not. Raises InvalidValue."""
    match = _BASE64.fullmatch(text)
    if match is None or (match[2] and len(text) % 4) or len(match[1]) % 4 == 1:
        raise InvalidValue("must be base64")
    padding = "=" * (-len(match[1]) % 4)
    try:
        return binascii.a2b_base64(match[1].translate(_URL_SAFE) + padding)
    except binascii.Error:
        raise InvalidValue("must be base64") from None


_FROM_TEXT: Final[dict[int, FromText]] = {
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_BYTES: bytes_from_text,
    FieldDescriptor.TYPE_BOOL: _bool_from_text,
    FieldDescriptor.TYPE_DOUBLE: _float_from_text,
    FieldDescriptor.TYPE_FLOAT: _float32_from_text,
}


# --- from JSON -------------------------------------------------------------------------------------------------------


def from_json(field: FieldDescriptor) -> FromJson:
    """Return the converter for a parsed JSON value of a scalar or enum field."""
    if field.type in _INTEGERS:
        return _integer_from_json(*_INTEGERS[field.type])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum_from_json(_enum_of(field))
    return _FROM_JSON[field.type]


def key_from_json(field: FieldDescriptor) -> FromText:
    """Return the converter for a map key, which JSON writes as a string."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_key
    return string_from_json if field.type == FieldDescriptor.TYPE_STRING else from_text(field)


def _integer_from_json(low: int, high: int) -> FromJson:
    problem = f"must be a whole number from {low} to {high}"

    def convert(value: Any) -> int:
        if type(value) is str and _NUMBER.fullmatch(value):
            value = int(value) if _DECIMAL.fullmatch(value) else float(value)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise InvalidValue(problem)
        return value

    return convert


def _enum_from_json(enum: EnumDescriptor) -> FromJson:
    takes_null = enum.full_name == NULL_VALUE
    names = {name: value.number for name, value in enum.values_by_name.items()}
    numbers = frozenset(names.values()) if enum.is_closed or takes_null else None
    problem = _enum_problem(enum)
    integer = _integer_from_json(*_INT32)

    def convert(value: Any) -> int:
        if type(value) is str:
            named = names.get(value)
            if named is None:
                raise InvalidValue(problem)
            return named
        if takes_null and value is None:
            return 0
        try:
            number: int = integer(value)
        except InvalidValue:
            raise InvalidValue(problem) from None
        if numbers is not None and number not in numbers:
            raise InvalidValue(problem)
        return number

    return convert


def string_from_json(value: Any) -> str:
    """Return the value if it is a string of Unicode scalar values. Raises InvalidValue."""
    if type(value) is not str:
        raise InvalidValue("must be a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue("must not hold a lone surrogate") from None
    return value


def _bytes_from_json(value: Any) -> bytes:
    if type(value) is not str:
        raise InvalidValue("must be a base64 string")
    return bytes_from_text(value)


def _bool_from_json(value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidValue("must be true or false")
    return value


def _bool_key(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidValue("must be true or false")
    return text == "true"


def double_from_json(value: Any) -> float:
    """Return a finite JSON number, or a string that is one or names NaN or an infinity. Raises InvalidValue."""
    if type(value) is float:
        return _finite(value)
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise InvalidValue("is out of range") from None
    if type(value) is str:
        return _float_from_text(value)
    raise InvalidValue("must be a number")


def _float32_from_json(value: Any) -> float:
    return _float32(double_from_json(value))


_FROM_JSON: Final[dict[int, FromJson]] = {
    FieldDescriptor.TYPE_STRING: string_from_json,
    FieldDescriptor.TYPE_BYTES: _bytes_from_json,
    FieldDescriptor.TYPE_BOOL: _bool_from_json,
    FieldDescriptor.TYPE_DOUBLE: double_from_json,
    FieldDescriptor.TYPE_FLOAT: _float32_from_json,
}


# --- to JSON ---------------------------------------------------------------------------------------------------------

string_to_json: Final[ToJson] = json.encoder.encode_basestring


def to_json(field: FieldDescriptor) -> ToJson:
    """Return the writer of a scalar or enum field's JSON text."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum_to_json(_enum_of(field))
    return _TO_JSON[field.type]


def key_to_json(field: FieldDescriptor) -> ToJson:
    """Return the writer of a map key, which JSON has as a string."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return string_to_json
    return _bool_key_to_json if field.type == FieldDescriptor.TYPE_BOOL else _quoted


def _enum_to_json(enum: EnumDescriptor) -> ToJson:
    if enum.full_name == NULL_VALUE:
        return lambda _: "null"
    names = {number: f'"{value.name}"' for number, value in enum.values_by_number.items()}

    def write(number: int) -> str:
        return names.get(number) or str(number)

    return write


def _bool_to_json(value: bool) -> str:
    return "true" if value else "false"


def _bool_key_to_json(value: bool) -> str:
    return '"true"' if value else '"false"'


def _quoted(value: int) -> str:
    return f'"{value}"'


def bytes_to_json(value: bytes) -> str:
    """Write padded standard base64."""
    return f'"{base64.b64encode(value).decode("ascii")}"'


def _double_to_json(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


def finite_to_json(value: float) -> str:
    """Write a number. Raises ValueError if it is NaN or an infinity."""
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return repr(value)


def _float_to_json(value: float) -> str:
    """Write the shortest number that reads back as the same 32-bit float."""
    if math.isfinite(value):
        for digits in range(6, 9):
            shorter = float(f"{value:.{digits}g}")
            try:
                if struct.unpack("<f", struct.pack("<f", shorter))[0] == value:
                    return repr(shorter)
            except OverflowError:  # rounded up past the largest float
                continue
    return _double_to_json(float(f"{value:.9g}"))


_TO_JSON: Final[dict[int, ToJson]] = {
    FieldDescriptor.TYPE_STRING: string_to_json,
    FieldDescriptor.TYPE_BYTES: bytes_to_json,
    FieldDescriptor.TYPE_BOOL: _bool_to_json,
    FieldDescriptor.TYPE_DOUBLE: _double_to_json,
    FieldDescriptor.TYPE_FLOAT: _float_to_json,
    **{kind: (_quoted if high > 2**32 else str) for kind, (_, high) in _INTEGERS.items()},
}
