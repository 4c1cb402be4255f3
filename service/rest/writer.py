"""JSON from messages.

A plan is compiled for each message type when it is first met. It writes what `google.protobuf.json_format` writes with
fields without presence always printed, several times faster and in order of declaration. A packed message that cannot
be unpacked is written as its type and base64, so that no detail of an error can make the error itself fail.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, cast

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from service.rest import values, wellknown

Write = Callable[[Any], str]
"""Returns a message, or one field of it, as JSON text. Raises ValueError if it has no JSON form."""

_quote = values.string_to_json


class Writer:
    """Writes messages as JSON.

    pool: where the types named in an Any are looked up, before the default pool.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pools = (pool, descriptor_pool.Default())
        self._plans: dict[Descriptor, Write] = {}
        self._special: dict[str, Write] = {
            wellknown.TIMESTAMP: lambda message: f'"{wellknown.timestamp_text(message)}"',
            wellknown.DURATION: lambda message: f'"{wellknown.duration_text(message)}"',
            wellknown.FIELD_MASK: lambda message: f'"{wellknown.field_mask_text(message)}"',
            wellknown.ANY: self._write_any,
            wellknown.STRUCT: self._write_struct,
            wellknown.LIST_VALUE: self._write_list,
            wellknown.VALUE: self._write_value,
        }

    def text(self, message: Message) -> str:
        """Return a message as JSON text. Raises ValueError if it has no JSON form."""
        return self.message(_descriptor(message))(message)

    def message(self, descriptor: Descriptor) -> Write:
        """Return the plan for a message type."""
        plan = self._plans.get(descriptor)
        if plan is None:
            plan = self._special_plan(descriptor)
            if plan is None:
                plan = self._plans[descriptor] = self._object_plan(descriptor)
        return plan

    def field(self, field: FieldDescriptor) -> Write:
        """Return what writes one field of a message, for a response body that is only this field."""
        name, write = field.name, self._field(field)
        return lambda message: write(getattr(message, name))

    def _special_plan(self, descriptor: Descriptor) -> Write | None:
        if wellknown.is_wrapper(descriptor):
            write = values.to_json(descriptor.fields_by_name["value"])
            return lambda message: write(message.value)
        return self._special.get(descriptor.full_name)

    def _object_plan(self, descriptor: Descriptor) -> Write:
        fields: list[tuple[str, str, bool, Write]] = []

        def write(message: Any) -> str:
            if not fields:
                self._compile(descriptor, fields)
            parts = [
                prefix + write_field(getattr(message, name))
                for prefix, name, has_presence, write_field in fields
                if not has_presence or message.HasField(name)
            ]
            return "{" + ",".join(parts) + "}"

        return write

    def _compile(self, descriptor: Descriptor, fields: list[tuple[str, str, bool, Write]]) -> None:
        fields.extend(
            (f"{_quote(field.json_name)}:", field.name, field.has_presence, self._field(field))
            for field in descriptor.fields
        )

    def _field(self, field: FieldDescriptor) -> Write:
        if not field.is_repeated:
            return self._one(field)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key_field, value_field = entry.fields
            return _map_writer(values.key_to_json(key_field), self._one(value_field))
        write = self._one(field)
        return lambda items: "[" + ",".join(map(write, items)) + "]"

    def _one(self, field: FieldDescriptor) -> Write:
        return values.to_json(field) if field.message_type is None else self.message(field.message_type)

    def _write_any(self, message: Any) -> str:
        if not message.type_url and not message.value:
            return "{}"
        head = '{"@type":' + _quote(message.type_url)
        try:
            packed = self._unpacked(message)
            content = self.text(packed)
        except (KeyError, DecodeError, ValueError):
            return f'{head},"value":{values.bytes_to_json(message.value)}}}'
        if self._special_plan(_descriptor(packed)) is not None:
            return f'{head},"value":{content}}}'
        return f"{head}}}" if content == "{}" else f"{head},{content[1:]}"

    def _unpacked(self, message: Any) -> Message:
        name = message.type_url.rpartition("/")[2]
        for pool in self._pools:
            try:
                descriptor = pool.FindMessageTypeByName(name)
            except KeyError:
                continue
            return GetMessageClass(descriptor).FromString(message.value)
        raise KeyError(name)

    def _write_struct(self, message: Any) -> str:
        pairs = (f"{_quote(key)}:{self._write_value(value)}" for key, value in sorted(message.fields.items(), key=_key))
        return "{" + ",".join(pairs) + "}"

    def _write_list(self, message: Any) -> str:
        return "[" + ",".join(map(self._write_value, message.values)) + "]"

    def _write_value(self, message: Any) -> str:
        kind = message.WhichOneof("kind")
        if kind is None or kind == "null_value":
            return "null"
        if kind == "string_value":
            return _quote(message.string_value)
        if kind == "bool_value":
            return "true" if message.bool_value else "false"
        if kind == "number_value":
            return values.finite_to_json(message.number_value)
        return (
            self._write_struct(message.struct_value) if kind == "struct_value" else self._write_list(message.list_value)
        )


_key = itemgetter(0)


def _descriptor(message: Message) -> Descriptor:
    return cast(Descriptor, message.DESCRIPTOR)  # which the stubs take for one of two classes


def _map_writer(write_key: Write, write_value: Write) -> Write:
    """Write a map sorted by key, so that equal messages have equal text."""

    def write(items: Any) -> str:
        pairs = (f"{write_key(key)}:{write_value(item)}" for key, item in sorted(items.items(), key=_key))
        return "{" + ",".join(pairs) + "}"

    return write
