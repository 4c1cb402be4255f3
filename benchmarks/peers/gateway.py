"""A gateway before a gRPC port: `python -m benchmarks.peers.gateway grpc-gateway|envoy HOST:PORT`. Prints its port.

This process only starts it and waits.
"""

import asyncio
import signal
import sys
from pathlib import Path

from tests.differential.gateways import Api, Unavailable, envoy, grpc_gateway

_GATEWAYS = {"envoy": envoy, "grpc-gateway": grpc_gateway}
_API = Api(
    folders=(Path(__file__).parents[2] / "protos",),
    files=("chatsession/v1/chat_session.proto", "chatsession/v1/error_reason.proto"),
    services=("chatsession.v1.ChatSessionService",),
)


async def _serve(name: str, upstream: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _GATEWAYS[name](_API, upstream) as url:
        print(url.rpartition(":")[2], flush=True)
        await stop.wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(sys.argv[1], sys.argv[2]))
    except Unavailable as exc:
        sys.exit(f"unavailable: {exc}")
