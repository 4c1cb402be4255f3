"""What surrounds every call, in this order: request id and log, errors to statuses, deadline cap, the handler.

The same handlers serve gRPC and, in process, REST.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc
from google.protobuf.message import DecodeError, Message

from service.domain import deadline
from service.domain.errors import (
    AnswerTooLarge,
    CallerDeadlineExceeded,
    ChatError,
    Committed,
    InternalError,
    InvalidField,
    Retry,
)
from service.domain.ids import new_id
from service.domain.log import Log
from service.rpc.context import CallContext
from service.rpc.status import code_of, to_status
from service.rpc.wire import find_bad_text

Handlers = dict[str, Any]
"""RpcMethodHandlers by method name."""

SENDS = frozenset({"SendMessage", "StreamMessage"})
SERVICE_NAME = "chatsession.v1.ChatSessionService"

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_SERVER_FAULTS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAVAILABLE,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# A use case that watches the deadline itself answers with more detail; this much later the call ends in any case.
_DEADLINE_SLACK_S = 0.25


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The longest that a call may take, in s, whatever the caller leaves it, and the largest message of its answer."""

    unary_s: float = 120.0
    stream_s: float = 900.0
    message_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a request that could not be read; `field` is where, if that is known."""

    field: str


class _Scope:
    """One call from its first to its last moment."""

    __slots__ = ("_cap_s", "_context", "_log", "_method", "_peer", "_request_id", "_started", "_timeout")

    def __init__(self, context: CallContext, method: str, cap_s: float, log: Log, *, is_timed: bool) -> None:
        self._context = context
        self._method = method
        self._log = log
        self._request_id = _request_id(context)
        # Now, because a stream that was left is closed after its call is gone, and grpc would crash on the question.
        self._peer = context.peer()
        self._started = asyncio.get_running_loop().time()
        remaining_s = context.time_remaining()
        self._cap_s = cap_s if remaining_s is None else min(cap_s, max(0.0, remaining_s))
        self._timeout = asyncio.timeout(self._cap_s + _DEADLINE_SLACK_S) if is_timed else None

    async def __aenter__(self) -> None:
        self._context.set_trailing_metadata((("x-request-id", self._request_id),))
        deadline.start(self._started + self._cap_s)
        if self._timeout is not None:
            await self._timeout.__aenter__()

    async def __aexit__(
        self, cls: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timeout is not None:
            try:
                await self._timeout.__aexit__(cls, exc, traceback)
            except TimeoutError:
                exc = CallerDeadlineExceeded("the deadline ended first")
        if exc is None:
            self._write_log(grpc.StatusCode.OK, "")
        elif isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self._write_log(grpc.StatusCode.CANCELLED, "")
        else:
            await self._abort(exc)

    async def _abort(self, exc: BaseException) -> None:
        if not isinstance(exc, ChatError):
            self._log.exception(
                "call failed unexpectedly", method=self._method, request_id=self._request_id, exc_info=exc
            )
            exc = InternalError()
        self._write_log(_CODES[code_of(exc)], exc.reason)
        await _abort(self._context, exc, self._request_id)

    def _write_log(self, code: grpc.StatusCode, reason: str) -> None:
        write = self._log.warning if code in _SERVER_FAULTS else self._log.info
        fields = {"reason": reason} if reason else {}
        write(
            "call",
            method=self._method,
            code=code.name,
            **fields,
            duration_ms=round((asyncio.get_running_loop().time() - self._started) * 1000, 1),
            request_id=self._request_id,
            peer=self._peer,
        )


def _request_id(context: CallContext) -> str:
    """The caller's `x-request-id` if it has a sound one, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return new_id()


class _Collector:
    """Takes the handlers that generated code would add to a server."""

    def __init__(self) -> None:
        self.handlers: Handlers = {}

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """The same again, in another form."""

    def add_registered_method_handlers(self, _service: str, handlers: Handlers) -> None:
        """Called by generated code."""
        self.handlers.update(handlers)


def build_handlers(servicer: pb_grpc.ChatSessionServiceServicer, *, limits: CallLimits, log: Log) -> Handlers:
    """Return the service's handlers by method name, each with everything around it."""
    collector = _Collector()
    pb_grpc.add_ChatSessionServiceServicer_to_server(servicer, collector)  # type: ignore[no-untyped-call]
    return {name: _wrap(name, handler, limits, log) for name, handler in collector.handlers.items()}


def build_refusals(names: Iterable[str], refuse: Callable[[], ChatError], *, log: Log) -> Handlers:
    """Return handlers that do nothing but refuse, without reading the request."""
    return {name: grpc.stream_unary_rpc_method_handler(_refusal(name, refuse, log)) for name in names}


def _refusal(name: str, refuse: Callable[[], ChatError], log: Log) -> Callable[..., Any]:
    async def call(_requests: AsyncIterator[Message], context: CallContext) -> Message:
        error, request_id = refuse(), _request_id(context)
        # There may be thousands in a second. Whoever refuses tells that it began, and how many it were.
        log.debug("call", method=name, code=_CODES[code_of(error)].name, reason=error.reason, request_id=request_id)
        await _abort(context, error, request_id)
        raise AssertionError  # the call is aborted

    return call


async def _abort(context: CallContext, error: ChatError, request_id: str) -> None:
    status = to_status(error, request_id)
    metadata = ("grpc-status-details-bin", status.SerializeToString()), ("x-request-id", request_id)
    await context.abort(_CODES[status.code], status.message, metadata)


def _wrap(name: str, handler: Any, limits: CallLimits, log: Log) -> Any:
    read = _reader(handler.request_deserializer)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(
            _upload(name, handler.stream_unary, limits, log), read, handler.response_serializer
        )
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _stream(name, handler.unary_stream, limits, log), read, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _unary(name, handler.unary_unary, limits, log), read, handler.response_serializer
    )


def _unary(name: str, handle: Callable[..., Any], limits: CallLimits, log: Log) -> Callable[..., Any]:
    async def call(request: Message | _Malformed, context: CallContext) -> Message:
        async with _Scope(context, name, limits.unary_s, log, is_timed=True):
            _refuse_malformed(request)
            response: Message = await handle(request, context)
            _refuse_oversized(name, response, limits)
            return response
        raise AssertionError  # the scope has aborted the call

    return call


def _stream(name: str, handle: Callable[..., Any], limits: CallLimits, log: Log) -> Callable[..., Any]:
    async def call(request: Message | _Malformed, context: CallContext) -> AsyncGenerator[Message, None]:
        async with _Scope(context, name, limits.stream_s, log, is_timed=False):
            _refuse_malformed(request)
            responses = handle(request, context)
            try:
                async for response in responses:
                    _refuse_oversized(name, response, limits)
                    yield response
            finally:
                await responses.aclose()

    return call


def _upload(name: str, handle: Callable[..., Any], limits: CallLimits, log: Log) -> Callable[..., Any]:
    async def call(requests: AsyncIterator[Message | _Malformed], context: CallContext) -> Message:
        async with _Scope(context, name, limits.stream_s, log, is_timed=True):
            response: Message = await handle(_well_formed(requests), context)
            return response
        raise AssertionError  # the scope has aborted the call

    return call


async def _well_formed(requests: AsyncIterator[Message | _Malformed]) -> AsyncGenerator[Message | _Malformed, None]:
    async for request in requests:
        _refuse_malformed(request)
        yield request


def _reader(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | _Malformed]:
    """Parse requests so that a malformed one reaches the handler's error mapping, where gRPC would answer INTERNAL."""
    message_type = parse.__self__  # type: ignore[attr-defined]

    def read(wire: bytes) -> Message | _Malformed:
        try:
            return parse(wire)
        except DecodeError:
            return _Malformed(find_bad_text(message_type.DESCRIPTOR, wire))

    return read


def _refuse_oversized(name: str, response: Message, limits: CallLimits) -> None:
    """Refuse in words what the client's own limit would, without any.

    New answers always fit: this is for texts that were imported, or saved by a release before that bound.
    """
    if response.ByteSize() > limits.message_bytes:
        error = AnswerTooLarge(limits.message_bytes)
        raise error.of_send(Committed.TRUE, Retry.NO) if name in SENDS else error


def _refuse_malformed(request: Message | _Malformed) -> None:
    if isinstance(request, _Malformed):
        if request.field:
            raise InvalidField(request.field, "is not valid UTF-8")
        raise InvalidField("request", "is not a valid protobuf message")
