"""HTTP/2 frame by frame, for what no gRPC client can be made to do."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

SETTINGS = 4
PING = 6
GOAWAY = 7
ACK = 1

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LIMIT_S = 10.0


class Frame(NamedTuple):
    """One frame of stream 0."""

    kind: int
    flags: int
    payload: bytes


class Http2Connection:
    """A client's side of a connection without calls. Settings are agreed to by themselves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, frame: Frame) -> None:
        """Send a frame."""
        head = struct.pack(">I", len(frame.payload))[1:] + bytes((frame.kind, frame.flags)) + bytes(4)
        self._writer.write(head + frame.payload)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self, kind: int) -> Frame:
        """Wait for the next frame of a kind; raises IncompleteReadError if the connection ends first."""
        async with asyncio.timeout(_LIMIT_S):
            while True:
                head = await self._reader.readexactly(9)
                frame = Frame(head[3], head[4], await self._reader.readexactly(int.from_bytes(head[:3], "big")))
                if frame.kind == SETTINGS and not frame.flags & ACK:
                    await self.send(Frame(SETTINGS, ACK, b""))
                if frame.kind == kind:
                    return frame


@asynccontextmanager
async def http2_connection(target: str) -> AsyncIterator[Http2Connection]:
    """Open a connection to host:port."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = Http2Connection(reader, writer)
    try:
        writer.write(_PREFACE)
        await connection.send(Frame(SETTINGS, 0, b""))
        await connection.receive(SETTINGS)
        yield connection
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
