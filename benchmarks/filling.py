"""Fills a store with very many sessions of one owner, each with a turn, through the store's own rows and documents."""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from pymongo.database import Database

from benchmarks import data, preload
from service.domain.entities import Session, Turn
from service.domain.titles import title_pieces
from service.store.documents import session_to_doc, turn_to_doc
from service.store.mongo import MongoStore
from service.store.sqlite import SqliteStore, rows

PROJECT_SESSIONS = 100
_NEEDLE = 500
_BATCH = 1000
BETWEEN = timedelta(milliseconds=2400)
"""From the creation of one session to that of the next."""
_A_DAY_MS = 86_400_000
_DELETED_EACH = 20
_QUESTION_CHARS = 80
_ANSWER_TOKENS = 40

Row = tuple[Session, Sequence[Turn]]


class Place(Protocol):
    """Where sessions are kept, behind the back of the service."""

    @property
    def settings(self) -> dict[str, str]:
        """Those that make the service use it."""

    def fill(self, made: Iterator[Row], until: float) -> int:
        """Put sessions into an empty store until there are no more or a steady time has come; return how many."""

    def newest(self) -> datetime:
        """Return when the newest session was created."""

    def sessions_left(self) -> int:
        """Count the sessions."""

    def expire(self, expire_time: datetime, look_at: datetime, created_from: datetime) -> None:
        """Let all sessions end that were created at or after a time, and be looked at by the purger."""


def made(count: int, now: datetime) -> Iterator[Row]:
    """Yield sessions, the oldest first, one each 2.4 s up to now, each updated within a day of it.

    All have a label `tier` of four values, and share `project` with 99 others. Every 20th is deleted. One of the oldest
    has a label `needle` and says a word that no other says, and the oldest has a title that no other has. Half of the
    turns have the word `evenly`, the others `oddly`.
    """
    exchanges = [
        (question[:_QUESTION_CHARS], "".join(answer[:_ANSWER_TOKENS]))
        for question, answer in zip(itertools.cycle(data.questions()), data.answers(), strict=False)
    ]
    for number in range(count):
        question, answer = exchanges[number * 37 % len(exchanges)]
        is_needle = number == _NEEDLE
        said = f"{'oddly' if number % 2 else 'evenly'} {'zanzibar ' if is_needle else ''}{question}"
        created = now - (count - number) * BETWEEN
        session, past = preload.session([(said, answer)], created)
        yield (
            replace(
                session,
                session_id=f"s-{uuid4().hex}",
                update_time=min(now, created + timedelta(milliseconds=number * 7919 * 1009 % _A_DAY_MS)),
                title="the oldest of them all" if number == 0 else f"Talk {number}: {question[:30]}",
                labels={
                    "tier": ("gold", "silver", "bronze", "none")[number % 4],
                    "project": f"p{number // PROJECT_SESSIONS}",
                    **({"needle": "yes"} if is_needle else {}),
                },
                deleted_at=now if number % _DELETED_EACH == 1 else None,
                look_at=now + timedelta(days=7) if number % _DELETED_EACH == 1 else None,
            ),
            past,
        )


@dataclass(frozen=True)
class SqlitePlace:
    """A file."""

    path: Path

    @property
    def settings(self) -> dict[str, str]:
        """Those that make the service use it."""
        return {"SQLITE_PATH": str(self.path)}

    def fill(self, made: Iterator[Row], until: float) -> int:
        """Put sessions into an empty store until there are no more or a steady time has come; return how many."""
        asyncio.run(_open(lambda: SqliteStore(str(self.path))))
        filled = 0
        with closing(sqlite3.connect(self.path)) as connection:
            # Nothing is lost that could not be made again.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -500000")
            with _titles_last(connection):
                for batch in _batches(made, until):
                    _add(connection, batch)
                    filled += len(batch)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return filled

    def add(self, made: Sequence[Row]) -> None:
        """Put further sessions into a store that is in use."""
        with closing(sqlite3.connect(self.path)) as connection:
            _add(connection, made)

    def newest(self) -> datetime:
        """Return when the newest session was created."""
        with closing(sqlite3.connect(self.path)) as connection:
            [(newest,)] = connection.execute("SELECT max(create_time) FROM sessions")
        return rows.from_ms(newest)

    def sessions_left(self) -> int:
        """Count the sessions."""
        with closing(sqlite3.connect(self.path)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM sessions")
        return int(count)

    def expire(self, expire_time: datetime, look_at: datetime, created_from: datetime) -> None:
        """Let all sessions end that were created at or after a time, and be looked at by the purger."""
        times = (rows.to_ms(expire_time), rows.to_ms(look_at), rows.to_ms(created_from))
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE sessions SET expire_time = ?, look_at = ? WHERE create_time >= ?", times)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@dataclass(frozen=True)
class MongoPlace:
    """A database."""

    uri: str
    database: Database[dict[str, Any]]

    @property
    def settings(self) -> dict[str, str]:
        """Those that make the service use it."""
        return {"MONGO_URI": self.uri, "MONGO_DATABASE": self.database.name}

    def fill(self, made: Iterator[Row], until: float) -> int:
        """Put sessions into an empty store until there are no more or a steady time has come; return how many."""
        asyncio.run(_open(lambda: MongoStore(self.uri, self.database.name)))
        filled = 0
        for batch in _batches(made, until):
            self.database.sessions.insert_many([session_to_doc(session) for session, _ in batch], ordered=False)
            turns = [turn_to_doc(session.key, turn) for session, past in batch for turn in past]
            self.database.turns.insert_many(turns, ordered=False)
            filled += len(batch)
        return filled

    def newest(self) -> datetime:
        """Return when the newest session was created."""
        [newest] = self.database.sessions.find({}, {"create_time": 1}).sort("create_time", -1).limit(1)
        created: datetime = newest["create_time"].replace(tzinfo=UTC)
        return created

    def sessions_left(self) -> int:
        """Count the sessions."""
        return self.database.sessions.estimated_document_count()

    def expire(self, expire_time: datetime, look_at: datetime, created_from: datetime) -> None:
        """Let all sessions end that were created at or after a time, and be looked at by the purger."""
        change = {"expire_time": expire_time, "look_at": look_at}
        self.database.sessions.update_many({"create_time": {"$gte": created_from}}, {"$set": change})


def _add(connection: sqlite3.Connection, made: Sequence[Row]) -> None:
    connection.executemany(rows.INSERT_SESSION, [rows.session_row(session) for session, _ in made])
    turns = [rows.turn_row(session.key, turn) for session, past in made for turn in past]
    connection.executemany(rows.insert_turns(1).removesuffix(" RETURNING 1"), turns)
    connection.commit()


@contextmanager
def _titles_last(connection: sqlite3.Connection) -> Iterator[None]:
    """Put what is inserted meanwhile into the index of titles in its own order, which takes a tenth of the time."""
    [(trigger,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'titles_add'")
    connection.execute("DROP TRIGGER titles_add")
    yield
    connection.execute("CREATE TEMP TABLE pieces (whose, piece, id)")
    titles = connection.execute("SELECT owner, session_id, title FROM sessions")
    pieces = ((owner, piece, id_) for owner, id_, title in titles for piece in title_pieces(title))
    connection.executemany("INSERT INTO pieces VALUES (?, ?, ?)", pieces)
    connection.execute("INSERT INTO titles (whose, piece, id) SELECT * FROM pieces ORDER BY whose, piece, id")
    connection.execute("DROP TABLE pieces")
    connection.execute(trigger)
    connection.commit()


async def _open(store_of: Callable[[], Any]) -> None:
    """Make the tables and indexes."""
    store = store_of()
    await store.open()
    await store.ping()
    await store.close()


def _batches(made: Iterator[Row], until: float) -> Iterator[Sequence[Row]]:
    while time.monotonic() < until and (batch := list(itertools.islice(made, _BATCH))):
        yield batch
