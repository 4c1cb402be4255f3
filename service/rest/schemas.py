"""JSON Schemas of messages, as OpenAPI 3.1 components.

A message that is both sent and received has two: what may be sent leaves out output-only fields and unknown ones, and
requires what is marked so; what is received leaves out input-only fields, and always has those without presence.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from itertools import combinations
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.rpc import status_pb2

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


class Schemas:
    """The schemas of messages that go in or out. Types are named without their package, unless two then had one name.

    constraints: JSON Schema keywords of what may be sent, by the full name of the field.
    unserved: full names of fields that are always refused.
    lenient: unknown fields may be sent.
    """

    def __init__(
        self,
        inputs: Collection[Descriptor],
        outputs: Collection[Descriptor],
        comments: Mapping[str, str],
        *,
        constraints: Mapping[str, Schema] | None = None,
        unserved: Collection[str] = (),
        lenient: bool = False,
    ) -> None:
        self._comments = comments
        self._constraints = constraints or {}
        self._unserved = unserved
        self._lenient = lenient
        self._messages = {Way.IN: self._reachable(inputs, Way.IN), Way.OUT: self._reachable(outputs, Way.OUT)}
        self._names = _short_names({**self._messages[Way.IN], **self._messages[Way.OUT]}.values())
        self._components: dict[str, Schema] = {}

    def components(self) -> dict[str, Schema]:
        """Return the schemas that were referred to so far, and those that they refer to, by name, sorted."""
        return dict(sorted(self._components.items()))

    def goes(self, field: FieldDescriptor, way: Way) -> bool:
        """Whether a field is part of messages that go this way."""
        return not behaves(field, way.value) and not (way is Way.IN and field.full_name in self._unserved)

    def message(self, message: Descriptor, way: Way, *, without: Collection[str] = ()) -> Schema:
        """Return the schema of a message: a reference, unless the type has a form of its own.

        without: proto names of fields to leave out.
        """
        if wellknown.is_wrapper(message):
            return dict(_SCALARS[message.fields_by_name["value"].type])
        own = _WELL_KNOWN.get(message.full_name)
        if own is not None:
            return dict(own)
        name = ".".join([self._name(message, way), *(["Without"] if without else []), *sorted(without)])
        return self.component(name, lambda: self.object(message, way, without=without))

    def component(self, name: str, build: Callable[[], Schema]) -> Schema:
        """Return a reference to a schema, which is built if nothing has referred to it before."""
        if name not in self._components:
            self._components[name] = {}  # for what refers to itself
            self._components[name] = build()
        return {"$ref": f"#/components/schemas/{name}"}

    def line(self, message: Descriptor, schema: Schema) -> Schema:
        """Return the schema of a line in a stream of messages that each have this schema."""
        status = self.message(status_pb2.Status.DESCRIPTOR, Way.OUT)
        return self.component(f"{self._name(message, Way.OUT)}.Line", lambda: _line(schema, status))

    def field(self, field: FieldDescriptor, way: Way) -> Schema:
        """Return the schema of a field, with its comment."""
        schema = self._values(field, way)
        if way is Way.IN:
            schema |= self._constraints.get(field.full_name, {})
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
        fields = [field for field in message.fields if self.goes(field, way) and field.name not in without]
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
        name = self._names[message.full_name]
        return f"{name}.Input" if both else name

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
        enum = field.enum_type
        return self.component(self._names[enum.full_name], lambda: self._enum(enum))

    def _enum(self, enum: EnumDescriptor) -> Schema:
        told = [(name, self._comments.get(f"{enum.full_name}.{name}", "")) for name in enum.values_by_name]
        lines = [f"- `{name}`: {_one_line(comment)}" for name, comment in told if comment]
        description = "\n\n".join(filter(None, [self._comments.get(enum.full_name, ""), "\n".join(lines)]))
        schema: Schema = {"type": "string", "enum": [name for name, _ in told]}
        return {"description": description, **schema} if description else schema

    def _reachable(self, roots: Collection[Descriptor], way: Way) -> dict[str, Descriptor]:
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
                field.message_type
                for field in message.fields
                if field.message_type is not None and self.goes(field, way)
            )
        return found


def _short_names(messages: Iterable[Descriptor]) -> dict[str, str]:
    """Return the names of messages and of their fields' enums, by full name."""
    files = {message.full_name: message.file for message in messages}
    files |= {
        field.enum_type.full_name: field.enum_type.file
        for message in messages
        for field in message.fields
        if field.enum_type
    }
    short = {name: name.removeprefix(f"{file.package}.") for name, file in files.items()}
    times = Counter(short.values())
    return {name: short[name] if times[short[name]] == 1 else name for name in short}


def _line(schema: Schema, status: Schema) -> Schema:
    return {
        "description": "One line.",
        "anyOf": [
            {"type": "object", "properties": {"result": schema}, "required": ["result"]},
            {"type": "object", "properties": {"error": status}, "required": ["error"]},
            {"type": "object", "properties": {"result": {}, "done": {"const": True}}, "required": ["result", "done"]},
        ],
    }


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
