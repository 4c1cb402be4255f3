"""The gRPC channel: its options and how it is opened."""

from collections.abc import Sequence
from typing import Any

import grpc

from chatsession.service_config import SERVICE_CONFIG
from chatsession.version import __version__

Option = tuple[str, str | int]

MAX_RECEIVE_BYTES = 16 * 1024 * 1024

OPTIONS: tuple[Option, ...] = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.primary_user_agent", f"chatsession-python/{__version__}"),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # A dead connection is noticed within 80 s, also while no call runs.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own second before a new connection, growing to two minutes, would defeat quick repeats.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def open_channel(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[Option] = (),
    interceptors: Sequence[Any] = (),
) -> grpc.aio.Channel:
    """Open a channel with the recommended options; nothing is connected before the first call.

    target: `host:port`, or any gRPC name such as `dns:///chat:50051`.
    credentials: for TLS; None means plain text.
    options: added to OPTIONS, and winning over them.
    """
    merged = list((dict(OPTIONS) | dict(options)).items())
    if credentials is None:
        return grpc.aio.insecure_channel(target, merged, interceptors=list(interceptors))
    return grpc.aio.secure_channel(target, credentials, merged, interceptors=list(interceptors))
