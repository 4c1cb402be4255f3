"""How the shim calls an RPC: one value, one exception, one protocol."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(slots=True, eq=False)
class Call:
    """One call of one RPC.

    timeout_s: what the caller, or the shim's default, leaves for it; None means no limit.
    peer: the HTTP client's address in gRPC's form, such as `ipv4:127.0.0.1:50000`.
    initial_metadata, trailing_metadata: filled in by the invoker before it returns, first yields, or raises.
    """

    method: MethodDescriptor
    request: Message
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout_s: float | None
    peer: str
    initial_metadata: Metadata = field(default=())
    trailing_metadata: Metadata = field(default=())


class CallFailed(Exception):
    """The RPC ended with a status other than OK."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.code, status.message)
        self.status = status


class Invoker(Protocol):
    """Whatever can call a method: an in-process servicer, a channel, a fake.

    Cancelling the task that awaits `unary` or `upload` cancels the RPC; so does `aclose()` of the generator, or
    cancelling the task that awaits its next message. Any exception other than CallFailed is answered as INTERNAL with
    constant text.
    """

    async def unary(self, call: Call) -> Message:
        """Return the response. Raises CallFailed."""
        ...

    async def upload(self, call: Call, requests: AsyncGenerator[Message, None]) -> Message:
        """Call a method that takes a stream of requests, of which `call.request` is the first; return the response.

        Raises CallFailed.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[Message, None]:
        """Yield the responses in order. Raises CallFailed."""
        ...
