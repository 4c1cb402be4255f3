"""Admission: which sends this process takes up; the others are refused before any work is done for them.

What a busy process has not read yet waits in the transport below, where nobody sees it. So a probe goes the way that
sends go: those that are read before it is answered were waiting. While it is late, no send begins its work, so that all
are read soon. When more wait than a burst has, only a few are taken up from one answer to the next, and the others have
their answer at once; those few begin together, which costs less for each, as their writes go together.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from service.domain.errors import Committed, Overloaded, Retry
from service.domain.log import Log

# Sends on their way to their turn at the same time; more of them make none faster.
_MAX_AT_WORK = 16
# Those that are taken up, and wait or are at work.
_MAX_ARRIVING = 400
_PROBE_EVERY_S = 0.1
_PROBE_SOON_S = 0.01
# A probe that is not read for so long is late.
_LATE_S = 0.02
# With fewer sends between two probes there is nothing to measure.
_FEW_SENDS = 5
_CALM_S = 5.0


class Admission:
    """The one door through which sends come in.

    max_turns: turns that run here, and sends that may become turns. running: how many turns run here.
    clock: the time in seconds.
    """

    def __init__(self, *, max_turns: int, running: Callable[[], int], clock: Callable[[], float], log: Log) -> None:
        self._max_turns = max_turns
        self._running = running
        self._clock = clock
        self._log = log
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._at_work = 0
        self._aside = 0
        self._came = 0
        self._pace = Pace(clock())
        self._retries = Retries()
        self._refused = 0

    @property
    def is_full(self) -> bool:
        """Whether a send that comes now is refused; it is then told so by `refusal`, and does not enter."""
        waiting = len(self._waiting)
        arriving = self._at_work + waiting
        is_crowded = arriving >= _MAX_ARRIVING or self._running() + arriving + self._aside >= self._max_turns
        return is_crowded or not self._pace.has_room(waiting)

    async def enter(self) -> None:
        """Begin a send, in order of arrival, once few enough are at work; `leave` ends it. Raises Overloaded."""
        if self.is_full:
            raise self.refusal()
        self._came += 1
        self._pace.take_up()
        if self._at_work < _MAX_AT_WORK and not self._waiting and not self._pace.is_holding:
            self._at_work += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
                self._take_next()
            else:
                self._let_go()
            raise

    def leave(self) -> None:
        """A send has its turn, or never will."""
        self._pace.carried()
        self._let_go()

    def _let_go(self) -> None:
        self._at_work -= 1
        self._take_next()

    def _take_next(self) -> None:
        if not self._pace.is_holding:
            self._begin()

    def _begin(self) -> None:
        """Let as many of those who wait begin as may be at work."""
        # One that was cancelled removes itself, and takes the next.
        while self._at_work < _MAX_AT_WORK and self._waiting and not self._waiting[0].cancelled():
            self._waiting.popleft().set_result(None)
            self._at_work += 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While a send waits for another turn of its session, and costs nothing."""
        self._let_go()
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            self._at_work += 1

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Send the probe again and again, while there is something to measure, until cancelled."""
        try:
            while True:
                before = self._came
                await asyncio.sleep(_PROBE_SOON_S if self._pace.is_limited or self._waiting else _PROBE_EVERY_S)
                if self._came - before < _FEW_SENDS and not self._waiting and not self._pace.is_limited:
                    self._pace.measure(self._clock(), 0)
                else:
                    await self._measure(probe)
        finally:
            # Without a probe only the bounds hold.
            self._pace = Pace(self._clock())
            self._begin()

    async def _measure(self, probe: Callable[[], Awaitable[None]]) -> None:
        before, waiting, sent_at = self._came, len(self._waiting), self._clock()
        probing = asyncio.ensure_future(probe())
        try:
            while not probing.done():
                await asyncio.wait((probing,), timeout=_LATE_S)
                now = self._clock()
                # Those that have been read since may wait now, and are not to be counted again.
                self._pace.measure(now, waiting + self._came - before, unread_s=now - sent_at)
                if self._pace.is_flooded or not self._pace.is_holding:
                    self._begin()
            probing.result()
            self._pace.probe_was_read()
            self._begin()
        finally:
            probing.cancel()

    def refusal(self) -> Overloaded:
        """Return what one who has come and is refused is told."""
        self._came += 1
        self._pace.refuse(self._clock())
        if not self._refused:
            self._log.warning("overloaded: sends are refused", running=self._running(), aside=self._aside)
            asyncio.get_running_loop().call_later(_CALM_S, self._look_for_calm, 0)
        self._refused += 1
        error = Overloaded(
            "more messages come in than this process can take up",
            retry_delay_s=self._retries.delay_s(self._clock(), self._pace.per_s),
        )
        return error.of_send(Committed.FALSE, Retry.SAME_REQUEST)

    def _look_for_calm(self, refused_before: int) -> None:
        if self._refused > refused_before:
            asyncio.get_running_loop().call_later(_CALM_S, self._look_for_calm, self._refused)
            return
        self._log.warning("no longer overloaded", refused=self._refused)
        self._refused = 0


class Pace:
    """How many sends are taken up.

    All that come, until more wait than a burst has. Then only as many as are carried in a moment, of all that are read
    until the probe is, and none while that is late: so the others are read soon, and few wait. When there are too many
    even to refuse, and so the probe is not read for long, still one of some, which leaves sends about half of the time.
    All again once none had to be refused for a while.

    is_limited: not all are taken up.
    is_flooded: the probe is not read for long.
    """

    _BURST, _FEW = 300, 32
    _MOMENT_S, _CALM_S = 0.05, 2.0
    # Fewer in a moment cost more probes than they are worth.
    _LEAST = 8
    _ONE_OF = 8
    _LEAST_PER_S = 10.0
    # How long sends stand still for the others to be read. There are too many to refuse if that is not enough.
    _HOLDS_S = 0.25
    # Times over which rates are measured, and in which the best rate is forgotten.
    _MEAN_S, _MEMORY_S = 0.5, 60.0

    def __init__(self, now: float) -> None:
        self.is_limited = self.is_flooded = self._is_late = False
        self._carried_per_s = self._best_per_s = 0.0
        self._carried = self._taken_up = self._refused_in_a_row = 0
        self._measured_at = self._refused_at = now

    @property
    def per_s(self) -> float:
        """How many have been carried in a second, at the best of the last minute: in a flood it is less."""
        return max(self._LEAST_PER_S, self._best_per_s)

    @property
    def is_holding(self) -> bool:
        """Whether those that are taken up wait until the probe is read, and then begin together."""
        return self.is_limited or self._is_late

    def has_room(self, waiting: int) -> bool:
        """Whether a send that has come now can be taken up, while so many that were taken up before wait."""
        if not self.is_limited:
            return True
        if waiting >= self._FEW or self._is_late:
            return False
        if self.is_flooded:
            return self._refused_in_a_row >= self._ONE_OF - 1
        return self._taken_up < max(self._LEAST, self.per_s * self._MOMENT_S)

    def take_up(self) -> None:
        """Take one up for which there is room."""
        self._taken_up += 1
        self._refused_in_a_row = 0

    def refuse(self, now: float) -> None:
        """Take one not up."""
        self._refused_at = now
        self._refused_in_a_row += 1

    def carried(self) -> None:
        """One more has its turn."""
        self._carried += 1

    def probe_was_read(self) -> None:
        """All who waited before it have been read."""
        self._taken_up = 0
        self._is_late = self.is_flooded = False

    def measure(self, now: float, waiting: int, *, unread_s: float = 0.0) -> None:
        """Learn what was carried since the last time, and how many wait, be they read or not.

        unread_s: how long the probe has been on its way.
        """
        self.is_flooded = unread_s > self._HOLDS_S
        self._is_late = unread_s >= _LATE_S and not self.is_flooded
        passed_s = now - self._measured_at
        if passed_s <= 0:
            return
        weight = 1 - math.exp(-passed_s / self._MEAN_S)
        self._carried_per_s += weight * (self._carried / passed_s - self._carried_per_s)
        self._best_per_s = max(self._carried_per_s, self._best_per_s * math.exp(-passed_s / self._MEMORY_S))
        self._measured_at, self._carried = now, 0
        if not self.is_limited and waiting > self._BURST:
            self.is_limited = True
            self._refused_at = now
        elif self.is_limited and waiting <= self._BURST and now - self._refused_at > self._CALM_S:
            self.is_limited = False


class Retries:
    """When those who were refused are to come again: one after the other, as fast as sends are taken up.

    That is a queue which stands at the callers and costs nothing here. Beyond its end they are spread at random.
    """

    _LEAST_S, _MOST_S = 1.0, 30.0

    def __init__(self) -> None:
        self._last_at = 0.0

    def delay_s(self, now: float, per_s: float) -> float:
        """Return the delay of the next one who is refused."""
        self._last_at = max(self._last_at, now + self._LEAST_S) + 1 / per_s
        if self._last_at <= now + self._MOST_S:
            return self._last_at - now
        self._last_at = now + self._MOST_S
        return random.uniform(self._MOST_S / 2, self._MOST_S)
