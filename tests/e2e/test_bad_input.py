"""Whatever a caller sends is answered by name: INVALID_ARGUMENT or 4xx with the field, and never by a fault of ours."""

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.e2e.faces import Face, GrpcFace, Refused, RestFace, check_refused, connect, grpc_face, refuse_json, rest_face
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
async def stubs(server: ServerProcess) -> AsyncIterator[GrpcFace]:
    async with grpc_face(server) as stubs:
        yield stubs


@pytest_asyncio.fixture(loop_scope="module")
async def rest(server: ServerProcess) -> AsyncIterator[RestFace]:
    async with rest_face(server) as rest:
        yield rest


@pytest_asyncio.fixture(loop_scope="module", params=["grpc", "rest"])
async def face(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Face]:
    async with connect(request.param, server) as face:
        yield face


def check_field(refused: Refused, field: str, reason: str = "INVALID_FIELD") -> None:
    """Check a refusal of one field: named in BadRequest and at the start of the message."""
    check_refused(refused, "INVALID_ARGUMENT", reason)
    assert list(refused.fields) == [field]
    assert refused.fields[field]
    assert refused.message.startswith(f"{field}: ")
    assert not any(innards in refused.text for innards in _INNARDS)


def of_bytes(character: str, size_bytes: int) -> str:
    """A text of so many bytes of UTF-8."""
    count, rest = divmod(size_bytes, len(character.encode()))
    return character * count + "x" * rest


# Messages and ids, over both faces


@pytest.mark.parametrize("character", ["x", "é", "你", "👋", "\x01"], ids=name_of)
async def test_a_message_of_exactly_the_limit_is_taken(face: Face, character: str) -> None:
    text = of_bytes(character, _MESSAGE_BYTES)
    session_id = await face.create()
    await face.send(session_id, text)
    assert (await face.history(session_id))[0] == ("user", text)


@pytest.mark.parametrize("character", ["x", "é"])
@pytest.mark.parametrize("size_bytes", [_MESSAGE_BYTES + 1, 2**20])
async def test_a_message_over_the_limit_is_too_large(face: Face, character: str, size_bytes: int) -> None:
    session_id = await face.create()
    with pytest.raises(Refused) as caught:
        await face.send(session_id, of_bytes(character, size_bytes))
    check_field(caught.value, "message", "MESSAGE_TOO_LARGE")
    assert await face.history(session_id) == []


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", " \n", "\ufeff", "\ufffe\uffff", "e\u0301", "\r\n\x1b[31m", "<script>"], ids=name_of
)
async def test_any_other_text_is_kept_as_it_is(face: Face, text: str) -> None:
    session_id = await face.create()
    assert await face.send(session_id, text, "demo/echo") == text
    assert await face.history(session_id) == [("user", text), ("assistant", text)]


async def test_an_unknown_session_is_not_found(face: Face) -> None:
    for call in (face.send("nobody", "hi"), face.history("nobody"), anext(face.stream("nobody", "hi"))):
        with pytest.raises(Refused) as caught:
            await call
        check_refused(caught.value, "NOT_FOUND", "SESSION_NOT_FOUND")
        assert "nobody" in caught.value.text


@pytest.mark.parametrize(
    "session_id",
    ["", "x" * 65, "x" * 100_000, "a\0b", "a b", "-", "_a", "a\n", "é", "../etc", "{}", "$ne"],
    ids=name_of,
)
async def test_an_id_that_cannot_be_is_refused(face: Face, session_id: str) -> None:
    for call in (face.send(session_id, "hi"), anext(face.stream(session_id, "hi"))):
        with pytest.raises(Refused) as caught:
            await call
        check_field(caught.value, "session_id")


# Over gRPC


def settings(**fields: Any) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(session_id=_SESSION, message="hi", settings=pb.ModelSettings(**fields))


def send(**fields: Any) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(**{"session_id": _SESSION, "message": "hi", **fields})


def create(**fields: Any) -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(session=pb.Session(**fields))


def update(*paths: str, **fields: Any) -> pb.UpdateSessionRequest:
    mask = FieldMask(paths=paths) if paths else None
    return pb.UpdateSessionRequest(session_id=_SESSION, session=pb.Session(**fields), update_mask=mask)


def history(**fields: Any) -> pb.GetHistoryRequest:
    return pb.GetHistoryRequest(session_id=_SESSION, **fields)


_REFUSED_OVER_GRPC = [
    ("SendMessage", send(message=""), "message"),
    ("SendMessage", send(view=99), "view"),
    ("SendMessage", send(on_busy=99), "on_busy"),
    ("SendMessage", send(on_disconnect=-1), "on_disconnect"),
    ("SendMessage", send(expected_last_seq=-1), "expected_last_seq"),
    ("SendMessage", send(request_id="a b"), "request_id"),
    ("SendMessage", send(request_id="x" * 129), "request_id"),
    ("SendMessage", settings(model=""), "settings.model"),
    ("SendMessage", settings(model="x" * 257), "settings.model"),
    ("SendMessage", settings(model="a\nb"), "settings.model"),
    ("SendMessage", settings(temperature=2.1), "settings.temperature"),
    ("SendMessage", settings(temperature=-0.1), "settings.temperature"),
    ("SendMessage", settings(temperature=float("nan")), "settings.temperature"),
    ("SendMessage", settings(top_p=float("inf")), "settings.top_p"),
    ("SendMessage", settings(max_output_tokens=0), "settings.max_output_tokens"),
    ("SendMessage", settings(stop_sequences=["a"] * 5), "settings.stop_sequences"),
    ("SendMessage", settings(stop_sequences=[""]), "settings.stop_sequences"),
    ("CreateSession", create(title="x" * 257), "session.title"),
    ("CreateSession", create(instructions="x" * 32_769), "session.instructions"),
    ("CreateSession", create(labels={"": "x"}), "session.labels"),
    ("CreateSession", create(labels={"x" * 64: "x"}), "session.labels"),
    ("CreateSession", create(labels={"a": "x" * 257}), "session.labels"),
    ("CreateSession", create(labels={str(number): "" for number in range(33)}), "session.labels"),
    ("CreateSession", create(settings=pb.ModelSettings(temperature=9)), "session.settings.temperature"),
    ("CreateSession", pb.CreateSessionRequest(view=7), "view"),
    ("CreateSession", pb.CreateSessionRequest(session_id="-"), "session_id"),
    ("CreateSession", pb.CreateSessionRequest(request_id="a b"), "request_id"),
    ("CreateSession", create(session_id="another"), "session.session_id"),
    ("CreateSession", create(etag='W/"1"'), "session.etag"),
    ("CreateSession", create(ttl=Duration()), "session.ttl"),
    ("CreateSession", create(ttl=Duration(seconds=-5)), "session.ttl"),
    ("CreateSession", create(ttl=Duration(seconds=2**62)), "session.ttl"),
    ("CreateSession", create(expire_time=Timestamp(seconds=5)), "session.expire_time"),
    ("CreateSession", create(expire_time=Timestamp(seconds=2**40)), "session.expire_time"),
    ("CreateSession", create(expire_time=Timestamp(seconds=2**62, nanos=-1)), "session.expire_time"),
    ("CreateSession", create(idle_ttl=Duration(nanos=999_999)), "session.idle_ttl"),
    ("GetSession", pb.GetSessionRequest(), "session_id"),
    ("UpdateSession", update(title="x" * 257), "session.title"),
    ("UpdateSession", update(ttl=Duration(seconds=-5)), "session.ttl"),
    ("UpdateSession", update(session_id="another"), "session.session_id"),
    ("UpdateSession", update("title", "nothing"), "update_mask"),
    ("UpdateSession", update("last_seq"), "update_mask"),
    ("UpdateSession", update("*", "title"), "update_mask"),
    ("UpdateSession", pb.UpdateSessionRequest(), "session_id"),
    ("DeleteSession", pb.DeleteSessionRequest(session_id="a/b"), "session_id"),
    ("UndeleteSession", pb.UndeleteSessionRequest(session_id="-"), "session_id"),
    ("GetHistory", history(page_size=-1), "page_size"),
    ("GetHistory", history(after_seq=-1), "after_seq"),
    ("GetHistory", history(order_by="time"), "order_by"),
    ("GetHistory", history(page_token="bm9wZQ"), "page_token"),
    ("GetHistory", history(page_token="€" * 1000), "page_token"),
    ("GetHistory", history(view=9), "view"),
    ("ListSessions", pb.ListSessionsRequest(page_size=-1), "page_size"),
    ("ListSessions", pb.ListSessionsRequest(page_token="bm9wZQ"), "page_token"),
    ("ListSessions", pb.ListSessionsRequest(page_token="W10"), "page_token"),
    ("ListSessions", pb.ListSessionsRequest(order_by="title"), "order_by"),
    ("ListSessions", pb.ListSessionsRequest(filter="title"), "filter"),
    ("ListSessions", pb.ListSessionsRequest(filter="x" * 4097), "filter"),
    ("SearchMessages", pb.SearchMessagesRequest(), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x" * 257), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query='"?" -'), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", session_id="-"), "session_id"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", page_size=-1), "page_size"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", page_token="bm9wZQ"), "page_token"),
    ("GetTurn", pb.GetTurnRequest(session_id=_SESSION), "turn_id"),
    ("CancelTurn", pb.CancelTurnRequest(session_id=_SESSION, turn_id="a/b"), "turn_id"),
]


@pytest.mark.parametrize(("method", "request_pb", "field"), _REFUSED_OVER_GRPC, ids=name_of)
async def test_over_grpc_a_bad_field_is_named(stubs: GrpcFace, method: str, request_pb: Any, field: str) -> None:
    session_id = await stubs.create()
    if getattr(request_pb, "session_id", "") == _SESSION:
        request_pb.session_id = session_id
    with pytest.raises(Refused) as caught:
        await stubs.unary(method, request_pb)
    check_field(caught.value, field)
    assert caught.value.metadata["field"] == field
    assert await stubs.history(session_id) == []


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
    stubs: GrpcFace, method: str, wire: bytes, field: str
) -> None:
    with pytest.raises(Refused) as caught:
        await stubs.raw(method, wire)
    check_field(caught.value, field)


async def test_over_grpc_bad_bytes_in_a_stream_request_are_refused(stubs: GrpcFace) -> None:
    call = stubs.channel.unary_stream(
        "/chatsession.v1.ChatSessionService/StreamMessage",
        request_serializer=lambda wire: wire,
        response_deserializer=pb.TurnEvent.FromString,
    )
    with pytest.raises(Exception, match="message: is not valid UTF-8"):
        await anext(aiter(call(b"\x12\x02\xff\xfe", timeout=10)))


async def test_over_grpc_a_field_of_a_later_release_is_skipped(stubs: GrpcFace) -> None:
    """protobuf's rule, so that a newer client can talk to an older server."""
    request = send(session_id=await stubs.create()).SerializeToString()
    assert await stubs.raw("SendMessage", request + b"\xfa\x07\x03abc")


async def test_over_grpc_more_than_the_wire_limit_is_refused(stubs: GrpcFace) -> None:
    with pytest.raises(Refused) as caught:
        await stubs.send(await stubs.create(), "x" * 5 * 2**20)
    assert caught.value.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("keys", "request_id"), [([""], ""), (["a", "b"], ""), (["a b"], ""), (["a"], "b"), (["x" * 129], "")]
)
async def test_a_bad_idempotency_key_is_refused(stubs: GrpcFace, keys: list[str], request_id: str) -> None:
    request = send(session_id=await stubs.create(), request_id=request_id)
    with pytest.raises(Refused) as caught:
        await stubs.unary("SendMessage", request, tuple(("idempotency-key", key) for key in keys))
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
    Bad("PATCH", f"/v1/sessions/{_SESSION}?updateMask=nothing", b"{}", "update_mask"),
    Bad("PATCH", f"/v1/sessions/{_SESSION}?updateMask=title,lastSeq", b"{}", "update_mask"),
    Bad("PATCH", f"/v1/sessions/{_SESSION}", b'{"sessionId":"another"}', "session.session_id"),
    Bad("POST", "/session", b'{"ttl":"soon"}', "session.ttl"),
    Bad("POST", "/session", b"[]", "session"),
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
async def test_over_rest_a_bad_field_is_named(rest: RestFace, bad: Bad) -> None:
    session_id = await rest.create()
    body = None if bad.body is None else bad.body.replace(_SESSION.encode(), session_id.encode())
    status, _, answer = await rest.call(bad.method, bad.path.replace(_SESSION, session_id), body)
    with pytest.raises(Refused) as caught:
        refuse_json(answer, status)
    check_field(caught.value, bad.field)
    assert await rest.history(session_id) == []


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
async def test_over_rest_a_body_that_is_no_json_object_is_refused(rest: RestFace, body: bytes) -> None:
    status, _, answer = await rest.call("POST", "/chat", body)
    with pytest.raises(Refused) as caught:
        refuse_json(answer, status)
    check_refused(caught.value, "INVALID_ARGUMENT", "INVALID_BODY")
    assert not any(innards in caught.value.text for innards in _INNARDS)


class Odd(NamedTuple):
    """A request over REST that is wrong before it comes to fields."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]
    status: int
    reason: str


_ODD = [
    Odd("GET", "/nowhere", None, {}, 404, "ROUTE_NOT_FOUND"),
    Odd("GET", "/session/nobody/history", None, {}, 404, "SESSION_NOT_FOUND"),
    Odd("GET", "/chat", None, {}, 405, "METHOD_NOT_ALLOWED"),
    Odd("PUT", "/session", b"{}", {}, 405, "METHOD_NOT_ALLOWED"),
    Odd("GET", f"/session/{'x' * 50_000}/history", None, {}, 431, "HEADERS_TOO_LARGE"),
    Odd("GET", "/session/nobody/history", None, {"X-Much": "x" * 50_000}, 431, "HEADERS_TOO_LARGE"),
    Odd("GET", "/session/nobody/history", b"{}", {}, 400, "INVALID_BODY"),
    Odd("POST", "/chat", chat(message="x" * 3 * 2**20), {}, 413, "BODY_TOO_LARGE"),
    Odd("POST", "/chat", chat(), {"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    Odd("POST", "/chat", chat(), {"Content-Type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    Odd("POST", "/chat", chat(), {"Content-Encoding": "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    Odd("POST", "/chat", chat(), {"Idempotency-Key": "a b"}, 400, "INVALID_FIELD"),
    Odd("POST", "/chat", chat(), {"Grpc-Timeout": "soon"}, 400, "INVALID_HEADER"),
    Odd("GET", "/v1/sessions?pageSize=-1", None, {}, 400, "INVALID_FIELD"),
    Odd("GET", "/v1/messages:search", None, {}, 400, "INVALID_FIELD"),
]


@pytest.mark.parametrize("odd", _ODD, ids=name_of)
async def test_over_rest_a_request_that_fits_nothing_is_told_why(rest: RestFace, odd: Odd) -> None:
    body = None if odd.body is None else odd.body.replace(_SESSION.encode(), (await rest.create()).encode())
    status, headers, answer = await rest.call(odd.method, odd.path, body, odd.headers)
    with pytest.raises(Refused) as caught:
        refuse_json(answer, status)
    assert (status, caught.value.reason) == (odd.status, odd.reason)
    assert headers["content-type"] == "application/json"
    assert not any(innards in caught.value.text for innards in _INNARDS)
