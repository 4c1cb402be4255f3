"""Saves all turns that run here and renews their leases, from one timer."""

import asyncio
from collections import deque

from service.domain.runner import TurnLimits, TurnRunner
from service.domain.tasks import TaskOwner

_AT_ONCE = 128
_PAUSE_S = 0.05
# A round goes past this many turns in a second, if they are more than fit into a beat.
_SAVED_PER_S = 500
# Shares of a lease. Together about half, so that there is time to repeat a write that fails.
_LONGEST_ROUND = 1 / 5
_LONGEST_IDLE = 1 / 3


class LeaseKeeper:
    """Goes round the turns that run here, every `beat_s`, and saves those that are due.

    Many are saved at the same moment, for the store to make one command of them. Where there are very many, a round
    is spread over a longer time, so that neither this process nor the store stands still, and turns without new text
    are passed over as long as their leases allow.
    """

    def __init__(self, tasks: TaskOwner, *, limits: TurnLimits) -> None:
        self._tasks = tasks
        self._limits = limits
        self._runners: dict[TurnRunner, None] = {}
        self._round: deque[TurnRunner] = deque()
        self._next_round_at = 0.0
        self._at_once = _AT_ONCE
        self._idle_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, runner: TurnRunner) -> None:
        """Keep a runner's lease from now on."""
        self._runners[runner] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._next_round_at = loop.time() + self._limits.beat_s
            self._timer = loop.call_at(self._next_round_at, self._tick)

    def remove(self, runner: TurnRunner) -> None:
        """Keep it no more. The timer ends by itself when it finds nothing to do."""
        self._runners.pop(runner, None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._round:
            self._begin_round(now)
        for _ in range(min(self._at_once, len(self._round))):
            runner = self._round.popleft()
            if runner.is_due(now, beat_s=self._limits.beat_s, idle_s=self._idle_s):
                runner.save(self._tasks)
        if self._round:
            self._timer = loop.call_at(now + _PAUSE_S, self._tick)
        elif self._runners:
            self._timer = loop.call_at(max(now + _PAUSE_S, self._next_round_at), self._tick)
        else:
            self._timer = None

    def _begin_round(self, now: float) -> None:
        beat_s, lease_s = self._limits.beat_s, self._limits.lease_s
        busy_s = len(self._runners) / _SAVED_PER_S
        round_s = max(beat_s, min(busy_s, lease_s * _LONGEST_ROUND))
        self._idle_s = max(beat_s, min(busy_s, lease_s * _LONGEST_IDLE))
        self._next_round_at = now + round_s
        self._round.extend(self._runners)
        ticks = int(round_s / _PAUSE_S) if busy_s > beat_s else 1
        self._at_once = max(_AT_ONCE, -(-len(self._round) // ticks))
