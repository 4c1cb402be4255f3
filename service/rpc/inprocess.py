"""Calls the service's handlers without a socket: what the REST shim invokes."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from service.rest.invoke import Call, CallFailed
from service.rpc.context import Metadata

_DETAILS_KEY = "grpc-status-details-bin"


class _Aborted(Exception):
    """The handler has ended its call with a status."""


class _Context:
    """The call context of one in-process call; fills in the metadata of the `Call` as the handler sends it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ends_at = None if call.timeout_s is None else asyncio.get_running_loop().time() + call.timeout_s
        self.status: status_pb2.Status | None = None

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> NoReturn:
        self._call.trailing_metadata = tuple(pair for pair in trailing_metadata if pair[0] != _DETAILS_KEY)
        status = status_pb2.Status(code=code.value[0], message=details)
        for key, value in trailing_metadata:
            if key == _DETAILS_KEY and isinstance(value, bytes):
                status.ParseFromString(value)
        self.status = status
        raise _Aborted

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        self._call.initial_metadata = (*self._call.initial_metadata, *initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._call.trailing_metadata = trailing_metadata
        # Over HTTP a request id is of use in the head of the answer, also of a stream.
        self._call.initial_metadata = (*self._call.initial_metadata, *trailing_metadata)

    def invocation_metadata(self) -> Metadata:
        return self._call.metadata

    def time_remaining(self) -> float | None:
        return None if self._ends_at is None else self._ends_at - asyncio.get_running_loop().time()

    def peer(self) -> str:
        return self._call.peer


class InProcessInvoker:
    """Implements `service.rest.invoke.Invoker` over the handlers that gRPC serves too."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    async def unary(self, call: Call) -> Message:
        context = _Context(call)
        try:
            response: Message = await self._handlers[call.method.name].unary_unary(call.request, context)
        except _Aborted:
            raise _failure(context) from None
        return response

    async def upload(self, call: Call, requests: AsyncGenerator[Message, None]) -> Message:
        context = _Context(call)
        try:
            response: Message = await self._handlers[call.method.name].stream_unary(requests, context)
        except _Aborted:
            raise _failure(context) from None
        return response

    async def stream(self, call: Call) -> AsyncGenerator[Message, None]:
        context = _Context(call)
        responses = self._handlers[call.method.name].unary_stream(call.request, context)
        try:
            async for response in responses:
                yield response
        except _Aborted:
            raise _failure(context) from None
        finally:
            await responses.aclose()


def _failure(context: _Context) -> CallFailed:
    return CallFailed(context.status or status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0]))
