"""The stub, with metadata, deadlines and typed errors."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc

from chatsession.deadline import Deadline
from chatsession.status import from_rpc_error
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub

Metadata = Sequence[tuple[str, str | bytes]]


class Rpcs:
    """Makes calls on a channel that is opened by the first of them, in the event loop that runs then."""

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], metadata: Metadata) -> None:
        self._open_channel = open_channel
        self._metadata = tuple(metadata)
        self._channel: grpc.aio.Channel | None = None
        self._stub: ChatSessionServiceStub | None = None
        self._is_closed = False

    @property
    def stub(self) -> ChatSessionServiceStub:
        """The generated stub."""
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._stub is None:
            self._channel = self._open_channel()
            self._stub = ChatSessionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        return self._stub

    async def close(self) -> None:
        """Close the channel for good; calls that still run are cancelled."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def unary(self, method: str, request: Any, deadline: Deadline) -> Any:
        """Make one call and return its answer. Raises ChatSessionError."""
        call = self._start(method, request, deadline)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, request_id=getattr(request, "request_id", None) or None) from error
        finally:
            call.cancel()

    async def messages(self, method: str, request: Any, deadline: Deadline) -> AsyncIterator[Any]:
        """Make one call and yield its answers. Raises ChatSessionError."""
        call = self._start(method, request, deadline)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    def stream(self, method: str, request: Any, deadline: Deadline) -> Any:
        """Start a streaming call. The caller must `cancel()` it, also when it is done."""
        return self._start(method, request, deadline)

    def _start(self, method: str, request: Any, deadline: Deadline) -> Any:
        return getattr(self.stub, method)(request, timeout=deadline.timeout_s, metadata=self._metadata)
