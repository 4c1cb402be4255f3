"""Random messages of any type, for hypothesis."""

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

F = FieldDescriptor

_INTEGERS = {
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), st.integers(0, 2**32 - 1)),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), st.integers(0, 2**64 - 1)),
}
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    **_INTEGERS,
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_STRING: st.text(max_size=8),
    F.TYPE_BYTES: st.binary(max_size=8),
    F.TYPE_FLOAT: st.floats(width=32, allow_nan=False) | st.just(math.nan),  # of one kind, as in JSON
    F.TYPE_DOUBLE: st.floats(allow_nan=False) | st.just(math.nan),
}
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_MASK_PATH = st.from_regex(r"[a-z]{1,3}(_[a-z]{1,3}){0,2}(\.[a-z]{1,3}){0,1}", fullmatch=True)


def messages(descriptor: Descriptor, *, depth: int = 2) -> st.SearchStrategy[Any]:
    """Return legal messages of a type, with messages in them down to some depth."""
    name = descriptor.full_name
    if name in _SPECIAL:
        return _SPECIAL[name](descriptor, depth)
    return _ordinary(descriptor, depth)


@st.composite
def _ordinary(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Any:
    message = GetMessageClass(descriptor)()
    fields = [field for field in descriptor.fields if field.message_type is None or depth]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda field: field.name)) if fields else []
    for field in chosen:
        _fill(draw, message, field, depth)
    return message


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    if not field.is_repeated:
        value = draw(_values(field, depth))
        if field.message_type is not None:
            getattr(message, field.name).SetInParent()
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
        return
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key_field, value_field = field.message_type.fields
        for key, value in draw(st.dictionaries(_values(key_field, 0), _values(value_field, depth), max_size=3)).items():
            if value_field.message_type is not None:
                target[key].CopyFrom(value)
            else:
                target[key] = value
        return
    for value in draw(st.lists(_values(field, depth), max_size=3)):
        target.add().CopyFrom(value) if field.message_type is not None else target.append(value)


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth=depth - 1)
    if field.enum_type is None:
        return _SCALARS[field.type]
    numbers = st.sampled_from([value.number for value in field.enum_type.values])
    if field.enum_type.full_name == "google.protobuf.NullValue":
        return numbers
    return numbers | st.integers(-(2**31), 2**31 - 1)


@st.composite
def _timestamp(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
    return GetMessageClass(descriptor)(seconds=seconds, nanos=draw(_nanos()))


@st.composite
def _duration(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    seconds = draw(st.integers(0, 315_575_999_999))
    sign = draw(st.sampled_from([1, -1]))
    return GetMessageClass(descriptor)(seconds=sign * seconds, nanos=sign * draw(_nanos()))


def _nanos() -> st.SearchStrategy[int]:
    return st.sampled_from([0, 1, 1000, 500_000_000, 999_999_999]) | st.integers(0, 999_999_999)


@st.composite
def _mask(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    return GetMessageClass(descriptor)(paths=draw(st.lists(_MASK_PATH, max_size=3)))


@st.composite
def _any(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Any:
    message = GetMessageClass(descriptor)()
    pool = descriptor.file.pool
    name = draw(st.sampled_from(["gallery.v1.Parent", "google.protobuf.Duration", "google.protobuf.Int64Value", ""]))
    if name:
        message.Pack(draw(messages(pool.FindMessageTypeByName(name), depth=max(0, depth - 1))), deterministic=True)
    return message


@st.composite
def _value(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    message = GetMessageClass(descriptor)()
    _set_value(message, draw(_JSON))
    return message


@st.composite
def _struct(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    message = GetMessageClass(descriptor)()
    for key, value in draw(st.dictionaries(st.text(max_size=3), _JSON, max_size=3)).items():
        _set_value(message.fields[key], value)
    return message


@st.composite
def _list(draw: st.DrawFn, descriptor: Descriptor, _: int) -> Any:
    message = GetMessageClass(descriptor)()
    for value in draw(st.lists(_JSON, max_size=3)):
        _set_value(message.values.add(), value)
    return message


def _set_value(message: Any, value: Any) -> None:
    if value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, float):
        assert math.isfinite(value)
        message.number_value = value
    elif isinstance(value, list):
        message.list_value.SetInParent()
        for item in value:
            _set_value(message.list_value.values.add(), item)
    else:
        message.struct_value.SetInParent()
        for key, item in value.items():
            _set_value(message.struct_value.fields[key], item)


_SPECIAL = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Any": _any,
    "google.protobuf.Value": _value,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
}
