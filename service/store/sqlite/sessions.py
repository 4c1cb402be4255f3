"""Sessions as their owners manage them."""

from datetime import datetime
from typing import Final

from service.domain.entities import Session
from service.store.documents import RUNNING
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import (
    COLUMNS,
    INSERT_SESSION,
    KEY,
    duration_ms,
    folded_column,
    key_row,
    labels_column,
    optional_ms,
    session_column,
    session_of,
    session_row,
    to_ms,
)

_INSERT: Final = f"{INSERT_SESSION} ON CONFLICT (session_id) DO NOTHING RETURNING 1"
_UPDATE: Final = (
    "UPDATE sessions SET title = ?, folded_title = ?, labels = ?, doc = ?, expire_time = ?, idle_ttl = ?,"
    f" idle_since = ?, settings_version = ?, update_time = ?, look_at = ?"
    f" WHERE {KEY} AND settings_version = ? AND deleted_at IS NULL AND NOT purging RETURNING {COLUMNS}"
)
_DELETE: Final = (
    "UPDATE sessions SET deleted_at = ?, look_at = ?,"
    f" active_cancel = CASE WHEN active_state = '{RUNNING}' THEN 1 ELSE active_cancel END"
    f" WHERE {KEY} AND fence = ? AND settings_version = ? AND (active_state IS '{RUNNING}') = ? AND deleted_at IS NULL"
    f" AND NOT purging RETURNING {COLUMNS}"
)
_UNDELETE: Final = (
    f"UPDATE sessions SET deleted_at = NULL, idle_since = ?, look_at = ? WHERE {KEY} AND deleted_at = ? AND NOT purging"
    f" RETURNING {COLUMNS}"
)


class SqliteSessions(SqliteDatabase):
    """What a SessionStore has for the managing of sessions."""

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken."""
        return bool(await self._write(_INSERT, session_row(session)))

    async def update_session(self, session: Session, changed: Session) -> Session | None:
        """Set the settings of `changed`: if their version is as in `session`, and it is neither deleted nor purging."""
        new = (
            changed.title,
            folded_column(changed),
            labels_column(changed),
            session_column(changed),
            optional_ms(changed.expire_time),
            duration_ms(changed.idle_ttl),
            optional_ms(changed.idle_since),
            changed.settings_version,
            to_ms(changed.update_time),
            optional_ms(changed.look_at),
        )
        rows = await self._write(_UPDATE, (*new, *key_row(session.key), session.settings_version))
        return session_of(rows[0]) if rows else None

    async def delete(self, session: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        """Set deleted_at and the cancel flag of a running turn: if it is as in `session`."""
        as_read = (*key_row(session.key), session.fence, session.settings_version, session.running is not None)
        rows = await self._write(_DELETE, (to_ms(deleted_at), to_ms(look_at), *as_read))
        return session_of(rows[0]) if rows else None

    async def undelete(self, session: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        """Unset deleted_at: if it is as in `session`, and the session is not purging."""
        if session.deleted_at is None:
            return None
        as_read = (*key_row(session.key), to_ms(session.deleted_at))
        rows = await self._write(_UNDELETE, (to_ms(idle_since), optional_ms(look_at), *as_read))
        return session_of(rows[0]) if rows else None
