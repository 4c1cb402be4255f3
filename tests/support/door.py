"""Connections to servers, by either transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatsession.errors import SessionNotFound, Unavailable

from tests.support.calls import Caller
from tests.support.grpc_calls import GrpcCaller
from tests.support.rest_calls import RestCaller
from tests.support.server import ServerProcess
from tests.support.waiting import until

TRANSPORTS = ("grpc", "rest")


def connect(transport: str, server: ServerProcess) -> Caller:
    """Return a caller for `grpc` or `rest`."""
    return GrpcCaller(server) if transport == "grpc" else RestCaller(server)


class Door:
    """Both ways to call one server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.grpc = GrpcCaller(server)
        self.rest = RestCaller(server, binding=1)

    def by(self, transport: str) -> Caller:
        """Return the caller for `grpc` or `rest`."""
        caller: Caller = getattr(self, transport)
        return caller

    async def wait_until_ready(self) -> None:
        """Wait until the server has its store; raises TimeoutError.

        On a busy machine the first look at a database takes longer than a call waits for it. And while a test without
        this event loop kept this process busy, the proxies before the database stood still, and nobody read the log.
        """

        async def is_ready() -> bool:
            try:
                await self.grpc.get_turn("nobody", "nothing")
            except SessionNotFound:
                return True
            except Unavailable:
                return False
            raise AssertionError("nobody has a turn")

        await until(is_ready)

    async def close(self) -> None:
        await self.grpc.close()
        await self.rest.close()


@asynccontextmanager
async def doors(*servers: ServerProcess) -> AsyncIterator[list[Door]]:
    """Connections to these servers for the length of a block."""
    opened = [Door(server) for server in servers]
    try:
        yield opened
    finally:
        for door in opened:
            await door.close()
