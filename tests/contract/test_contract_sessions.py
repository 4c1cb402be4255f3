"""Sessions go in and come out as they were."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.entities import ModelSettings, OnDisconnect, Session
from service.domain.ports import SessionStore
from tests.contract.build import (
    ENDINGS,
    FULL_SETTINGS,
    MILLISECOND,
    NOW,
    OTHERS,
    OWNER,
    TEXTS,
    a_running_session,
    a_session,
    a_turn,
    an_active,
    an_ending,
)

SESSIONS = {
    "plain": a_session(),
    "full": a_session(
        title="title",
        labels={"a": "", "b.c": "d", "$set": "$", "": "empty", "ü 😀": "\x00", "_id": "x"},
        instructions="be brief",
        settings=FULL_SETTINGS,
        expire_time=NOW + timedelta(days=400),
        idle_ttl=timedelta(milliseconds=1),
        idle_since=NOW + MILLISECOND,
        fingerprint="0f",
        look_at=NOW - MILLISECOND,
        last_seq=2**31 - 1,
        fence=2**40,
        settings_version=17,
        update_time=NOW + MILLISECOND,
    ),
    "zero settings": a_session(settings=ModelSettings(temperature=0.0, top_p=0.0, seed=0)),
    "deleted": a_session(deleted_at=NOW),
    "purging": a_session(purging=True),
    "running": a_running_session(),
    "running with all": a_running_session(
        turn=a_turn(5, attempt=3, settings_version=7),
        parts=("one", "two", ""),
        beat=2,
        released=True,
        cancel=True,
        on_disconnect=OnDisconnect.CANCEL,
        deadline=NOW + MILLISECOND,
    ),
    **{f"ended: {name}": a_session(active=an_active().ended(ending)) for name, ending in ENDINGS.items()},
}


async def test_ping_answers(store: SessionStore) -> None:
    await store.ping()


@pytest.mark.parametrize("name", SESSIONS)
async def test_a_session_comes_back_as_it_was(store: SessionStore, name: str) -> None:
    session = SESSIONS[name]
    if session.active and session.active.is_running:
        # A store may drop empty parts: they say nothing.
        session = replace(session, active=replace(session.active, parts=tuple(filter(None, session.active.parts))))
    assert await store.insert_session(session)
    assert await store.session(OWNER, session.session_id) == session


@pytest.mark.parametrize("name", TEXTS)
async def test_every_text_comes_back_as_it_was(store: SessionStore, name: str) -> None:
    text = TEXTS[name]
    turn = a_turn(user_text=text, settings=ModelSettings(model=text))
    ended = an_active(turn).ended(an_ending(text=text))
    session = a_session(title=text, instructions=text, labels={text: text}, active=ended)
    assert await store.insert_session(session)
    assert await store.session(OWNER, session.session_id) == session


async def test_a_text_that_is_not_unicode_is_refused_and_nothing_is_saved(store: SessionStore) -> None:
    session = a_session(title="\ud800")
    with pytest.raises((UnicodeEncodeError, TypeError)):
        await store.insert_session(session)
    assert await store.session(OWNER, session.session_id) is None
    await store.ping()


async def test_an_unknown_session_is_none(store: SessionStore) -> None:
    assert await store.session(OWNER, "nobody") is None


async def test_a_session_of_another_owner_is_none(store: SessionStore) -> None:
    session = a_session()
    assert await store.insert_session(session)
    for owner in OTHERS:
        assert await store.session(owner, session.session_id) is None


async def test_of_many_looks_at_once_each_gets_its_own(store: SessionStore) -> None:
    sessions = [a_session(session_id=f"s{n}", uid=f"u{n}") for n in range(20)]
    for session in sessions:
        assert await store.insert_session(session)
    asked = [*sessions, a_session(session_id="unknown"), *sessions[:3]]
    others = [store.session(owner, session.session_id) for owner in OTHERS for session in sessions[:3]]
    found = await asyncio.gather(*(store.session(OWNER, session.session_id) for session in asked), *others)
    assert found == [*sessions, None, *sessions[:3], *[None] * 6]


async def test_an_id_is_taken_whoever_asks_for_it(store: SessionStore) -> None:
    session = a_session()
    assert await store.insert_session(session)
    for owner in OTHERS:
        assert not await store.insert_session(replace(session, owner=owner, uid="another"))
    assert await store.session(OWNER, session.session_id) == session


async def test_a_taken_id_is_refused_and_its_session_stays(store: SessionStore) -> None:
    session = a_session(title="first")
    assert await store.insert_session(session)
    assert not await store.insert_session(a_session(session_id=session.session_id, title="second"))
    assert await store.session(OWNER, session.session_id) == session


async def test_an_insert_repeated_is_refused_and_the_session_stays(store: SessionStore) -> None:
    session = a_session()
    assert await store.insert_session(session)
    assert not await store.insert_session(session)
    assert await store.session(OWNER, session.session_id) == session


async def test_ids_are_told_apart_by_case_and_length(store: SessionStore) -> None:
    sessions = [a_session(session_id=name) for name in ("a", "A", "a-", "aa")]
    for session in sessions:
        assert await store.insert_session(session)
    assert [await store.session(OWNER, session.session_id) for session in sessions] == sessions


async def test_running_sessions_are_those_with_a_running_turn(store: SessionStore) -> None:
    running = [
        a_running_session(parts=("text",), beat=1),
        a_running_session(released=True),
        replace(a_running_session(), deleted_at=NOW),
    ]
    others = [a_session(), a_session(active=an_active().ended(an_ending()))]
    for session in [*running, *others]:
        assert await store.insert_session(session)
    found = await store.running_sessions(10)
    assert _by_id(found) == _by_id(running)


async def test_running_sessions_are_limited(store: SessionStore) -> None:
    for _ in range(3):
        assert await store.insert_session(a_running_session())
    assert [len(await store.running_sessions(limit)) for limit in (0, 1, 2, 3, 4)] == [0, 1, 2, 3, 3]


async def test_running_sessions_leave_out_turns_that_are_known(store: SessionStore) -> None:
    sessions = [a_running_session() for _ in range(4)]
    for session in sessions:
        assert await store.insert_session(session)
    known = {(session.uid, "turn1") for session in sessions[1:]} | {(sessions[0].uid, "turn2"), ("gone", "turn1")}
    for limit in (1, 9):
        assert _by_id(await store.running_sessions(limit, but=known)) == _by_id(sessions[:1])
    assert list(await store.running_sessions(9, but={(session.uid, "turn1") for session in sessions})) == []


async def test_no_running_sessions_is_empty(store: SessionStore) -> None:
    assert list(await store.running_sessions(10)) == []


def _by_id(sessions: "list[Session] | object") -> dict[str, Session]:
    assert isinstance(sessions, list)
    return {session.session_id: session for session in sessions}
