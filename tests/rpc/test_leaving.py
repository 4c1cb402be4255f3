"""Callers that leave in the middle of a stream, over real connections to a real server process."""

from pathlib import Path

import grpc
import pytest
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc

from tests.support.server import running_server

SLOW = pb.ModelSettings(model="demo/slow:chunks=40,delay_ms=20")


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_the_server_outlives_callers_that_leave(tmp_path: Path, how: str) -> None:
    async with running_server(tmp_path, SQLITE_PATH=":memory:") as server:
        for _ in range(20):
            channel = grpc.aio.insecure_channel(server.grpc_target)
            stub = pb_grpc.ChatSessionServiceStub(channel)
            session = await stub.CreateSession(pb.CreateSessionRequest())
            call = stub.StreamMessage(
                pb.SendMessageRequest(session_id=session.session_id, message="hello", settings=SLOW)
            )
            for _ in range(3):
                assert (await call.read()).cursor
            if how == "cancel":
                call.cancel()
            await channel.close()
        async with grpc.aio.insecure_channel(server.grpc_target) as channel:
            stub = pb_grpc.ChatSessionServiceStub(channel)
            assert (await stub.CreateSession(pb.CreateSessionRequest())).session_id
    assert await server.wait() == 0
