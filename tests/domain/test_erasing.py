"""All sessions of an owner are erased, nothing else is, and the receipt is right, whoever is killed on the way."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import Erasure, ErasureState, Principal, Session
from service.domain.erasing import Eraser
from service.domain.errors import ErasureNotFound, InvalidField, StoreUnavailable
from service.domain.purger import RECORD_KEPT
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_turn, running
from tests.domain.files import exported, imported, lease_of, rows, with_last_seq
from tests.domain.life import ANNA, BERT, MILLISECOND, Killed, Life, Mortal, NoLog
from tests.support.waiting import until

HOUR = timedelta(hours=1)
CLAIM = timedelta(minutes=1)
_numbers = itertools.count()


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


def eraser_of(life: Life, store: Any = None, interval_s: float = 60) -> Eraser:
    return Eraser(
        store or life.store,
        life.new_purger(store),
        interval_s=interval_s,
        now=life.time,
        new_id=lambda: f"erasure{next(_numbers)}",
        log=NoLog(),
    )


async def work(life: Life, eraser: Eraser) -> None:
    """Go on with what is due."""
    for erasure in await life.store.due_erasures(life.now, 10):
        await eraser.go_on(erasure)


async def erased(life: Life, owner: Principal = ANNA) -> Erasure:
    """Begin an erasure and bring it to its end."""
    eraser = eraser_of(life)
    erasure = await eraser.begin(owner)
    await work(life, eraser)
    return await eraser.get(owner, erasure.erasure_id)


def counts(erasure: Erasure) -> tuple[str, int, int, int]:
    return erasure.state.value, erasure.sessions_total, erasure.sessions_erased, erasure.turns_erased


async def a_session(life: Life, turns: int = 2, owner: Principal = ANNA, **fields: Any) -> Session:
    session = await life.create(owner, **fields)
    await life.archive(session, *(a_turn(2 * number + 1) for number in range(turns)))
    return await with_last_seq(life, session) if turns else session


async def every_kind(life: Life, owner: Principal = ANNA) -> Sequence[Session]:
    """Sessions in every state that one can be in, with 16 ended turns all together."""
    deleted, purging = await a_session(life, owner=owner), await a_session(life, 3, owner=owner)
    await life.sessions.delete(owner, deleted.session_id)
    await life.purger.begin(purging)
    busy = await life.run_turn(await a_session(life, 4, owner=owner), running(a_turn(9)))
    expired = await a_session(life, 5, owner=owner, ttl=HOUR)
    life.now += HOUR
    unarchived = await life.create(owner)
    active = replace(running(turn := a_turn(1)), fence=1)
    assert turn.ending
    await life.store.accept(unarchived, life.now, active)
    assert await life.store.end(lease_of(unarchived, active), turn.ending)
    return [
        await life.create(owner),
        deleted,
        purging,
        busy,
        expired,
        unarchived,
        await a_session(life, 1, owner=owner),
    ]


async def left(life: Life, owner: Principal = ANNA) -> int:
    return await life.store.count_sessions(owner, life.now + timedelta(days=365))


async def test_sessions_in_every_state_are_erased_with_their_turns(life: Life) -> None:
    sessions = await every_kind(life)
    receipt = await erased(life)
    assert counts(receipt) == ("DONE", 7, 7, 16)
    assert (receipt.pending, receipt.due, receipt.end_time) == ((), None, life.now)
    assert await left(life) == 0
    assert [await life.turns(session) for session in sessions] == [0] * 7


async def test_nothing_of_another_owner_is_touched(life: Life) -> None:
    await every_kind(life)
    others = await every_kind(life, BERT)
    before = [(await life.read(session), await life.turns(session)) for session in others]
    await erased(life)
    assert [(await life.read(session), await life.turns(session)) for session in others] == before
    assert await left(life, Principal("other", ANNA.subject)) == 0


async def test_a_running_turn_cannot_end_any_more(life: Life) -> None:
    session = await life.create()
    busy = await life.run_turn(session, running(turn := a_turn(1)))
    assert counts(await erased(life)) == ("DONE", 1, 1, 0)
    assert busy.active
    assert turn.ending
    assert not await life.store.end(lease_of(session, busy.active), turn.ending)


async def test_an_owner_without_sessions_gets_an_empty_receipt(life: Life) -> None:
    assert counts(await erased(life)) == ("DONE", 0, 0, 0)


async def test_what_is_created_or_imported_later_stays(life: Life) -> None:
    file = await exported(life, await a_session(life))
    eraser = eraser_of(life)
    erasure = await eraser.begin(ANNA)
    life.now += MILLISECOND
    new, copy = await a_session(life), await imported(life, file)
    assert copy.create_time <= erasure.create_time
    await work(life, eraser)
    assert counts(await eraser.get(ANNA, erasure.erasure_id)) == ("DONE", 1, 1, 2)
    assert await life.turns(new) == await life.turns(copy) == 2
    assert await left(life) == 2
    life.now += MILLISECOND
    assert counts(await erased(life)) == ("DONE", 2, 2, 4)


async def test_more_than_a_batch_is_erased(life: Life) -> None:
    for _ in range(45):
        await a_session(life, 1)
    assert counts(await erased(life)) == ("DONE", 45, 45, 45)


async def test_one_that_is_under_way_is_answered(life: Life) -> None:
    await a_session(life)
    eraser = eraser_of(life)
    first = await eraser.begin(ANNA)
    assert await eraser_of(life).begin(ANNA) == first
    assert (await eraser.begin(BERT)).erasure_id != first.erasure_id
    await work(life, eraser)
    second = await eraser.begin(ANNA)
    assert (second.number, second.erasure_id == first.erasure_id) == (2, False)
    assert second.state is ErasureState.RUNNING


async def test_two_that_begin_at_once_are_one(life: Life) -> None:
    await a_session(life)
    others: list[Erasure] = []

    async def another() -> None:
        others.append(await eraser_of(life, life.store.inner).begin(ANNA))

    life.store.before["insert_erasure"] = another
    assert [await eraser_of(life).begin(ANNA)] == others


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_lost_answer_to_its_beginning_makes_no_second(life: Life, how: str) -> None:
    life.store.lost["insert_erasure"] = how
    erasure = await eraser_of(life).begin(ANNA)
    assert [erasure] == await life.store.due_erasures(life.now, 10)


async def test_a_beginning_without_a_store_fails_at_once(life: Life) -> None:
    life.store.lost["insert_erasure"] = "away"
    with pytest.raises(StoreUnavailable):
        await eraser_of(life).begin(ANNA)


async def test_an_erasure_of_another_is_not_there(life: Life) -> None:
    erasure = await erased(life)
    with pytest.raises(ErasureNotFound):
        await eraser_of(life).get(BERT, erasure.erasure_id)
    with pytest.raises(ErasureNotFound):
        await eraser_of(life).get(ANNA, "other")
    with pytest.raises(InvalidField):
        await eraser_of(life).get(ANNA, "-")


# Others at work


async def test_a_session_that_changes_on_the_way_is_counted_as_it_is_erased(life: Life) -> None:
    session = await a_session(life, 2)

    async def one_more() -> None:
        await life.store.inner.archive(session.key, a_turn(5))
        await with_last_seq(life, session)

    life.store.before["start_purge"] = one_more
    assert counts(await erased(life)) == ("DONE", 1, 1, 3)
    assert await life.turns(session) == 0


async def test_what_a_purger_removes_on_the_way_counts_as_erased(life: Life) -> None:
    session, _ = await a_session(life), await a_session(life)
    life.store.before["update_erasure"] = lambda: life.new_purger(life.store.inner).remove(session)
    assert counts(await erased(life)) == ("DONE", 2, 2, 2)
    third = await a_session(life)
    life.store.before["start_purge"] = lambda: life.new_purger(life.store.inner).remove(third)
    assert counts(await erased(life)) == ("DONE", 1, 1, 2)


async def test_two_that_work_on_one_count_once(life: Life) -> None:
    await every_kind(life)
    eraser = eraser_of(life)
    erasure = await eraser.begin(ANNA)
    due = await life.store.due_erasures(life.now, 10)
    await asyncio.gather(*(eraser_of(life).go_on(due[0]) for _ in range(3)))
    assert counts(await eraser.get(ANNA, erasure.erasure_id)) == ("DONE", 7, 7, 16)


@pytest.mark.parametrize("call", ["session", "update_erasure", "delete_session", "put_purge_record"])
async def test_whoever_takes_over_in_the_middle_makes_no_difference(life: Life, call: str) -> None:
    await every_kind(life)
    eraser = eraser_of(life)
    erasure = await eraser.begin(ANNA)

    async def another() -> None:
        life.now += CLAIM
        await work(life, eraser_of(life, life.store.inner))

    life.store.before[call] = another
    await work(life, eraser)
    assert counts(await eraser.get(ANNA, erasure.erasure_id)) == ("DONE", 7, 7, 16)
    assert await left(life) == 0


# Crashes


@pytest.mark.parametrize("is_applied", [False, True])
async def test_a_crash_anywhere_is_made_good_by_another(store: SqliteStore, is_applied: bool) -> None:
    for at in itertools.count():
        life = Life(store)
        owner, other = Principal("t", f"a{at}{is_applied}"), Principal("t", f"b{at}{is_applied}")
        await every_kind(life, owner)
        alive = await a_session(life, owner=other)
        as_it_was = await life.read(alive)
        erasure = await eraser_of(life).begin(owner)
        killed = False
        try:
            await work(life, eraser_of(life, Mortal(store, at, is_applied=is_applied)))
        except Killed:
            killed = True
        life.now += CLAIM
        await work(life, eraser_of(life))
        receipt = await eraser_of(life).get(owner, erasure.erasure_id)
        assert counts(receipt) == ("DONE", 7, 7, 16), at
        assert await left(life, owner) == 0
        assert (await life.read(alive), await life.turns(alive)) == (as_it_was, 2)
        await life.purger.remove(alive)
        life.now += RECORD_KEPT
        await life.purge()
        assert (await rows(life))[:3] == [0, 0, 0]
        if not killed:
            break
    assert at > 40


@pytest.mark.parametrize("is_applied", [False, True])
async def test_many_crashes_in_a_row_come_to_an_end(life: Life, is_applied: bool) -> None:
    await every_kind(life)
    erasure = await eraser_of(life).begin(ANNA)
    for at in itertools.cycle((19, 31, 23)):
        try:
            await work(life, eraser_of(life, Mortal(life.store.inner, at, is_applied=is_applied)))
            break
        except Killed:
            life.now += CLAIM
    for _ in range(3):
        life.now += CLAIM
        await work(life, eraser_of(life))
    assert counts(await eraser_of(life).get(ANNA, erasure.erasure_id)) == ("DONE", 7, 7, 16)


@pytest.mark.parametrize("how", ["before", "after", "away"])
@pytest.mark.parametrize("call", ["update_erasure", "start_purge", "delete_turns", "delete_session", "archive"])
async def test_an_answer_that_was_lost_is_asked_for_again(life: Life, call: str, how: str) -> None:
    await every_kind(life)
    life.store.lost[call] = how
    assert counts(await erased(life)) == ("DONE", 7, 7, 16)


# The task


async def test_it_begins_at_once_and_goes_on_with_what_others_left(life: Life) -> None:
    await a_session(life)
    await a_session(life, owner=BERT)
    left_over = await eraser_of(life).begin(BERT)
    eraser = eraser_of(life)
    running_task = asyncio.create_task(eraser.run())

    async def is_done(owner: Principal, erasure_id: str) -> bool:
        return (await eraser.get(owner, erasure_id)).state is ErasureState.DONE

    await until(lambda: is_done(BERT, left_over.erasure_id))
    erasure = await eraser.begin(ANNA)
    await until(lambda: is_done(ANNA, erasure.erasure_id))
    running_task.cancel()
    await asyncio.wait([running_task])
    assert await left(life) == await left(life, BERT) == 0


async def test_a_store_that_is_away_does_not_end_the_task(life: Life) -> None:
    await a_session(life)
    eraser = eraser_of(life, interval_s=0.05)
    life.store.lost["due_erasures"] = "away"
    running_task = asyncio.create_task(eraser.run())
    await until(lambda: asyncio.sleep(0, "due_erasures" in life.store.calls))
    life.store.lost["sessions_before"] = "away"
    await eraser.begin(ANNA)
    await until(lambda: asyncio.sleep(0, "sessions_before" in life.store.calls))
    life.now += CLAIM

    async def is_empty() -> bool:
        return await left(life) == 0

    await until(is_empty)
    assert not running_task.done()
    running_task.cancel()
    await asyncio.wait([running_task])
