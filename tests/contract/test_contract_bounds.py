"""No call outlives its deadline or its store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.domain import deadline
from service.domain.entities import PurgeRecord
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ports import Lease, SessionStore
from tests.contract.build import NOW, OWNER, a_running_session, a_session, a_turn, an_active, an_ending, the_lease

_RUNNING = a_running_session()
_SESSION = a_session()
_KEY = _SESSION.key
_LEASE: Lease = the_lease(_RUNNING)
CALLS: dict[str, Callable[[SessionStore], Awaitable[object]]] = {
    "ping": lambda store: store.ping(),
    "insert_session": lambda store: store.insert_session(a_session()),
    "session": lambda store: store.session(OWNER, "id"),
    "turn_by_request": lambda store: store.turn_by_request(_KEY, "c:1"),
    "turn_by_id": lambda store: store.turn_by_id(_KEY, "turn1"),
    "turns": lambda store: store.turns(_KEY, first_seq_from=1, first_seq_to=9, limit=9),
    "turn_texts": lambda store: store.turn_texts(_KEY, first_seq_from=1, first_seq_to=9, limit=9),
    "accept": lambda store: store.accept(a_session(), NOW, an_active()),
    "checkpoint": lambda store: store.checkpoint(_LEASE, 0, "text"),
    "release": lambda store: store.release(_LEASE, 0, "text"),
    "end": lambda store: store.end(_LEASE, an_ending()),
    "archive": lambda store: store.archive(_KEY, a_turn(ending=an_ending())),
    "take_over": lambda store: store.take_over(_RUNNING, "lease2"),
    "request_cancel": lambda store: store.request_cancel(_KEY, "turn1"),
    "running_sessions": lambda store: store.running_sessions(1),
    "update_session": lambda store: store.update_session(_SESSION, _SESSION),
    "delete": lambda store: store.delete(_SESSION, NOW, NOW),
    "undelete": lambda store: store.undelete(replace(_SESSION, deleted_at=NOW), NOW, None),
    "due_sessions": lambda store: store.due_sessions(NOW, 1),
    "postpone": lambda store: store.postpone(_SESSION, NOW),
    "start_purge": lambda store: store.start_purge(_SESSION, NOW),
    "delete_turns": lambda store: store.delete_turns(_KEY, 1),
    "delete_session": lambda store: store.delete_session(_KEY),
    "put_purge_record": lambda store: store.put_purge_record(PurgeRecord(_KEY, NOW)),
    "due_purge_records": lambda store: store.due_purge_records(NOW, 1),
    "delete_purge_record": lambda store: store.delete_purge_record(PurgeRecord(_KEY, NOW)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_after_its_deadline_is_not_made(store: SessionStore, name: str) -> None:
    with deadline.scope(asyncio.get_running_loop().time() - 1), pytest.raises(StoreUnavailable) as caught:
        await CALLS[name](store)
    assert not isinstance(caught.value, StoreUncertain)
    assert list(await store.running_sessions(1)) == []


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_within_its_deadline_is_made(store: SessionStore, name: str) -> None:
    with deadline.scope(asyncio.get_running_loop().time() + 30):
        await CALLS[name](store)


@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_store_is_unavailable(store: SessionStore, name: str) -> None:
    await store.close()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        await CALLS[name](store)
    await store.close()  # type: ignore[attr-defined]


async def test_many_calls_at_once_are_all_answered(store: SessionStore) -> None:
    sessions = [a_session() for _ in range(100)]
    assert all(await asyncio.gather(*map(store.insert_session, sessions)))
    found = await asyncio.gather(*(store.session(OWNER, session.session_id) for session in sessions))
    assert found == sessions
