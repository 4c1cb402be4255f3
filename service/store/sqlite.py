"""Sessions in a SQLite file; the only module that knows aiosqlite. Several processes may share the file.

Each write is one autocommit statement whose RETURNING rows are fetched to the end in one go in the connection's
thread: a cancelled await leaves nothing half done, the statement then runs (or has run) to its end all the same.
SQLite tells for sure whether a statement was applied; only a failing disk leaves it open.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiosqlite
import orjson

from service.domain.deadline import remaining_s
from service.domain.entities import Active, Ending, Session, Turn
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ports import Lease
from service.store.documents import (
    ENDED,
    RUNNING,
    active_to_doc,
    ending_to_doc,
    session_from_doc,
    session_to_doc,
    turn_from_doc,
    turn_to_doc,
)

SCHEMA_VERSION: Final = 1

# What conditions test and what changes during a turn are columns, small ones first, so that a row's long texts are
# read only when asked for. `doc` and `active` hold the rest of the documents as JSON. Times are Unix milliseconds.
_SCHEMA: Final = (
    """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        fence INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        expire_time INTEGER,
        deleted_at INTEGER,
        purging INTEGER NOT NULL,
        active_turn_id TEXT,
        active_state TEXT,
        active_lease_id TEXT,
        active_fence INTEGER,
        active_attempt INTEGER,
        active_beat INTEGER,
        active_released INTEGER,
        active_cancel INTEGER,
        doc TEXT NOT NULL,
        active TEXT,
        active_ending TEXT,
        active_parts TEXT
    )""",
    # Holds running sessions only.
    f"CREATE INDEX sessions_running ON sessions (session_id) WHERE active_state = '{RUNNING}'",
    """
    CREATE TABLE turns (
        uid TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        turn_id TEXT NOT NULL,
        request_key TEXT NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (uid, first_seq),
        UNIQUE (uid, request_key),
        UNIQUE (uid, turn_id)
    )""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_COLUMNS: Final = (
    "session_id, uid, fence, last_seq, update_time, expire_time, deleted_at, purging, active_turn_id, active_state,"
    " active_lease_id, active_fence, active_attempt, active_beat, active_released, active_cancel, doc, active,"
    " active_ending, active_parts"
)
_COLUMNS_BUT_PARTS: Final = _COLUMNS.replace("active_parts", "''")
_HELD: Final = (
    "session_id = ? AND uid = ? AND active_turn_id = ? AND active_lease_id = ?"
    f" AND active_state = '{RUNNING}'"
)  # fmt: skip

_PING: Final = "UPDATE sessions SET fence = fence WHERE session_id = '' RETURNING 1"
_INSERT_SESSION: Final = (
    f"INSERT INTO sessions ({_COLUMNS}) VALUES (?{', ?' * _COLUMNS.count(',')})"
    " ON CONFLICT (session_id) DO NOTHING RETURNING 1"
)
_SESSION: Final = f"SELECT {_COLUMNS} FROM sessions WHERE session_id = ?"
_RUNNING_SESSIONS: Final = f"SELECT {_COLUMNS} FROM sessions WHERE active_state = '{RUNNING}' LIMIT ?"
_ACCEPT: Final = (
    "UPDATE sessions SET fence = ?, update_time = ?, active_turn_id = ?, active_state = ?, active_lease_id = ?,"
    " active_fence = ?, active_attempt = ?, active_beat = ?, active_released = ?, active_cancel = ?, active = ?,"
    " active_ending = ?, active_parts = ?"
    " WHERE session_id = ? AND uid = ? AND fence = ? AND deleted_at IS NULL AND NOT purging"
    " AND (expire_time IS NULL OR expire_time > ?) RETURNING 1"
)
# A part is one line of JSON, so that it can be appended.
_CHECKPOINT: Final = (
    "UPDATE sessions SET active_beat = active_beat + 1, active_parts = active_parts || ?"
    f" WHERE {_HELD} AND active_beat = ? RETURNING {_COLUMNS_BUT_PARTS}"
)
_RELEASE: Final = (
    "UPDATE sessions SET active_beat = active_beat + 1, active_parts = active_parts || ?, active_released = 1"
    f" WHERE {_HELD} AND active_beat = ? RETURNING 1"
)
_END: Final = (
    f"UPDATE sessions SET active_state = '{ENDED}', active_ending = ?, last_seq = ?, active_parts = ''"
    f" WHERE {_HELD} RETURNING 1"
)
_TAKE_OVER: Final = (
    "UPDATE sessions SET fence = ?, active_fence = ?, active_lease_id = ?, active_attempt = ?, active_beat = 0,"
    f" active_released = 0 WHERE {_HELD} AND active_beat = ? RETURNING {_COLUMNS}"
)
_CANCEL: Final = (
    "UPDATE sessions SET active_cancel = 1"
    f" WHERE session_id = ? AND uid = ? AND active_turn_id = ? AND active_state = '{RUNNING}' RETURNING 1"
)
_ARCHIVE: Final = (
    "INSERT INTO turns (uid, first_seq, turn_id, request_key, doc) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING RETURNING 1"
)
_TURN_BY_REQUEST: Final = "SELECT doc FROM turns WHERE uid = ? AND request_key = ?"
_TURN_BY_ID: Final = "SELECT doc FROM turns WHERE uid = ? AND turn_id = ?"
_TURNS: Final = "SELECT doc FROM turns WHERE uid = ? AND first_seq BETWEEN ? AND ? ORDER BY first_seq {} LIMIT ?"
_OLDEST_FIRST: Final = _TURNS.format("ASC")
_NEWEST_FIRST: Final = _TURNS.format("DESC")

_SURELY_NOT_APPLIED: Final = {
    sqlite3.SQLITE_BUSY: "the database file is locked",
    sqlite3.SQLITE_LOCKED: "the database file is locked",
    sqlite3.SQLITE_PROTOCOL: "the database file is locked",
    sqlite3.SQLITE_FULL: "the database's disk is full",
    sqlite3.SQLITE_READONLY: "the database file may not be written",
    sqlite3.SQLITE_PERM: "the database file may not be used",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_NOMEM: "no memory left for the database",
}
_BUSY_STEP_S: Final = 0.1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class UnusableFile(Exception):
    """The file cannot be this service's database; the message says why. Raised at start only."""


class SqliteStore:
    """A SessionStore in one file on a local disk, or in memory (`:memory:`, one process, gone with `close`)."""

    def __init__(self, path: str, *, operation_timeout_s: float = 5.0) -> None:
        if operation_timeout_s <= 0:
            raise ValueError("operation_timeout_s must be positive")
        self._path = path
        self._operation_timeout_s = operation_timeout_s
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Open the file, and make it and its tables if need be; raises UnusableFile."""
        in_memory = self._path == ":memory:"
        try:
            self._writer = await _connect(self._path)
            if not in_memory:
                await _use_wal(self._writer, self._operation_timeout_s)
            await _migrate(self._writer)
            # In WAL mode readers wait for nobody; a second connection keeps reads from queueing behind synced writes.
            self._reader = self._writer if in_memory else await _connect(self._path)
        except BaseException as exc:
            await self.close()
            if isinstance(exc, sqlite3.Error):
                raise UnusableFile(f"SQLite file {self._path!r}: {_reason(self._path, exc)}") from exc
            raise

    async def close(self) -> None:
        """Close the file, after what is under way; may be called twice."""
        connections = {id(c): c for c in (self._reader, self._writer) if c is not None}
        self._reader = self._writer = None
        for connection in connections.values():
            with suppress(sqlite3.Error):
                await connection.close()

    async def ping(self) -> None:
        """Return if the store answers and may be written; raises StoreUnavailable."""
        await self._write(_PING, ())

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken."""
        return bool(await self._write(_INSERT_SESSION, _session_row(session)))

    async def session(self, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""
        rows = await self._read(_SESSION, (session_id,))
        return _session(rows[0]) if rows else None

    async def running_sessions(self, limit: int) -> Sequence[Session]:
        """Return sessions that have a RUNNING turn, at most `limit`, in no order."""
        return [_session(row) for row in await self._read(_RUNNING_SESSIONS, (limit,))]

    async def turn_by_request(self, uid: str, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""
        rows = await self._read(_TURN_BY_REQUEST, (uid, request_key))
        return _turn(rows[0]) if rows else None

    async def turn_by_id(self, uid: str, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""
        rows = await self._read(_TURN_BY_ID, (uid, turn_id))
        return _turn(rows[0]) if rows else None

    async def turns(
        self, uid: str, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to in order of first_seq."""
        sql = _NEWEST_FIRST if newest_first else _OLDEST_FIRST
        return [_turn(row) for row in await self._read(sql, (uid, first_seq_from, first_seq_to, limit))]

    async def accept(self, session_id: str, uid: str, fence: int, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if its fence is `fence` and it is not deleted, purging or expired."""
        now_ms = _to_ms(now)
        new = (active.fence, now_ms, *_active_row(active))
        return bool(await self._write(_ACCEPT, (*new, session_id, uid, fence, now_ms)))

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1; the answer's parts are left out."""
        rows = await self._write(_CHECKPOINT, (_line(part), *_held(lease), beat))
        return _session(rows[0]).active if rows else None

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""
        return bool(await self._write(_RELEASE, (_line(part), *_held(lease), beat)))

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING."""
        return bool(await self._write(_END, (_to_json(ending_to_doc(ending)), ending.last_seq, *_held(lease))))

    async def archive(self, uid: str, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if a turn with this first_seq, id or request key is there already."""
        doc = _to_json(turn_to_doc(uid, turn))
        return bool(await self._write(_ARCHIVE, (uid, turn.first_seq, turn.turn_id, turn.request_key, doc)))

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING."""
        active = session.active
        if active is None:
            return None
        fence = session.fence + 1
        held = (session.session_id, session.uid, active.turn.turn_id, active.lease_id)
        rows = await self._write(_TAKE_OVER, (fence, fence, lease_id, active.turn.attempt + 1, *held, active.beat))
        return _session(rows[0]) if rows else None

    async def request_cancel(self, session_id: str, uid: str, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""
        return bool(await self._write(_CANCEL, (session_id, uid, turn_id)))

    async def _read(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._run(self._reader, sql, parameters, StoreUnavailable)

    async def _write(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._run(self._writer, sql, parameters, StoreUncertain)

    async def _run(
        self,
        connection: aiosqlite.Connection | None,
        sql: str,
        parameters: Sequence[Any],
        on_disk_error: type[StoreUnavailable],
    ) -> list[tuple[Any, ...]]:
        if connection is None:
            raise StoreUnavailable("the database is closed")
        due = time.monotonic() + remaining_s(self._operation_timeout_s)
        try:
            return list(await connection.execute_fetchall(sql, _Parameters(parameters, due)))  # type: ignore[arg-type]
        except _Late as exc:
            raise StoreUnavailable("the database is too slow") from exc
        except sqlite3.Error as exc:
            code = _code(exc)
            if code in _SURELY_NOT_APPLIED:
                raise StoreUnavailable(_SURELY_NOT_APPLIED[code]) from exc
            if code == sqlite3.SQLITE_IOERR:
                raise on_disk_error("the database's disk failed") from exc
            raise


class _Late(Exception):
    """The time was over before the statement's turn came."""


class _Parameters(tuple[Any, ...]):
    """Parameters of a statement, and the steady time (s) until which it may wait for locks."""

    due: float

    def __new__(cls, values: Iterable[Any], due: float) -> "_Parameters":
        self = super().__new__(cls, values)
        self.due = due
        return self


class _Connection(sqlite3.Connection):
    """A connection that waits for locks no longer than its statement may; runs in aiosqlite's thread."""

    busy_steps = -1

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if isinstance(parameters, _Parameters):
            left_s = parameters.due - time.monotonic()
            if left_s <= 0:
                raise _Late
            # In steps, because each distinct PRAGMA takes a place in the cache of prepared statements.
            steps = int(left_s / _BUSY_STEP_S) + 1
            if steps != self.busy_steps:
                super().execute(f"PRAGMA busy_timeout = {int(steps * _BUSY_STEP_S * 1000)}")
                self.busy_steps = steps
        return super().execute(sql, parameters)


async def _connect(path: str) -> aiosqlite.Connection:
    # A file that cannot be opened fails here: in aiosqlite it would leave a thread that may outlive the event loop.
    await asyncio.to_thread(lambda: sqlite3.connect(path).close())
    connection = await aiosqlite.connect(path, isolation_level=None, factory=_Connection)
    try:
        await connection.execute_fetchall("PRAGMA synchronous = FULL")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _use_wal(connection: aiosqlite.Connection, patience_s: float) -> None:
    """Switch to WAL; while another process does the same SQLite answers BUSY at once, without its own waiting."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            [(mode,)] = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if _code(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.02)
        else:
            if mode != "wal":
                raise UnusableFile("the file's disk does not support SQLite's WAL mode; use a local disk")
            return


async def _migrate(connection: aiosqlite.Connection) -> None:
    """Make the tables, once, whoever comes first; raises UnusableFile if others are there."""
    await connection.execute_fetchall("BEGIN IMMEDIATE")
    try:
        [(version,)] = await connection.execute_fetchall("PRAGMA user_version")
        [(tables,)] = await connection.execute_fetchall("SELECT count(*) FROM sqlite_master")
        if version > SCHEMA_VERSION:
            raise UnusableFile(
                f"the SQLite file has schema {version}, this release knows up to {SCHEMA_VERSION}; use a newer release"
            )
        if version == 0:
            if tables:
                raise UnusableFile("the SQLite file holds the tables of another program")
            for statement in _SCHEMA:
                await connection.execute_fetchall(statement)
        await connection.execute_fetchall("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            await connection.execute_fetchall("ROLLBACK")
        raise


def _reason(path: str, exc: sqlite3.Error) -> str:
    directory = Path(path).parent
    if _code(exc) == sqlite3.SQLITE_CANTOPEN and not directory.is_dir():
        return f"there is no directory {str(directory)!r}"
    return _SURELY_NOT_APPLIED.get(_code(exc), str(exc))


def _code(exc: sqlite3.Error) -> int:
    """Return the primary result code; 0 if the error is not SQLite's own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _held(lease: Lease) -> tuple[str, str, str, str]:
    return lease.session_id, lease.uid, lease.turn_id, lease.lease_id


def _line(part: str) -> str:
    return _to_json(part) + "\n" if part else ""


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _to_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _optional_ms(moment: datetime | None) -> int | None:
    return None if moment is None else _to_ms(moment)


def _from_ms(ms: int | None) -> datetime | None:
    return None if ms is None else _EPOCH + ms * _MILLISECOND


def _session_row(session: Session) -> tuple[Any, ...]:
    doc = session_to_doc(session)
    for name in ("_id", "uid", "fence", "last_seq", "update_time", "expire_time", "deleted_at", "purging", "active"):
        doc.pop(name, None)
    *flat, active, ending, parts = _active_row(session.active) if session.active else (None,) * 11
    return (
        session.session_id,
        session.uid,
        session.fence,
        session.last_seq,
        _to_ms(session.update_time),
        _optional_ms(session.expire_time),
        _optional_ms(session.deleted_at),
        session.purging,
        *flat,
        _to_json(doc),
        active,
        ending,
        parts,
    )


def _active_row(active: Active) -> tuple[Any, ...]:
    doc = active_to_doc(active)
    flat = [
        doc.pop(name)
        for name in ("turn_id", "state", "lease_id", "fence", "attempt", "beat", "released", "cancel")
    ]  # fmt: skip
    ending = doc.pop("ending", None)
    parts = "".join(map(_line, doc.pop("parts", ())))
    return (*flat, _to_json(doc), ending and _to_json(ending), parts)


def _session(row: Sequence[Any]) -> Session:
    session_id, uid, fence, last_seq, update_ms, expire_ms, deleted_ms, purging, *flat, doc, active, ending, parts = row
    fields = orjson.loads(doc)
    fields |= {
        "_id": session_id,
        "uid": uid,
        "fence": fence,
        "last_seq": last_seq,
        "update_time": _from_ms(update_ms),
        "expire_time": _from_ms(expire_ms),
        "deleted_at": _from_ms(deleted_ms),
        "purging": bool(purging),
        "active": active and _active_doc(flat, active, ending, parts),
    }
    return session_from_doc(fields)


def _active_doc(flat: Sequence[Any], active: str, ending: str | None, parts: str) -> dict[str, Any]:
    turn_id, state, lease_id, fence, attempt, beat, released, cancel = flat
    doc: dict[str, Any] = orjson.loads(active)
    doc |= {
        "turn_id": turn_id,
        "state": state,
        "lease_id": lease_id,
        "fence": fence,
        "attempt": attempt,
        "beat": beat,
        "released": bool(released),
        "cancel": bool(cancel),
        "ending": ending and orjson.loads(ending),
        "parts": [orjson.loads(line) for line in parts.split("\n") if line],
    }
    return doc


def _turn(row: Sequence[Any]) -> Turn:
    return turn_from_doc(orjson.loads(row[0]))
