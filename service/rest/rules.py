"""The HTTP rules of services: `google.api.http` options, read and checked once at start-up."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from service.rest import template, wellknown
from service.rest.template import Template, TemplateError

ANY_METHOD = "*"

_log = logging.getLogger(__name__)


class RuleError(ValueError):
    """An HTTP rule that cannot be served; the text names its method."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to reach a method over HTTP.

    http_method: upper case, or `*` for any.
    body, response_body: empty, a field name, or (body only) `*`.
    number: 0 for the rule itself, 1 and up for its additional bindings.
    """

    method: MethodDescriptor
    http_method: str
    template: Template
    body: str
    response_body: str
    number: int

    def __str__(self) -> str:
        return f"{self.method.full_name} ({self.http_method} {self.template.text})"


def rules_of(
    services: Sequence[ServiceDescriptor], *, skip_client_streaming: bool = False, uploads: bool = False
) -> list[Rule]:
    """Return the rules of all methods that have one, in order of declaration.

    skip_client_streaming: leave out methods that take a stream of requests, which are refused otherwise.
    uploads: take those of them whose requests are pieces of a file.
    Raises RuleError.
    """
    return [
        rule
        for service in services
        for method in service.methods
        if not (skip_client_streaming and method.client_streaming)
        for rule in _rules_of_method(method, uploads)
    ]


def _rules_of_method(method: MethodDescriptor, uploads: bool) -> Iterator[Rule]:
    extensions = method.GetOptions().Extensions
    if annotations_pb2.http not in extensions:
        return
    if method.client_streaming and (method.server_streaming or not uploads):
        raise RuleError(f"{method.full_name}: a method that takes a stream of requests cannot have an HTTP rule")
    primary = extensions[annotations_pb2.http]
    yield _rule(method, primary, 0)
    for number, binding in enumerate(primary.additional_bindings, start=1):
        if binding.additional_bindings:
            raise RuleError(f"{method.full_name}: an additional binding has additional bindings")
        yield _rule(method, binding, number)


def _rule(method: MethodDescriptor, http_rule: http_pb2.HttpRule, number: int) -> Rule:
    pattern = http_rule.WhichOneof("pattern")
    if pattern is None:
        raise RuleError(f"{method.full_name}: an HTTP rule without a method and a path")
    if pattern == "custom":
        http_method, path = http_rule.custom.kind.upper(), http_rule.custom.path
    else:
        http_method, path = pattern.upper(), getattr(http_rule, pattern)
    if not http_method:
        raise RuleError(f"{method.full_name}: a custom pattern without a kind")
    try:
        parsed = template.parse(path)
    except TemplateError as error:
        raise RuleError(f"{method.full_name}: {error}") from error
    rule = Rule(method, http_method, parsed, http_rule.body, http_rule.response_body, number)
    _check_variables(rule)
    _check_body(rule)
    _check_response_body(rule)
    return rule


def _check_variables(rule: Rule) -> None:
    for variable in rule.template.variables:
        path = ".".join(variable.field_path)
        field = resolve(rule.method.input_type, variable.field_path)
        if field is None:
            raise RuleError(f"{rule}: {path} is not a field of {rule.method.input_type.full_name}")
        if field.is_repeated or not wellknown.has_text_form(field):
            raise RuleError(f"{rule}: {path} cannot be written as text")


def resolve(message: Descriptor, field_path: Sequence[str]) -> FieldDescriptor | None:
    """Return the field at a path of proto names that crosses singular messages only, or None."""
    *parents, leaf = field_path
    for name in parents:
        field = message.fields_by_name.get(name)
        if field is None or field.message_type is None or field.is_repeated or wellknown.is_opaque(field.message_type):
            return None
        message = field.message_type
    return message.fields_by_name.get(leaf)


def _check_body(rule: Rule) -> None:
    if not rule.body:
        if rule.method.client_streaming:
            raise RuleError(f"{rule}: a stream of requests needs a body")
        return
    if rule.http_method == "GET":
        raise RuleError(f"{rule}: GET has no body")
    if rule.http_method == "DELETE":
        _log.warning("%s: a body of DELETE may be dropped on its way", rule)
    if rule.method.client_streaming and not is_http_body(rule.method.input_type, rule.body):
        raise RuleError(f"{rule}: a stream of requests must have pieces of a file as its body")
    if rule.body == "*":
        return
    if rule.body not in rule.method.input_type.fields_by_name:
        raise RuleError(f"{rule}: body {rule.body!r} is not a field of {rule.method.input_type.full_name}")
    if any(variable.field_path == (rule.body,) for variable in rule.template.variables):
        raise RuleError(f"{rule}: {rule.body!r} is both the body and in the path")


def is_http_body(message: Descriptor, field: str) -> bool:
    """Whether a body is a file: the message itself (`*`), or one of its fields, is an HttpBody."""
    if field not in ("", "*"):
        found = message.fields_by_name.get(field)
        return found is not None and found.message_type is not None and is_http_body(found.message_type, "*")
    return field == "*" and bool(message.full_name == wellknown.HTTP_BODY)


def _check_response_body(rule: Rule) -> None:
    if rule.response_body and rule.response_body not in rule.method.output_type.fields_by_name:
        raise RuleError(
            f"{rule}: response_body {rule.response_body!r} is not a field of {rule.method.output_type.full_name}"
        )
