"""ACCEPT: what it changes, and each condition under which it is refused."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.domain.entities import Session
from service.domain.ports import SessionStore
from tests.contract.build import MILLISECOND, NOW, OTHERS, OWNER, TEXTS, a_session, a_turn, an_active, an_ending, new_id
from tests.contract.conftest import MakeStore

LATER = NOW + timedelta(hours=1)


async def _accept(store: SessionStore, session: Session, now: datetime = LATER, **changes: Any) -> bool:
    active = changes.pop("active", an_active(fence=session.fence + 1))
    return await store.accept(replace(session, **changes), now, active)


async def test_accept_makes_the_turn_the_sessions_turn(store: SessionStore) -> None:
    session = a_session(title="kept", fence=7, last_seq=4)
    assert await store.insert_session(session)
    active = an_active(a_turn(5), fence=8, cancel=True)
    assert await _accept(store, session, active=active)
    assert await store.session(OWNER, session.session_id) == replace(session, fence=8, update_time=LATER, active=active)


async def test_accept_replaces_an_ended_turn_and_all_that_was_its_own(store: SessionStore) -> None:
    ended = an_active(cancel=True, released=True, beat=9).ended(an_ending())
    session = a_session(fence=1, last_seq=2, active=ended)
    assert await store.insert_session(session)
    active = an_active(a_turn(3), fence=2, lease_id="lease2")
    assert await _accept(store, session, active=active)
    found = await store.session(OWNER, session.session_id)
    assert found
    assert found.active == active
    assert found.last_seq == 2


@pytest.mark.parametrize("name", TEXTS)
async def test_accept_keeps_every_text(store: SessionStore, name: str) -> None:
    session = a_session()
    assert await store.insert_session(session)
    active = an_active(a_turn(user_text=TEXTS[name]))
    assert await _accept(store, session, active=active)
    found = await store.session(OWNER, session.session_id)
    assert found
    assert found.active == active


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        pytest.param({}, {"session_id": "nobody"}, id="no such session"),
        pytest.param({}, {"uid": "another"}, id="re-created session"),
        pytest.param({"fence": 3}, {"fence": 2}, id="older fence"),
        pytest.param({"fence": 3}, {"fence": 4}, id="newer fence"),
        pytest.param({"settings_version": 3}, {"settings_version": 2}, id="older settings"),
        pytest.param({}, {"owner": OTHERS[0]}, id="another subject's"),
        pytest.param({}, {"owner": OTHERS[1]}, id="another tenant's"),
        pytest.param({"deleted_at": NOW}, {}, id="deleted"),
        pytest.param({"deleted_at": LATER + MILLISECOND}, {}, id="deleted by a clock ahead of ours"),
        pytest.param({"purging": True}, {}, id="purging"),
        pytest.param({"expire_time": LATER - MILLISECOND}, {}, id="expired"),
        pytest.param({"expire_time": LATER}, {}, id="expired at this instant"),
    ],
)
async def test_accept_is_refused_and_changes_nothing(
    store: SessionStore, fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    session = a_session(**fields)
    assert await store.insert_session(session)
    assert not await _accept(store, session, **changes)
    assert await store.session(OWNER, session.session_id) == session


async def test_accept_is_matched_until_the_last_millisecond(store: SessionStore) -> None:
    session = a_session(expire_time=LATER + MILLISECOND)
    assert await store.insert_session(session)
    assert await _accept(store, session)


async def test_accept_repeated_is_refused_and_changes_nothing(store: SessionStore) -> None:
    session = a_session()
    assert await store.insert_session(session)
    assert await _accept(store, session)
    accepted = await store.session(OWNER, session.session_id)
    assert not await _accept(store, session, now=LATER + MILLISECOND)
    assert await store.session(OWNER, session.session_id) == accepted


async def test_of_accepts_at_the_same_time_exactly_one_wins(make_store: MakeStore) -> None:
    stores = [await make_store() for _ in range(2)]
    session = a_session()
    assert await stores[0].insert_session(session)
    for fence in range(40):
        actives = [an_active(a_turn(turn_id=new_id()), fence=fence + 1, lease_id=new_id()) for _ in range(6)]
        answers = await asyncio.gather(
            *(stores[i % 2].accept(replace(session, fence=fence), NOW, active) for i, active in enumerate(actives))
        )
        assert sum(answers) == 1
        for store in stores:
            found = await store.session(OWNER, session.session_id)
            assert found
            assert found.active == actives[answers.index(True)]


async def test_what_one_store_has_accepted_another_sees_at_once(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()
    session = a_session()
    assert await one.insert_session(session)
    assert await other.session(OWNER, session.session_id) == session
    assert await _accept(one, session)
    found = await other.session(OWNER, session.session_id)
    assert found
    assert found.fence == 1
