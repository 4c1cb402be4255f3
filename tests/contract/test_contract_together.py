"""Writes of many sessions at the same time: a store may make one command of them, and each gets its own answer."""

import asyncio
from dataclasses import replace

from service.domain.entities import Session
from service.domain.ports import SessionStore
from tests.contract.build import NOW, a_running_session, a_session, a_turn, an_active, an_ending, the_lease

COUNT = 40


async def _put(store: SessionStore, sessions: list[Session]) -> list[Session]:
    assert all(await asyncio.gather(*(store.insert_session(session) for session in sessions)))
    return sessions


def _is_good(number: int) -> bool:
    return number % 3 != 1


async def test_those_whose_fence_is_right_are_accepted(store: SessionStore) -> None:
    sessions = await _put(store, [a_session(fence=7) for _ in range(COUNT)])
    actives = [an_active(a_turn(turn_id=session.session_id), fence=8) for session in sessions]
    answers = await asyncio.gather(
        *(
            store.accept(session if _is_good(number) else replace(session, fence=6), NOW, active)
            for number, (session, active) in enumerate(zip(sessions, actives, strict=True))
        )
    )
    assert answers == [_is_good(number) for number in range(COUNT)]
    found = await asyncio.gather(*(store.session(session.owner, session.session_id) for session in sessions))
    assert [session.active if session else None for session in found] == [
        active if _is_good(number) else None for number, active in enumerate(actives)
    ]


async def test_those_that_hold_the_lease_end_and_checkpoint(store: SessionStore) -> None:
    sessions = await _put(store, [a_running_session() for _ in range(COUNT)])
    leases = [
        the_lease(session) if _is_good(number) else replace(the_lease(session), lease_id="another")
        for number, session in enumerate(sessions)
    ]
    await asyncio.gather(*(store.request_cancel(s.key, the_lease(s).turn_id) for s in sessions[::2]))
    beats = await asyncio.gather(*(store.checkpoint(lease, 0, f"part {n}") for n, lease in enumerate(leases)))
    assert [beat is not None for beat in beats] == [_is_good(number) for number in range(COUNT)]
    assert [beat.cancel for beat in beats if beat] == [n % 2 == 0 for n in range(COUNT) if _is_good(n)]
    assert [beat.beat for beat in beats if beat] == [1 for n in range(COUNT) if _is_good(n)]
    found = await asyncio.gather(*(store.session(session.owner, session.session_id) for session in sessions))
    assert [s.active.parts for s in found if s and s.active] == [
        (f"part {n}",) if _is_good(n) else () for n in range(COUNT)
    ]
    ends = await asyncio.gather(*(store.end(lease, an_ending()) for lease in leases))
    assert ends == [_is_good(number) for number in range(COUNT)]
    found = await asyncio.gather(*(store.session(session.owner, session.session_id) for session in sessions))
    assert [s.running is None for s in found if s] == [_is_good(number) for number in range(COUNT)]


async def test_those_that_are_new_are_archived(store: SessionStore) -> None:
    turns = {a_session().key: a_turn(number + 1, ending=an_ending()) for number in range(COUNT)}
    there = list(turns.items())[::3]
    assert all(await asyncio.gather(*(store.archive(key, turn) for key, turn in there)))
    answers = await asyncio.gather(*(store.archive(key, turn) for key, turn in turns.items()))
    assert answers == [number % 3 != 0 for number in range(COUNT)]
    found = await asyncio.gather(*(store.turn_by_id(key, turn.turn_id) for key, turn in turns.items()))
    assert found == list(turns.values())


async def test_the_same_session_is_accepted_once_among_others(store: SessionStore) -> None:
    sessions = await _put(store, [a_session() for _ in range(COUNT)])
    one = sessions[0]
    answers = await asyncio.gather(
        *(store.accept(session, NOW, an_active()) for session in sessions[1:]),
        *(store.accept(one, NOW, an_active(lease_id=f"lease {n}")) for n in range(10)),
    )
    assert all(answers[: COUNT - 1])
    assert sorted(answers[COUNT - 1 :]) == [False] * 9 + [True]
