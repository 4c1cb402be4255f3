"""More than a real process takes on: what is too much is told so and when to come again, and nothing else suffers."""

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import grpc
import pytest
from chatsession import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from tests.e2e.conftest import Settings, store_and_face
from tests.support.calls import Caller, send_request
from tests.support.door import connect
from tests.support.grpc_calls import GrpcCaller
from tests.support.server import running_server
from tests.support.waiting import until

_MAX_TURNS = 5
_BURST = 200
_CROWD = 1200
_SESSIONS = 100


def told_to_wait_s(error: ChatSessionError) -> float:
    """Return how long a refused caller is to wait; fails if the refusal does not say all that it needs to know."""
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert (error.metadata["committed"], error.metadata["retry"]) == ("false", "SAME_REQUEST")
    assert error.retry_delay_s is not None
    assert error.retry_delay_s >= 1.0
    return error.retry_delay_s


async def ask_patiently(caller: Caller, request: pb.SendMessageRequest) -> tuple[str, int]:
    """Send until it is taken up, coming again as told; return the answer, and how often it was refused."""
    refused = 0
    while True:
        try:
            return (await caller.send(request, timeout_s=200)).response, refused
        except ChatSessionError as error:
            refused += 1
            await asyncio.sleep(told_to_wait_s(error))


@store_and_face
async def test_turns_of_a_process_are_bounded_and_reads_are_not(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    async with (
        running_server(tmp_path, **store, MAX_TURNS=str(_MAX_TURNS)) as server,
        connect(face_name, server) as face,
    ):
        sessions = [await face.create_session() for _ in range(_MAX_TURNS + 3)]
        running = [
            asyncio.create_task(face.ask(session_id, "hello", "demo/slow:chunks=3,delay_ms=1500", request_id="r"))
            for session_id in sessions[:_MAX_TURNS]
        ]
        for session_id in sessions[:_MAX_TURNS]:
            await until(lambda session_id=session_id: face.said(session_id))
        for session_id in sessions[_MAX_TURNS:]:
            with pytest.raises(ChatSessionError) as caught:
                await face.ask(session_id, "hello", request_id="r")
            told_to_wait_s(caught.value)
            assert await face.said(session_id) == []
        assert not any(task.done() for task in running)
        answers = await asyncio.gather(*running)
        for session_id, answer in zip(sessions, answers, strict=False):
            assert await face.said(session_id) == [("user", "hello"), ("assistant", answer)]
        for session_id in sessions[_MAX_TURNS:]:
            answer, _ = await ask_patiently(face, send_request(session_id, "hello", request_id="r"))
            assert await face.said(session_id) == [("user", "hello"), ("assistant", answer)]


async def test_a_refusal_over_http_says_when_to_come_again(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, SQLITE_PATH="s.db", MAX_TURNS="1") as server,
        connect("rest", server) as rest,
    ):
        first, second = await rest.create_session(), await rest.create_session()
        running = asyncio.create_task(rest.ask(first, "hello", "demo/slow:chunks=3,delay_ms=1500"))
        await until(lambda: rest.said(first))
        async with aiohttp.ClientSession(server.http_url) as session:
            body = {"sessionId": second, "message": "hello"}
            async with session.post("/chat", json=body) as response:
                assert response.status == 429
                assert int(response.headers["Retry-After"]) >= 1
                assert (await response.json())["details"][0]["reason"] == "OVERLOADED"
        await running


async def test_a_burst_at_an_idle_process_is_served(tmp_path: Path) -> None:
    async with running_server(tmp_path, SQLITE_PATH="s.db") as server, GrpcCaller(server) as caller:
        sessions = await asyncio.gather(*(caller.create_session() for _ in range(_BURST)))
        answers = await asyncio.gather(*(caller.ask(session_id, "hello") for session_id in sessions))
        assert len(answers) == _BURST


@pytest.mark.timeout(240)
async def test_a_crowd_that_comes_again_as_told_is_served_once_each(tmp_path: Path) -> None:
    async with running_server(tmp_path, SQLITE_PATH="s.db", MAX_WAITING="1000") as server, GrpcCaller(server) as caller:
        sessions = [await caller.create_session() for _ in range(_SESSIONS)]
        reads = 0

        async def client(number: int) -> int:
            request = send_request(sessions[number % _SESSIONS], f"message {number}", request_id=f"r{number}")
            return (await ask_patiently(caller, request))[1]

        async def reader(reading: Caller) -> None:
            nonlocal reads
            while True:
                await reading.said(sessions[0])
                reads += 1

        async with GrpcCaller(server) as other:
            reading = asyncio.create_task(reader(other))
            refused = await asyncio.gather(*map(client, range(_CROWD)))
            assert not reading.done()
            reading.cancel()
        assert any(refused)
        assert reads
        said = Counter[str]()
        for session_id in sessions:
            page = await caller.history(pb.GetHistoryRequest(session_id=session_id))
            said.update(message.content for message in page.history if message.role == "user")
        assert said == Counter(f"message {number}" for number in range(_CROWD))
        for session_id in sessions[:20]:
            assert await ask_patiently(caller, send_request(session_id, "and now?"))
