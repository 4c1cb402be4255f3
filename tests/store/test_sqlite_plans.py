"""SQLite looks up what it needs in an index: it scans no table, and sorts nothing, however much there is."""

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.domain.ranges import SessionRange, TimeField
from service.store.sqlite import SqliteStore, erasing, importing, listing, purging, rows, searching, sessions, turns


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A file with the tables of this release."""
    store = SqliteStore(str(tmp_path / "sessions.db"))
    await store.open()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        yield database


def plan_of(database: sqlite3.Connection, sql: str) -> list[str]:
    steps = database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")).fetchall()
    return [step[3] for step in steps if not step[3].startswith(("SCAN json_each", "LIST SUBQUERY", "SCALAR SUBQUERY"))]


BOTH_ENDS = "({0},{1})>(?,?) AND ({0},{1})<(?,?)"


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    ("time_field", "index"), [("update_time", "sessions_updated"), ("create_time", "sessions_created")]
)
def test_a_list_is_read_along_its_index(
    database: sqlite3.Connection, time_field: TimeField, index: str, newest_first: bool
) -> None:
    for columns in (listing._LISTED, listing._LISTED_OR_PLACE):
        assert plan_of(database, listing.list_statement(SessionRange(time_field, newest_first), columns)) == [
            f"SEARCH sessions USING INDEX {index} (owner=? AND {BOTH_ENDS.format(time_field, 'session_id')})"
        ]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("time_field", ["update_time", "create_time"])
def test_a_list_by_label_is_read_along_the_labels(
    database: sqlite3.Connection, time_field: TimeField, newest_first: bool
) -> None:
    assert plan_of(database, listing.list_statement(SessionRange(time_field, newest_first, label=("a",)))) == [
        f"SEARCH labels_by_{time_field} USING PRIMARY KEY (whose=? AND label=? AND {BOTH_ENDS.format('time', 'id')})",
        "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (session_id=?)",
    ]


@pytest.mark.parametrize("time_field", ["update_time", "create_time"])
def test_a_count_reads_nothing_but_an_index(database: sqlite3.Connection, time_field: TimeField) -> None:
    for label, index in (
        ((), f"USING COVERING INDEX sessions_{time_field.partition('_')[0]}d "),
        (("a",), "USING PRIMARY KEY "),
    ):
        steps = plan_of(database, listing.count_statement(SessionRange(time_field, True, label=label)))
        [step] = [step for step in steps if step.startswith("SEARCH ")]
        assert index in step
        assert all(step.startswith(("SEARCH ", "CO-ROUTINE ", "SCAN (subquery")) for step in steps), steps


def test_a_search_is_read_along_a_word_in_order_of_time(database: sqlite3.Connection) -> None:
    [step] = plan_of(database, searching.WITH_WORD)
    # In FTS5's own terms: by words (M) and up to a rowid (<).
    assert re.fullmatch(r"SCAN search VIRTUAL TABLE INDEX \d+:M\d+<", step)


@pytest.mark.parametrize(
    ("sql", "step"),
    [
        (listing.BY_ID, "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (session_id=?)"),
        *(
            (sql, "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (session_id=?)")
            for sql in (turns._SESSION, turns._ACCEPT, turns._CHECKPOINT, turns._END, turns._TAKE_OVER, turns._CANCEL)
        ),
        *(
            (sql, "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (session_id=?)")
            for sql in (sessions._UPDATE, sessions._DELETE, sessions._UNDELETE, purging._START_PURGE)
        ),
        (rows.insert_turns(1), "SEARCH turns USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (listing.WITH_PIECE, "SEARCH titles USING PRIMARY KEY (whose=? AND piece=?)"),
        (searching.BY_IDS, "SEARCH turns USING INTEGER PRIMARY KEY (rowid=?)"),
        (purging._DUE_SESSIONS, "SEARCH sessions USING INDEX sessions_look_at (look_at<?)"),
        (purging._DUE_RECORDS, "SEARCH purges USING INDEX purges_due (due<?)"),
        (
            erasing._SESSIONS,
            "SEARCH sessions USING INDEX sessions_created"
            " (owner=? AND (create_time,session_id)>(?,?) AND create_time<?)",
        ),
    ],
)
def test_a_statement_looks_up_what_it_needs(database: sqlite3.Connection, sql: str, step: str) -> None:
    assert plan_of(database, sql) == [step]


@pytest.mark.parametrize("time", ["update_time", "create_time"])
@pytest.mark.parametrize("trigger", ["drop", "move"])
def test_labels_are_taken_from_the_index_one_by_one(database: sqlite3.Connection, time: str, trigger: str) -> None:
    [(sql,)] = database.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (f"labels_by_{time}_{trigger}",)
    )
    [delete] = re.findall(r"DELETE FROM[^;]*", sql)
    assert plan_of(database, re.sub(r"\bold\.\w+", "?", delete)) == [
        f"SEARCH labels_by_{time} USING PRIMARY KEY (whose=? AND label=? AND time=? AND id=?)"
    ]


@pytest.mark.parametrize("trigger", ["drop", "change"])
def test_titles_are_taken_from_the_index_one_by_one(database: sqlite3.Connection, trigger: str) -> None:
    [(sql,)] = database.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (f"titles_{trigger}",)
    )
    [delete] = re.findall(r"DELETE FROM[^;]*", sql)
    steps = plan_of(database, re.sub(r"\bold\.\w+", "?", delete))
    assert [step for step in steps if "titles" in step or "sessions" in step] == [
        "SEARCH titles USING PRIMARY KEY (whose=? AND piece=? AND id=?)"
    ]


def test_no_turn_touches_the_titles(database: sqlite3.Connection) -> None:
    fired = database.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%titles%'").fetchall()
    updates = [sql for (sql,) in fired if "AFTER UPDATE" in sql]
    assert len(fired) == 3
    assert ["AFTER UPDATE OF title ON sessions WHEN old.title <> new.title" in sql for sql in updates] == [True]
    for write in (turns._ACCEPT, turns._CHECKPOINT, turns._END, turns._TAKE_OVER, turns._CANCEL):
        assert "title" not in write.partition(" WHERE ")[0]


def _statements() -> Iterator[tuple[str, str]]:
    for module in (erasing, importing, listing, purging, searching, sessions, turns):
        for name, value in vars(module).items():
            is_statement = isinstance(value, str) and value.startswith(("SELECT ", "UPDATE ", "DELETE ", "INSERT "))
            if is_statement and "{}" not in value:
                yield f"{module.__name__}.{name}", value


STATEMENTS = dict(_statements())


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_scans_a_table_or_sorts(database: sqlite3.Connection, name: str) -> None:
    for step in plan_of(database, STATEMENTS[name]):
        # The index of running sessions has no others in it; what FTS5 is asked for has a test of its own.
        assert (
            step.startswith("SEARCH ")
            or step
            in (
                "SCAN sessions USING INDEX sessions_running",
                "SCAN 1 CONSTANT ROW",
            )
            or (name.endswith(".WITH_WORD") and "VIRTUAL TABLE" in step)
        ), step


def test_the_statements_are_those_of_the_store() -> None:
    assert {name.rpartition(".")[2] for name in STATEMENTS} >= {"_DUE_SESSIONS", "_SESSIONS", "_COUNT_TURNS", "BY_ID"}
    assert len(STATEMENTS) > 30
