"""TCP proxies that fail on demand, to put between a client and its server. Loopback only."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65536
# asyncio takes about four turns of the loop from accept to the first step of the callback.
_TURNS_TO_A_TASK = 8


class Relay:
    """Takes connections to host:port, on a port of its own. An async context manager. Subclasses carry the bytes."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port to connect to; stays the same across `down` and `up`."""
        return self._port

    async def up(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and cut those there are, with what waits there."""
        server, self._server = self._server, None
        if server:
            # Not closed at once: asyncio would lose the connections that it has accepted and not yet handed over.
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await accepted_are_served()
            server.close()
        tasks = list(self._tasks)
        self.cut()
        # Until the tasks are gone a client could still be served.
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut the connections there are; new ones are taken."""
        for task in self._tasks:
            task.cancel()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.down()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes on one client's connection until one side closes; cancelled when it is cut."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self.carry(reader, writer)
        finally:
            writer.transport.abort()


class Proxy(Relay):
    """Passes bytes on until told otherwise.

    on_request: called with each piece of bytes from a client before it is passed on; True cuts this connection
        instead of passing it on.
    on_response: the same for pieces from the server: a cut here loses the answer to something that was carried out.
    rewrite_response: what is passed on in place of a piece from the server.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.on_request: Callable[[bytes], bool] = _pass_on
        self.on_response: Callable[[bytes], bool] = _pass_on
        self.rewrite_response: Callable[[bytes], bytes] = bytes
        self._held: asyncio.Event = asyncio.Event()
        self._held.set()

    def hold(self) -> None:
        """Pass nothing on, in either direction, and keep the connections."""
        self._held.clear()

    def let_go(self) -> None:
        """Pass on what was held."""
        self._held.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(
                self._pump(reader, server_writer, writer, self._request),
                self._pump(server_reader, writer, server_writer, self._response),
            )
        finally:
            server_writer.transport.abort()

    def _request(self, piece: bytes) -> bytes:
        return b"" if self.on_request(piece) else piece

    def _response(self, piece: bytes) -> bytes:
        return b"" if self.on_response(piece) else self.rewrite_response(piece)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        filter_: Callable[[bytes], bytes],
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(_CHUNK_BYTES):
                await self._held.wait()
                if not (passed := filter_(piece)):
                    break
                sink.write(passed)
                await sink.drain()
        sink.transport.abort()
        back.transport.abort()


async def accepted_are_served() -> None:
    """Let connections that the system has just accepted get their tasks, so that nobody closes the loop over them."""
    for _ in range(_TURNS_TO_A_TASK):
        await asyncio.sleep(0)


def _pass_on(_: bytes) -> bool:
    return False
