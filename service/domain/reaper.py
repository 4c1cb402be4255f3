"""Finds turns whose owner is gone, and takes them over (docs/turns.md, TAKE OVER).

No clock of another machine is compared: an owner is gone when its {lease, beat} has been seen unchanged for the
length of a lease on this process's own steady clock, or when it has released the turn.
"""

import asyncio
from dataclasses import dataclass

from service.domain.board import TurnBoard
from service.domain.entities import Session
from service.domain.errors import ChatError
from service.domain.log import Log
from service.domain.ports import TurnStore
from service.domain.running import TurnRunners

_SCANS_PER_LEASE = 3
_MAX_SESSIONS = 10_000


@dataclass(frozen=True, slots=True)
class _Sight:
    lease_id: str
    beat: int
    since: float


class Reaper:
    """Scans the store for running turns, three times in the length of a lease."""

    def __init__(self, store: TurnStore, runners: TurnRunners, board: TurnBoard, *, lease_s: float, log: Log) -> None:
        self._store = store
        self._runners = runners
        self._board = board
        self._lease_s = lease_s
        self._log = log
        self._seen: dict[tuple[str, str], _Sight] = {}

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            try:
                await self.scan()
            except ChatError as exc:
                self._log.debug("scan for lost turns failed", error=str(exc))
            except Exception:
                self._log.exception("scan for lost turns failed unexpectedly")
            await asyncio.sleep(self._lease_s / _SCANS_PER_LEASE)

    async def scan(self) -> None:
        """Look once at all turns that run elsewhere, and take over those whose owner is gone."""
        # Of those that run here not even the documents are read: there may be thousands.
        found = await self._store.running_sessions(_MAX_SESSIONS, but=self._board.run_here())
        sessions = [session for session in found if not self._board.runs_here(session)]
        now = asyncio.get_running_loop().time()
        seen: dict[tuple[str, str], _Sight] = {}
        for session in sessions:
            active = session.running
            if active is None:
                continue
            key = session.uid, active.turn.turn_id
            sight = self._seen.get(key)
            if sight is None or (sight.lease_id, sight.beat) != (active.lease_id, active.beat):
                sight = _Sight(active.lease_id, active.beat, now)
            seen[key] = sight
        self._seen = seen
        for session in sessions:
            if self._is_lost(session, now):
                await self._runners.take_over(session)

    def _is_lost(self, session: Session, now: float) -> bool:
        active = session.running
        sight = self._seen.get((session.uid, active.turn.turn_id)) if active else None
        if active is None or sight is None:
            return False
        return active.released or now - sight.since >= self._lease_s
