"""A scripted server on a free port, and a client of it that does not dawdle."""

from collections.abc import AsyncIterator

import grpc
import pytest
from chatsession import AsyncChatClient, RetryPolicy
from chatsession.v1.chat_session_pb2_grpc import add_ChatSessionServiceServicer_to_server

from .scripted import Scripted

QUICK = RetryPolicy(max_attempts=4, initial_backoff_s=0.01, max_backoff_s=0.05)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    servicer = Scripted()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_ChatSessionServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


@pytest.fixture
async def client(server: Scripted) -> AsyncIterator[AsyncChatClient]:
    async with AsyncChatClient(server.target, retry=QUICK, timeout_s=10, stream_timeout_s=10) as client:
        yield client
