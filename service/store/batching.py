"""Makes one call of many that come while another is under way, so that a busy process costs its database less."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.domain.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

# A flush that takes longer, as on a connection that is dead and does not know it, does not hold up those that wait.
_SLOW_S = 0.05


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    future: "asyncio.Future[R]"
    due: float

    def settle(self, result: R | Exception) -> None:
        if self.future.done():
            return  # the caller has left
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Batcher(Generic[T, R]):
    """Gives what is asked of it to `flush`, which returns a result, or an error to raise, for each item.

    An item that comes alone is flushed at once; those that come while a flush is under way go together in the next, up
    to `max_items`, but no two with the same key. Behind a slow one the next begins all the same, up to `max_flights` at
    a time. An item that still waits after `patience_s` is sent away with StoreUnavailable. A caller that leaves takes
    nothing back.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        key: Callable[[T], Hashable],
        patience_s: float,
        max_items: int = 128,
        max_flights: int = 8,
    ) -> None:
        self._flush = flush
        self._key = key
        self._patience_s = patience_s
        self._max_items = max_items
        self._max_flights = max_flights
        self._waiting: list[_Waiting[T, R]] = []
        self._flights = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, item: T) -> R:
        """Return the result for an item, or raise its error."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[T, R] = _Waiting(item, loop.create_future(), loop.time() + self._patience_s)
        self._waiting.append(waiting)
        if not self._flights:
            self._take_off()
        return await waiting.future

    async def calm(self) -> None:
        """Return when the flush that began last is over or slow; at once if none is under way."""
        await self._calm.wait()

    def _relieve(self) -> None:
        """A flush is slow: start another for those that wait."""
        self._calm.set()
        if self._waiting and self._flights < self._max_flights:
            self._take_off()

    def _take_off(self) -> None:
        self._flights += 1
        # In a context of its own: no caller's deadline is that of the others.
        task = asyncio.get_running_loop().create_task(self._fly(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self) -> None:
        try:
            await self._flush_all()
        finally:
            # At once: who comes from now on has to start a flight.
            self._flights -= 1

    async def _flush_all(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            slow = asyncio.get_running_loop().call_later(_SLOW_S, self._relieve)
            self._calm.clear()
            try:
                results = await self._flush([waiting.item for waiting in batch]) if batch else ()
            except BaseException:
                for waiting in batch:
                    waiting.future.cancel()
                raise
            finally:
                self._calm.set()
                slow.cancel()
            for waiting, result in zip(batch, results, strict=True):
                waiting.settle(result)

    def _next_batch(self) -> "list[_Waiting[T, R]]":
        """Take the oldest items that may go together."""
        now = asyncio.get_running_loop().time()
        batch: dict[Hashable, _Waiting[T, R]] = {}
        later = []
        for waiting in self._waiting:
            if waiting.due < now:
                waiting.settle(StoreUnavailable("the database is too slow"))
            elif len(batch) < self._max_items and (key := self._key(waiting.item)) not in batch:
                batch[key] = waiting
            else:
                later.append(waiting)
        self._waiting = later
        return list(batch.values())

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def outcome(call: Awaitable[R]) -> R | Exception:
    """Return what a call returns or raises."""
    try:
        return await call
    except Exception as exc:
        return exc
