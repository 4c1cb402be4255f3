"""The three documented calls, over REST byte for byte, and the same over gRPC."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc
from google.protobuf.message import Message

from tests.e2e.conftest import Settings, store_and_face
from tests.support.calls import Seen, send_request, whole_history
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller
from tests.support.server import ServerProcess, running_server

module_loop = pytest.mark.asyncio(loop_scope="module")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def hello(message: str, count: int) -> str:
    """What the demo model answers to the message that is the count-th of its session."""
    return f'Hello! You wrote: "{message}". I see {count} user message(s) from you so far.'


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def rest(server: ServerProcess) -> AsyncIterator[RestCaller]:
    async with RestCaller(server) as rest:
        yield rest


@pytest_asyncio.fixture(loop_scope="module")
async def stubs(server: ServerProcess) -> AsyncIterator[GrpcCaller]:
    async with GrpcCaller(server) as stubs:
        yield stubs


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def fields_of(message: Message) -> list[str]:
    return [field.name for field, _ in message.ListFields()]


@module_loop
@pytest.mark.parametrize("body", [None, b"{}"])
async def test_post_session_answers_the_id_and_nothing_more(rest: RestCaller, body: bytes | None) -> None:
    status, headers, answer = await rest.call("POST", "/session", body)
    session_id = json.loads(answer)["sessionId"]
    assert (status, headers["content-type"]) == (200, "application/json")
    assert _ID.fullmatch(session_id)
    assert answer == compact({"sessionId": session_id})


@module_loop
async def test_post_chat_answers_the_response_and_nothing_more(rest: RestCaller) -> None:
    request = {"sessionId": await rest.create_session(), "message": "Grüß Gott, 你好 👋"}
    status, headers, answer = await rest.call("POST", "/chat", compact(request))
    assert (status, headers["content-type"]) == (200, "application/json")
    assert answer == compact({"response": hello("Grüß Gott, 你好 👋", 1)})


@module_loop
async def test_get_history_answers_role_and_content_and_nothing_more(rest: RestCaller) -> None:
    session_id = await rest.create_session()
    for message in ("one", "two 👋\n\u2028"):
        await rest.ask(session_id, message)
    status, headers, answer = await rest.call("GET", f"/session/{session_id}/history")
    history = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": hello("one", 1)},
        {"role": "user", "content": "two 👋\n\u2028"},
        {"role": "assistant", "content": hello("two 👋\n\u2028", 2)},
    ]
    assert (status, headers["content-type"]) == (200, "application/json")
    assert answer == compact({"sessionId": session_id, "history": history})


@module_loop
async def test_history_of_a_new_session_is_an_empty_list(rest: RestCaller) -> None:
    session_id = await rest.create_session()
    _, _, answer = await rest.call("GET", f"/session/{session_id}/history")
    assert answer == compact({"sessionId": session_id, "history": []})


@module_loop
async def test_the_same_calls_over_grpc_fill_the_documented_fields_only(stubs: GrpcCaller) -> None:
    created = await stubs.unary("CreateSession", pb.CreateSessionRequest())
    sent = await stubs.unary("SendMessage", pb.SendMessageRequest(session_id=created.session_id, message="hi"))
    history = await stubs.unary("GetHistory", pb.GetHistoryRequest(session_id=created.session_id))
    assert fields_of(created) == ["session_id"]
    assert (fields_of(sent), sent.response) == (["response"], hello("hi", 1))
    assert (fields_of(history), history.session_id) == (["session_id", "history"], created.session_id)
    assert [fields_of(message) for message in history.history] == [["role", "content"]] * 2
    assert [(m.role, m.content) for m in history.history] == [("user", "hi"), ("assistant", hello("hi", 1))]


@module_loop
async def test_a_session_is_the_same_over_both(rest: RestCaller, stubs: GrpcCaller) -> None:
    session_id = await rest.create_session()
    await stubs.ask(session_id, "over gRPC")
    await rest.ask(session_id, "over REST")
    assert await rest.said(session_id) == await stubs.said(session_id)
    assert [content for role, content in await rest.said(session_id) if role == "user"] == ["over gRPC", "over REST"]


@module_loop
async def test_the_turn_id_is_told_over_both(rest: RestCaller, stubs: GrpcCaller) -> None:
    session_id = await rest.create_session()
    call = stubs.stub.SendMessage(pb.SendMessageRequest(session_id=session_id, message="hi"), timeout=10)
    by_grpc = dict(await call.initial_metadata())["turn-id"]
    await call
    _, headers, _ = await rest.call("POST", "/chat", compact({"sessionId": session_id, "message": "hi"}))
    by_rest = headers["grpc-metadata-turn-id"]
    assert [message.turn_id for message in await whole_history(rest, session_id)] == [by_grpc] * 2 + [by_rest] * 2


@module_loop
async def test_a_stream_tells_its_turn_before_anything_else(stubs: GrpcCaller, server: ServerProcess) -> None:
    """Seen by grpc's client without asyncio: the other may lose initial metadata when the status comes along."""
    session_id = await stubs.create_session()
    seen = await Seen().read(stubs.stream(send_request(session_id, "hi")))
    after_the_end = pb.AttachTurnRequest(session_id=session_id, turn_id=seen.turn_id, after_cursor=seen.cursor)

    def told() -> tuple[list[pb.TurnEvent], dict[str, str]]:
        with grpc.insecure_channel(server.grpc_target) as channel:
            call = pb_grpc.ChatSessionServiceStub(channel).AttachTurn(after_the_end, timeout=30)
            return list(call), dict(call.initial_metadata())

    for _ in range(20):
        events, metadata = await asyncio.to_thread(told)
        assert (events, metadata["turn-id"]) == ([], seen.turn_id)


@store_and_face
async def test_a_session_survives_a_restart(store: Settings, face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        await face.ask(session_id, "before")
        before = await whole_history(face, session_id)
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        assert await whole_history(face, session_id) == before
        assert await face.ask(session_id, "after") == hello("after", 2)
