"""Removes sessions for good whose time is over: turns first, the session after them (docs/sessions.md, Purging).

Any number of processes purge the same store, and each may be killed anywhere: a session that is being removed says so
itself, and whoever meets it goes on. Nothing is removed that has not been read, and judged, by this process; and only
if it is still as it was read.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from random import random

from service.domain.entities import PurgeRecord, Session, SessionKey
from service.domain.errors import ChatError
from service.domain.lifetime import Lifetimes
from service.domain.log import Log
from service.domain.ports import SessionStore
from service.domain.settle import settle

# Longer than any write can be on its way.
RECORD_KEPT = timedelta(days=1)
# How long other purgers leave a session to the one that has begun with it.
_CLAIM = timedelta(minutes=1)
_BATCH_SESSIONS = 100
_BATCH_TURNS = 500
_PATIENCE_S = 30.0


@dataclass(slots=True)
class PurgeCounts:
    """What a purger has done: sessions and turns removed, hints that were too early moved, records looked at again."""

    sessions: int = 0
    turns: int = 0
    moved: int = 0
    records: int = 0


class Purger:
    """Looks, every `interval_s`, for what is due; `rate` = most steps a second. counts: since the start."""

    def __init__(
        self,
        store: SessionStore,
        *,
        lifetimes: Lifetimes,
        interval_s: float,
        rate: float,
        now: Callable[[], datetime],
        log: Log,
    ) -> None:
        self.counts = PurgeCounts()
        self._told = PurgeCounts()
        self._store = store
        self._lifetimes = lifetimes
        self._interval_s = interval_s
        self._step_s = 1 / rate
        self._now = now
        self._log = log

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            # Not in step with the other processes.
            await asyncio.sleep(self._interval_s * (0.5 + random()))
            try:
                while await self._sweep_on():
                    self._tell()
            except ChatError as exc:
                self._log.debug("purging failed", error=str(exc))
            except Exception:
                self._log.exception("purging failed unexpectedly")
            self._tell()

    async def _sweep_on(self) -> bool:
        """Sweep for about an interval; True if there may be more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._interval_s
        while await self.sweep():
            if loop.time() >= until:
                return True
        return False

    def _tell(self) -> None:
        """Log what was done since this was last told."""
        told, self._told = self._told, replace(self.counts)
        done = {name: count - getattr(told, name) for name, count in asdict(self.counts).items()}
        if any(done.values()):
            self._log.info("purged", **done)

    async def sweep(self) -> bool:
        """Do what is due, a batch at most; True if there may be more. Raises StoreUnavailable."""
        sessions = await self._store.due_sessions(self._now(), _BATCH_SESSIONS)
        for session in sessions:
            await self._look_at(session)
            await self.pace()
        records = await self._store.due_purge_records(self._now(), _BATCH_SESSIONS)
        for record in records:
            await self._look_again(record)
            await self.pace()
        return len(sessions) == _BATCH_SESSIONS or len(records) == _BATCH_SESSIONS

    async def _look_at(self, session: Session) -> None:
        now = self._now()
        if session.purging:
            # Begun by another process, perhaps a dead one: only one of us goes on with it.
            if await self._store.postpone(session, now + _CLAIM):
                await self.finish(session.key)
            return
        due = self._lifetimes.purge_time(session)
        if due is not None and due <= now:
            await self.remove(session)
        elif await self._store.postpone(session, self._lifetimes.look_at(session, now)):
            self.counts.moved += 1

    async def remove(self, session: Session) -> int | None:
        """Remove a session for good, and return how many turns went with it; None if it is no longer as in `session`.

        What is read, and whether its time is over, is the caller's to judge. Raises StoreUnavailable: whoever comes
        next goes on with it.
        """
        return await self.finish(session.key) if await self.begin(session) else None

    async def begin(self, session: Session) -> bool:
        """Take a session away from all readers and writers, for good; False if it is no longer as in `session`."""
        begin = partial(self._store.start_purge, session, self._now() + _CLAIM)
        begun = await settle(begin, patience_s=_PATIENCE_S)
        if begun.answer or not begun.was_uncertain:
            return begun.answer
        found = await self._store.session(session.owner, session.session_id)
        return found is not None and found.key == session.key and found.purging

    async def finish(self, key: SessionKey) -> int:
        """Remove what is left of a session that nobody can see or write to any more; may be repeated at any point."""
        turns = await self._delete_turns(key)
        # Before the session goes: a copy of a turn that is still on its way would be left for ever.
        record = PurgeRecord(key, self._now() + RECORD_KEPT)
        await settle(partial(self._store.put_purge_record, record), patience_s=_PATIENCE_S)
        deleted = await settle(partial(self._store.delete_session, key), patience_s=_PATIENCE_S)
        self.counts.sessions += deleted.answer
        return turns

    async def _look_again(self, record: PurgeRecord) -> None:
        """Delete what came late; a session that is there has been imported, or is still being removed."""
        session = await self._store.session(record.key.owner, record.key.session_id)
        is_there = session is not None and session.key == record.key
        if session is not None and is_there and session.purging:
            await self._store.put_purge_record(PurgeRecord(record.key, self._now() + RECORD_KEPT))
            return
        if not is_there:
            await self._delete_turns(record.key)
        if await self._store.delete_purge_record(record):
            self.counts.records += 1

    async def _delete_turns(self, key: SessionKey) -> int:
        total = 0
        while count := (
            await settle(partial(self._store.delete_turns, key, _BATCH_TURNS), patience_s=_PATIENCE_S)
        ).answer:
            total += count
            self.counts.turns += count
            await self.pace()
        return total

    async def pace(self) -> None:
        """Wait for as long as one step may take."""
        await asyncio.sleep(self._step_s)
