"""Calls from clients to processes: they take time, lose their answers when a process dies, and may be given up."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any

from service.domain.errors import ChatError
from tests.simulation.clock import Clock, SimLoop, ticks
from tests.simulation.ledger import Ledger
from tests.simulation.process import Emit, SimProcess

Work = Callable[[SimProcess, Emit], Coroutine[Any, Any, Any]]


class ConnectionLost(Exception):
    """The process is gone, or was never reached."""


class Rpc:
    """One call under way. `items` holds what has arrived and nobody took yet; iterate or `result()`."""

    def __init__(self, clock: Clock, loop: SimLoop, rng: Random, ledger: Ledger, process: SimProcess) -> None:
        self._clock = clock
        self._loop = loop
        self._rng = rng
        self._ledger = ledger
        self._process = process
        self._task: asyncio.Task[Any] | None = None
        self._way_back: deque[Callable[[], None]] = deque()
        self._is_left = False
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.items: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def start(self, work: Work) -> None:
        """Send the call on its way."""
        self._process.on_death.append(self._died)
        self._clock.post(self._delay(), lambda: self._arrive(work))

    def leave(self) -> None:
        """Give the call up; the process learns of it."""
        self._is_left = True
        self._clock.post(self._delay(), self._cancel)

    def _arrive(self, work: Work) -> None:
        process = self._process
        if not process.is_alive:
            self._died()
        elif not self._is_left:
            process.loop.take(0, 0.0, self._rng.random(), lambda: self._run(work))

    def _run(self, work: Work) -> None:
        coro = work(self._process, self._emit)
        self._task = self._process.loop.create_task(coro, context=Context())
        self._task.add_done_callback(self._finished)

    def _cancel(self) -> None:
        if self._task is not None and self._process.is_alive:
            self._process.loop.take(0, 0.0, self._rng.random(), self._task.cancel)

    def _emit(self, kind: str, item: Any) -> None:
        self._send(lambda: self.items.put_nowait((kind, item)))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            result = task.result()
            self._send(lambda: self._answered(lambda: self.answer.set_result(result)))
            return
        if not isinstance(error, ChatError):
            self._ledger.fail(f"a call failed unexpectedly: {error!r}")
        self._send(lambda: self._answered(lambda: self.answer.set_exception(error)))

    def _answered(self, settle: Callable[[], None]) -> None:
        if not self.answer.done():
            settle()
            self.items.put_nowait(("over", None))

    def _died(self) -> None:
        self._send(lambda: self._answered(lambda: self.answer.set_exception(ConnectionLost())))

    def _send(self, deliver: Callable[[], None]) -> None:
        """Deliver to the client, after what was sent before."""
        self._way_back.append(deliver)
        self._clock.post(self._delay(), lambda: self._way_back.popleft()(), self._loop)

    def _delay(self) -> int:
        return self._rng.choice((1, 1, 1, 2, 3, ticks(0.1)))
