"""Whatever is sent, the shim answers, never with a 5xx, and errors always have their shape."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rest import Call
from service.rest.rules import rules_of
from tests.rest.kit import FakeInvoker, gallery, gallery_app, gallery_class, scope_of, unhurried
from tests.rest.messages import messages


class Blank(FakeInvoker):
    """Streams one empty message of the right type."""

    async def stream(self, call: Call) -> AsyncGenerator[Any, None]:
        yield GetMessageClass(call.method.output_type)()


APP = gallery_app(Blank(), cors_origins=["https://a.test"])
TEMPLATES = sorted({rule.template.text for rule in rules_of([gallery()])})
FIELDS = [name for field in gallery_class("Thing").DESCRIPTOR.fields for name in (field.name, field.json_name)]

_piece = st.sampled_from(
    [
        "a",
        "1",
        "-1",
        "%2F",
        "%2f",
        "%zz",
        "%ff",
        "%00",
        "%25",
        ":",
        ":cancel",
        ".",
        "..",
        "+",
        "1e400",
        "true",
        "SMALL",
        "NaN",
        "AA==",
        "1s",
        "2026-01-02T03:04:05Z",
    ]
)
_path = st.one_of(
    st.lists(
        st.sampled_from(["/", "v1", "things", "me", "files", "watch", "in", "healthz", "docs"]) | _piece, max_size=12
    ).map("".join),
    st.tuples(st.sampled_from(TEMPLATES), st.lists(_piece, min_size=4, max_size=4)).map(lambda pair: _fill(*pair)),
)
_name = st.sampled_from([*FIELDS, "parent.name", "parent.parent.number", "one_parent.left", "nope", "", "."]) | st.text(
    max_size=3
)
_query = st.lists(st.tuples(_name, _piece | st.text(max_size=4)), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode()
) | st.binary(max_size=20)
_header = st.tuples(
    st.sampled_from(
        b"content-type accept authorization grpc-timeout grpc-metadata-a grpc-metadata-b-bin origin te x-request-id "
        b"content-encoding last-event-id if-none-match access-control-request-method x-server-timeout host".split()
    ),
    st.sampled_from(
        [b"application/json", b"text/event-stream", b"1S", b"0n", b"AA==", b"*/*", b"https://a.test", b"trailers", b""]
    )
    | st.binary(max_size=10),
)
_body = st.one_of(
    st.just(b""),
    st.binary(max_size=30),
    st.dictionaries(
        st.sampled_from(FIELDS), st.sampled_from([None, 1, "a", [], {}, [None], {"a": 1}, True, 1.5]), max_size=3
    ).map(lambda value: json.dumps(value).encode()),
)


def _fill(template: str, pieces: list[str]) -> str:
    """Put pieces in place of a template's variables."""
    for piece in pieces:
        start, end = template.find("{"), template.find("}")
        if start < 0:
            break
        template = template[:start] + piece + template[end + 1 :]
    return template.replace("*", pieces[0])


async def _ask(method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> list[Any]:
    scope = scope_of(method, "/")
    length = [(b"content-length", str(len(body)).encode())] if body else []
    scope.update(raw_path=path, query_string=query, headers=[*headers, *length])
    incoming = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.request", "body": body[5:]},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(event: Any) -> None:
        sent.append(event)

    async with asyncio.timeout(5):
        await APP(scope, receive, send)
    return sent


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE"]),
    _path,
    _query,
    st.lists(_header, max_size=4),
    _body,
)
async def test_whatever_is_sent(
    method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    sent = await _ask(method, path.encode(), query, headers, body)
    status = sent[0]["status"]
    assert status < 500 or dict(headers).get(b"grpc-timeout") == b"0n", (status, sent[1])
    assert all(b"\r" not in value and b"\n" not in value for _, value in sent[0]["headers"])
    if status >= 400 and method != "HEAD":
        error = json.loads(sent[1]["body"])
        assert list(error) == ["code", "message", "details"]
        assert error["code"] in range(1, 17)
        assert len(sent[1]["body"]) < 3000


@unhurried
@given(messages(gallery_class("Thing").DESCRIPTOR))
async def test_whatever_a_legal_reply_is(message: Any) -> None:
    app = gallery_app(FakeInvoker(message))
    sent: list[Any] = []

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope_of("GET", "/v1/things"), receive, send)
    assert sent[0]["status"] == 200
    json.loads(sent[1]["body"])
