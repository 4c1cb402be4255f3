"""Erases all sessions of an owner (docs/sessions.md, Erasing).

An erasure is a document that any process goes on with when it is due: whoever works on it puts that off. What is being
erased is written down, with its counts, before it begins and counted when it is gone, so that a receipt is right
whoever was killed, and where.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from random import random

from service.domain import deadline
from service.domain.checks import check_id
from service.domain.entities import CountedSession, Erasure, Principal, Session, SessionKey
from service.domain.errors import ChatError, ErasureNotFound, Overloaded
from service.domain.log import Log
from service.domain.ports import SessionStore
from service.domain.purger import Purger
from service.domain.settle import settle
from service.domain.tasks import TaskOwner

# How long other processes leave an erasure to the one that works on it.
_CLAIM = timedelta(seconds=15)
_BATCH_SESSIONS = 20
_MAX_ERASURES = 100
_TRIES = 5
_PATIENCE_S = 30.0


class _TakenOver(Exception):
    """Another process goes on with the erasure."""


class Eraser:
    """Erasures for owners, and the work on them: `run` looks every `interval_s` for those that nobody works on."""

    def __init__(
        self,
        store: SessionStore,
        purger: Purger,
        *,
        interval_s: float,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        log: Log,
    ) -> None:
        self._store = store
        self._purger = purger
        self._interval_s = interval_s
        self._now = now
        self._new_id = new_id
        self._log = log
        self._begun = asyncio.Event()

    async def begin(self, principal: Principal) -> Erasure:
        """Begin to erase all sessions that an owner has now, or return the erasure of them that is under way."""
        for _ in range(_TRIES):
            latest = await self._store.latest_erasure(principal)
            if latest is not None and latest.end_time is None:
                return latest
            now = self._now()
            erasure = Erasure(
                erasure_id=self._new_id(),
                owner=principal,
                number=latest.number + 1 if latest else 1,
                create_time=now,
                sessions_total=await self._store.count_sessions(principal, now),
                due=now,
            )
            insert = partial(self._store.insert_erasure, erasure)
            if (await settle(insert, patience_s=deadline.remaining_s(_PATIENCE_S), uncertain_only=True)).answer:
                self._begun.set()
                return erasure
        raise Overloaded("erasures of the same owner are begun too often")

    async def get(self, principal: Principal, erasure_id: str) -> Erasure:
        """Return an erasure as it stands; raises InvalidField or ErasureNotFound."""
        check_id("erasure_id", erasure_id)
        erasure = await self._store.erasure(principal, erasure_id)
        if erasure is None:
            raise ErasureNotFound(erasure_id)
        return erasure

    async def run(self) -> None:
        """Work until cancelled."""
        tasks = TaskOwner()
        try:
            while True:
                self._begun.clear()
                try:
                    for erasure in await self._store.due_erasures(self._now(), _MAX_ERASURES):
                        tasks.start(self._logged(erasure))
                except ChatError as exc:
                    self._log.debug("looking for erasures failed", error=str(exc))
                # Not in step with the other processes.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s * (0.5 + random())):
                        await self._begun.wait()
        finally:
            await tasks.cancel()

    async def _logged(self, erasure: Erasure) -> None:
        try:
            await self.go_on(erasure)
        except ChatError as exc:
            self._log.debug("erasing failed", error=str(exc))
        except Exception:
            self._log.exception("erasing failed unexpectedly")

    async def go_on(self, erasure: Erasure) -> None:
        """Bring an erasure to its end, unless another process has gone on with it. Raises StoreUnavailable."""
        with suppress(_TakenOver):
            await self._work(erasure)

    async def _work(self, erasure: Erasure) -> None:
        erasure = await self._settle_pending(await self._write(erasure))
        while True:
            found = False
            async for sessions in self._batches(erasure):
                found = True
                erasure = await self._erase(erasure, sessions)
            if not found:
                break
        # Others may have removed some of them.
        erased = max(erasure.sessions_total, erasure.sessions_erased)
        done = replace(erasure, end_time=self._now(), sessions_total=erased, sessions_erased=erased)
        await self._write(done)
        self._log.info("erased", sessions=done.sessions_erased, turns=done.turns_erased, erasure_id=done.erasure_id)

    async def _batches(self, erasure: Erasure) -> AsyncGenerator[Sequence[Session], None]:
        """Yield what is left to erase; what was imported since then is older than it looks, and stays."""
        after: Session | None = None
        while sessions := await self._store.sessions_before(
            erasure.owner, erasure.create_time, after=after, limit=_BATCH_SESSIONS
        ):
            after = sessions[-1]
            mine = [s for s in sessions if s.import_time is None or s.import_time <= erasure.create_time]
            if mine:
                yield mine

    async def _erase(self, erasure: Erasure, sessions: Sequence[Session]) -> Erasure:
        pending = tuple([CountedSession(session.key, await self._count(session)) for session in sessions])
        erasure = await self._write(replace(erasure, pending=pending))
        for session in sessions:
            if not session.purging:
                await self._purger.begin(session)
        return await self._settle_pending(erasure)

    async def _count(self, session: Session) -> int:
        """Count a session's ended turns; the newest may not be among the others yet."""
        if session.active and session.active.turn.ending:
            await settle(partial(self._store.archive, session.key, session.active.turn), patience_s=_PATIENCE_S)
        return await self._store.count_turns(session.key)

    async def _settle_pending(self, erasure: Erasure) -> Erasure:
        """Finish what was begun; what was not, because it has changed since it was counted, has its turn later."""
        if not erasure.pending:
            return erasure
        gone = [counted for counted in erasure.pending if await self._finish(counted.key)]
        return await self._write(
            replace(
                erasure,
                pending=(),
                sessions_erased=erasure.sessions_erased + len(gone),
                turns_erased=erasure.turns_erased + sum(counted.turns for counted in gone),
            )
        )

    async def _finish(self, key: SessionKey) -> bool:
        session = await self._store.session(key.owner, key.session_id)
        if session is not None and session.key == key:
            if not session.purging:
                return False
            await self._purger.finish(key)
            await self._purger.pace()
        return True

    async def _write(self, erasure: Erasure) -> Erasure:
        """Write an erasure down, and put off when others may go on with it; raises _TakenOver if they have already."""
        due = None if erasure.end_time else self._now() + _CLAIM
        changed = replace(erasure, version=erasure.version + 1, due=due)
        written = await settle(partial(self._store.update_erasure, changed), patience_s=_PATIENCE_S)
        if not written.answer:
            found = await self._store.erasure(erasure.owner, erasure.erasure_id) if written.was_uncertain else None
            if found != changed:
                raise _TakenOver
        return changed
