"""Virtual time, and event loops that live in it: one loop for each simulated process, all in one thread.

Time is counted in ticks and jumps from one event to the next. Each loop keeps what asyncio promises: callbacks run in
the order of `call_soon`, timers in the order of their time, input before timers. What it leaves open is drawn: the
order of inputs at the same tick, and of different loops. A coarse tick makes such coincidences frequent, e.g. an answer
and a time-out at once. Loops influence each other only through posted events, so no order between them is invented.

A loop may be paused (SIGSTOP: its events wait) and killed (nothing of it runs any more, not even a `finally`).
"""

import asyncio
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heappop, heappush
from random import Random
from typing import Any

TICKS_PER_S = 128
_MAX_STEPS = 300_000
_INPUT, _TIMER = 0, 1
# Tick, kind, the timer's time, a drawn number, a count that no two share; what stands behind it is never compared.
_Entry = tuple[int, int, float, float, int, "SimLoop | None", Callable[[], object]]


class Stuck(Exception):
    """Work that never ends."""


def ticks(seconds: float) -> int:
    """Return a span in ticks."""
    return round(seconds * TICKS_PER_S)


class Clock:
    """The time of a run, and all that is to happen."""

    def __init__(self, rng: Random) -> None:
        self.tick = 0
        self.steps = 0
        self._rng = rng
        self._heap: list[_Entry] = []
        self._seq = 0
        self._work: dict[SimLoop, None] = {}

    @property
    def now_s(self) -> float:
        """The time since the start, which no process knows."""
        return self.tick / TICKS_PER_S

    def post(self, delay: int, act: Callable[[], object], loop: "SimLoop | None" = None) -> None:
        """Have `act` happen after `delay` ticks: in the world, or as an input of a loop."""
        self._seq += 1
        heappush(self._heap, (self.tick + delay, _INPUT, 0.0, self._rng.random(), self._seq, loop, act))

    def post_timer(self, tick: int, when: float, loop: "SimLoop", act: Callable[[], object]) -> None:
        """Have a timer of a loop run out."""
        self._seq += 1
        heappush(self._heap, (max(tick, self.tick), _TIMER, when, self._rng.random(), self._seq, loop, act))

    def has_work(self, loop: "SimLoop") -> None:
        """Have a loop run its ready callbacks."""
        self._work[loop] = None

    def run(self, until: int) -> None:
        """Let everything happen that is due up to a tick, and be there afterwards."""
        heap = self._heap
        self._run_ready()
        while heap and heap[0][0] <= until:
            self.tick = heap[0][0]
            while heap and heap[0][0] == self.tick:
                entry = heappop(heap)
                loop, act = entry[5], entry[6]
                if loop is None:
                    act()
                else:
                    loop.take(entry[1], entry[2], entry[3], act)
            self._run_ready()
        self.tick = until

    def _run_ready(self) -> None:
        while self._work:
            loops = list(self._work)
            self._work.clear()
            for loop in loops:
                self.steps += loop.run_ready()
            if self.steps > _MAX_STEPS:
                raise Stuck(f"livelock: more than {_MAX_STEPS} steps by {self.now_s:.3f} s")


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that a set of tasks has the same order in every run."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], loop: "SimLoop", context: Context | None) -> None:
        self._number = number
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process.

    offset: its steady clock is this many ticks ahead. on_error: gets what asyncio would log.
    """

    def __init__(self, clock: Clock, *, offset: int, on_error: Callable[[dict[str, Any]], None]) -> None:
        self.is_alive = True
        self.is_paused = False
        self._clock = clock
        self._offset = offset
        self._on_error = on_error
        self._ready: deque[asyncio.Handle] = deque()
        self._held: list[tuple[int, float, float, int, Callable[[], object]]] = []
        self._tasks = 0

    # What asyncio asks of a loop

    def time(self) -> float:
        return (self._clock.tick + self._offset) / TICKS_PER_S

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._ready:
            self._clock.has_work(self)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        tick = math.ceil(when * TICKS_PER_S) - self._offset
        self._clock.post_timer(tick, when, self, lambda: self._ready.append(timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        self._tasks += 1
        return SimTask(self._tasks, coro, self, context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.is_alive:
            self._on_error(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays where it is and does nothing."""

    # What the clock does

    def take(self, kind: int, when: float, tie: float, act: Callable[[], object]) -> None:
        """An input or a timer is due. What a timer does is to make its callback ready."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._held.append((kind, when, tie, len(self._held), act))
            return
        if kind == _INPUT:
            self.call_soon(act)
            return
        if not self._ready:
            self._clock.has_work(self)
        act()

    def run_ready(self) -> int:
        """Run all callbacks that are ready, and those that they make ready; returns how many."""
        ready, ran = self._ready, 0
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while ready and self.is_alive and not self.is_paused:
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
                ran += 1
                if ran > _MAX_STEPS:
                    raise Stuck("a process spins without waiting")
        finally:
            events._set_running_loop(previous)
        return ran

    # What befalls a process

    def pause(self) -> None:
        """Stop the process where it is."""
        self.is_paused = True

    def resume(self) -> None:
        """Let the process go on; what came meanwhile is there, input first."""
        self.is_paused = False
        held, self._held = sorted(self._held), []
        if self._ready:
            self._clock.has_work(self)
        for kind, when, tie, _, act in held:
            self.take(kind, when, tie, act)

    def kill(self) -> None:
        """End the process without another step."""
        self.is_alive = False

    def bury(self) -> None:
        """After the run: unwind what was left lying, so that nothing is found by the garbage collector."""
        self.is_alive, self.is_paused = True, False
        self._on_error = lambda context: None
        for _ in range(20):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_ready()
        self.is_alive = False
