"""One SQLite file and its connections; every statement of the store goes through here."""

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import aiosqlite

from service.domain.deadline import remaining_s
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.store.sqlite.errors import SURELY_NOT_APPLIED, UnusableFile, code_of, reason_of
from service.store.sqlite.schema import migrate

_PING: Final = "UPDATE sessions SET fence = fence WHERE session_id = '' RETURNING 1"
_BUSY_STEP_S: Final = 0.1


class SqliteDatabase:
    """A file on a local disk, or memory (`:memory:`)."""

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
            await migrate(self._writer)
            # In WAL mode readers wait for nobody; a second connection keeps reads from queueing behind synced writes.
            self._reader = self._writer if in_memory else await _connect(self._path)
        except BaseException as exc:
            await self.close()
            if isinstance(exc, sqlite3.Error):
                raise UnusableFile(f"SQLite file {self._path!r}: {reason_of(self._path, exc)}") from exc
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
            code = code_of(exc)
            if code in SURELY_NOT_APPLIED:
                raise StoreUnavailable(SURELY_NOT_APPLIED[code]) from exc
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
            if code_of(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.02)
        else:
            if mode != "wal":
                raise UnusableFile("the file's disk does not support SQLite's WAL mode; use a local disk")
            return
