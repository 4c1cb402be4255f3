"""No call outlives its deadline or its store."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.domain import deadline
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ports import Lease, SessionStore
from tests.contract.build import NOW, a_running_session, a_session, a_turn, an_active, an_ending, the_lease

_RUNNING = a_running_session()
_LEASE: Lease = the_lease(_RUNNING)
CALLS: dict[str, Callable[[SessionStore], Awaitable[object]]] = {
    "ping": lambda store: store.ping(),
    "insert_session": lambda store: store.insert_session(a_session()),
    "session": lambda store: store.session("id"),
    "turn_by_request": lambda store: store.turn_by_request("uid", "c:1"),
    "turn_by_id": lambda store: store.turn_by_id("uid", "turn1"),
    "turns": lambda store: store.turns("uid", first_seq_from=1, first_seq_to=9, limit=9),
    "accept": lambda store: store.accept("id", "uid", 0, NOW, an_active()),
    "checkpoint": lambda store: store.checkpoint(_LEASE, 0, "text"),
    "release": lambda store: store.release(_LEASE, 0, "text"),
    "end": lambda store: store.end(_LEASE, an_ending()),
    "archive": lambda store: store.archive("uid", a_turn(ending=an_ending())),
    "take_over": lambda store: store.take_over(_RUNNING, "lease2"),
    "request_cancel": lambda store: store.request_cancel("id", "uid", "turn1"),
    "running_sessions": lambda store: store.running_sessions(1),
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
    found = await asyncio.gather(*(store.session(session.session_id) for session in sessions))
    assert found == sessions
