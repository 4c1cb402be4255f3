"""JSON Schemas of messages, as OpenAPI 3.1 components.

A message that is both sent and received has two: what may be sent leaves out output-only fields and unknown ones, and
requires what is marked so; what is received leaves out input-only fields, and always has those without presence.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from itertools import combinations
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from service.rest import values, wellknown

Schema = dict[str, Any]

_INT32: Final[Schema] = {"type": "integer", "format": "int32"}
_UINT32: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1}
_INT64: Final[Schema] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Final[Schema] = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_SCALARS: Final[dict[int, Schema]] = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte", "contentEncoding": "base64"},
}
_MASK_PATH: Final = r"(\*|[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*)"
_WELL_KNOWN: Final[dict[str, Schema]] = {
    wellknown.TIMESTAMP: {"type": "string", "format": "date-time", "examples": ["2026-01-02T03:04:05Z"]},
    wellknown.DURATION: {"type": "string", "pattern": r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$", "examples": ["3600s"]},
    wellknown.FIELD_MASK: {
        "type": "string",
        "pattern": f"^({_MASK_PATH}(,{_MASK_PATH})*)?$",
        "examples": ["title,labels"],
    },
    wellknown.STRUCT: {"type": "object", "additionalProperties": True},
    wellknown.LIST_VALUE: {"type": "array", "items": {}},
    wellknown.VALUE: {},
    wellknown.ANY: {"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": True},
    wellknown.HTTP_BODY: {"type": "string", "format": "binary"},
}


class Way(Enum):
    """Which way a message goes; the value is the behaviour of fields that do not go it."""

    IN = field_behavior_pb2.OUTPUT_ONLY
    OUT = field_behavior_pb2.INPUT_ONLY


def behaves(field: FieldDescriptor, behavior: int) -> bool:
    """Whether a field is marked with a `google.api.field_behavior`."""
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def goes(field: FieldDescriptor, way: Way) -> bool:
    """Whether a field is part of messages that go this way."""
    return not behaves(field, way.value)


class Schemas:
    """The schemas of all messages that go in or out.

    lenient: unknown fields may be sent.
    """

    def __init__(
        self,
        inputs: Collection[Descriptor],
        outputs: Collection[Descriptor],
        comments: Mapping[str, str],
        *,
        lenient: bool = False,
    ) -> None:
        self._comments = comments
        self._lenient = lenient
        self._messages = {Way.IN: _reachable(inputs, Way.IN), Way.OUT: _reachable(outputs, Way.OUT)}

    def components(self) -> dict[str, Schema]:
        """Return all schemas by name, sorted."""
        found: dict[str, Schema] = {}
        for way, messages in self._messages.items():
            for message in messages.values():
                found[self._name(message, way)] = self.object(message, way)
                for field in message.fields:
                    enum = field.enum_type
                    if enum is not None and enum.full_name != values.NULL_VALUE:
                        found[enum.full_name] = self._enum(enum)
        return dict(sorted(found.items()))

    def message(self, message: Descriptor, way: Way) -> Schema:
        """Return the schema of a message: a reference, unless the type has a form of its own."""
        if wellknown.is_wrapper(message):
            return dict(_SCALARS[message.fields_by_name["value"].type])
        own = _WELL_KNOWN.get(message.full_name)
        return dict(own) if own is not None else {"$ref": f"#/components/schemas/{self._name(message, way)}"}

    def field(self, field: FieldDescriptor, way: Way) -> Schema:
        """Return the schema of a field, with its comment."""
        schema = self._values(field, way)
        description = self._comments.get(field.full_name)
        if description:
            schema["description"] = description
        if behaves(field, field_behavior_pb2.OUTPUT_ONLY):
            schema["readOnly"] = True
        if behaves(field, field_behavior_pb2.INPUT_ONLY):
            schema["writeOnly"] = True
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def object(self, message: Descriptor, way: Way, *, without: Collection[str] = ()) -> Schema:
        """Return the schema of a message itself.

        without: proto names of fields to leave out.
        """
        fields = [field for field in message.fields if goes(field, way) and field.name not in without]
        schema: Schema = {
            "type": "object",
            "properties": {field.json_name: self.field(field, way) for field in fields},
        }
        always = [field.json_name for field in fields if _is_always_there(field, way)]
        if always:
            schema["required"] = always
        exclusive = list(_exclusive(fields))
        if way is Way.IN:
            if not self._lenient:
                schema["additionalProperties"] = False
            if exclusive:
                schema["allOf"] = [
                    {"not": {"required": list(pair)}} for names in exclusive for pair in combinations(names, 2)
                ]
        notes = [f"At most one of {', '.join(f'`{name}`' for name in names)}." for names in exclusive]
        description = "\n\n".join(filter(None, [self._comments.get(message.full_name, ""), *notes]))
        return {"description": description, **schema} if description else schema

    def _name(self, message: Descriptor, way: Way) -> str:
        both = way is Way.IN and message.full_name in self._messages[Way.OUT]
        return f"{message.full_name}.Input" if both else message.full_name

    def _values(self, field: FieldDescriptor, way: Way) -> Schema:
        if not field.is_repeated:
            return self._value(field, way)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._value(entry.fields_by_name["value"], way)}
        return {"type": "array", "items": self._value(field, way)}

    def _value(self, field: FieldDescriptor, way: Way) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type, way)
        if field.enum_type is None:
            return dict(_SCALARS[field.type])
        if field.enum_type.full_name == values.NULL_VALUE:
            return {"type": "null"}
        return {"$ref": f"#/components/schemas/{field.enum_type.full_name}"}

    def _enum(self, enum: EnumDescriptor) -> Schema:
        told = [(name, self._comments.get(f"{enum.full_name}.{name}", "")) for name in enum.values_by_name]
        lines = [f"- `{name}`: {_one_line(comment)}" for name, comment in told if comment]
        description = "\n\n".join(filter(None, [self._comments.get(enum.full_name, ""), "\n".join(lines)]))
        schema: Schema = {"type": "string", "enum": [name for name, _ in told]}
        return {"description": description, **schema} if description else schema


def _is_always_there(field: FieldDescriptor, way: Way) -> bool:
    return behaves(field, field_behavior_pb2.REQUIRED) if way is Way.IN else not field.has_presence


def _exclusive(fields: Collection[FieldDescriptor]) -> Iterator[list[str]]:
    """Yield the JSON names of each oneof that has more than one of the fields."""
    oneofs: dict[str, list[str]] = {}
    for field in fields:
        if field.containing_oneof is not None:
            oneofs.setdefault(field.containing_oneof.name, []).append(field.json_name)
    return (names for names in oneofs.values() if len(names) > 1)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _reachable(roots: Collection[Descriptor], way: Way) -> dict[str, Descriptor]:
    """Return the messages that have a component of their own, from some on, by full name."""
    found: dict[str, Descriptor] = {}
    pending = list(roots)
    while pending:
        message = pending.pop()
        if wellknown.is_wrapper(message) or message.full_name in _WELL_KNOWN or message.full_name in found:
            continue
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
        pending.extend(
            field.message_type for field in message.fields if field.message_type is not None and goes(field, way)
        )
    return found
