"""A model that is loaded behind the start of the service."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing

from service.domain.errors import ModelUnavailable
from service.domain.ports import ChatModel, Finish, ModelRequest

Load = Callable[[AsyncExitStack], Awaitable[ChatModel]]
"""Makes the model, and puts what closes it on the stack."""


class LateModel:
    """A ChatModel over one that is loaded later: calls wait for it. A load that failed is tried again by the next."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._opened = AsyncExitStack()
        self._loading: asyncio.Task[None] | None = None
        self._model: ChatModel | None = None
        self._closed = False

    async def open(self) -> None:
        """Load the model."""
        if self._closed:
            raise ModelUnavailable("the connection to the model provider is closed")
        if self._loading is None or (self._loading.done() and self._model is None):
            self._loading = asyncio.create_task(self._open())
        # One caller that leaves must not end the loading for the others.
        await asyncio.shield(self._loading)

    async def _open(self) -> None:
        self._model = await self._load(self._opened)

    async def close(self) -> None:
        """Close the model."""
        self._closed = True
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        await self._opened.aclose()

    def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        """Return what the model yields."""
        return self._model.stream(request) if self._model is not None else self._stream_later(request)

    async def _stream_later(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        await self.open()
        assert self._model is not None
        async with aclosing(self._model.stream(request)) as pieces:
            async for piece in pieces:
                yield piece
