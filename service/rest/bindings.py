"""What one HTTP rule makes of requests and responses: everything about it that can be known at start-up."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service.rest import reader, rules
from service.rest.limits import Limits
from service.rest.query import Parameters, TextField
from service.rest.reader import Reader
from service.rest.refusal import Reason, bad_request, body_too_large, invalid_field
from service.rest.rules import Rule
from service.rest.values import InvalidValue
from service.rest.writer import Write, Writer

JSON_TYPE = b"application/json"
_ANY_TYPE = b"application/octet-stream"

_SURELY_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Codec:
    """How all bindings read and write. See RestApp for the parameters."""

    reader: Reader
    writer: Writer
    limits: Limits
    lenient: bool = False
    ignored_parameters: Collection[str] = ()


class Binding:
    """A rule, ready to serve: builds request messages and writes responses.

    empty_json: the JSON of a response that says nothing.
    takes_body: whether there may be one. takes_raw_body: it is a file of any type (HttpBody) instead of JSON.
    is_upload: the file goes in pieces, each in a request of its own.
    """

    def __init__(self, rule: Rule, codec: Codec) -> None:
        self.rule = rule
        self.method = rule.method
        self.template = rule.template.text
        self.is_stream: bool = rule.method.server_streaming
        self.is_upload: bool = rule.method.client_streaming
        self._limits = codec.limits
        self._request_class = GetMessageClass(rule.method.input_type)
        self._path_fields = [_path_field(rule, variable.field_path) for variable in rule.template.variables]
        self._parameters = Parameters(
            rule.method.input_type,
            bound=[variable.field_path for variable in rule.template.variables],
            body=rule.body,
            ignored=codec.ignored_parameters,
            lenient=codec.lenient,
            max_parameters=codec.limits.max_query_parameters,
            max_depth=codec.limits.max_parameter_depth,
        )
        self.takes_body = bool(rule.body)
        self.takes_raw_body = rules.is_http_body(rule.method.input_type, rule.body)
        self._read_body = self._body_reader(codec.reader)
        self.writes_raw = rules.is_http_body(rule.method.output_type, rule.response_body or "*")
        self._write = _response_writer(rule, codec.writer)
        self.empty_json = b"null" if rule.response_body else b"{}"

    def __str__(self) -> str:
        return str(self.rule)

    def request(self, path_values: Sequence[str], query: bytes, body: bytes, content_type: bytes) -> Message:
        """Build the request message: body first, then the path, which wins, then the query. Raises Refusal."""
        message: Any = self._request_class()
        if body or (self.takes_raw_body and content_type):
            self._read_body(message, body, content_type)
        for field, text in zip(self._path_fields, path_values, strict=True):
            try:
                field.set(message, text)
            except InvalidValue as error:
                raise invalid_field(".".join(field.path), str(error)) from None
        if query:
            self._parameters.apply(message, query)
        if not message.IsInitialized():
            raise invalid_field(message.FindInitializationErrors()[0], "is required")
        if len(body) > _SURELY_SMALL_BYTES and message.ByteSize() > self._limits.max_message_bytes:
            raise body_too_large(self._limits.max_message_bytes)
        return message  # type: ignore[no-any-return]

    def piece(self, data: bytes) -> Message:
        """Build a request of an upload that has nothing but a piece of the file."""
        message: Any = self._request_class()
        (message if self.rule.body == "*" else getattr(message, self.rule.body)).data = data
        return message  # type: ignore[no-any-return]

    def json(self, message: Any) -> bytes:
        """Return a response as JSON. Raises ValueError if there is none for it."""
        return self._write(message).encode()

    def response(self, message: Any) -> tuple[bytes, bytes]:
        """Return the body of a response and its content type. Raises ValueError if there is no JSON for it."""
        if not self.writes_raw:
            return self.json(message), JSON_TYPE
        raw = getattr(message, self.rule.response_body) if self.rule.response_body else message
        fit = raw.content_type.isascii() and raw.content_type.isprintable()
        return raw.data, raw.content_type.encode() if fit and raw.content_type else _ANY_TYPE

    def _body_reader(self, json_reader: Reader) -> Callable[[Any, bytes, bytes], None]:
        if not self.takes_body:
            return _refuse_body
        name = "" if self.rule.body == "*" else self.rule.body
        if self.takes_raw_body:
            return _raw_body_reader(name)
        descriptor, limits = self.method.input_type, self._limits
        read = json_reader.field(descriptor.fields_by_name[name]) if name else json_reader.message(descriptor)

        def read_body(message: Any, body: bytes, _: bytes) -> None:
            value = reader.parse(body, limits.max_json_values, limits.max_json_escapes)
            try:
                read(message, value, 0)
            except InvalidValue as error:
                path = (error.under(name) if name else error).path
                if path:
                    raise invalid_field(path, str(error)) from None
                raise bad_request(Reason.INVALID_BODY, f"the body {error}") from None

        return read_body


def _path_field(rule: Rule, field_path: tuple[str, ...]) -> TextField:
    *parent_path, _ = field_path
    descriptor = rule.method.input_type
    parents = tuple(
        field
        for depth in range(1, len(parent_path) + 1)
        if (field := rules.resolve(descriptor, parent_path[:depth])) is not None
    )
    leaf = rules.resolve(descriptor, field_path)
    assert leaf is not None
    return TextField.at(parents, leaf)


def _raw_body_reader(name: str) -> Callable[[Any, bytes, bytes], None]:
    def read_body(message: Any, body: bytes, content_type: bytes) -> None:
        raw = getattr(message, name) if name else message
        raw.content_type = content_type.decode("latin-1")
        raw.data = body

    return read_body


def _refuse_body(_message: Any, _body: bytes, _content_type: bytes) -> None:
    raise bad_request(Reason.INVALID_BODY, "this method takes no body")


def _response_writer(rule: Rule, writer: Writer) -> Write:
    descriptor = rule.method.output_type
    if rule.response_body:
        return writer.field(descriptor.fields_by_name[rule.response_body])
    return writer.message(descriptor)
