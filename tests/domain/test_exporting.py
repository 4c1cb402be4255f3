"""Exported sessions: what the file holds, and that what is made of it is the same session."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import ModelSettings, Session
from service.domain.errors import (
    InvalidField,
    SessionExists,
    SessionExpired,
    SessionNotFound,
)
from service.domain.exporting import Exporter
from service.store.sqlite import SqliteStore
from tests.contract.build import ENDINGS, TEXTS, an_active, an_ending
from tests.contract.build import a_turn as a_full_turn
from tests.domain.builders import NOW, a_turn, running
from tests.domain.files import HOUR, exported, imported, lease_of, lines_of, turns_of, with_last_seq
from tests.domain.life import ANNA, BERT, GRACE, Life


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


async def a_rich_session(life: Life) -> Session:
    """A session with all that a session and a turn can have."""
    session = await life.create(
        session_id="rich",
        title="Título \u2028 😀",
        labels={"a.b": "", "$x": "\x00"} | {f"k{n}": "ä" * 256 for n in range(30)},
        instructions="Be brief.\n",
        settings=ModelSettings("m", 0.1, 1.0, 100, -7, ("stop", "¶")),
        ttl=timedelta(days=30),
        idle_ttl=timedelta(days=2),
    )
    seq = 1
    turns = []
    for number, (ending, text) in enumerate(itertools.product(ENDINGS.values(), TEXTS.values())):
        answer = text if ending.message_count > 1 else ""
        turn = a_full_turn(
            number,
            request_key=f"s:turn{number}" if number % 3 == 0 else f"c:request{number}",
            user_text=text or "not empty",
            first_seq=seq,
            ending=replace(
                ending, end_time=NOW, text=answer, last_seq=seq + ending.message_count - 1, fence=number + 1
            ),
            settings_version=number % 4 + 1,
            attempt=number % 3 + 1,
        )
        turns.append(turn)
        seq = turn.last_seq + 1
    await life.archive(session, *turns)
    last = turns[-1]
    assert last.ending is not None
    active = replace(an_active(replace(last, ending=None)), fence=session.fence + 1)
    assert await life.store.accept(session, life.now, active)
    assert await life.store.end(lease_of(session, active), last.ending)
    found = await life.read(session)
    assert found is not None
    return found


# What comes back


async def test_an_imported_session_is_the_exported_one(life: Life) -> None:
    session = await a_rich_session(life)
    life.now += HOUR
    copy = await imported(life, await exported(life, session))
    original = await turns_of(life, session)
    assert await turns_of(life, copy) == original
    assert len(original) == len(ENDINGS) * len(TEXTS)
    newest_fence = max(turn.ending.fence for turn in original if turn.ending)
    assert copy == replace(
        session,
        session_id="copy",
        uid=copy.uid,
        fingerprint="",
        active=None,
        fence=newest_fence,
        idle_since=life.now,
        import_time=life.now,
        look_at=copy.look_at,
    )
    assert await life.read(copy) == copy
    assert copy.uid != session.uid
    assert copy.look_at == life.now + timedelta(days=2) + GRACE


async def test_an_export_of_an_import_is_the_same_file(life: Life) -> None:
    session = await a_rich_session(life)
    file = await exported(life, session)
    copy = await imported(life, file, "copy")
    again = lines_of(await exported(life, copy))
    assert again[1:] == lines_of(file)[1:]
    first = lines_of(file)[0]
    del first["fingerprint"]  # is of the request for the first id
    assert again[0] == {**first, "session_id": "copy"}


async def test_under_its_own_id_a_repeat_of_its_creation_answers_it(life: Life) -> None:
    session = await life.create(session_id="mine", title="x")
    file = await exported(life, session)
    await life.purger.remove(session)
    copy = await imported(life, file, "")
    assert (await life.create(session_id="mine", title="x")).key == copy.key
    with pytest.raises(SessionExists):
        await life.create(session_id="mine", title="y")


async def test_a_request_id_is_remembered_and_turns_go_on_behind(life: Life) -> None:
    session = await life.create()
    await life.archive(session, a_full_turn(1, first_seq=1, ending=an_ending(end_time=NOW, fence=7)))
    session = await with_last_seq(life, session)
    copy = await imported(life, await exported(life, session))
    assert (copy.last_seq, copy.fence) == (2, 7)
    assert await life.store.turn_by_request(copy.key, "c:request1")


async def test_an_empty_session_can_be_restored(life: Life) -> None:
    session = await life.create()
    copy = await imported(life, await exported(life, session))
    assert (copy.last_seq, await turns_of(life, copy)) == (0, [])


async def test_the_file_comes_in_bounded_pieces(life: Life) -> None:
    session = await life.create()
    turns = [replace(a_turn(2 * n + 1, "q" * 200_000, "a" * 200_000)) for n in range(10)]
    await life.archive(session, *turns)
    session = await with_last_seq(life, session)
    pieces = [piece async for piece in Exporter(life.store, now=life.time).export(ANNA, session.session_id)]  # type: ignore[arg-type]
    assert max(map(len, pieces)) < 70_000
    assert len(b"".join(pieces)) > 4_000_000


# While turns run


async def test_a_running_turn_is_not_exported(life: Life) -> None:
    session = await life.create()
    await life.archive(session, a_turn(1))
    session = await with_last_seq(life, session)
    session = await life.run_turn(session, running(a_turn(3)))
    lines = lines_of(await exported(life, session))
    assert [line.get("first_seq") for line in lines] == [None, 1]
    assert lines[0]["last_seq"] == 2


async def test_a_turn_that_is_not_archived_yet_is_exported(life: Life) -> None:
    session = await life.create()
    turn = a_turn(1)
    assert turn.ending
    active = replace(running(turn), fence=session.fence + 1)
    assert await life.store.accept(session, life.now, active)
    assert await life.store.end(lease_of(session, active), turn.ending)
    file = await exported(life, session)
    assert [line["kind"] for line in lines_of(file)] == ["session", "turn"]
    assert (await imported(life, file)).last_seq == 2


@pytest.mark.parametrize("number", range(3))
async def test_turns_that_end_on_the_way_are_left_out(life: Life, number: int) -> None:
    session = await life.create()
    await life.archive(session, *(a_turn(2 * n + 1) for n in range(60)))
    session = await with_last_seq(life, session)

    async def one_more() -> None:
        await life.archive(session, a_turn(121))
        await with_last_seq(life, session)

    if number:
        life.store.before["turns"] = one_more if number == 1 else lengthkips(life, one_more)
    lines = lines_of(await exported(life, session))
    assert (lines[0]["last_seq"], [line["first_seq"] for line in lines[1:]]) == (120, list(range(1, 121, 2)))


def lengthkips(life: Life, what: Any) -> Any:
    """Do something before the second page instead of the first."""

    async def again() -> None:
        life.store.before["turns"] = what

    return again


async def test_a_session_that_is_removed_on_the_way_is_gone(life: Life) -> None:
    session = await life.create()
    await life.archive(session, *(a_turn(2 * n + 1) for n in range(60)))
    session = await with_last_seq(life, session)
    life.store.before["turns"] = lengthkips(life, lambda: life.new_purger(life.store.inner).remove(session))
    with pytest.raises(SessionNotFound):
        await exported(life, session)


async def test_what_is_gone_or_of_another_cannot_be_exported(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    with pytest.raises(SessionNotFound):
        await exported(life, session, BERT)
    with pytest.raises(InvalidField):
        await exported(life, replace(session, session_id="-"))
    deleted = await life.create()
    await life.sessions.delete(ANNA, deleted.session_id)
    with pytest.raises(SessionNotFound):
        await exported(life, deleted)
    life.now += HOUR
    with pytest.raises(SessionExpired):
        await exported(life, session)


# Times


async def test_an_end_that_has_passed_is_left_out(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    file = await exported(life, session)
    life.now += 2 * HOUR
    assert (await imported(life, file)).expire_time is None
    copy = await imported(life, file, "copy2", ttl=5 * HOUR)
    assert copy.expire_time == life.now + 5 * HOUR


async def test_ends_beyond_the_servers_limits_are_moved(life: Life) -> None:
    session = await life.create(ttl=10 * HOUR, idle_ttl=9 * HOUR)
    copy = await imported(life, await exported(life, session), max_ttl=HOUR, max_idle_ttl=HOUR / 2)
    assert (copy.expire_time, copy.idle_ttl) == (life.now + HOUR, HOUR / 2)
    within = await imported(life, await exported(life, session), "copy2", max_ttl=99 * HOUR)
    assert (within.expire_time, within.idle_ttl) == (session.expire_time, session.idle_ttl)


async def test_a_session_of_a_clock_ahead_is_not_from_the_future(life: Life) -> None:
    session = await life.create()
    file = await exported(life, session)
    life.now -= HOUR
    copy = await imported(life, file)
    assert (copy.create_time, copy.update_time) == (life.now, life.now)
