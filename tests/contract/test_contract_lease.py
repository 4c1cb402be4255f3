"""What the holder of a lease writes, and how others take it, or ask for the end: each condition by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from service.domain.entities import Session
from service.domain.ports import Lease, SessionStore
from tests.contract.build import (
    ENDINGS,
    OTHERS,
    OWNER,
    TEXTS,
    a_running_session,
    a_session,
    a_turn,
    an_active,
    an_ending,
    new_id,
    the_lease,
)
from tests.contract.conftest import MakeStore

Write = Callable[[SessionStore, Lease, int], Awaitable[object]]

BEAT = 3
# The writes that a lease allows, and whether they ask for the beat as well.
WRITES: dict[str, tuple[Write, bool]] = {
    "checkpoint": (lambda store, lease, beat: store.checkpoint(lease, beat, "more"), True),
    "release": (lambda store, lease, beat: store.release(lease, beat, "more"), True),
    "end": (lambda store, lease, _: store.end(lease, an_ending()), False),
    "take_over": (lambda store, lease, beat: store.take_over(_as_read(lease, beat), "lease2"), True),
}
NOT_THE_LEASE: dict[str, Callable[[Lease], Lease]] = {
    "no such session": lambda lease: replace(lease, key=lease.key._replace(session_id="nobody")),
    "re-created session": lambda lease: replace(lease, key=lease.key._replace(uid="another")),
    "another subject's": lambda lease: replace(lease, key=lease.key._replace(owner=OTHERS[0])),
    "another tenant's": lambda lease: replace(lease, key=lease.key._replace(owner=OTHERS[1])),
    "another turn": lambda lease: replace(lease, turn_id="another"),
    "another grant": lambda lease: replace(lease, lease_id="another"),
}


def _as_read(lease: Lease, beat: int) -> Session:
    active = an_active(a_turn(turn_id=lease.turn_id), lease_id=lease.lease_id, beat=beat)
    owner, session_id, uid = lease.key
    return a_session(owner=owner, session_id=session_id, uid=uid, fence=1, active=active)


async def _saved(store: SessionStore, session: Session) -> Session:
    assert await store.insert_session(session)
    return session


async def _found(store: SessionStore, session: Session) -> Session:
    found = await store.session(OWNER, session.session_id)
    assert found
    return found


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", NOT_THE_LEASE)
async def test_only_the_lease_may_write(store: SessionStore, write: str, name: str) -> None:
    session = await _saved(store, a_running_session(beat=BEAT, parts=("text",)))
    lease = NOT_THE_LEASE[name](the_lease(session))
    assert not await WRITES[write][0](store, lease, BEAT)
    assert await _found(store, session) == session


@pytest.mark.parametrize("write", [name for name, (_, asks_beat) in WRITES.items() if asks_beat])
@pytest.mark.parametrize("beat", [BEAT - 1, BEAT + 1, 0])
async def test_only_at_its_beat_may_it_write(store: SessionStore, write: str, beat: int) -> None:
    session = await _saved(store, a_running_session(beat=BEAT))
    assert not await WRITES[write][0](store, the_lease(session), beat)
    assert await _found(store, session) == session


@pytest.mark.parametrize("write", WRITES)
async def test_an_ended_turn_is_written_no_more(store: SessionStore, write: str) -> None:
    ended = an_active(beat=BEAT).ended(an_ending(text="as it was"))
    session = await _saved(store, a_session(fence=1, last_seq=2, active=ended))
    assert not await WRITES[write][0](store, the_lease(session), BEAT)
    assert await _found(store, session) == session


@pytest.mark.parametrize("write", WRITES)
async def test_a_session_without_a_turn_is_not_written(store: SessionStore, write: str) -> None:
    session = await _saved(store, a_session())
    lease = Lease(session.key, "turn1", "lease1")
    assert not await WRITES[write][0](store, lease, 0)
    assert await _found(store, session) == session


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("fields", [{"deleted_at": an_ending().end_time}, {"expire_time": an_ending().end_time}])
async def test_deletion_and_expiry_do_not_stop_a_turn(store: SessionStore, write: str, fields: Any) -> None:
    session = await _saved(store, replace(a_running_session(beat=BEAT), **fields))
    assert await WRITES[write][0](store, the_lease(session), BEAT)


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_repeated_is_refused_and_changes_nothing(store: SessionStore, write: str) -> None:
    session = await _saved(store, a_running_session(beat=BEAT))
    call = WRITES[write][0]
    assert await call(store, the_lease(session), BEAT)
    once = await _found(store, session)
    assert not await call(store, the_lease(session), BEAT)
    assert await _found(store, session) == once


@pytest.mark.parametrize("write", WRITES)
async def test_of_the_same_write_at_the_same_time_one_wins(make_store: MakeStore, write: str) -> None:
    stores = [await make_store() for _ in range(2)]
    for _ in range(10):
        session = await _saved(stores[0], a_running_session(beat=BEAT))
        calls = (WRITES[write][0](stores[i % 2], the_lease(session), BEAT) for i in range(4))
        answers = await asyncio.gather(*calls)
        assert sum(map(bool, answers)) == 1


async def test_checkpoints_append_and_count(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    for beat, part in enumerate(TEXTS.values()):
        active = await store.checkpoint(the_lease(session), beat, part)
        assert active
        assert active.beat == beat + 1
    expected = an_active(beat=len(TEXTS), parts=tuple(filter(None, TEXTS.values())))
    assert await _found(store, session) == replace(session, active=expected)


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_checkpoint_answers_all_but_the_parts(store: SessionStore, cancel: bool) -> None:
    session = await _saved(store, a_running_session(parts=("text",), beat=1, cancel=cancel))
    active = await store.checkpoint(the_lease(session), 1, "more")
    assert active
    assert replace(active, parts=()) == an_active(beat=2, cancel=cancel)


async def test_release_appends_counts_and_gives_up(store: SessionStore) -> None:
    session = await _saved(store, a_running_session(parts=("one",), beat=1))
    assert await store.release(the_lease(session), 1, "two") is True
    expected = an_active(parts=("one", "two"), beat=2, released=True)
    assert await _found(store, session) == replace(session, active=expected)


async def test_release_without_text_adds_no_part(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    assert await store.release(the_lease(session), 0, "")
    assert await _found(store, session) == replace(session, active=an_active(beat=1, released=True))


@pytest.mark.parametrize("name", ENDINGS)
async def test_end_sets_the_ending_and_last_seq_and_drops_the_parts(store: SessionStore, name: str) -> None:
    ending = ENDINGS[name]
    session = await _saved(store, replace(a_running_session(parts=("text",), beat=1, cancel=True), last_seq=77))
    assert await store.end(the_lease(session), ending) is True
    expected = replace(
        session,
        last_seq=ending.last_seq,
        update_time=ending.end_time,
        idle_since=ending.end_time,
        active=an_active(beat=1, cancel=True).ended(ending),
    )
    assert await _found(store, session) == expected


@pytest.mark.parametrize("name", TEXTS)
async def test_end_keeps_every_text(store: SessionStore, name: str) -> None:
    session = await _saved(store, a_running_session())
    ending = an_ending(text=TEXTS[name])
    assert await store.end(the_lease(session), ending)
    assert (await _found(store, session)).active == an_active().ended(ending)


async def test_end_asks_for_no_beat(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    assert await store.checkpoint(the_lease(session), 0, "text")
    assert await store.release(the_lease(session), 1, "")
    assert await store.end(the_lease(session), an_ending())


async def test_the_first_ending_stays(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    assert await store.end(the_lease(session), an_ending(text="first"))
    assert not await store.end(the_lease(session), an_ending(text="second", last_seq=99))
    found = await _found(store, session)
    assert found.last_seq == 2
    assert found.active == an_active().ended(an_ending(text="first"))


async def test_an_ended_turn_is_no_longer_among_the_running(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    assert [s.session_id for s in await store.running_sessions(10)] == [session.session_id]
    assert await store.end(the_lease(session), an_ending())
    assert list(await store.running_sessions(10)) == []


@pytest.mark.parametrize("released", [False, True])
async def test_take_over_grants_a_new_lease_and_keeps_what_was_said(store: SessionStore, released: bool) -> None:
    before = a_running_session(
        turn=a_turn(attempt=2), fence=5, beat=BEAT, parts=("one", "two"), cancel=True, released=released
    )
    session = await _saved(store, before)
    expected = replace(
        session,
        fence=6,
        active=an_active(
            a_turn(attempt=3), fence=6, beat=0, parts=("one", "two"), cancel=True, released=False, lease_id="lease2"
        ),
    )
    assert await store.take_over(session, "lease2") == expected
    assert await _found(store, session) == expected


async def test_after_a_take_over_the_old_lease_is_worth_nothing(store: SessionStore) -> None:
    session = await _saved(store, a_running_session(beat=BEAT))
    taken = await store.take_over(session, "lease2")
    assert taken
    for write, _ in WRITES.values():
        assert not await write(store, the_lease(session), BEAT)
        assert not await write(store, the_lease(session), 0)
    assert await _found(store, session) == taken
    assert await store.checkpoint(the_lease(taken), 0, "more")


async def test_take_over_of_what_was_read_ended_or_idle_is_refused(store: SessionStore) -> None:
    for session in (a_session(), a_session(fence=1, active=an_active().ended(an_ending()))):
        await _saved(store, session)
        assert await store.take_over(session, "lease2") is None
        assert await _found(store, session) == session


async def test_take_over_fences_off_an_accept_over_the_old_fence(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    taken = await store.take_over(session, "lease2")
    assert taken
    assert not await store.accept(session, session.create_time, an_active())
    assert await _found(store, session) == taken


async def test_a_cancel_reaches_the_owner_and_stays(store: SessionStore) -> None:
    session = await _saved(store, a_running_session())
    for _ in range(2):
        assert await store.request_cancel(session.key, "turn1") is True
    active = await store.checkpoint(the_lease(session), 0, "")
    assert active
    assert active.cancel
    assert await _found(store, session) == replace(session, active=an_active(beat=1, cancel=True))


@pytest.mark.parametrize(
    "changes",
    [{"session_id": "nobody"}, {"uid": "another"}, *({"owner": owner} for owner in OTHERS), {}],
    ids=lambda changes: next(iter(changes), "turn_id"),
)
async def test_a_cancel_of_something_else_is_refused(store: SessionStore, changes: dict[str, Any]) -> None:
    session = await _saved(store, a_running_session())
    assert not await store.request_cancel(session.key._replace(**changes), "turn1" if changes else "another")
    assert await _found(store, session) == session


async def test_a_cancel_of_an_ended_turn_is_refused(store: SessionStore) -> None:
    session = await _saved(store, a_session(fence=1, active=an_active().ended(an_ending())))
    assert not await store.request_cancel(session.key, "turn1")
    assert await _found(store, session) == session


async def test_a_write_touches_its_own_session_only(store: SessionStore) -> None:
    other = await _saved(store, a_running_session(beat=BEAT))
    for write, _ in WRITES.values():
        session = await _saved(store, a_running_session(beat=BEAT))
        assert await write(store, the_lease(session), BEAT)
    session = await _saved(store, a_running_session(beat=BEAT))
    assert await store.request_cancel(session.key, "turn1")
    assert await _found(store, other) == other


@pytest.mark.parametrize("write", WRITES)
async def test_a_cancelled_call_leaves_no_half_write(store: SessionStore, write: str) -> None:
    """Cancelled at any point, the write is applied once or not at all, and a repeat settles which."""
    call = WRITES[write][0]
    for yields in range(6):
        session = await _saved(store, a_running_session(beat=BEAT, turn=a_turn(turn_id=new_id())))
        task = asyncio.ensure_future(call(store, the_lease(session), BEAT))
        for _ in range(yields):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await call(store, the_lease(session), BEAT)
        settled = await _found(store, session)
        assert not await call(store, the_lease(session), BEAT)
        assert await _found(store, session) == settled
        assert settled != session
        assert settled.active
        assert settled.active.parts.count("more") <= 1
        assert settled.active.beat in (0, BEAT, BEAT + 1)
