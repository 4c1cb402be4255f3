"""What is the SQLite store's own: the file, its schema and its locks, and several processes over it."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from service.domain import deadline
from service.domain.entities import ANONYMOUS, Session
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ranges import SessionRange
from service.store.sqlite import SCHEMA_VERSION, SqliteStore, UnusableFile, purging, turns
from tests.contract.build import (
    FULL_SETTINGS,
    MILLISECOND,
    NOW,
    OWNER,
    TEXTS,
    a_running_session,
    a_session,
    a_turn,
    an_active,
    an_ending,
    the_lease,
)

SCHEMA_1 = Path(__file__).parents[1] / "data" / "sqlite_schema_1.sql"


_HANGS_S = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    # Only deadlines end a wait, not the store itself.
    store = SqliteStore(str(path), operation_timeout_s=10 * _HANGS_S)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def locked(store: SqliteStore, path: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


# The file


async def test_sessions_outlive_the_store(path: Path) -> None:
    session = a_running_session(parts=("text",))
    for expected in (True, False):
        store = SqliteStore(str(path))
        await store.open()
        assert await store.insert_session(session) is expected
        assert await store.session(OWNER, session.session_id) == session
        await store.close()


async def test_the_file_is_in_wal_mode_with_its_schema_version(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


async def test_every_commit_is_synced(store: SqliteStore) -> None:
    assert store._writer
    assert list(await store._writer.execute_fetchall("PRAGMA synchronous")) == [(2,)]


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(UnusableFile, match="schema 3, this release knows up to 2"):
        await SqliteStore(str(path)).open()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


@pytest.fixture
def path_of_schema_1(path: Path) -> Path:
    """A file as the first release made it."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.executescript(SCHEMA_1.read_text())
    return path


async def test_a_file_of_the_first_release_is_taken_over(path_of_schema_1: Path) -> None:
    plain = Session("plain", "u1", ANONYMOUS, NOW, NOW + MILLISECOND)
    ending = an_ending(text=TEXTS["separators"], last_seq=4)
    full = replace(
        plain,
        session_id="full",
        uid="u2",
        title="a\x00title",
        labels={"a": "b", "c.d": "\x00"},
        instructions="be brief",
        settings=FULL_SETTINGS,
        settings_version=3,
        last_seq=4,
        fence=2,
        expire_time=NOW + timedelta(days=400),
        look_at=NOW + timedelta(days=400),
        active=an_active(a_turn(3), fence=2).ended(ending),
    )
    running = replace(plain, session_id="running", uid="u3", fence=1, active=an_active(parts=("one", "two"), beat=2))
    deleted = replace(plain, session_id="deleted", uid="u4", deleted_at=NOW, look_at=NOW)
    for _ in range(2):
        store = SqliteStore(str(path_of_schema_1))
        await store.open()
        for session in (plain, full, running, deleted):
            assert await store.session(ANONYMOUS, session.session_id) == session
        assert [session.session_id for session in await store.running_sessions(9)] == ["running"]
        assert list(await store.turns(full.key, first_seq_from=1, first_seq_to=9, limit=9)) == [
            a_turn(1, ending=an_ending(text="first"), create_time=NOW.replace(microsecond=0)),
            a_turn(3, ending=ending, create_time=NOW + timedelta(days=1)),
        ]
        found, _ = await store.find_turns(ANONYMOUS, [("question",)], uid="", after="", limit=9)
        assert [turn.turn.first_seq for turn in found] == [3, 1]
        labelled = SessionRange("update_time", newest_first=True, label=("a", "b"))
        assert [session.session_id for session in await store.list_sessions(ANONYMOUS, labelled, 9)] == ["full"]
        assert await store.titled_ids(ANONYMOUS, "a t", 9) == ["full"]  # of which the NUL counts as a blank
        await store.close()
    with closing(sqlite3.connect(path_of_schema_1)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert other.execute("SELECT create_time % 1000 FROM turns ORDER BY create_time").fetchall() == [(0,), (123,)]


async def test_a_file_that_was_taken_over_has_the_tables_of_a_new_one(path_of_schema_1: Path, tmp_path: Path) -> None:
    tables = []
    for path in (path_of_schema_1, tmp_path / "new.db"):
        store = SqliteStore(str(path))
        await store.open()
        await store.close()
        with closing(sqlite3.connect(path)) as other:
            tables.append(set(other.execute("SELECT type, name, sql FROM sqlite_master").fetchall()))
    assert tables[0] == tables[1]


async def test_many_may_take_a_file_over_at_once(path_of_schema_1: Path) -> None:
    stores = [SqliteStore(str(path_of_schema_1)) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.session(ANONYMOUS, "full")
        await store.close()


async def test_a_take_over_that_fails_leaves_the_file_as_it_was(path_of_schema_1: Path) -> None:
    with closing(sqlite3.connect(path_of_schema_1)) as other:
        other.execute("UPDATE sessions SET doc = '{}' WHERE session_id = 'running'")
        other.commit()
        before = list(other.iterdump())
    with pytest.raises(KeyError):
        await SqliteStore(str(path_of_schema_1)).open()
    with closing(sqlite3.connect(path_of_schema_1)) as other:
        assert list(other.iterdump()) == before


async def test_the_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE sessions (a)")
    with pytest.raises(UnusableFile, match="another program"):
        await SqliteStore(str(path)).open()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("not a database, but a text that is long enough to be looked at" * 100)
    before = path.read_bytes()
    with pytest.raises(UnusableFile, match="not a database"):
        asyncio.run(SqliteStore(str(path)).open())
    assert path.read_bytes() == before


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"no directory .*nowhere"):
        await SqliteStore(str(tmp_path / "nowhere" / "sessions.db")).open()


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="cannot be opened"):
        await SqliteStore(str(tmp_path)).open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any file")
def test_a_read_only_file_is_refused(path: Path) -> None:
    sqlite3.connect(path).close()
    path.chmod(0o444)
    with pytest.raises(UnusableFile, match="may not be written"):
        asyncio.run(SqliteStore(str(path)).open())


async def test_a_store_that_did_not_open_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile):
        await SqliteStore(str(tmp_path / "nowhere" / "sessions.db")).open()
    assert not [thread for thread in threading.enumerate() if "connection_worker" in thread.name]


async def test_memory_is_gone_with_the_store() -> None:
    session = a_session()
    for _ in range(2):
        store = SqliteStore(":memory:")
        await store.open()
        assert await store.insert_session(session)
        await store.close()


# Locks, and a disk that fails


@pytest.mark.usefixtures("locked")
async def test_a_locked_file_is_surely_not_written_and_told_in_time(store: SqliteStore) -> None:
    async with asyncio.timeout(_HANGS_S):
        with deadline.scope(asyncio.get_running_loop().time() + 0.2), pytest.raises(StoreUnavailable) as caught:
            await store.insert_session(a_session(session_id="id"))
    assert "locked" in str(caught.value)
    assert not isinstance(caught.value, StoreUncertain)
    assert await store.session(OWNER, "id") is None


@pytest.mark.usefixtures("locked")
async def test_a_locked_file_does_not_answer_a_ping(store: SqliteStore) -> None:
    with deadline.scope(asyncio.get_running_loop().time() + 0.1), pytest.raises(StoreUnavailable):
        await store.ping()


@pytest.mark.usefixtures("locked")
async def test_a_locked_file_can_be_read_while_a_write_waits(store: SqliteStore) -> None:
    with deadline.scope(asyncio.get_running_loop().time() + 0.5):
        write = asyncio.ensure_future(store.insert_session(a_session()))
    await asyncio.sleep(0)
    assert await store.session(OWNER, "id") is None
    assert not write.done()
    with pytest.raises(StoreUnavailable):
        await write


@pytest.mark.usefixtures("locked")
async def test_calls_that_queue_behind_a_lock_all_end_in_time(store: SqliteStore) -> None:
    async with asyncio.timeout(_HANGS_S):
        with deadline.scope(asyncio.get_running_loop().time() + 0.3):
            calls = [store.insert_session(a_session()) for _ in range(10)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}


async def test_a_write_waits_for_a_lock_that_goes_in_time(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.ensure_future(store.insert_session(a_session()))
        assert await store.session(OWNER, "id") is None
        other.execute("COMMIT")
    assert await write


async def test_a_full_disk_is_surely_not_written_and_does_no_harm(store: SqliteStore) -> None:
    session = a_running_session()
    assert await store.insert_session(session)
    assert store._writer
    [(pages,)] = await store._writer.execute_fetchall("PRAGMA page_count")
    await store._writer.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full") as caught:
        await store.end(the_lease(session), an_ending(text="x" * 1_000_000))
    assert not isinstance(caught.value, StoreUncertain)
    assert await store.session(OWNER, session.session_id) == session
    await store._writer.execute_fetchall("PRAGMA max_page_count = 1000000")
    assert await store.end(the_lease(session), an_ending(text="x" * 1_000_000))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUncertain),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError),
    ],
)
async def test_errors_are_translated(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        exc = sqlite3.OperationalError("text")
        exc.sqlite_errorcode = code
        raise exc

    monkeypatch.setattr(store._writer, "execute_fetchall", fail)
    with pytest.raises(expected) as caught:
        await store.insert_session(a_session())
    assert type(caught.value) is expected


# What an outsider may see


async def test_looking_for_running_sessions_reads_only_those(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        plan = other.execute(f"EXPLAIN QUERY PLAN {turns._RUNNING_SESSIONS}", (10,)).fetchall()
    assert "sessions_running" in plan[0][3]


async def test_looking_for_what_is_due_reads_only_that_in_order(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        for sql, index in ((purging._DUE_SESSIONS, "sessions_look_at"), (purging._DUE_RECORDS, "purges_due")):
            plan = other.execute(f"EXPLAIN QUERY PLAN {sql}", (0, 10)).fetchall()
            assert len(plan) == 1
            assert index in plan[0][3]


@pytest.mark.parametrize("sql", [turns._OLDEST_FIRST, turns._NEWEST_FIRST])
async def test_a_range_of_turns_is_read_in_order_without_sorting(store: SqliteStore, path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        plan = other.execute(f"EXPLAIN QUERY PLAN {sql}", ("uid", "owner", 1, 9, 10)).fetchall()
    assert len(plan) == 1
    assert "first_seq>?" in plan[0][3]


async def test_no_statement_is_left_open(store: SqliteStore, path: Path) -> None:
    """Else the log could never be folded back into the file, and the write lock would be kept."""
    session = a_running_session()
    await store.insert_session(session)
    await store.checkpoint(the_lease(session), 0, "text")
    await store.session(OWNER, session.session_id)
    await store.archive(session.key, a_turn(ending=an_ending()))
    await store.archive(session.key, a_turn(ending=an_ending()))
    with closing(sqlite3.connect(path, timeout=0)) as other:
        busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


# Several processes

_RACE = """
    import asyncio, sys
    from service.store.sqlite import SqliteStore
    from tests.contract.build import NOW, OWNER, an_active, a_turn, new_id

    async def main(path, session_id, rounds):
        store = SqliteStore(path)
        await store.open()
        session, won = await store.session(OWNER, session_id), 0
        while session.fence < rounds:
            active = an_active(a_turn(turn_id=new_id()), fence=session.fence + 1, lease_id=new_id())
            won += await store.accept(session, NOW, active)
            session = await store.session(OWNER, session_id)
        await store.close()
        print(won)

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_processes_over_one_file_are_one_service(store: SqliteStore, path: Path) -> None:
    session, rounds = a_session(), 100
    assert await store.insert_session(session)
    command = [sys.executable, "-c", textwrap.dedent(_RACE), str(path), session.session_id, str(rounds)]
    racers = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = [(await racer.communicate())[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(map(int, outputs)) == rounds
    found = await store.session(OWNER, session.session_id)
    assert found
    assert found.fence == rounds


async def test_many_may_make_the_file_at_once(path: Path) -> None:
    stores = [SqliteStore(str(path)) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.ping()
        await store.close()


_CRASH = """
    import asyncio, os, sys
    from service.store.sqlite import SqliteStore
    from tests.contract.build import a_session

    async def main(path):
        store = SqliteStore(path)
        await store.open()
        while True:
            session = a_session()
            await store.insert_session(session)
            os.write(1, (session.session_id + "\\n").encode())

    asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_CRASH), str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout
    acknowledged = [(await process.stdout.readline()).decode().strip() for _ in range(20)]
    process.kill()
    acknowledged += (await process.stdout.read()).decode().split()
    await process.wait()
    store = SqliteStore(str(path))
    await store.open()
    for session_id in acknowledged[:-1]:
        assert await store.session(OWNER, session_id)
    assert await store.insert_session(a_session())
    await store.close()


async def test_a_late_statement_is_never_run(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose time ran out while it queued is surely not applied."""
    assert store._writer
    session = a_session(session_id="id")
    await store.insert_session(session)
    slow = asyncio.ensure_future(store._writer._execute(time.sleep, 0.3))  # type: ignore[no-untyped-call]
    await asyncio.sleep(0)
    with deadline.scope(asyncio.get_running_loop().time() + 0.05), pytest.raises(StoreUnavailable, match="too slow"):
        await store.accept(session, NOW, an_active())
    await slow
    found = await store.session(OWNER, "id")
    assert found
    assert found.fence == 0
