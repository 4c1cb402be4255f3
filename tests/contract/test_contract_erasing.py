"""What a store has for the erasing of all sessions of an owner."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import CountedSession, Erasure, Principal
from service.domain.ports import SessionStore
from tests.contract.build import MILLISECOND, NOW, a_key, a_session, new_id


@pytest.fixture
def owner() -> Principal:
    """An owner of this test alone."""
    return Principal("tenant", new_id())


def an_erasure(owner: Principal, **fields: Any) -> Erasure:
    return replace(Erasure(new_id(), owner, 1, NOW, 10, NOW), **fields)


async def test_an_erasure_comes_back_as_it_was(store: SessionStore, owner: Principal) -> None:
    erasure = an_erasure(owner, pending=(CountedSession(a_key(owner=owner), 3), CountedSession(a_key(owner=owner), 0)))
    assert await store.insert_erasure(erasure)
    assert await store.erasure(owner, erasure.erasure_id) == erasure
    done = replace(erasure, version=2, due=None, pending=(), sessions_erased=2, turns_erased=3, end_time=NOW)
    assert await store.update_erasure(done)
    assert await store.erasure(owner, erasure.erasure_id) == done


async def test_an_owner_has_one_erasure_of_a_number(store: SessionStore, owner: Principal) -> None:
    first, second = an_erasure(owner), an_erasure(owner, number=2)
    assert await store.insert_erasure(first)
    assert not await store.insert_erasure(first)
    assert not await store.insert_erasure(an_erasure(owner))
    assert await store.latest_erasure(owner) == first
    assert await store.insert_erasure(second)
    assert await store.latest_erasure(owner) == second
    other = Principal("other", owner.subject)
    assert await store.latest_erasure(other) is None
    assert await store.insert_erasure(an_erasure(other))


async def test_an_erasure_is_replaced_only_in_the_version_before(store: SessionStore, owner: Principal) -> None:
    erasure = an_erasure(owner)
    await store.insert_erasure(erasure)
    changed = replace(erasure, version=2, turns_erased=1)
    assert await store.update_erasure(changed)
    assert not await store.update_erasure(replace(erasure, version=2, turns_erased=2))
    assert not await store.update_erasure(replace(erasure, version=4))
    assert not await store.update_erasure(an_erasure(owner, version=2))
    assert await store.erasure(owner, erasure.erasure_id) == changed


async def test_an_erasure_of_another_is_not_there(store: SessionStore, owner: Principal) -> None:
    erasure = an_erasure(owner)
    await store.insert_erasure(erasure)
    for other in (Principal("other", owner.subject), Principal(owner.tenant, "other")):
        assert await store.erasure(other, erasure.erasure_id) is None
        assert not await store.update_erasure(replace(erasure, owner=other, version=2))
    assert await store.erasure(owner, erasure.erasure_id) == erasure


async def test_due_erasures_are_those_whose_time_has_come(store: SessionStore, owner: Principal) -> None:
    past = NOW - timedelta(days=10_000)
    erasures = [an_erasure(owner, number=number, due=past + number * MILLISECOND) for number in (3, 1, 2)]
    erasures.append(an_erasure(owner, number=4, due=None, end_time=NOW))
    for erasure in erasures:
        await store.insert_erasure(erasure)

    async def due(moment: Any, limit: int = 1000) -> list[int]:
        return [erasure.number for erasure in await store.due_erasures(moment, limit) if erasure.owner == owner]

    assert await due(past) == []
    assert await due(past + 2 * MILLISECOND) == [1, 2]
    assert await due(past + timedelta(days=1)) == [1, 2, 3]
    assert await store.due_erasures(past + timedelta(days=1), 0) == []


async def test_sessions_before_a_time_come_in_order_and_in_pages(store: SessionStore, owner: Principal) -> None:
    times = [NOW, NOW + MILLISECOND, NOW, NOW - MILLISECOND, NOW, NOW - timedelta(days=1)]
    states: list[dict[str, Any]] = [{}, {}, {"deleted_at": NOW}, {"purging": True}, {"expire_time": NOW}, {}]
    sessions = [a_session(owner=owner, create_time=time, **state) for time, state in zip(times, states, strict=True)]
    for session in (*sessions, a_session(owner=Principal("other", owner.subject))):
        await store.insert_session(session)
    expected = sorted(
        (session for session in sessions if session.create_time <= NOW), key=lambda s: (s.create_time, s.session_id)
    )
    assert await store.count_sessions(owner, NOW) == 5
    assert list(await store.sessions_before(owner, NOW, after=None, limit=100)) == expected
    for limit in (1, 2, 5):
        found: list[Any] = []
        while page := await store.sessions_before(owner, NOW, after=found[-1] if found else None, limit=limit):
            assert len(page) <= limit
            found += page
        assert found == expected
