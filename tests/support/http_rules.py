"""The HTTP form of the contract's requests, by the methods' `google.api.http` rules, as a client would make it."""

import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from chatsession.v1 import chat_session_pb2 as pb
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

SERVICE = pb.DESCRIPTOR.services_by_name["ChatSessionService"]

_VARIABLE = re.compile(r"\{(\w+)\}")


class HttpRequest(NamedTuple):
    """target: path and query, encoded. body: its JSON, None where the rule has no body."""

    method: str
    target: str
    body: Any


def bindings_of(method: str) -> list[Any]:
    """Return the HTTP rules of a method of the service, the primary one first."""
    rule = SERVICE.methods_by_name[method].GetOptions().Extensions[annotations_pb2.http]
    return [rule, *rule.additional_bindings]


def http_request(binding: Any, request: Message) -> HttpRequest:
    """Put the fields of a request where a binding wants them."""
    fields = json_format.MessageToDict(request)

    def take(name: str) -> Any:
        return fields.pop(request.DESCRIPTOR.fields_by_name[name].json_name, None)

    kind = binding.WhichOneof("pattern")
    path = _VARIABLE.sub(lambda variable: quote(take(variable[1]) or "", safe=""), getattr(binding, kind))
    body = None
    if binding.body == "*":
        body, fields = fields, {}
    elif binding.body:
        body = take(binding.body) or {}
    query = urlencode({name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()})
    return HttpRequest(kind.upper(), f"{path}?{query}" if query else path, body)
