"""Calls this very server, to learn how long its callers wait before they are read."""

import asyncio
from typing import Any

import grpc

from service.domain.ids import new_id

# A method that nobody serves: it waits in the same queue as sends do, and costs the least.
_METHOD = "/chatsession.Probe/Probe"
_AGAIN_S = 0.1


class Probe:
    """A connection of the process to itself, through a socket of this machine that has no file and no port."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """server: not started yet. Raises RuntimeError if the socket cannot be had; only Linux has such."""
        address = f"unix-abstract:chatsession-{new_id()}"
        server.add_insecure_port(address)
        self._channel = grpc.aio.insecure_channel(address)
        self._call: Any = self._channel.unary_unary(_METHOD)  # type: ignore[call-arg]

    async def __call__(self) -> None:
        """Return once a call has been read; one that the transport throws away does not count."""
        while True:
            try:
                await self._call(b"")
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
                await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)
