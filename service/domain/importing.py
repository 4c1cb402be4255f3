"""Makes sessions of exported files (docs/sessions.md, Export and import).

The file is spooled and read twice: once to check all of it, when nothing has been written, and once to write it. Its
turns come first, under a uid that nobody knows; the session comes last, and with it all at once. Before the turns comes
a purge record: should this process be lost, any purger deletes them when it is due.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO

from service.domain.checks import check_id
from service.domain.entities import Principal, PurgeRecord, Session, SessionKey, Turn
from service.domain.errors import InternalError, InvalidField, InvalidImport, Overloaded, SessionExists
from service.domain.exported import MAX_LINE_BYTES, End, read_session, read_turn
from service.domain.lifetime import LONGEST, Lifetimes
from service.domain.ports import SessionStore
from service.domain.purger import RECORD_KEPT
from service.domain.settle import settle

_IN_MEMORY_BYTES = 1024 * 1024
_BATCH_BYTES = 1024 * 1024
_BATCH_TURNS = 100
_MAX_AT_ONCE = 16
_PATIENCE_S = 30.0


class Importer:
    """Imports sessions for their owners. max_bytes: of a file."""

    def __init__(
        self,
        store: SessionStore,
        *,
        lifetimes: Lifetimes,
        max_bytes: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
        self._max_bytes = max_bytes
        self._now = now
        self._new_id = new_id
        self._under_way = 0

    async def receive(self, principal: Principal, session_id: str, pieces: AsyncIterator[bytes]) -> Session:
        """Make a session of a file that comes in pieces. session_id: for it; empty = the one in the file.

        Raises InvalidField, InvalidImport, SessionExists, Overloaded, or StoreUnavailable: then the session is there
        whole, or not at all.
        """
        if session_id:
            check_id("session_id", session_id)
        with self._place(), SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            size = 0
            async for piece in pieces:
                size += len(piece)
                if size > self._max_bytes:
                    raise InvalidField("file", f"must be at most {self._max_bytes} bytes")
                await asyncio.to_thread(file.write, piece) if size > _IN_MEMORY_BYTES else file.write(piece)
            exported, fence = await asyncio.to_thread(_check, file)
            return await self._write(self._restored(principal, session_id, exported, fence), file)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the imports that may be under way at once: each takes room on the disk."""
        if self._under_way >= _MAX_AT_ONCE:
            raise Overloaded("too many imports at once")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _restored(self, principal: Principal, session_id: str, exported: Session, fence: int) -> Session:
        now, lifetimes = self._now(), self._lifetimes
        expire_time = exported.expire_time if exported.expire_time and exported.expire_time > now else None
        if expire_time is not None:
            expire_time = min(expire_time, now + min(lifetimes.max_ttl or LONGEST, LONGEST))
        idle_ttl = exported.idle_ttl and min(exported.idle_ttl, lifetimes.max_idle_ttl or LONGEST, LONGEST)
        has_own_id = session_id in ("", exported.session_id)
        session = replace(
            exported,
            session_id=session_id or exported.session_id,
            uid=self._new_id(),
            owner=principal,
            create_time=min(exported.create_time, now),
            update_time=min(exported.update_time, now),
            expire_time=lifetimes.end(expire_time, None, now),
            idle_ttl=lifetimes.idle(idle_ttl),
            idle_since=now,
            import_time=now,
            fence=fence,
            fingerprint=exported.fingerprint if has_own_id else "",
        )
        return replace(session, look_at=lifetimes.look_at(session, now))

    async def _write(self, session: Session, file: IO[bytes]) -> Session:
        store = self._store
        if await store.session(session.owner, session.session_id):
            raise _exists(session)
        record = PurgeRecord(session.key, self._now() + RECORD_KEPT)
        await settle(partial(store.put_purge_record, record), patience_s=_PATIENCE_S)
        file.seek(0)
        while batch := await asyncio.to_thread(_next_turns, file):
            await settle(partial(store.insert_turns, session.key, batch), patience_s=_PATIENCE_S)
        inserted = await settle(partial(store.insert_session, session), patience_s=_PATIENCE_S)
        if not inserted.answer:
            found = await store.session(session.owner, session.session_id)
            if found is None or found.key != session.key:
                await self._forget_turns(session.key)
                raise _exists(session)
        dropped = await settle(partial(store.delete_purge_record, record), patience_s=_PATIENCE_S)
        if not dropped.answer and not (dropped.was_uncertain and self._now() < record.due):
            await self._undo(session)
        return session

    async def _forget_turns(self, key: SessionKey) -> None:
        while (await settle(partial(self._store.delete_turns, key, _BATCH_TURNS), patience_s=_PATIENCE_S)).answer:
            pass

    async def _undo(self, session: Session) -> None:
        """The record has come due on the way, so a purger may have taken turns of the session before it was there."""
        await settle(partial(self._store.start_purge, session, self._now()), patience_s=_PATIENCE_S)
        raise InternalError("the import took too long; repeat it")


def _check(file: IO[bytes]) -> tuple[Session, int]:
    """Read the whole file; return its session, and the highest fence in it. Raises InvalidImport."""
    file.seek(0)
    line = file.readline(MAX_LINE_BYTES + 1)
    if not line:
        raise InvalidImport(1, "is missing")
    session = read_session(line)
    digest = hashlib.sha256(line)
    number, next_seq, fence, names = 1, 1, 0, set[str]()
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        found = read_turn(number, line)
        if isinstance(found, End):
            if found.turns != number - 2:
                raise InvalidImport(number, f"counts {found.turns} turns, and there are {number - 2}")
            if found.sha256 != digest.hexdigest():
                raise InvalidImport(number, "has the checksum of another file")
            if session.last_seq != next_seq - 1:
                raise InvalidImport(1, f"says that the newest message is {session.last_seq}, and it is {next_seq - 1}")
            if file.read(1):
                raise InvalidImport(number + 1, "comes after the last")
            return session, fence
        digest.update(line)
        if found.first_seq != next_seq:
            raise InvalidImport(number, f"begins with message {found.first_seq} instead of {next_seq}")
        next_seq = found.last_seq + 1
        for name in (found.turn_id, found.request_key):
            if name in names:
                raise InvalidImport(number, "has the id or request id of a turn before")
            names.add(name)
        fence = max(fence, found.ending.fence if found.ending else 0)
    raise InvalidImport(number + 1, "is missing: the file is cut")


def _next_turns(file: IO[bytes]) -> list[Turn]:
    """Read the next turns of a checked file, a batch; none = there are no more."""
    if file.tell() == 0:
        file.readline()
    turns: list[Turn] = []
    size = 0
    while len(turns) < _BATCH_TURNS and size < _BATCH_BYTES:
        line = file.readline()
        found = read_turn(0, line)
        if isinstance(found, End):
            file.seek(-len(line), 1)
            break
        turns.append(found)
        size += len(line)
    return turns


def _exists(session: Session) -> SessionExists:
    return SessionExists(f"the session id {session.session_id!r} is taken")
