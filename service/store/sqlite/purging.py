"""Removing sessions for good."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from service.domain.entities import PurgeRecord, Session, SessionKey
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import (
    COLUMNS,
    KEY,
    from_ms,
    key_row,
    optional_ms,
    owner_column,
    owner_of,
    session_of,
    to_ms,
)

_DUE_SESSIONS: Final = f"SELECT {COLUMNS} FROM sessions WHERE look_at <= ? ORDER BY look_at LIMIT ?"
_POSTPONE: Final = (
    f"UPDATE sessions SET look_at = ? WHERE {KEY} AND look_at IS ? AND settings_version = ? AND deleted_at IS ?"
    " AND purging = ? RETURNING 1"
)
_START_PURGE: Final = (
    "UPDATE sessions SET purging = 1, fence = fence + 1, look_at = ?, active_turn_id = NULL, active_state = NULL,"
    " active_lease_id = NULL, active_fence = NULL, active_attempt = NULL, active_beat = NULL, active_released = NULL,"
    " active_cancel = NULL, active = NULL, active_ending = NULL, active_parts = NULL"
    f" WHERE {KEY} AND fence = ? AND settings_version = ? AND deleted_at IS ? AND idle_since IS ? AND NOT purging"
    " RETURNING 1"
)
_DELETE_TURNS: Final = (
    "DELETE FROM turns WHERE rowid IN (SELECT rowid FROM turns WHERE uid = ? AND owner = ? LIMIT ?) RETURNING 1"
)
_DELETE_SESSION: Final = f"DELETE FROM sessions WHERE {KEY} AND purging RETURNING 1"
_PUT_RECORD: Final = (
    "INSERT INTO purges (session_id, uid, owner, due) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (uid) DO UPDATE SET due = excluded.due RETURNING 1"
)
_DUE_RECORDS: Final = "SELECT session_id, uid, owner, due FROM purges WHERE due <= ? ORDER BY due LIMIT ?"
_DELETE_RECORD: Final = f"DELETE FROM purges WHERE {KEY} AND due = ? RETURNING 1"


class SqlitePurging(SqliteDatabase):
    """A PurgeStore."""

    async def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        """Return sessions whose look_at has come, the longest due first."""
        return [session_of(row) for row in await self._read(_DUE_SESSIONS, (to_ms(now), limit))]

    async def postpone(self, session: Session, look_at: datetime | None) -> bool:
        """Set look_at: if it is as in `session`."""
        as_read = (
            *key_row(session.key),
            optional_ms(session.look_at),
            session.settings_version,
            optional_ms(session.deleted_at),
            session.purging,
        )
        return bool(await self._write(_POSTPONE, (optional_ms(look_at), *as_read)))

    async def start_purge(self, session: Session, look_at: datetime) -> bool:
        """Begin to remove a session: if it is as in `session`."""
        as_read = (
            *key_row(session.key),
            session.fence,
            session.settings_version,
            optional_ms(session.deleted_at),
            optional_ms(session.idle_since),
        )
        return bool(await self._write(_START_PURGE, (to_ms(look_at), *as_read)))

    async def delete_turns(self, key: SessionKey, limit: int) -> int:
        """Delete at most `limit` archived turns of a session, and return how many."""
        return len(await self._write(_DELETE_TURNS, (key.uid, owner_column(key.owner), limit)))

    async def delete_session(self, key: SessionKey) -> bool:
        """Delete the document of a session: if it is purging."""
        return bool(await self._write(_DELETE_SESSION, key_row(key)))

    async def put_purge_record(self, record: PurgeRecord) -> None:
        """Insert the record, or replace the one of the same session."""
        await self._write(_PUT_RECORD, (*key_row(record.key), to_ms(record.due)))

    async def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        """Return records whose time has come, the longest due first."""
        rows = await self._read(_DUE_RECORDS, (to_ms(now), limit))
        return [
            PurgeRecord(SessionKey(owner_of(owner), session_id, uid), from_ms(due))
            for session_id, uid, owner, due in rows
        ]

    async def delete_purge_record(self, record: PurgeRecord) -> bool:
        """Delete the record: if it is as given."""
        return bool(await self._write(_DELETE_RECORD, (*key_row(record.key), to_ms(record.due))))
