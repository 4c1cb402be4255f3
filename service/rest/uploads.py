"""A request's body in pieces, while it comes, and at the same time watched for the end of its connection."""

import asyncio
from collections.abc import AsyncGenerator

from service.rest.exchange import BODY_PASSED_ON, Exchange
from service.rest.guard import Cut, Guard, Message


class Upload:
    """Reads a body for an RPC that takes it piece by piece; not faster than that takes them.

    What ends it early, ends the guard: the client leaves, sends too much, or nothing for too long.
    """

    def __init__(self, exchange: Exchange, timeout_s: float | None) -> None:
        self.guard = Guard(self._receive, timeout_s)
        self._exchange = exchange
        self._limits = exchange.limits
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._passed_on = exchange.extension(BODY_PASSED_ON).get("tell", _ignore)
        self._size = 0
        if exchange.body_is_read:
            self._pieces.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces, none of them empty."""
        while (piece := await self._pieces.get()) is not None:
            if piece:
                yield piece

    async def _receive(self) -> Message:
        """Take the next event of ASGI, for the guard."""
        if self._exchange.body_is_read:
            return await self._exchange.receive()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                event = await self._exchange.receive()
        except TimeoutError:
            self.guard.cut(Cut.SLOW)
            return {"type": "http.disconnect"}
        if event["type"] == "http.request":
            await self._take(event.get("body", b""), more=event.get("more_body", False))
        return event

    async def _take(self, piece: bytes, *, more: bool) -> None:
        self._size += len(piece)
        self._exchange.body_bytes = self._size
        if self._size > self._limits.max_upload_bytes:
            self.guard.cut(Cut.TOO_LARGE)
            return
        self._exchange.body_is_read = not more
        await self._pieces.put(piece)
        self._passed_on(len(piece))
        if not more:
            await self._pieces.put(None)


def _ignore(_size: int) -> None:
    """The server does not count."""
