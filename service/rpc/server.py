"""The gRPC server: handlers, health, reflection and the options of its connections."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.rpc.pipeline import SENDS, SERVICE_NAME, Handlers

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_MINUTE_MS = 60_000
_MIB = 1024 * 1024

CLIENTS_TAKE_BYTES = 4 * _MIB
"""What gRPC clients of all languages receive in one message, unless they are told to receive more."""

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", 4 * _MIB),
    ("grpc.max_send_message_length", 16 * _MIB),
    ("grpc.keepalive_time_ms", _MINUTE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Connections end after a while, so that clients spread over new servers; streams have the grace to end.
    ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
    ("grpc.max_connection_age_grace_ms", 15 * _MINUTE_MS),
    # Calls that have come and are not read yet, of one queue: beyond the first, some are thrown away; the second, all.
    ("grpc.server.max_pending_requests", 4_000),
    ("grpc.server.max_pending_requests_hard_limit", 8_000),
)


class Door:
    """Whether sends are let in, asked before one is read. refusals: the handlers of those that are not."""

    def __init__(self, is_closed: Callable[[], bool], refusals: Handlers) -> None:
        self.is_closed = is_closed
        self.refusals = refusals


class _Sends(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The sends, by the full names of their methods."""

    def __init__(self, handlers: Handlers, door: Door) -> None:
        self._let_in, self._refused = (
            {f"/{SERVICE_NAME}/{name}": handler for name, handler in each.items()} for each in (handlers, door.refusals)
        )
        self._door = door

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handlers = self._refused if self._door.is_closed() else self._let_in
        return handlers.get(handler_call_details.method)


def build_server(
    handlers: Handlers,
    health_servicer: Any,
    *,
    door: Door | None = None,
    reuse_port: bool,
    max_calls: int | None = None,
) -> grpc.aio.Server:
    """Build the server.

    door: None lets all sends in.
    reuse_port: let other processes bind the same port; else a second server fails to start.
    max_calls: open calls beyond these are refused without details.
    """
    options = [*OPTIONS, ("grpc.so_reuseport", int(reuse_port))]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=max_calls)
    # Sends wait in one queue, and every other method in one of its own, so that reads do not wait behind sends.
    sends = {name: handler for name, handler in handlers.items() if name in SENDS}
    server.add_generic_rpc_handlers((_Sends(sends, door or Door(lambda: False, {})),))
    others = {name: handler for name, handler in handlers.items() if name not in SENDS}
    server.add_registered_method_handlers(SERVICE_NAME, others)  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _add_reflection(server, (SERVICE_NAME, health.SERVICE_NAME, _REFLECTION_V1, reflection.SERVICE_NAME))
    return server


def _add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Register reflection as v1alpha, which the library knows, and as v1, whose messages are the same on the wire."""
    _describe_reflection_v1()
    reflection.enable_server_reflection(names, server)
    servicer = reflection_aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


def _describe_reflection_v1() -> None:
    """Put v1's file into the pool, made of v1alpha's, so that reflection can describe itself too."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = file.name.replace("v1alpha", "v1"), file.package.replace("v1alpha", "v1")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
            method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    descriptor_pool.Default().Add(file)
