"""Erasing all sessions of an owner."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from service.domain.entities import Erasure, Principal, Session, SessionKey
from service.store.documents import erasure_from_doc, erasure_to_doc
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import COLUMNS, optional_ms, owner_column, session_of, to_json, to_ms

_INSERT: Final = (
    "INSERT INTO erasures (erasure_id, owner, number, version, due, doc) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING RETURNING 1"
)
_ERASURE: Final = "SELECT doc FROM erasures WHERE erasure_id = ? AND owner = ?"
_LATEST: Final = "SELECT doc FROM erasures WHERE owner = ? ORDER BY number DESC LIMIT 1"
_DUE: Final = "SELECT doc FROM erasures WHERE due <= ? ORDER BY due LIMIT ?"
_UPDATE: Final = (
    "UPDATE erasures SET version = ?, due = ?, doc = ? WHERE erasure_id = ? AND owner = ? AND version = ? RETURNING 1"
)
_COUNT_SESSIONS: Final = "SELECT count(*) FROM sessions WHERE owner = ? AND create_time <= ?"
_SESSIONS: Final = (
    f"SELECT {COLUMNS} FROM sessions WHERE owner = ? AND create_time <= ? AND (create_time, session_id) > (?, ?)"
    " ORDER BY create_time, session_id LIMIT ?"
)
_COUNT_TURNS: Final = "SELECT count(*) FROM turns WHERE uid = ? AND owner = ?"
_FIRST_MS: Final = -(2**63)


class SqliteErasing(SqliteDatabase):
    """An ErasureStore."""

    async def insert_erasure(self, erasure: Erasure) -> bool:
        """Insert a new erasure; False if the owner has one of this number."""
        key = (erasure.erasure_id, owner_column(erasure.owner), erasure.number)
        return bool(await self._write(_INSERT, (*key, erasure.version, optional_ms(erasure.due), _doc_of(erasure))))

    async def erasure(self, owner: Principal, erasure_id: str) -> Erasure | None:
        """Return an erasure."""
        rows = await self._read(_ERASURE, (erasure_id, owner_column(owner)))
        return _erasure_of(rows[0]) if rows else None

    async def latest_erasure(self, owner: Principal) -> Erasure | None:
        """Return the owner's erasure with the highest number."""
        rows = await self._read(_LATEST, (owner_column(owner),))
        return _erasure_of(rows[0]) if rows else None

    async def due_erasures(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Return erasures whose time has come, the longest due first."""
        return [_erasure_of(row) for row in await self._read(_DUE, (to_ms(now), limit))]

    async def update_erasure(self, changed: Erasure) -> bool:
        """Replace an erasure: if it is the version before."""
        new = (changed.version, optional_ms(changed.due), _doc_of(changed))
        as_read = (changed.erasure_id, owner_column(changed.owner), changed.version - 1)
        return bool(await self._write(_UPDATE, (*new, *as_read)))

    async def count_sessions(self, owner: Principal, created_to: datetime) -> int:
        """Count the sessions with create_time <= created_to."""
        [(count,)] = await self._read(_COUNT_SESSIONS, (owner_column(owner), to_ms(created_to)))
        return int(count)

    async def sessions_before(
        self, owner: Principal, created_to: datetime, *, after: Session | None, limit: int
    ) -> Sequence[Session]:
        """Return the sessions with create_time <= created_to, by create_time and id, those behind `after`."""
        behind = (to_ms(after.create_time), after.session_id) if after else (_FIRST_MS, "")
        rows = await self._read(_SESSIONS, (owner_column(owner), to_ms(created_to), *behind, limit))
        return [session_of(row) for row in rows]

    async def count_turns(self, key: SessionKey) -> int:
        """Count the archived turns of a session."""
        [(count,)] = await self._read(_COUNT_TURNS, (key.uid, owner_column(key.owner)))
        return int(count)


def _doc_of(erasure: Erasure) -> str:
    return to_json(erasure_to_doc(erasure))


def _erasure_of(row: Sequence[Any]) -> Erasure:
    return erasure_from_doc(orjson.loads(row[0]))
