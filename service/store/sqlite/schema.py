"""The tables, and the way from those of older releases."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, Final

import aiosqlite
import orjson

from service.domain.entities import Session, SessionKey
from service.domain.titles import MAX_FOLDED_CHARS, PIECE_CHARS
from service.store.documents import RUNNING, session_from_doc
from service.store.sqlite.errors import UnusableFile
from service.store.sqlite.rows import (
    INSERT_SESSION,
    active_document,
    from_ms,
    insert_turns,
    optional_time,
    owner_of,
    session_row,
    turn_of,
    turn_row,
)

SCHEMA_VERSION: Final = 2


def _label_index(table: str, time: str) -> Sequence[str]:
    """Return a table of the entries in `labels` in order of a time, and what keeps it.

    Sessions without labels cost nothing.
    """

    add = (
        f"INSERT INTO {table} (whose, label, time, id)"
        f" SELECT new.owner, value, new.{time}, new.session_id FROM json_each(new.labels);"
    )
    drop = (
        f"DELETE FROM {table} WHERE whose = old.owner AND label IN (SELECT value FROM json_each(old.labels))"
        f" AND time = old.{time} AND id = old.session_id;"
    )
    return (
        f"CREATE TABLE {table} (whose TEXT, label TEXT, time INTEGER, id TEXT, PRIMARY KEY (whose, label, time, id))"
        " WITHOUT ROWID",
        f"CREATE TRIGGER {table}_add AFTER INSERT ON sessions WHEN new.labels IS NOT NULL BEGIN {add} END",
        f"CREATE TRIGGER {table}_drop AFTER DELETE ON sessions WHEN old.labels IS NOT NULL BEGIN {drop} END",
        f"CREATE TRIGGER {table}_move AFTER UPDATE OF {time}, labels ON sessions"
        f" WHEN old.labels IS NOT NULL OR new.labels IS NOT NULL BEGIN {drop} {add} END",
    )


def _pieces(row: str) -> str:
    """Return a statement for the pieces of a session's title, as titles.py has them."""
    folded = f"coalesce({row}.folded_title, lower(substr({row}.title, 1, {MAX_FOLDED_CHARS})))"
    starts = (
        "WITH RECURSIVE starts (start) AS (SELECT 1 UNION ALL SELECT start + 1 FROM starts"
        f" WHERE start <= length({folded}) - {PIECE_CHARS}) SELECT start FROM starts"
    )
    is_long_enough = f"length({folded}) >= {PIECE_CHARS}"
    return f"SELECT DISTINCT substr({folded}, start, {PIECE_CHARS}) FROM ({starts}) WHERE {is_long_enough}"


_ADD_TITLE: Final = (
    f"INSERT INTO titles (whose, id, piece) SELECT new.owner, new.session_id, p.* FROM ({_pieces('new')}) AS p;"
)
_DROP_TITLE: Final = (
    f"DELETE FROM titles WHERE whose = old.owner AND piece IN ({_pieces('old')}) AND id = old.session_id;"
)
# The sessions whose title has a piece. Without a time, so that a turn changes nothing here.
_TITLES: Final = (
    "CREATE TABLE titles (whose TEXT, piece TEXT, id TEXT, PRIMARY KEY (whose, piece, id)) WITHOUT ROWID",
    f"CREATE TRIGGER titles_add AFTER INSERT ON sessions WHEN new.title <> '' BEGIN {_ADD_TITLE} END",
    f"CREATE TRIGGER titles_drop AFTER DELETE ON sessions WHEN old.title <> '' BEGIN {_DROP_TITLE} END",
    "CREATE TRIGGER titles_change AFTER UPDATE OF title ON sessions WHEN old.title <> new.title"
    f" BEGIN {_DROP_TITLE} {_ADD_TITLE} END",
)


def _in_search(row: str) -> str:
    """Return the words of a turn, as the index takes them."""
    return (
        f"{row}.id, hex({row}.owner), {row}.uid, coalesce({row}.question, json_extract({row}.doc, '$.user_text')),"
        f" coalesce({row}.answer, json_extract({row}.doc, '$.ending.text'))"
    )


# It holds no texts of its own. Owner and uid are in it as words, so that it finds what they have in common with others.
# Its rowids are in order of time.
_SEARCH_INDEX: Final = (
    "CREATE VIRTUAL TABLE search USING fts5 (owner, uid, question, answer, content='', tokenize='ascii')",
    # Fewer, larger merges: a sixth less work for each turn.
    "INSERT INTO search (search, rank) VALUES ('automerge', 16)",
    "CREATE TRIGGER search_add AFTER INSERT ON turns BEGIN"
    f" INSERT INTO search (rowid, owner, uid, question, answer) VALUES ({_in_search('new')}); END",
    "CREATE TRIGGER search_drop AFTER DELETE ON turns BEGIN"
    f" INSERT INTO search (search, rowid, owner, uid, question, answer) VALUES ('delete', {_in_search('old')}); END",
)

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
        folded_title TEXT,
        labels TEXT,
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
    # For lists.
    "CREATE INDEX sessions_updated ON sessions (owner, update_time, session_id)",
    "CREATE INDEX sessions_created ON sessions (owner, create_time, session_id)",
    *_label_index("labels_by_update_time", "update_time"),
    *_label_index("labels_by_create_time", "create_time"),
    *_TITLES,
    """
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        turn_id TEXT NOT NULL,
        request_key TEXT NOT NULL,
        owner TEXT NOT NULL,
        session_id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        doc TEXT NOT NULL,
        question TEXT,
        answer TEXT,
        UNIQUE (uid, first_seq),
        UNIQUE (uid, request_key),
        UNIQUE (uid, turn_id)
    )""",
    *_SEARCH_INDEX,
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
    async for rows in _batches(connection, "SELECT rowid, * FROM sessions_1 WHERE rowid > ? ORDER BY rowid"):
        await connection.executemany(INSERT_SESSION, [session_row(_session_of_1(row)) for row in rows])
    await connection.execute_fetchall("CREATE INDEX sessions_1_uid ON sessions_1 (uid)")
    turns = (
        "SELECT t.rowid, s.owner, s.session_id, s.uid, t.doc FROM turns_1 AS t CROSS JOIN sessions_1 AS s1 USING (uid)"
        " CROSS JOIN sessions AS s USING (session_id) WHERE t.rowid > ? ORDER BY t.rowid"
    )
    async for rows in _batches(connection, turns):
        of_turns = [turn_row(SessionKey(owner_of(row[0]), *row[1:3]), turn_of(row[3:])) for row in rows]
        await connection.executemany(insert_turns(1), of_turns)
    for table in ("sessions", "turns"):
        await connection.execute_fetchall(f"DROP TABLE {table}_1")


async def _batches(connection: aiosqlite.Connection, sql: str) -> AsyncGenerator[Sequence[Sequence[Any]], None]:
    """Yield the rows of a statement whose parameter is the rowid to go on from, without their rowids."""
    last = 0
    while rows := list(await connection.execute_fetchall(f"{sql} LIMIT {_BATCH}", (last,))):
        last = rows[-1][0]
        yield [row[1:] for row in rows]


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
