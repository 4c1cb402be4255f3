"""What a turn pays for lists and searches: SQLite with and without the indexes that are there for them."""

import sqlite3
from contextlib import closing
from dataclasses import replace

from benchmarks import filling, preload
from benchmarks.compare import Bar, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.rounds import Turns
from service.domain.entities import utc_now

_SESSIONS = 10_000
_LISTS = (
    "DROP INDEX sessions_updated",
    "DROP INDEX sessions_created",
    *(
        f"DROP TRIGGER labels_by_{time}_{event}"
        for time in ("update_time", "create_time")
        for event in ("add", "drop", "move")
    ),
)
_WORDS = ("DROP TRIGGER search_add", "DROP TRIGGER search_drop")
_WITHOUT = {
    "all indexes": (),
    "without those of lists": _LISTS,
    "without the words": _WORDS,
    "without both": (*_LISTS, *_WORDS),
}


@case("indexes")
def indexes(lab: Lab) -> list[Result]:
    """SendMessage in sessions with two labels, warm, SQLite, with and without the indexes of lists and searches."""
    contenders = {}
    for name, without in _WITHOUT.items():
        place = filling.SqlitePlace(lab.folder / f"{name.replace(' ', '-')}.db")
        place.fill(filling.made(_SESSIONS, utc_now()), float("inf"))
        with closing(sqlite3.connect(place.path)) as connection:
            for statement in without:
                connection.execute(statement)
        server: Server = lab.start_service(None, **place.settings)
        contenders[name] = Turns(lab, server, place, insert=_insert, context_turns=4, ops=160)
    samples = interleave(contenders, lab.size.rounds)
    bars = [
        Bar(f"CPU a turn, all indexes against {name}", cpu_ratio(samples, "all indexes", name))
        for name in _WITHOUT
        if name != "all indexes"
    ]
    notes = [
        f"Files of {_SESSIONS:,} sessions and as many turns before. SQLite's work is the server's own here. With "
        "MongoDB the indexes are the database's work; the server itself makes the list of a turn's words."
    ]
    return [
        Result(
            "SendMessage with and without the indexes of lists and searches, warm, SQLite",
            figures_of(samples),
            bars,
            notes,
        )
    ]


def _insert(place: filling.SqlitePlace, count: int, turns: int) -> list[str]:
    made = [preload.session(preload.exchanges(turns), utc_now()) for _ in range(count)]
    labelled = [(replace(session, labels={"tier": "gold", "project": "p1"}), past) for session, past in made]
    place.add(labelled)
    return [session.session_id for session, _ in labelled]
