"""The gRPC server behind all gateways: it answers with what it was asked, and remembers that."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from service.rest import Call, CallFailed

PROBE = "authorization"
"""The header, and metadata key, that tells requests apart: all gateways pass it on by this name."""

_DETAILS_KEY = "grpc-status-details-bin"
# Envoy puts the whole URL into the metadata, and what is between the usual two limits is refused by chance.
_LIMITS = [("grpc.max_metadata_size", 64 * 1024), ("grpc.absolute_max_metadata_size", 64 * 1024)]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS = {
    "details": (
        error_details_pb2.ErrorInfo(reason="NO", domain="upstream.test", metadata={"a": "b"}),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="id", description="is so")]
        ),
    ),
    "unknown": (AnyMessage(type_url="type.googleapis.com/not.Known", value=b"\x08\x01"),),
    "plain": (),
}


class Upstream:
    """Serves the methods of some services.

    A request whose `id` is `error-<code>-<details>` fails with that code, and with the details of that name. A stream
    has as many events as `int32_value` says, and then fails if it is to fail.

    received: the method and the request of each call, by its probe; None for a request that cannot be read.
    """

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        self.received: dict[str, tuple[str, Message | None]] = {}
        self._services = services

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a free port and yield its address."""
        server = grpc.aio.server(options=_LIMITS)
        for service in self._services:
            handlers = {method.name: self._handler(method) for method in service.methods}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)

    def _handler(self, method: MethodDescriptor) -> Any:
        reply_class = GetMessageClass(method.output_type)

        async def unary(data: bytes, context: Any) -> bytes:
            request = await self._read(method, data, context)
            await _fail(request, context)
            if method.output_type is method.input_type:
                return data
            reply = reply_class()
            if method.output_type.full_name == "google.api.HttpBody":
                reply.content_type, reply.data = "text/plain", b"a file"
            return reply.SerializeToString()

        async def stream(data: bytes, context: Any) -> AsyncGenerator[bytes, None]:
            request = await self._read(method, data, context)
            for number in range(request.int32_value):
                if method.output_type.full_name == "google.api.HttpBody":
                    reply = reply_class(content_type="text/plain", data=b"piece %d\n" % number)
                else:
                    reply = reply_class(name=f"event {number}", number=number)
                yield reply.SerializeToString()
            await _fail(request, context)

        # Without deserializers: what cannot be read is to be seen too.
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _read(self, method: MethodDescriptor, data: bytes, context: Any) -> Any:
        probe = next(str(value) for key, value in context.invocation_metadata() if key == PROBE)
        try:
            request: Message | None = GetMessageClass(method.input_type).FromString(data)
        except DecodeError:
            request = None
        self.received[probe] = method.full_name, request
        if request is None:
            await context.abort(grpc.StatusCode.INTERNAL, "unreadable")
        return request


async def _fail(request: Any, context: Any) -> None:
    """End the call with the status that the request asks for, if it does."""
    kind, _, rest = getattr(request, "id", "").partition("-")
    if kind != "error":
        return
    number, _, details = rest.partition("-")
    status = status_pb2.Status(code=int(number), message=f"code {number}: 100 % „no“")
    for detail in _DETAILS[details]:
        if isinstance(detail, AnyMessage):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    trailers = ((_DETAILS_KEY, status.SerializeToString()),) if details != "plain" else ()
    await context.abort(_CODES[status.code], status.message, trailers)


class ChannelInvoker:
    """Implements `service.rest.Invoker` over a channel, as the other gateways do."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def unary(self, call: Call) -> Message:
        """Call a unary method."""
        method = self._channel.unary_unary(
            _path(call.method),
            request_serializer=_serialized,
            response_deserializer=GetMessageClass(call.method.output_type).FromString,
        )
        try:
            reply: Message = await method(call.request, metadata=call.metadata, timeout=call.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        return reply

    async def stream(self, call: Call) -> AsyncGenerator[Message, None]:
        """Call a streaming method."""
        method = self._channel.unary_stream(
            _path(call.method),
            request_serializer=_serialized,
            response_deserializer=GetMessageClass(call.method.output_type).FromString,
        )
        replies = method(call.request, metadata=call.metadata, timeout=call.timeout_s)
        try:
            async for reply in replies:
                yield reply
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        finally:
            replies.cancel()


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _failure(error: grpc.aio.AioRpcError) -> CallFailed:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return CallFailed(status_pb2.Status.FromString(value))
    return CallFailed(status_pb2.Status(code=error.code().value[0], message=error.details() or ""))
