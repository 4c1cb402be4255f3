"""Finds, in a request that protobuf refuses to read, the string field whose bytes are not UTF-8."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_MAX_DEPTH = 10
_LEN = 2
_FIXED_SIZES = {1: 8, 5: 4}


def find_bad_text(descriptor: Descriptor, wire: bytes) -> str:
    """Return the path, in proto names, of the first string that is not UTF-8; empty if the fault is another one."""
    try:
        return _find(descriptor, wire, _MAX_DEPTH)
    except (IndexError, ValueError):
        return ""


def _find(descriptor: Descriptor, wire: bytes, depth: int) -> str:
    for number, payload in _length_delimited(wire):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            try:
                payload.decode()
            except UnicodeDecodeError:
                return str(field.name)
        elif field.message_type is not None and depth:
            inner = _find(field.message_type, payload, depth - 1)
            if inner:
                return f"{field.name}.{inner}"
    return ""


def _length_delimited(wire: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, payload) of each length-delimited field; raises IndexError or ValueError on broken wire."""
    at = 0
    while at < len(wire):
        tag, at = _varint(wire, at)
        kind = tag & 7
        if kind == _LEN:
            size, at = _varint(wire, at)
            if at + size > len(wire):
                raise ValueError("truncated")
            yield tag >> 3, wire[at : at + size]
            at += size
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        elif kind == 0:
            _, at = _varint(wire, at)
        else:
            raise ValueError("group")


def _varint(wire: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wire[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint")
