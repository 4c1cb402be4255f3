"""Sessions are removed for good when their time is over, not before, and wholly, whatever happens to the purger."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import PurgeRecord, Session
from service.domain.errors import StoreUnavailable
from service.domain.fields import SessionFields
from service.domain.purger import RECORD_KEPT
from service.domain.updates import SessionUpdate
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_turn, running
from tests.domain.life import ANNA, BERT, GRACE, MILLISECOND, Killed, Life, Mortal
from tests.support.waiting import until

HOUR = timedelta(hours=1)
CLAIM = timedelta(minutes=1)


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


async def a_deleted_session(life: Life, turns: int = 3) -> Session:
    session = await life.create()
    await life.archive(session, *(a_turn(2 * number + 1) for number in range(turns)))
    return await life.sessions.delete(ANNA, session.session_id)


async def records(life: Life) -> int:
    return len(await life.store.due_purge_records(life.now + timedelta(days=365), 1000))


# When


@pytest.mark.parametrize("fields", [{"ttl": HOUR}, {"idle_ttl": HOUR}, {"ttl": 2 * HOUR, "idle_ttl": HOUR}])
async def test_an_expired_session_is_removed_after_the_grace(life: Life, fields: Any) -> None:
    session = await life.create(**fields)
    await life.archive(session, a_turn(1))
    life.now += HOUR + GRACE - MILLISECOND
    await life.purge()
    assert await life.read(session)
    assert await life.turns(session) == 1
    life.now += MILLISECOND
    await life.purge()
    assert await life.read(session) is None
    assert await life.turns(session) == 0
    assert (life.purger.counts.sessions, life.purger.counts.turns) == (1, 1)


async def test_a_deleted_session_is_removed_after_the_grace(life: Life) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE - MILLISECOND
    await life.purge()
    assert await life.read(session) == session
    life.now += MILLISECOND
    await life.purge()
    assert await life.read(session) is None
    assert await life.turns(session) == 0


async def test_a_session_without_an_end_is_never_looked_at(life: Life) -> None:
    session = await life.create()
    life.now += timedelta(days=10_000)
    await life.purge()
    assert await life.read(session) == session
    assert (life.purger.counts.sessions, life.purger.counts.moved) == (0, 0)


async def test_idle_time_that_was_used_moves_the_hint(life: Life) -> None:
    session = await life.create(idle_ttl=HOUR)
    life.now += HOUR / 2
    session = await life.run_turn(session, running(a_turn(1)))
    for _ in range(3):
        life.now += HOUR + GRACE
        await life.purge()
        found = await life.read(session)
        assert found == replace(session, look_at=life.now + HOUR + GRACE)
    assert life.purger.counts.moved == 3


async def test_a_lengthened_life_is_kept(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    await life.sessions.update(ANNA, session.session_id, SessionUpdate(SessionFields(ttl=5 * HOUR), ("ttl",)))
    life.now += 5 * HOUR + GRACE - MILLISECOND
    await life.purge()
    assert await life.read(session)
    life.now += MILLISECOND
    await life.purge()
    assert await life.read(session) is None


async def test_a_shortened_life_ends_earlier(life: Life) -> None:
    session = await life.create(ttl=timedelta(days=100))
    await life.sessions.update(ANNA, session.session_id, SessionUpdate(SessionFields(ttl=HOUR), ("ttl",)))
    life.now += HOUR + GRACE
    await life.purge()
    assert await life.read(session) is None


async def test_an_undeleted_session_is_kept(life: Life) -> None:
    session = await a_deleted_session(life)
    undeleted = await life.sessions.undelete(ANNA, session.session_id)
    life.now += 10 * GRACE
    await life.purge()
    assert await life.read(session) == undeleted
    assert await life.turns(session) == 3


# Only as read


CHANGES: dict[str, Any] = {
    "undelete": lambda life, session: life.store.undelete(session, life.now, None),
    "accept": lambda life, session: life.run_turn(session, running(a_turn(1))),
    "update": lambda life, session: life.store.update_session(
        session, replace(session, settings_version=2, expire_time=None, idle_ttl=None, look_at=None)
    ),
}


@pytest.mark.parametrize(
    ("change", "fields"), [("undelete", {}), ("accept", {"idle_ttl": HOUR}), ("update", {"ttl": HOUR})]
)
async def test_a_session_that_comes_alive_before_the_write_is_kept(life: Life, change: str, fields: Any) -> None:
    session = await life.create(**fields)
    if not fields:
        session = await life.sessions.delete(ANNA, session.session_id)
    life.now += HOUR + GRACE

    async def come_alive() -> None:
        assert await CHANGES[change](life, session)

    life.store.before["start_purge"] = come_alive
    await life.purge()
    found = await life.read(session)
    assert found
    assert not found.purging


async def test_a_hint_that_is_set_before_the_write_is_kept(life: Life) -> None:
    session = await life.create(idle_ttl=HOUR)
    life.now += HOUR / 2
    session = await life.run_turn(session, running(a_turn(1)))
    life.now += HOUR / 2 + GRACE

    async def delete() -> None:
        await life.sessions.delete(ANNA, session.session_id)

    life.store.before["postpone"] = delete
    await life.purge()
    found = await life.read(session)
    assert found
    assert found.look_at == life.now + GRACE


async def test_a_removed_sessions_turn_ends_nowhere(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    session = await life.run_turn(session, running(a_turn(1)))
    life.now += HOUR + GRACE

    async def look() -> None:
        found = await life.read(session)
        assert found
        assert (found.purging, found.active, found.fence) == (True, None, session.fence + 1)

    life.store.before["delete_turns"] = look
    await life.purge()
    assert await life.read(session) is None


# Wholly


async def test_turns_go_before_their_session_and_a_record_outlives_it(life: Life) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE

    async def look() -> None:
        assert await life.turns(session) == 0
        assert await records(life) == 1

    life.store.before["delete_session"] = look
    await life.purge()
    assert await records(life) == 1
    life.now += RECORD_KEPT
    await life.purge()
    assert await records(life) == 0


async def test_more_turns_than_one_step_removes_all_go(life: Life) -> None:
    session = await life.create()
    numbers = range(1, 1203)
    await asyncio.gather(*(life.archive(session, a_turn(number)) for number in numbers))
    await life.sessions.delete(ANNA, session.session_id)
    life.now += GRACE
    await life.purge()
    assert await life.turns(session) == 0
    assert life.purger.counts.turns == len(numbers)


async def test_more_sessions_than_one_sweep_takes_all_go(life: Life) -> None:
    sessions = [await life.create(ttl=HOUR) for _ in range(230)]
    others = [await life.create(BERT) for _ in range(5)]
    life.now += HOUR + GRACE
    await life.purge()
    assert [await life.read(session) for session in sessions] == [None] * 230
    assert [await life.read(session) for session in others] == others


async def test_a_turn_that_is_archived_after_all_is_removed_a_day_later(life: Life) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE
    await life.purge()
    await life.archive(session, a_turn(99))
    life.now += RECORD_KEPT - MILLISECOND
    await life.purge()
    assert await life.turns(session) == 1
    life.now += MILLISECOND
    await life.purge()
    assert await life.turns(session) == 0


async def test_a_session_that_was_created_anew_under_the_same_id_keeps_its_turns(life: Life) -> None:
    old = await life.create(session_id="mine")
    await life.sessions.delete(ANNA, "mine")
    life.now += GRACE
    await life.purge()
    new = await life.create(session_id="mine", title="new")
    await life.archive(new, a_turn(1))
    await life.archive(old, a_turn(1))
    life.now += RECORD_KEPT
    await life.purge()
    assert await life.turns(new) == 1
    assert await life.turns(old) == 0
    assert await life.read(new) == new


async def test_the_record_of_a_session_that_is_there_is_dropped_and_its_turns_stay(life: Life) -> None:
    """An import that was killed between its last two writes."""
    session = await life.create()
    await life.archive(session, a_turn(1))
    await life.store.put_purge_record(PurgeRecord(session.key, life.now))
    await life.purge()
    assert await records(life) == 0
    assert await life.turns(session) == 1


async def test_the_turns_of_a_session_that_never_came_are_removed(life: Life) -> None:
    """An import that was killed before its session was there."""
    session = replace(await life.create(), uid="another")
    await life.archive(session, a_turn(1))
    await life.store.put_purge_record(PurgeRecord(session.key, life.now))
    await life.purge()
    assert await life.turns(session) == 0
    assert await records(life) == 0


# Killed, or cut off


@pytest.mark.parametrize("is_applied", [False, True])
@pytest.mark.parametrize("at", range(17))
async def test_a_purger_killed_at_any_step_leaves_nothing_alive_harmed_and_nothing_dead(
    life: Life, at: int, is_applied: bool
) -> None:
    dead = [await a_deleted_session(life) for _ in range(3)]
    alive = await life.create(idle_ttl=10 * GRACE)
    await life.archive(alive, a_turn(1))
    life.now += GRACE
    with pytest.raises(Killed):
        await life.new_purger(Mortal(life.store, at, is_applied=is_applied)).sweep()
    life.now += CLAIM
    await life.purge()
    assert [await life.read(session) for session in dead] == [None] * 3
    assert [await life.turns(session) for session in dead] == [0] * 3
    assert await life.read(alive) == alive
    assert await life.turns(alive) == 1
    life.now += RECORD_KEPT
    await life.purge()
    assert await records(life) == 0


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("name", ["start_purge", "delete_turns", "put_purge_record", "delete_session"])
async def test_a_write_whose_answer_is_lost_is_made_again(life: Life, name: str, how: str) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE
    life.store.lost[name] = how
    await life.purge()
    assert await life.read(session) is None
    assert await life.turns(session) == 0


async def test_a_session_that_another_purger_has_begun_with_is_left_to_it_for_a_minute(life: Life) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE
    assert await life.store.start_purge(session, life.now + CLAIM)
    life.now += CLAIM - MILLISECOND
    await life.purge()
    assert await life.read(session)
    life.now += MILLISECOND
    await life.purge()
    assert await life.read(session) is None


async def test_purgers_at_the_same_time_remove_each_session_once(life: Life) -> None:
    for _ in range(40):
        await a_deleted_session(life)
    life.now += GRACE
    purgers = [life.new_purger() for _ in range(4)]
    await asyncio.gather(*(purger.sweep() for purger in purgers))
    assert sum(purger.counts.sessions for purger in purgers) == 40
    assert sum(purger.counts.turns for purger in purgers) == 120


async def test_a_store_that_is_away_ends_a_sweep_and_not_the_purger(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await a_deleted_session(life)
    life.now += GRACE
    life.store.lost["due_sessions"] = "away"
    with pytest.raises(StoreUnavailable):
        await life.purger.sweep()
    life.store.lost["due_sessions"] = "away"
    monkeypatch.setattr(life.purger, "_interval_s", 0.001)
    task = asyncio.ensure_future(life.purger.run())

    async def is_gone() -> bool:
        return await life.read(session) is None

    await until(is_gone)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_done_is_told_while_there_is_more_to_do(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(250):
        await a_deleted_session(life, turns=1)
    life.now += GRACE
    told: list[dict[str, int]] = []
    monkeypatch.setattr(life.purger._log, "info", lambda _event, **fields: told.append(fields))
    monkeypatch.setattr(life.purger, "_interval_s", 0.001)
    task = asyncio.ensure_future(life.purger.run())

    async def is_all_told() -> bool:
        return sum(fields["sessions"] for fields in told) == 250

    await until(is_all_told)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # A sweep has 100 sessions.
    assert len(told) == 3
    assert sum(fields["turns"] for fields in told) == 250


async def test_removing_on_demand_answers_the_turns_that_went_or_that_it_was_no_longer_so(life: Life) -> None:
    session = await life.create()
    await life.archive(session, a_turn(1), a_turn(3))
    assert await life.purger.remove(replace(session, fence=7)) is None
    assert await life.read(session) == session
    assert await life.purger.remove(session) == 2
    assert await life.read(session) is None
