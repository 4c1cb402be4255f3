"""Two processes behind one pair of ports, over one store."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.processes import children, connections_of, is_running
from tests.e2e.starting import free_port
from tests.support.calls import Caller, send_request
from tests.support.door import connect
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

_MOST_CONNECTIONS = 64
_ORPHAN_LIMIT_S = 10.0


@pytest.fixture
async def server(store: Settings, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Two workers that serve."""
    ports = {"GRPC_ADDRESS": f"127.0.0.1:{free_port()}", "HTTP_ADDRESS": f"127.0.0.1:{free_port()}"}
    settings = {"WORKERS": "2", "LEASE_SECONDS": "2", "STOP_GRACE_SECONDS": "1", **ports, **store}
    async with running_server(tmp_path, **settings) as server:
        await until_serving(server, 2)
        yield server


async def until_serving(server: ServerProcess, count: int) -> None:
    """Wait until so many workers have said that they serve."""

    async def is_so() -> bool:
        return sum(entry["event"] == "serving" for entry in list(server.log)) >= count

    await until(is_so)


def port_of(face_name: str, server: ServerProcess) -> int:
    return int((server.grpc_target if face_name == "grpc" else server.http_url).rpartition(":")[2])


async def one_face_to_each(face_name: str, server: ServerProcess, stack: AsyncExitStack) -> dict[int, Caller]:
    """Connect until both workers hold a connection; return a face to each by its process id."""
    workers, port = children(server.pid), port_of(face_name, server)
    assert len(workers) == 2
    faces: dict[int, Caller] = {}
    before = connections_of(workers, port)
    for _ in range(_MOST_CONNECTIONS):
        face = await stack.enter_async_context(connect(face_name, server))
        await face.create_session()
        after = connections_of(workers, port)
        (taken_by,) = [pid for pid in workers if after[pid] > before[pid]]
        faces.setdefault(taken_by, face)
        if len(faces) == 2:
            return faces
        before = after
    raise AssertionError(f"one worker got all connections: {before}")


@store_and_face
async def test_both_workers_serve_and_share_the_sessions(server: ServerProcess, face_name: str) -> None:
    async with AsyncExitStack() as stack:
        one, other = (await one_face_to_each(face_name, server, stack)).values()
        session_id = await one.create_session()
        told = [("user", "one"), ("assistant", await one.ask(session_id, "one"))]
        assert await other.said(session_id) == told
        answer = await other.ask(session_id, "two")
        assert "I see 2 user message(s)" in answer
        assert await one.said(session_id) == [*told, ("user", "two"), ("assistant", answer)]


async def test_messages_to_one_session_take_turns_across_workers(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        faces = list((await one_face_to_each("grpc", server, stack)).values())
        session_id = await faces[0].create_session()
        messages = [f"message {number}" for number in range(8)]
        sends = [face.ask(session_id, message) for face, message in zip(faces * 4, messages, strict=True)]
        answers = dict(zip(messages, await asyncio.gather(*sends), strict=True))
        history = await faces[0].said(session_id)
    asked = [content for role, content in history if role == "user"]
    assert sorted(asked) == messages
    assert history == [entry for text in asked for entry in (("user", text), ("assistant", answers[text]))]
    assert [f"I see {number} user" in answers[text] for number, text in enumerate(asked, 1)] == [True] * 8


@pytest.mark.parametrize("store", ["mongo"], indirect=True)
async def test_a_killed_worker_comes_back_and_its_turn_is_ended(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        faces = await one_face_to_each("grpc", server, stack)
        (lost, face), (_, other) = faces.items()
        session_id = await face.create_session()
        async with aclosing(
            face.stream(send_request(session_id, "hi", model="demo/slow:chunks=20,delay_ms=100"))
        ) as events:
            async for event in events:
                if event.HasField("delta"):
                    break
            os.kill(lost, signal.SIGKILL)
        await until_serving(server, 3)
        workers = children(server.pid)
        assert len(workers) == 2
        assert lost not in workers
        assert "Hello!" in await other.ask(session_id, "still there?")
        told = [content for role, content in await other.said(session_id) if role == "user"]
        assert told == ["hi", "still there?"]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_a_stop_ends_all_workers(server: ServerProcess) -> None:
    workers = children(server.pid)
    async with connect("grpc", server) as stubs, connect("rest", server) as rest:
        await stubs.create_session()
        await rest.create_session()
        assert await server.stop() == 0
    assert not any(is_running(pid) for pid in workers)
    assert sum(entry["event"] == "stopped" for entry in server.log) == 2


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_workers_do_not_outlive_their_parent(server: ServerProcess) -> None:
    """Else they would share the ports with the workers of the next start."""
    workers = children(server.pid)

    async def all_ended() -> bool:
        return not any(is_running(pid) for pid in workers)

    server.send_signal(signal.SIGKILL)
    try:
        await until(all_ended, timeout_s=_ORPHAN_LIMIT_S)
    finally:
        for pid in filter(is_running, workers):
            os.kill(pid, signal.SIGKILL)
