"""A real port and a client that sends bytes, for what only a socket can show."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from service.rest import Listener, ListenerLimits
from service.rest.exchange import App
from tests.rest.kit import Answer

IMPATIENT = ListenerLimits(
    max_head_bytes=4096,
    head_timeout_s=0.3,
    body_timeout_s=0.3,
    keep_alive_s=0.3,
    write_timeout_s=0.3,
    max_pipelined=4,
)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: str | bytes) -> None:
        for part in parts:
            self.writer.write(part.encode("latin-1") if isinstance(part, str) else part)
        await self.writer.drain()

    async def get(self, target: str, *headers: str) -> None:
        await self.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *headers, "", ""]))

    async def post(self, target: str, body: bytes, *headers: str) -> None:
        head = [f"POST {target} HTTP/1.1", "Host: h", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        await self.send("\r\n".join([*head, *headers, "", ""]), body)

    async def head(self) -> Answer:
        """Read the head of a response."""
        raw = (await self._within(self.reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        status, *lines = raw[:-4].split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(status.split()[1]), headers, b"")

    async def answer(self) -> Answer:
        """Read a whole response."""
        answer = await self.head()
        if "content-length" in answer.headers:
            answer.body = await self._within(self.reader.readexactly(int(answer.headers["content-length"])))
        elif answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join([chunk async for chunk in self.chunks()])
        return answer

    async def chunk(self) -> bytes:
        """Read one chunk of a body; empty at its end. Raises IncompleteReadError if it was cut."""
        size = int(await self._within(self.reader.readuntil(b"\r\n")), 16)
        data = await self._within(self.reader.readexactly(size + 2))
        return data[:-2]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Read a body to its end."""
        while data := await self.chunk():
            yield data

    async def closed(self) -> bytes:
        """Wait until the server closes, and return what came before."""
        try:
            return await self._within(self.reader.read())
        except ConnectionError:
            return b""

    def reset(self) -> None:
        """Leave without a word."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @staticmethod
    async def _within(awaitable: Any) -> bytes:
        async with asyncio.timeout(10):
            return await awaitable  # type: ignore[no-any-return]


@asynccontextmanager
async def serving(app: App, limits: ListenerLimits | None = None) -> AsyncIterator[Listener]:
    """Serve an app on a free port."""
    listener = Listener(app, port=0, limits=limits or ListenerLimits(), domain="wire.test")
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


@asynccontextmanager
async def connected(listener: Listener, **options: Any) -> AsyncIterator[Wire]:
    """Connect to a listener."""
    address = {} if "sock" in options else {"host": listener.host, "port": listener.port}
    reader, writer = await asyncio.open_connection(**address, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def wired(app: App, limits: ListenerLimits | None = None) -> AsyncIterator[Wire]:
    """Serve an app and connect to it."""
    async with serving(app, limits) as listener, connected(listener) as wire:
        yield wire


def lines(body: bytes) -> list[Any]:
    """Split newline-delimited JSON."""
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]
