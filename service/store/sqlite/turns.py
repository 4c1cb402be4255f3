"""The turns of sessions: what docs/turns.md asks of a store."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from service.domain.entities import Active, Ending, Principal, Session, SessionKey, Turn, TurnTexts
from service.domain.ports import Lease, TurnKey
from service.store.documents import ENDED, RUNNING, ending_to_doc
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import (
    COLUMNS,
    COLUMNS_BUT_PARTS,
    KEY,
    active_row,
    insert_turns,
    key_row,
    owner_column,
    part_line,
    session_of,
    to_json,
    to_ms,
    turn_of,
    turn_row,
)

_HELD: Final = f"{KEY} AND active_turn_id = ? AND active_lease_id = ? AND active_state = '{RUNNING}'"

_SESSION: Final = f"SELECT {COLUMNS} FROM sessions WHERE session_id = ? AND owner = ?"
_RUNNING_SESSIONS: Final = (
    f"SELECT session_id, owner, uid, active_turn_id FROM sessions WHERE active_state = '{RUNNING}' LIMIT ?"
)
_ACCEPT: Final = (
    "UPDATE sessions SET fence = ?, update_time = ?, active_turn_id = ?, active_state = ?, active_lease_id = ?,"
    " active_fence = ?, active_attempt = ?, active_beat = ?, active_released = ?, active_cancel = ?, active = ?,"
    " active_ending = ?, active_parts = ?"
    f" WHERE {KEY} AND fence = ? AND settings_version = ? AND deleted_at IS NULL AND NOT purging"
    " AND (expire_time IS NULL OR expire_time > ?) RETURNING 1"
)
# A part is one line of JSON, so that it can be appended.
_CHECKPOINT: Final = (
    "UPDATE sessions SET active_beat = active_beat + 1, active_parts = active_parts || ?"
    f" WHERE {_HELD} AND active_beat = ? RETURNING {COLUMNS_BUT_PARTS}"
)
_RELEASE: Final = (
    "UPDATE sessions SET active_beat = active_beat + 1, active_parts = active_parts || ?, active_released = 1"
    f" WHERE {_HELD} AND active_beat = ? RETURNING 1"
)
_END: Final = (
    f"UPDATE sessions SET active_state = '{ENDED}', active_ending = ?, last_seq = ?, active_parts = '',"
    f" update_time = ?, idle_since = ? WHERE {_HELD} RETURNING 1"
)
_TAKE_OVER: Final = (
    "UPDATE sessions SET fence = ?, active_fence = ?, active_lease_id = ?, active_attempt = ?, active_beat = 0,"
    f" active_released = 0 WHERE {_HELD} AND active_beat = ? RETURNING {COLUMNS}"
)
_CANCEL: Final = (
    "UPDATE sessions SET active_cancel = 1"
    f" WHERE {KEY} AND active_turn_id = ? AND active_state = '{RUNNING}' RETURNING 1"
)
_ARCHIVE: Final = insert_turns(1)
_TURN_BY_REQUEST: Final = "SELECT doc FROM turns WHERE uid = ? AND request_key = ? AND owner = ?"
_TURN_BY_ID: Final = "SELECT doc FROM turns WHERE uid = ? AND turn_id = ? AND owner = ?"
_TURNS: Final = (
    "SELECT doc FROM turns WHERE uid = ? AND owner = ? AND first_seq BETWEEN ? AND ? ORDER BY first_seq {} LIMIT ?"
)
_OLDEST_FIRST: Final = _TURNS.format("ASC")
_NEWEST_FIRST: Final = _TURNS.format("DESC")


class SqliteTurns(SqliteDatabase):
    """A TurnStore."""

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""
        rows = await self._read(_SESSION, (session_id, owner_column(owner)))
        return session_of(rows[0]) if rows else None

    async def running_sessions(self, limit: int, *, but: Collection[TurnKey] = ()) -> Sequence[Session]:
        """Return sessions that have a RUNNING turn, but not those turns, at most `limit`, in no order."""
        running = await self._read(_RUNNING_SESSIONS, (limit + len(but),))
        others = [(session_id, owner) for session_id, owner, *turn in running if tuple(turn) not in but][:limit]
        found = [row for key in others for row in await self._read(_SESSION, key)]
        return [session for session in map(session_of, found) if session.running]

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""
        rows = await self._read(_TURN_BY_REQUEST, (key.uid, request_key, owner_column(key.owner)))
        return turn_of(rows[0]) if rows else None

    async def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""
        rows = await self._read(_TURN_BY_ID, (key.uid, turn_id, owner_column(key.owner)))
        return turn_of(rows[0]) if rows else None

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to in order of first_seq."""
        sql = _NEWEST_FIRST if newest_first else _OLDEST_FIRST
        of_session = (key.uid, owner_column(key.owner))
        return [turn_of(row) for row in await self._read(sql, (*of_session, first_seq_from, first_seq_to, limit))]

    async def turn_texts(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int
    ) -> Sequence[TurnTexts]:
        """Return what was said in archived turns, newest first; a range as in `turns`."""
        turns = await self.turns(
            key, first_seq_from=first_seq_from, first_seq_to=first_seq_to, limit=limit, newest_first=True
        )
        return [turn.texts for turn in turns]

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if it is as in `session` and not deleted, purging or expired."""
        now_ms = to_ms(now)
        new = (active.fence, now_ms, *active_row(active))
        as_read = (*key_row(session.key), session.fence, session.settings_version)
        return bool(await self._write(_ACCEPT, (*new, *as_read, now_ms)))

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1; the answer's parts are left out."""
        rows = await self._write(_CHECKPOINT, (part_line(part), *_held(lease), beat))
        return session_of(rows[0]).active if rows else None

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""
        return bool(await self._write(_RELEASE, (part_line(part), *_held(lease), beat)))

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING."""
        end_ms = to_ms(ending.end_time)
        new = (to_json(ending_to_doc(ending)), ending.last_seq, end_ms, end_ms)
        return bool(await self._write(_END, (*new, *_held(lease))))

    async def archive(self, key: SessionKey, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if a turn with this first_seq, id or request key is there already."""
        return bool(await self._write(_ARCHIVE, turn_row(key, turn)))

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING."""
        active = session.active
        if active is None:
            return None
        fence = session.fence + 1
        held = _held(Lease(session.key, active.turn.turn_id, active.lease_id))
        rows = await self._write(_TAKE_OVER, (fence, fence, lease_id, active.turn.attempt + 1, *held, active.beat))
        return session_of(rows[0]) if rows else None

    async def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""
        return bool(await self._write(_CANCEL, (*key_row(key), turn_id)))


def _held(lease: Lease) -> tuple[str, ...]:
    return (*key_row(lease.key), lease.turn_id, lease.lease_id)
