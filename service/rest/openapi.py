"""The OpenAPI 3.1 document of HTTP rules: from descriptors, their options and their comments."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import code_pb2, status_pb2

from service.rest import rules, wellknown
from service.rest.comments import comments_of
from service.rest.links import Links, operation_id
from service.rest.rules import Rule
from service.rest.schemas import Schema, Schemas, Way, behaves
from service.rest.status import HTTP_STATUS
from service.rest.template import Segment, Wildcard

_PATH_METHODS: Final = frozenset(["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"])
_MAX_PARAMETER_DEPTH: Final = 4

_ERROR: Final = {"$ref": "#/components/responses/Error"}

_Chain = tuple[FieldDescriptor, ...]

_EVENTS: Final = (
    "`text/event-stream`, if asked for in `Accept`: Server-Sent Events. An unnamed event has a message as its `data`. "
    "`event: status` has a Status and ends a failed stream; `event: done` ends a good one, and a client must not "
    "reconnect after it. Lines that begin with `:` are heartbeats. A stream that ends otherwise was cut."
)
_LINES: Final = (
    "`application/x-ndjson` otherwise: one JSON object a line, `result` with a message; last, `error` with a Status "
    "or, with an empty `result`, `done`. A stream that ends otherwise was cut."
)


Version = Literal["3.1.0", "3.2.0"]


class Document:
    """Builds the document. See RestApp for the parameters."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        title: str,
        version: str,
        description: str = "",
        source_info: FileDescriptorSet | None = None,
        examples: Mapping[str, Any] | None = None,
        constraints: Mapping[str, Schema] | None = None,
        unserved: Collection[str] = (),
        openapi_version: Version = "3.1.0",
        lenient: bool = False,
    ) -> None:
        self._version = openapi_version
        self._rules = [rule for rule in rules if rule.http_method in _PATH_METHODS]
        self._info = {"title": title, "version": version, **({"description": description} if description else {})}
        self._comments = comments_of(source_info)
        self._examples = examples or {}
        self._unserved = unserved
        methods = [rule.method for rule in self._rules]
        self._schemas = Schemas(
            [method.input_type for method in methods],
            [*(method.output_type for method in methods), status_pb2.Status.DESCRIPTOR],
            self._comments,
            constraints=constraints,
            unserved=unserved,
            lenient=lenient,
        )
        self._links = Links(rule for rule in self._rules if rule.method.full_name not in unserved)

    def json(self) -> bytes:
        """Return the document as JSON; the same for the same rules."""
        return json.dumps(self.value(), indent=2, ensure_ascii=False).encode()

    def value(self) -> dict[str, Any]:
        """Return the document."""
        services = {rule.method.containing_service.full_name: rule.method.containing_service for rule in self._rules}
        paths = self._paths()
        error = _error_response(self._schemas)
        return {
            "openapi": self._version,
            "info": self._info,
            "tags": [
                _described({"name": service.name}, self._comments.get(service.full_name))
                for service in services.values()
            ],
            "paths": paths,
            "components": {"schemas": self._schemas.components(), "responses": {"Error": error}},
        }

    def _paths(self) -> dict[str, Any]:
        """Return the operations by path. Templates that differ in the names of their variables only share a path."""
        paths: dict[str, Any] = {}
        by_shape: dict[tuple[tuple[Segment, ...], str], _Path] = {}
        for rule in self._rules:
            path = by_shape.setdefault(rule.template.shape, _Path(rule))
            paths.setdefault(path.text, {})[rule.http_method.lower()] = self._operation(rule, path)
        return paths

    def _operation(self, rule: Rule, path: "_Path") -> dict[str, Any]:
        method = rule.method
        comment = self._comments.get(method.full_name, "")
        operation: dict[str, Any] = {
            "tags": [method.containing_service.name],
            "operationId": operation_id(rule),
        }
        if comment:
            operation["summary"] = comment.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
            operation["description"] = comment
        if method.GetOptions().deprecated:
            operation["deprecated"] = True
        parameters = [*path.parameters(rule, self._schemas), *self._query_parameters(rule)]
        if parameters:
            operation["parameters"] = parameters
        if rule.body:
            operation["requestBody"] = self._request_body(rule)
        responses = {"501": _ERROR} if method.full_name in self._unserved else self._responses(rule)
        operation["responses"] = {**responses, "default": _ERROR}
        return operation

    def _query_parameters(self, rule: Rule) -> Iterator[dict[str, Any]]:
        if rule.body == "*":
            return
        bound = {variable.field_path for variable in rule.template.variables}
        for chain in self._text_fields(rule.method.input_type, ()):
            if tuple(field.name for field in chain) in bound or chain[0].name == rule.body:
                continue
            yield _parameter("query", ".".join(field.json_name for field in chain), chain[-1], self._schemas)

    def _text_fields(self, message: Descriptor, parents: _Chain) -> Iterator[_Chain]:
        """Yield the way to each field that a query parameter can set.

        A message within itself, or deep down, is not followed; its parameters work, but are not listed.
        """
        for field in message.fields:
            chain = (*parents, field)
            child = field.message_type
            if not self._schemas.goes(field, Way.IN):
                continue
            if wellknown.has_text_form(field):
                yield chain
            elif child is not None and not field.is_repeated and len(chain) < _MAX_PARAMETER_DEPTH:
                repeats = any(child is parent.message_type for parent in parents)
                special = child.file.name.startswith(("google/protobuf/", "google/api/"))
                if not repeats and not special:
                    yield from self._text_fields(child, chain)

    def _request_body(self, rule: Rule) -> dict[str, Any]:
        message = rule.method.input_type
        if rule.body == "*":
            bound = {variable.field_path[0] for variable in rule.template.variables if len(variable.field_path) == 1}
            schema = self._schemas.message(message, Way.IN, without=bound)
            needed = [
                field
                for field in message.fields
                if field.name not in bound and behaves(field, field_behavior_pb2.REQUIRED)
            ]
            required = bool(needed)
            elsewhere = {message.fields_by_name[name].json_name for name in bound}
            given = self._examples.get(rule.method.full_name) or {field.json_name: _example(field) for field in needed}
            example = {name: value for name, value in given.items() if name not in elsewhere}
            is_file = message.full_name == wellknown.HTTP_BODY
        else:
            field = message.fields_by_name[rule.body]
            schema = self._schemas.field(field, Way.IN)
            required = rule.method.client_streaming or behaves(field, field_behavior_pb2.REQUIRED)
            example = self._examples.get(rule.method.full_name, _example(field))
            is_file = field.message_type is not None and field.message_type.full_name == wellknown.HTTP_BODY
        if is_file:
            return {"required": required, "content": {schema.get("contentMediaType", "*/*"): {}}}
        return {"required": required, "content": {"application/json": {"schema": schema, "example": example}}}

    def _responses(self, rule: Rule) -> dict[str, Any]:
        method = rule.method
        if rule.response_body:
            schema = self._schemas.field(method.output_type.fields_by_name[rule.response_body], Way.OUT)
        else:
            schema = self._schemas.message(method.output_type, Way.OUT)
        if schema.get("format") == "binary":
            return {"200": {"description": "A file.", "content": {"*/*": {"schema": schema}}}}
        if not method.server_streaming:
            links = self._links.of(rule)
            return {
                "200": {
                    "description": "OK.",
                    "content": {"application/json": {"schema": schema}},
                    **({"links": links} if links else {}),
                }
            }
        of_one = "itemSchema" if self._version == "3.2.0" else "schema"
        return {
            "200": {
                "description": f"A stream of messages.\n\n{_EVENTS}\n\n{_LINES}",
                "content": {
                    "text/event-stream": {of_one: schema},
                    "application/x-ndjson": {of_one: self._schemas.line(method.output_type, schema)},
                },
            },
            "204": {"description": "Server-Sent Events were asked for, and there are none. Do not reconnect."},
        }


class _Path:
    """A template as an OpenAPI path: one parameter for each wildcard.

    A variable over several segments is spelled out, `{name=shelves/*}` as `shelves/{shelve}`.
    """

    def __init__(self, rule: Rule) -> None:
        self._names: dict[int, str] = {}
        for position, segment in enumerate(rule.template.segments):
            if isinstance(segment, Wildcard):
                self._names[position] = self._unused(_wildcard_name(rule, position))
        pieces = [
            f"{{{self._names[position]}}}" if position in self._names else quote(str(segment), safe="@:!$&'()*+,;=~")
            for position, segment in enumerate(rule.template.segments)
        ]
        verb = f":{rule.template.verb}" if rule.template.verb else ""
        self.text = "/" + "/".join(pieces) + verb

    def _unused(self, name: str) -> str:
        taken = set(self._names.values())
        candidates = (name, *(f"{name}{number}" for number in range(2, len(taken) + 3)))
        return next(candidate for candidate in candidates if candidate not in taken)

    def parameters(self, rule: Rule, schemas: Schemas) -> Iterator[dict[str, Any]]:
        """Yield the path's parameters, as this rule means them."""
        for position, name in self._names.items():
            yield self._parameter(rule, schemas, position, name)

    def _parameter(self, rule: Rule, schemas: Schemas, position: int, name: str) -> dict[str, Any]:
        many = rule.template.segments[position] is Wildcard.MANY
        extra = {"x-multi-segment": True} if many else {}
        for variable in rule.template.variables:
            if not variable.start <= position < variable.stop:
                continue
            field = rules.resolve(rule.method.input_type, variable.field_path)
            assert field is not None
            parameter = _parameter("path", name, field, schemas)
            if parameter["schema"] == {"type": "string"} or variable.stop - variable.start > 1:
                parameter["schema"] = _piece(many=many)
            if variable.stop - variable.start > 1:
                parameter["description"] = f"Part of `{'.'.join(variable.field_path)}`."
            return {**parameter, **extra}
        return {"name": name, "in": "path", "required": True, "schema": _piece(many=many), **extra}


def _piece(*, many: bool) -> Schema:
    """Return the schema of text in a path, where one segment is never empty."""
    return {"type": "string"} if many else {"type": "string", "minLength": 1}


def _wildcard_name(rule: Rule, position: int) -> str:
    """Name a wildcard after its variable or, if that spans more, after the literal in front."""
    for variable in rule.template.variables:
        if variable.start <= position < variable.stop:
            if variable.stop - variable.start == 1:
                return ".".join(_json_path(rule.method.input_type, variable.field_path))
            before = rule.template.segments[position - 1] if position > variable.start else None
            return before.removesuffix("s") if isinstance(before, str) else variable.field_path[-1]
    return "path" if rule.template.segments[position] is Wildcard.MANY else "segment"


def _json_path(message: Descriptor, path: Sequence[str]) -> Iterator[str]:
    for name in path:
        field = message.fields_by_name[name]
        yield field.json_name
        message = field.message_type or message


def _parameter(place: str, name: str, field: FieldDescriptor, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.field(field, Way.IN)
    description = schema.pop("description", None)
    parameter: dict[str, Any] = {"name": name, "in": place}
    if place == "path" or behaves(field, field_behavior_pb2.REQUIRED):
        parameter["required"] = True
    if schema.pop("deprecated", False):
        parameter["deprecated"] = True
    schema.pop("writeOnly", None)
    return _described({**parameter, "schema": schema}, description)


def _example(field: FieldDescriptor) -> Any:
    """Return a value that is legal and short."""
    if field.is_repeated:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        return {} if is_map else []
    if field.message_type is not None:
        return {}
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    return {"string": field.json_name, "boolean": False}.get(_kind(field), 0)


def _kind(field: FieldDescriptor) -> str:
    text = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    if field.type in text:
        return "string"
    return "boolean" if field.type == FieldDescriptor.TYPE_BOOL else "number"


def _error_response(schemas: Schemas) -> dict[str, Any]:
    rows = [f"| {http} | {code} | {code_pb2.Code.Name(code)} |" for code, http in HTTP_STATUS.items() if code]
    table = "\n".join(["| HTTP | code | |", "|---|---|---|", *rows])
    return {
        "description": f"An error. `code` is a google.rpc.Code:\n\n{table}\n\n"
        "Further: 405 with code 12, 408 with code 4, 413 and 431 with code 8, 414 and 415 with code 3.",
        "content": {"application/json": {"schema": schemas.message(status_pb2.Status.DESCRIPTOR, Way.OUT)}},
    }


def _described(value: dict[str, Any], description: str | None) -> dict[str, Any]:
    return {**value, "description": description} if description else value
