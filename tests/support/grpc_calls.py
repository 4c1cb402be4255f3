"""Calls to a running service over gRPC."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
from chatsession.status import from_rpc_error
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub
from google.rpc import status_pb2

from tests.support.calls import CALL_TIMEOUT_S, Caller, Metadata, Reply
from tests.support.http_rules import SERVICE
from tests.support.server import ServerProcess

_DETAILS_KEY = "grpc-status-details-bin"


class GrpcCaller(Caller):
    """Calls over gRPC, on one connection of its own."""

    def __init__(self, server: ServerProcess) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = grpc.aio.insecure_channel(server.grpc_target, options=options)
        self.stub = ChatSessionServiceStub(self.channel)

    async def close(self) -> None:
        await self.channel.close()

    async def unary(
        self,
        method: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout_s: float = CALL_TIMEOUT_S,
        reply: Reply | None = None,
    ) -> Any:
        return await _answer(getattr(self.stub, method)(request, timeout=timeout_s, metadata=metadata), reply)

    async def raw(self, method: str, wire: bytes) -> bytes:
        """Call a unary method with these bytes as the request, whatever they are."""
        answer: bytes = await _answer(self.channel.unary_unary(f"/{SERVICE.full_name}/{method}")(wire, timeout=10))
        return answer

    async def events(
        self, method: str, request: Any, *, metadata: Metadata = (), reply: Reply | None = None
    ) -> AsyncGenerator[Any, None]:
        call = getattr(self.stub, method)(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        try:
            async for event in call:
                yield event
            await _fill(reply, call)
        except grpc.aio.AioRpcError as error:
            await _fill(reply, call, error)
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def upload(
        self, method: str, requests: Sequence[Any], *, metadata: Metadata = (), reply: Reply | None = None
    ) -> Any:
        call = getattr(self.stub, method)(iter(requests), timeout=CALL_TIMEOUT_S, metadata=metadata)
        return await _answer(call, reply)


async def _answer(call: Any, reply: Reply | None = None) -> Any:
    try:
        answer = await call
        await _fill(reply, call)
        return answer
    except grpc.aio.AioRpcError as error:
        await _fill(reply, call, error)
        raise from_rpc_error(error) from None


async def _fill(reply: Reply | None, call: Any, error: grpc.aio.AioRpcError | None = None) -> None:
    if reply is None:
        return
    got = dict([*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())])
    details = got.pop(_DETAILS_KEY, b"")
    reply.metadata = got
    if error is not None:
        reply.status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
        if details:
            plain, reply.status = reply.status, status_pb2.Status.FromString(details)
            assert (reply.status.code, reply.status.message) == (plain.code, plain.message)
