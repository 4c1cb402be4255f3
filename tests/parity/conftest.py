"""Real servers, each with three ways to call it.

All tests here run in the session's event loop, so that servers serve many tests. Each test makes sessions of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError

from tests.e2e.starting import free_port
from tests.support.calls import Caller
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

WAYS: dict[str, Callable[[ServerProcess], Caller]] = {
    "gRPC": GrpcCaller,
    "REST": RestCaller,
    "REST, the additional bindings, NDJSON, no headers": partial(RestCaller, binding=1, form="ndjson", by_header=False),
}

MAIN = {"FIRST_TOKEN_TIMEOUT_SECONDS": "1", "MODEL_ATTEMPTS": "1"}
HASTY = {"UNARY_TIMEOUT_SECONDS": "0.6", "STREAM_TIMEOUT_SECONDS": "0.6"}


@dataclass(frozen=True)
class Place:
    """A server and the callers of it, one for each of WAYS."""

    server: ServerProcess
    callers: list[Caller]


@asynccontextmanager
async def opened(cwd: Path, **settings: str) -> AsyncIterator[Place]:
    """Start a server, and connect to it, for the length of a block."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(cwd, **{"STOP_GRACE_SECONDS": "0", **settings}))
        yield Place(server, [await stack.enter_async_context(way(server)) for way in WAYS.values()])


async def _is_answered(caller: Caller) -> bool:
    """From when it is, what a first call has to load is loaded, and limits are the limits of the tests."""
    try:
        return bool(await caller.ask(await caller.create_session(), "hi"))
    except ChatSessionError:
        return False


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def main(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server that waits a second for the first word of its model, and does not ask twice."""
    async with opened(tmp_path_factory.mktemp("parity"), **MAIN) as place:
        await until(lambda: _is_answered(place.callers[0]))
        yield place


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server that gives no call more than 0.6 s."""
    async with opened(tmp_path_factory.mktemp("parity"), **HASTY) as place:
        await until(lambda: _is_answered(place.callers[0]))
        yield place


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def storeless(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server whose database is not there."""
    settings = {"MONGO_URI": f"mongodb://127.0.0.1:{free_port()}", "STORE_TIMEOUT_SECONDS": "0.5"}
    async with opened(tmp_path_factory.mktemp("parity"), **settings) as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session", scope="session", autouse=True)
async def half_sent(main: Place) -> AsyncIterator["asyncio.Task[bytes]"]:
    """What is answered to half a request. Sent before all tests, as the server waits ten seconds for the rest."""
    answer = asyncio.create_task(answer_to(main.server, b"GET /session/nobody/history HT"))
    yield answer
    answer.cancel()
    await asyncio.wait((answer,))


async def answer_to(server: ServerProcess, wire: bytes) -> bytes:
    """Send bytes to the HTTP port, and return what comes until the connection is closed."""
    host, _, port = server.http_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(wire)
        return await reader.read()
    finally:
        writer.transport.abort()
