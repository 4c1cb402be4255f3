"""The tables, and the way from those of older releases."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import aiosqlite
import orjson

from service.domain.entities import Session
from service.store.documents import RUNNING, session_from_doc
from service.store.sqlite.errors import UnusableFile
from service.store.sqlite.rows import COLUMNS, active_document, from_ms, optional_time, session_row

SCHEMA_VERSION: Final = 2

_TABLES: Final = (
    """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY NOT NULL,
        uid TEXT NOT NULL,
        owner TEXT NOT NULL,
        fence INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        settings_version INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        expire_time INTEGER,
        idle_ttl INTEGER,
        idle_since INTEGER,
        deleted_at INTEGER,
        purging INTEGER NOT NULL,
        look_at INTEGER,
        title TEXT NOT NULL,
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
    # Holds only sessions that will end by themselves, or are deleted.
    "CREATE INDEX sessions_look_at ON sessions (look_at) WHERE look_at IS NOT NULL",
    """
    CREATE TABLE turns (
        uid TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        turn_id TEXT NOT NULL,
        request_key TEXT NOT NULL,
        owner TEXT NOT NULL,
        session_id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (uid, first_seq),
        UNIQUE (uid, request_key),
        UNIQUE (uid, turn_id)
    )""",
    """
    CREATE TABLE purges (
        uid TEXT PRIMARY KEY NOT NULL,
        session_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        due INTEGER NOT NULL
    )""",
    "CREATE INDEX purges_due ON purges (due)",
    """
    CREATE TABLE erasures (
        erasure_id TEXT PRIMARY KEY NOT NULL,
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,
        version INTEGER NOT NULL,
        due INTEGER,
        doc TEXT NOT NULL,
        UNIQUE (owner, number)
    )""",
    "CREATE INDEX erasures_due ON erasures (due) WHERE due IS NOT NULL",
)

_BATCH: Final = 500


async def migrate(connection: aiosqlite.Connection) -> None:
    """Make the tables, or bring them up to this release, once, whoever comes first; raises UnusableFile."""
    await connection.execute_fetchall("BEGIN IMMEDIATE")
    try:
        [(version,)] = await connection.execute_fetchall("PRAGMA user_version")
        [(tables,)] = await connection.execute_fetchall("SELECT count(*) FROM sqlite_master")
        if version > SCHEMA_VERSION:
            raise UnusableFile(
                f"the SQLite file has schema {version}, this release knows up to {SCHEMA_VERSION}; use a newer release"
            )
        if version == 0 and tables:
            raise UnusableFile("the SQLite file holds the tables of another program")
        if version < SCHEMA_VERSION:
            if version == 1:
                await _put_aside(connection)
            for statement in _TABLES:
                await connection.execute_fetchall(statement)
            if version == 1:
                await _take_over_1(connection)
            await connection.execute_fetchall(f"PRAGMA user_version = {SCHEMA_VERSION}")
        await connection.execute_fetchall("COMMIT")
    except BaseException:
        with suppress(aiosqlite.Error):
            await connection.execute_fetchall("ROLLBACK")
        raise


async def _put_aside(connection: aiosqlite.Connection) -> None:
    await connection.execute_fetchall("DROP INDEX sessions_running")
    for table in ("sessions", "turns"):
        await connection.execute_fetchall(f"ALTER TABLE {table} RENAME TO {table}_1")


async def _take_over_1(connection: aiosqlite.Connection) -> None:
    """Schema 1 had owner, create_time, title and settings_version in `doc`, and turns without an owner."""
    insert = f"INSERT INTO sessions ({COLUMNS}) VALUES (?{', ?' * COLUMNS.count(',')})"
    last = 0
    while True:
        rows = list(
            await connection.execute_fetchall(
                f"SELECT rowid, * FROM sessions_1 WHERE rowid > ? ORDER BY rowid LIMIT {_BATCH}", (last,)
            )
        )
        if not rows:
            break
        last = rows[-1][0]
        await connection.executemany(insert, [session_row(_session_of_1(row[1:])) for row in rows])
    # Milliseconds out of a float count of days: far below half a millisecond of error.
    await connection.execute_fetchall(
        "INSERT INTO turns (uid, first_seq, turn_id, request_key, owner, session_id, create_time, doc)"
        " SELECT t.uid, t.first_seq, t.turn_id, t.request_key, s.owner, s.session_id,"
        " CAST(round((julianday(json_extract(t.doc, '$.create_time')) - 2440587.5) * 86400000) AS INTEGER) AS created,"
        " t.doc FROM turns_1 AS t JOIN sessions AS s USING (uid) ORDER BY created, t.uid, t.first_seq"
    )
    for table in ("sessions", "turns"):
        await connection.execute_fetchall(f"DROP TABLE {table}_1")


def _session_of_1(row: Sequence[Any]) -> Session:
    session_id, uid, fence, last_seq, update_ms, expire_ms, deleted_ms, purging, *flat, doc, active, ending, parts = row
    fields = orjson.loads(doc)
    fields |= {
        "_id": session_id,
        "uid": uid,
        "fence": fence,
        "last_seq": last_seq,
        "update_time": from_ms(update_ms),
        "expire_time": optional_time(expire_ms),
        "deleted_at": optional_time(deleted_ms),
        "look_at": optional_time(deleted_ms or expire_ms),  # too early is soon enough: the purger moves it
        "purging": bool(purging),
        "active": active and active_document(flat, active, ending, parts),
    }
    return session_from_doc(fields)
