"""A server whose every answer a test writes down, over real sockets.

A script is a list of steps for one call: a message is sent, a Refusal ends the call with its status, an asyncio.Event
is waited for, a function is called, a pair is initial metadata. Calls take the scripts of their method in order.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceServicer
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

SESSION = "s1"
TURN = "t1"


@dataclass(frozen=True)
class Refusal:
    """A status with details. Without a reason it is what a broken connection or a proxy makes."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "scripted"
    metadata: dict[str, str] = field(default_factory=dict)
    retry_delay_s: float | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def status(self) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="chatsession", metadata=self.metadata)
            status.details.add().Pack(info)
        if self.fields:
            bad_request = error_details_pb2.BadRequest()
            for name, description in self.fields.items():
                bad_request.field_violations.add(field=name, description=description)
            status.details.add().Pack(bad_request)
        if self.retry_delay_s is not None:
            retry_info = error_details_pb2.RetryInfo()
            retry_info.retry_delay.FromNanoseconds(int(self.retry_delay_s * 1e9))
            status.details.add().Pack(retry_info)
        return status

    async def abort(self, context: Any) -> None:
        status = self.status()
        trailers = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
        await context.abort(self.code, self.message, trailers)


BREAK = Refusal(grpc.StatusCode.UNAVAILABLE)


def busy_store(delay_s: float = 0.0) -> Refusal:
    """A refusal of a send that asks for the same request again."""
    metadata = {"retry": "SAME_REQUEST", "committed": "unknown"}
    return Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the database is away", metadata, delay_s)


def a_turn(state: pb.Turn.State = pb.Turn.RUNNING, response: str = "", **fields: Any) -> pb.Turn:
    end_time = None if state == pb.Turn.RUNNING else Timestamp(seconds=1)
    return pb.Turn(
        turn_id=TURN, session_id=SESSION, state=state, response=response, first_seq=1, end_time=end_time, **fields
    )


def accepted(cursor: str = "c0") -> pb.TurnEvent:
    return pb.TurnEvent(cursor=cursor, accepted=pb.TurnAccepted(turn=a_turn()))


def delta(text: str, cursor: str) -> pb.TurnEvent:
    return pb.TurnEvent(cursor=cursor, delta=pb.TextDelta(text=text))


def snapshot(text: str, cursor: str) -> pb.TurnEvent:
    return pb.TurnEvent(cursor=cursor, snapshot=pb.TextSnapshot(text=text, attempt=2))


def heartbeat(cursor: str) -> pb.TurnEvent:
    return pb.TurnEvent(cursor=cursor, heartbeat=pb.Heartbeat())


def unknown_kind(cursor: str) -> pb.TurnEvent:
    """An event of a later release: field 15, length-delimited."""
    return pb.TurnEvent.FromString(pb.TurnEvent(cursor=cursor).SerializeToString() + b"\x7a\x00")


def ended(response: str, state: pb.Turn.State = pb.Turn.COMPLETED, **fields: Any) -> pb.TurnEvent:
    return pb.TurnEvent(cursor="end", ended=pb.TurnEnded(turn=a_turn(state, response, **fields)))


class Scripted(ChatSessionServiceServicer):
    """Plays scripts, and keeps what was asked.

    calls: (method, request) in order. called: set by the first of them.
    cancelled: set when a caller has left a call that was still open.
    target: where it listens.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.target = ""
        self._scripts: defaultdict[str, deque[list[Any]]] = defaultdict(deque)

    def on(self, method: str, *scripts: list[Any]) -> None:
        """Add scripts for the next calls of a method."""
        self._scripts[method].extend(scripts)

    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    async def _play(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        self.calls.append((method, request))
        self.called.set()
        self.metadata.append(dict(context.invocation_metadata()))
        if not self._scripts[method]:
            await Refusal(grpc.StatusCode.FAILED_PRECONDITION, message=f"no script for {method}").abort(context)
        try:
            for step in self._scripts[method].popleft():
                if isinstance(step, Refusal):
                    await step.abort(context)
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif callable(step):
                    step()
                elif isinstance(step, tuple):
                    await context.send_initial_metadata((step,))
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            # GeneratorExit: gRPC was busy with sending what was yielded.
            self.cancelled.set()
            raise


def _unary(name: str) -> Any:
    async def method(self: Scripted, request: Any, context: Any) -> Any:
        return [answer async for answer in self._play(name, request, context)][-1]

    return method


def _stream(name: str) -> Any:
    async def method(self: Scripted, request: Any, context: Any) -> AsyncIterator[Any]:
        async for event in self._play(name, request, context):
            yield event

    return method


def _upload(name: str) -> Any:
    async def method(self: Scripted, requests: Any, context: Any) -> Any:
        all_requests = [request async for request in requests]
        return [answer async for answer in self._play(name, all_requests, context)][-1]

    return method


for _method in pb.DESCRIPTOR.services_by_name["ChatSessionService"].methods:
    _kind = _upload if _method.client_streaming else _stream if _method.server_streaming else _unary
    setattr(Scripted, _method.name, _kind(_method.name))
