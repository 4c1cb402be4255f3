"""Sessions are changed, deleted, brought back and removed: each write under its conditions, one by one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import ModelSettings, PurgeRecord, Session
from service.domain.ports import SessionStore
from tests.contract.build import (
    FULL_SETTINGS,
    MILLISECOND,
    NOW,
    OTHERS,
    OWNER,
    TEXTS,
    a_key,
    a_running_session,
    a_session,
    a_turn,
    an_active,
    an_ending,
    the_lease,
)
from tests.contract.conftest import MakeStore

LATER = NOW + timedelta(hours=1)
Write = Callable[[SessionStore, Session], Awaitable[object]]


def _changed(session: Session, **fields: Any) -> Session:
    return replace(session, settings_version=session.settings_version + 1, **fields)


# Each write, and a session that it is matched by.
WRITES: dict[str, tuple[Write, Session]] = {
    "update_session": (lambda store, read: store.update_session(read, _changed(read, title="new")), a_session()),
    "delete": (lambda store, read: store.delete(read, LATER, LATER), a_session()),
    "undelete": (lambda store, read: store.undelete(read, LATER, None), a_session(deleted_at=NOW)),
    "postpone": (lambda store, read: store.postpone(read, LATER), a_session(look_at=NOW)),
    "start_purge": (lambda store, read: store.start_purge(read, LATER), a_session(deleted_at=NOW, look_at=NOW)),
    "delete_session": (lambda store, read: store.delete_session(read.key), a_session(purging=True)),
}
# What may not be otherwise than it was read.
AS_READ = {
    "update_session": ("settings_version",),
    "delete": ("fence", "settings_version"),
    "undelete": ("deleted_at",),
    "postpone": ("look_at", "settings_version", "deleted_at"),
    "start_purge": ("fence", "settings_version", "deleted_at", "idle_since"),
    "delete_session": (),
}
VALUES: dict[str, Any] = {
    "fence": 7, "settings_version": 7, "deleted_at": NOW + MILLISECOND, "look_at": NOW + MILLISECOND,
    "idle_since": NOW + MILLISECOND,
}  # fmt: skip
# States in which a write is refused, whatever was read.
NEVER: dict[str, tuple[dict[str, Any], ...]] = {
    "update_session": ({"deleted_at": NOW}, {"purging": True}),
    "delete": ({"deleted_at": NOW}, {"purging": True}),
    "undelete": ({"deleted_at": None}, {"purging": True}),
    "postpone": (),
    "start_purge": ({"purging": True},),
    "delete_session": ({"purging": False},),
}


async def _saved(store: SessionStore, session: Session) -> Session:
    assert await store.insert_session(session)
    return session


async def _there(store: SessionStore, write: str, **fields: Any) -> Session:
    fresh = a_session()
    return await _saved(store, replace(WRITES[write][1], session_id=fresh.session_id, uid=fresh.uid, **fields))


async def _found(store: SessionStore, session: Session) -> Session | None:
    return await store.session(OWNER, session.session_id)


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_is_matched_once(store: SessionStore, write: str) -> None:
    session = await _there(store, write)
    assert await WRITES[write][0](store, session)
    after = await _found(store, session)
    assert after != session
    assert not await WRITES[write][0](store, session)
    assert await _found(store, session) == after


@pytest.mark.parametrize("write", WRITES)
async def test_of_the_same_write_at_the_same_time_one_wins(make_store: MakeStore, write: str) -> None:
    stores = [await make_store() for _ in range(2)]
    for _ in range(10):
        session = await _there(stores[0], write)
        answers = await asyncio.gather(*(WRITES[write][0](stores[i % 2], session) for i in range(4)))
        assert sum(map(bool, answers)) == 1


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    "key", [{"session_id": "nobody"}, {"uid": "another"}, {"owner": OTHERS[0]}, {"owner": OTHERS[1]}]
)
async def test_a_write_to_another_session_or_owner_is_refused(store: SessionStore, write: str, key: Any) -> None:
    session = await _there(store, write)
    assert not await WRITES[write][0](store, replace(session, **key))
    assert await _found(store, session) == session


@pytest.mark.parametrize(("write", "field"), [(write, field) for write, names in AS_READ.items() for field in names])
async def test_a_write_is_refused_if_the_session_is_not_as_it_was_read(
    store: SessionStore, write: str, field: str
) -> None:
    session = await _there(store, write)
    assert not await WRITES[write][0](store, replace(session, **{field: VALUES[field]}))
    assert await _found(store, session) == session


@pytest.mark.parametrize(("write", "state"), [(write, state) for write, states in NEVER.items() for state in states])
async def test_a_write_is_refused_in_a_state_that_forbids_it(store: SessionStore, write: str, state: Any) -> None:
    session = await _there(store, write, **state)
    assert not await WRITES[write][0](store, session)
    assert await _found(store, session) == session


# Updating


async def test_an_update_sets_the_settings_and_nothing_else(store: SessionStore) -> None:
    session = await _saved(store, replace(a_running_session(), labels={"a": "b"}, fingerprint="f", last_seq=4))
    changed = replace(
        session,
        title="title",
        labels={"c": "d"},
        instructions="be brief",
        settings=FULL_SETTINGS,
        expire_time=LATER,
        idle_ttl=timedelta(seconds=5),
        idle_since=LATER,
        settings_version=2,
        update_time=LATER,
        look_at=LATER,
    )
    assert await store.checkpoint(the_lease(session), 0, "text")
    expected = replace(changed, active=an_active(beat=1, parts=("text",)))
    assert await store.update_session(session, changed) == expected
    assert await _found(store, session) == expected
    cleared = replace(
        changed, title="", labels={}, instructions="", settings=ModelSettings(), expire_time=None, idle_ttl=None,
        settings_version=3, look_at=None,
    )  # fmt: skip
    assert await store.update_session(changed, cleared) == replace(cleared, active=expected.active)


@pytest.mark.parametrize("name", TEXTS)
async def test_an_update_keeps_every_text(store: SessionStore, name: str) -> None:
    session, text = await _saved(store, a_session()), TEXTS[name]
    changed = _changed(session, title=text, instructions=text, labels={text: text})
    assert await store.update_session(session, changed) == changed


# Deleting


async def test_deleting_cancels_a_running_turn(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    expected = replace(session, deleted_at=NOW, look_at=LATER, active=an_active(cancel=True))
    assert await store.delete(session, NOW, LATER) == expected
    assert await _found(store, session) == expected


async def test_deleting_leaves_an_ended_turn_as_it_is(store: SessionStore) -> None:
    session = await _saved(store, a_session(active=an_active().ended(an_ending())))
    assert await store.delete(session, NOW, LATER) == replace(session, deleted_at=NOW, look_at=LATER)


async def test_deleting_what_was_read_running_is_refused_once_the_turn_has_ended(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    assert await store.end(the_lease(session), an_ending())
    assert await store.delete(session, NOW, LATER) is None


async def test_undeleting_takes_only_the_deletion_away(store: SessionStore) -> None:
    session = await _saved(store, replace(a_running_session(cancel=True), deleted_at=NOW, look_at=NOW))
    expected = replace(session, deleted_at=None, idle_since=LATER, look_at=None)
    assert await store.undelete(session, LATER, None) == expected
    assert await _found(store, session) == expected


# Removing


@pytest.mark.parametrize("session", [a_running_session(), a_session(active=an_active().ended(an_ending()))])
async def test_a_session_that_is_being_removed_takes_no_write_of_a_turn_any_more(
    store: SessionStore, session: Session
) -> None:
    await _saved(store, session)
    assert await store.start_purge(session, LATER)
    expected = replace(session, purging=True, fence=session.fence + 1, look_at=LATER, active=None)
    assert await _found(store, session) == expected
    assert not await store.end(the_lease(session), an_ending())
    assert not await store.checkpoint(the_lease(session), 0, "text")
    assert not await store.accept(expected, NOW, an_active(fence=expected.fence + 1))
    assert await _found(store, session) == expected
    assert list(await store.running_sessions(9)) == []


async def test_due_sessions_are_those_whose_time_has_come_the_longest_due_first(store: SessionStore) -> None:
    times = [NOW, NOW - MILLISECOND, NOW + MILLISECOND, NOW - timedelta(days=1), None]
    sessions = [await _saved(store, a_session(look_at=time, purging=time == NOW)) for time in times]
    assert list(await store.due_sessions(NOW, 9)) == [sessions[3], sessions[1], sessions[0]]
    assert list(await store.due_sessions(NOW, 2)) == [sessions[3], sessions[1]]
    assert list(await store.due_sessions(NOW, 0)) == []


async def test_a_hint_can_be_set_and_taken_away(store: SessionStore) -> None:
    session = await _saved(store, a_session(look_at=NOW))
    assert await store.postpone(session, None)
    assert list(await store.due_sessions(LATER, 9)) == []
    assert await store.postpone(replace(session, look_at=None), LATER)
    assert await _found(store, session) == replace(session, look_at=LATER)


async def test_turns_are_deleted_in_pieces_of_one_session_and_owner_only(store: SessionStore) -> None:
    key = a_key()
    others = [key._replace(uid=key.uid + "0"), a_key()]
    for each in (key, *others):
        for number in range(1, 6):
            assert await store.archive(each, a_turn(number, ending=an_ending()))
    for owner in OTHERS:
        assert await store.delete_turns(key._replace(owner=owner), 9) == 0
    assert [await store.delete_turns(key, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert list(await store.turns(key, first_seq_from=0, first_seq_to=9, limit=9)) == []
    for other in others:
        assert len(await store.turns(other, first_seq_from=0, first_seq_to=9, limit=9)) == 5


async def test_a_removed_sessions_id_is_free(store: SessionStore) -> None:
    session = await _saved(store, a_session(purging=True))
    assert await store.delete_session(session.key)
    assert await _found(store, session) is None
    assert await store.insert_session(a_session(session_id=session.session_id))


async def test_purge_records_are_kept_replaced_and_deleted_as_read(store: SessionStore) -> None:
    keys = [a_key() for _ in range(3)]
    records = [PurgeRecord(key, NOW + number * MILLISECOND) for number, key in enumerate(keys)]
    for record in reversed(records):
        await store.put_purge_record(record)
    assert list(await store.due_purge_records(NOW + MILLISECOND, 9)) == records[:2]
    assert list(await store.due_purge_records(LATER, 2)) == records[:2]
    moved = PurgeRecord(keys[0], LATER)
    await store.put_purge_record(moved)
    assert list(await store.due_purge_records(LATER, 9)) == [*records[1:], moved]
    assert not await store.delete_purge_record(records[0])
    for record in (moved, *records[1:]):
        assert await store.delete_purge_record(record)
        assert not await store.delete_purge_record(record)
    assert list(await store.due_purge_records(LATER, 9)) == []
