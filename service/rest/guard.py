"""Ends what a request is waiting for: when its client leaves, its deadline passes, or the server drains."""

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
TellLeaving = Callable[[Callable[[], None] | None], None]
"""Is given what to call when the client leaves, soon if it has left; None for nothing more."""


class Cut(enum.Enum):
    """Why a request was ended."""

    GONE = "the client left"
    DEADLINE = "the deadline passed"
    DRAIN = "the server drains"
    STALLED = "the client does not read"
    TOO_LARGE = "the body is too large"
    SLOW = "the body does not come"
    UNSPOKEN = "a failure has no place in what is being sent"


class Interrupted(Exception):
    """A guarded block was ended, and everything it awaited was cancelled."""

    def __init__(self, cut: Cut) -> None:
        super().__init__(cut.value)
        self.cut = cut


class Guard:
    """An `async with` block that is cancelled, and raises Interrupted, when one of the reasons comes first.

    receive: of ASGI, with the request's body already read; reading it tells that the client left.
    timeout_s: None for no limit.
    tell_leaving: tells so too, and spares the task that reads.
    """

    __slots__ = (
        "_cancelling",
        "_cut",
        "_over",
        "_receive",
        "_task",
        "_tell_leaving",
        "_timeout_s",
        "_timer",
        "_watcher",
    )

    def __init__(
        self, receive: Receive, timeout_s: float | None = None, *, tell_leaving: TellLeaving | None = None
    ) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._tell_leaving = tell_leaving
        self._watcher: asyncio.Task[None] | None = None
        self._cut: Cut | None = None
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    def cut(self, why: Cut) -> None:
        """End the block. Only the first reason counts."""
        if self._cut is None and not self._over:
            self._cut = why
            self._task.cancel()

    async def __aenter__(self) -> "Guard":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        loop = task.get_loop()
        if self._tell_leaving is None:
            self._watcher = loop.create_task(self._watch())
        else:
            self._tell_leaving(self._leave)
        if self._timeout_s is not None:
            self._timer = loop.call_later(self._timeout_s, self.cut, Cut.DEADLINE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if self._tell_leaving is not None:
            self._tell_leaving(None)
        if self._timer is not None:
            self._timer.cancel()
        self._over = True
        if self._cut is None:
            return
        cancelled_by_others = self._task.uncancel() > self._cancelling and kind is asyncio.CancelledError
        if kind is not None and not cancelled_by_others:
            raise Interrupted(self._cut) from None

    async def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while (await self._receive())["type"] != "http.disconnect":
                pass
        self._leave()

    def _leave(self) -> None:
        self.cut(Cut.GONE)
