"""Whatever a caller sends is answered by name: INVALID_ARGUMENT or 4xx with the field, and never by a fault of ours."""

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.e2e.refusals import check_refused
from tests.support.calls import Caller, send_request
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller, failure_in
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MESSAGE_BYTES = 262_144
_INNARDS = ("Traceback", 'File "', "/service/", "Error(", "0x7f")
_SESSION = "SESSION"
"""Stands for the id of a session that exists."""


def name_of(value: object) -> str:
    """The start of a value, as the name of a test."""
    return repr(value[:20] if isinstance(value, bytes | str) else value)[:60].replace("\n", " ")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A service that must have logged no error when all tests are done."""
    async with running_server(tmp_path_factory.mktemp("input")) as server:
        yield server
    assert [entry for entry in server.log if entry.get("level") not in ("info", "warning")] == []


@pytest_asyncio.fixture(loop_scope="module")
async def stubs(server: ServerProcess) -> AsyncIterator[GrpcCaller]:
    async with GrpcCaller(server) as stubs:
        yield stubs


@pytest_asyncio.fixture(loop_scope="module")
async def rest(server: ServerProcess) -> AsyncIterator[RestCaller]:
    async with RestCaller(server) as rest:
        yield rest


@pytest_asyncio.fixture(loop_scope="module", params=["grpc", "rest"])
async def face(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Caller]:
    async with connect(request.param, server) as face:
        yield face


def check_field(refused: ChatSessionError, field: str, reason: str = "INVALID_FIELD") -> None:
    """Check a refusal of one field: named in BadRequest and at the start of the message."""
    check_refused(refused, "INVALID_ARGUMENT", reason)
    assert list(refused.field_violations) == [field]
    assert refused.field_violations[field]
    assert refused.message.startswith(f"{field}: ")
    assert not any(innards in str(vars(refused)) for innards in _INNARDS)


def of_bytes(character: str, size_bytes: int) -> str:
    """A text of so many bytes of UTF-8."""
    count, rest = divmod(size_bytes, len(character.encode()))
    return character * count + "x" * rest


# Messages and ids, over both faces


@pytest.mark.parametrize("character", ["x", "é", "你", "👋", "\x01"], ids=name_of)
async def test_a_message_of_exactly_the_limit_is_taken(face: Caller, character: str) -> None:
    text = of_bytes(character, _MESSAGE_BYTES)
    session_id = await face.create_session()
    await face.ask(session_id, text)
    assert (await face.said(session_id))[0] == ("user", text)


@pytest.mark.parametrize("character", ["x", "é"])
@pytest.mark.parametrize("size_bytes", [_MESSAGE_BYTES + 1, 2**20])
async def test_a_message_over_the_limit_is_too_large(face: Caller, character: str, size_bytes: int) -> None:
    session_id = await face.create_session()
    with pytest.raises(ChatSessionError) as caught:
        await face.ask(session_id, of_bytes(character, size_bytes))
    check_field(caught.value, "message", "MESSAGE_TOO_LARGE")
    assert await face.said(session_id) == []


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", " \n", "\ufeff", "\ufffe\uffff", "e\u0301", "\r\n\x1b[31m", "<script>"], ids=name_of
)
async def test_any_other_text_is_kept_as_it_is(face: Caller, text: str) -> None:
    session_id = await face.create_session()
    assert await face.ask(session_id, text, "demo/echo") == text
    assert await face.said(session_id) == [("user", text), ("assistant", text)]


async def test_an_unknown_session_is_not_found(face: Caller) -> None:
    for call in (face.ask("nobody", "hi"), face.said("nobody"), anext(face.stream(send_request("nobody", "hi")))):
        with pytest.raises(ChatSessionError) as caught:
            await call
        check_refused(caught.value, "NOT_FOUND", "SESSION_NOT_FOUND")
        assert "nobody" in str(vars(caught.value))


@pytest.mark.parametrize(
    "session_id",
    ["", "x" * 65, "x" * 100_000, "a\0b", "a b", "-", "_a", "a\n", "é", "../etc", "{}", "$ne"],
    ids=name_of,
)
async def test_an_id_that_cannot_be_is_refused(face: Caller, session_id: str) -> None:
    for call in (face.ask(session_id, "hi"), anext(face.stream(send_request(session_id, "hi")))):
        with pytest.raises(ChatSessionError) as caught:
            await call
        check_field(caught.value, "session_id")


# Over gRPC


def create(**fields: Any) -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(session=pb.Session(**fields))


_BAD_WIRES = [
    ("SendMessage", b"\x0a\x02\xff\xfe", "session_id"),
    ("SendMessage", b"\x12\x02\xff\xfe", "message"),
    ("SendMessage", b"\x12\x03\xed\xa0\x80", "message"),  # a surrogate
    ("SendMessage", b"\x1a\x01\xff", "request_id"),
    ("SendMessage", b"\x3a\x04\x0a\x02\xff\xfe", "settings.model"),
    ("CreateSession", b"\x12\x04\x12\x02\xff\xfe", "session.title"),
    ("GetHistory", b"\x2a\x01\xff", "page_token"),
    ("SendMessage", b"\xff\xff\xff", "request"),
    ("SendMessage", b"\x0a\x7fabc", "request"),
    ("SendMessage", b"\x0b" * 10_000, "request"),
]


@pytest.mark.parametrize(("method", "wire", "field"), _BAD_WIRES, ids=name_of)
async def test_over_grpc_bytes_that_are_no_request_are_refused(
    stubs: GrpcCaller, method: str, wire: bytes, field: str
) -> None:
    with pytest.raises(ChatSessionError) as caught:
        await stubs.raw(method, wire)
    check_field(caught.value, field)


_WITHOUT_JSON = [
    ("GetSession", pb.GetSessionRequest(), "session_id"),
    ("UpdateSession", pb.UpdateSessionRequest(), "session_id"),
    ("CreateSession", create(ttl=Duration(seconds=2**62)), "session.ttl"),
    ("CreateSession", create(expire_time=Timestamp(seconds=2**40)), "session.expire_time"),
    ("CreateSession", create(expire_time=Timestamp(seconds=2**62, nanos=-1)), "session.expire_time"),
]


@pytest.mark.parametrize(("method", "request_pb", "field"), _WITHOUT_JSON, ids=name_of)
async def test_over_grpc_what_rest_cannot_say_is_refused(
    stubs: GrpcCaller, method: str, request_pb: Any, field: str
) -> None:
    with pytest.raises(ChatSessionError) as caught:
        await stubs.unary(method, request_pb)
    check_field(caught.value, field)


async def test_over_grpc_bad_bytes_in_a_stream_request_are_refused(stubs: GrpcCaller) -> None:
    call = stubs.channel.unary_stream(
        "/chatsession.v1.ChatSessionService/StreamMessage",
        request_serializer=lambda wire: wire,
        response_deserializer=pb.TurnEvent.FromString,
    )
    with pytest.raises(Exception, match="message: is not valid UTF-8"):
        await anext(aiter(call(b"\x12\x02\xff\xfe", timeout=10)))


async def test_over_grpc_a_field_of_a_later_release_is_skipped(stubs: GrpcCaller) -> None:
    """protobuf's rule, so that a newer client can talk to an older server."""
    request = pb.SendMessageRequest(session_id=await stubs.create_session(), message="hi").SerializeToString()
    assert await stubs.raw("SendMessage", request + b"\xfa\x07\x03abc")


async def test_over_grpc_more_than_the_wire_limit_is_refused(stubs: GrpcCaller) -> None:
    with pytest.raises(ChatSessionError) as caught:
        await stubs.ask(await stubs.create_session(), "x" * 5 * 2**20)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("keys", "request_id"), [([""], ""), (["a", "b"], ""), (["a b"], ""), (["a"], "b"), (["x" * 129], "")]
)
async def test_a_bad_idempotency_key_is_refused(stubs: GrpcCaller, keys: list[str], request_id: str) -> None:
    request = pb.SendMessageRequest(session_id=await stubs.create_session(), message="hi", request_id=request_id)
    with pytest.raises(ChatSessionError) as caught:
        await stubs.unary("SendMessage", request, metadata=tuple(("idempotency-key", key) for key in keys))
    check_field(caught.value, "request_id")


# Over REST


def chat(**fields: Any) -> bytes:
    return json.dumps({"sessionId": _SESSION, "message": "hi", **fields}).encode()


class Bad(NamedTuple):
    """A request over REST that is refused with 400 because of a field."""

    method: str
    path: str
    body: bytes | None
    field: str


_BAD_FIELDS_OVER_REST = [
    Bad("POST", "/chat", None, "session_id"),
    Bad("POST", "/chat", b"", "session_id"),
    Bad("POST", "/chat", b"{}", "session_id"),
    Bad("POST", "/chat", b'{"message":"hi"}', "session_id"),
    Bad("POST", "/chat", b'{"sessionId":"SESSION"}', "message"),
    Bad("POST", "/chat", chat(message=None), "message"),
    Bad("POST", "/chat", chat(message=["hi"]), "message"),
    Bad("POST", "/chat", chat(message={"text": "hi"}), "message"),
    Bad("POST", "/chat", chat(sessionId=7), "session_id"),
    Bad("POST", "/chat", chat(session_id="other"), "session_id"),
    Bad("POST", "/chat", chat(colour="red"), "colour"),
    Bad("POST", "/chat", chat(settings="warm"), "settings"),
    Bad("POST", "/chat", chat(settings={"modell": "x"}), "settings.modell"),
    Bad("POST", "/chat", chat(settings={"temperature": "hot"}), "settings.temperature"),
    Bad("POST", "/chat", chat(settings={"temperature": 9}), "settings.temperature"),
    Bad("POST", "/chat", chat(settings={"seed": 1.5}), "settings.seed"),
    Bad("POST", "/chat", chat(settings={"seed": 2**31}), "settings.seed"),
    Bad("POST", "/chat", chat(settings={"stopSequences": [1]}), "settings.stop_sequences[0]"),
    Bad("POST", "/chat", chat(onBusy="WAIT"), "on_busy"),
    Bad("POST", "/chat", chat(onBusy=99), "on_busy"),
    Bad("POST", "/chat", chat(view="all"), "view"),
    Bad("POST", "/chat", chat(expectedLastSeq=-1), "expected_last_seq"),
    Bad("POST", "/chat", chat(requestId="a b"), "request_id"),
    Bad("POST", "/chat", b'{"sessionId":"SESSION","message":"\\ud800"}', "message"),
    Bad("POST", "/chat?message=hi", b'{"sessionId":"SESSION"}', "message"),
    Bad("POST", "/chat:stream", b'{"sessionId":"SESSION"}', "message"),
    Bad("POST", "/v1/sessions/SESSION/messages", b'{"message":1}', "message"),
    Bad("POST", "/session", b'{"colour":"red"}', "session.colour"),
    Bad("POST", "/session", b'{"title":5}', "session.title"),
    Bad("POST", "/session", b'{"labels":{"a":1}}', 'session.labels["a"]'),
    Bad("POST", "/session", b'{"sessionId":"mine"}', "session.session_id"),
    Bad("POST", "/session", b'{"ttl":"0s"}', "session.ttl"),
    Bad("POST", "/session", b'{"idleTtl":"-1s"}', "session.idle_ttl"),
    Bad("POST", "/session", b'{"expireTime":"2020-01-01T00:00:00Z"}', "session.expire_time"),
    Bad("POST", "/session", b'{"ttl":"soon"}', "session.ttl"),
    Bad("POST", "/session", b"[]", "session"),
    Bad("PATCH", "/v1/sessions/SESSION?updateMask=nothing", b"{}", "update_mask"),
    Bad("PATCH", "/v1/sessions/SESSION?updateMask=title,lastSeq", b"{}", "update_mask"),
    Bad("PATCH", "/v1/sessions/SESSION", b'{"sessionId":"another"}', "session.session_id"),
    Bad("POST", "/session?session_id=-", b"{}", "session_id"),
    Bad("POST", "/session?colour=red", b"{}", "colour"),
    Bad("POST", "/session?view=99", b"{}", "view"),
    Bad("GET", f"/session/{'x' * 5000}/history", None, "session_id"),
    Bad("GET", "/session/%00/history", None, "session_id"),
    Bad("GET", "/session/a%2Fb/history", None, "session_id"),
    Bad("GET", "/session/%E4%BD%A0/history", None, "session_id"),
    Bad("GET", "/session/SESSION/history?page_size=-1", None, "page_size"),
    Bad("GET", "/session/SESSION/history?page_size=many", None, "page_size"),
    Bad("GET", "/session/SESSION/history?page_size=1&page_size=2", None, "page_size"),
    Bad("GET", "/session/SESSION/history?pagesize=1", None, "pagesize"),
    Bad("GET", "/session/SESSION/history?page_token=zzz", None, "page_token"),
]


@pytest.mark.parametrize("bad", _BAD_FIELDS_OVER_REST, ids=name_of)
async def test_over_rest_a_bad_field_is_named(rest: RestCaller, bad: Bad) -> None:
    session_id = await rest.create_session()
    body = None if bad.body is None else bad.body.replace(_SESSION.encode(), session_id.encode())
    status, _, answer = await rest.call(bad.method, bad.path.replace(_SESSION, session_id), body)
    refused = failure_in(status, answer)
    check_field(refused, bad.field)
    assert await rest.said(session_id) == []


_BAD_BODIES = [
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"hi"',
    b"{}x",
    b" ",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"sessionId":"SESSION","message":"\xff"}',
    b'{"sessionId":"SESSION","sessionId":"b","message":"hi"}',
    b'{"sessionId":"SESSION","message":"hi","settings":{"temperature":NaN}}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("body", _BAD_BODIES, ids=name_of)
async def test_over_rest_a_body_that_is_no_json_object_is_refused(rest: RestCaller, body: bytes) -> None:
    status, _, answer = await rest.call("POST", "/chat", body)
    refused = failure_in(status, answer)
    check_refused(refused, "INVALID_ARGUMENT", "INVALID_BODY")
    assert not any(innards in str(vars(refused)) for innards in _INNARDS)
