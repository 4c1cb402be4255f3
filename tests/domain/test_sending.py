"""Sends: the bound of turns that run at once, and the request ids that need not be looked up."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from service.domain.entities import ANONYMOUS, FinishReason, Session, SessionKey, Turn, utc_now
from service.domain.ids import new_id
from service.domain.ports import ChatModel, Finish, ModelRequest
from service.domain.runner import TurnLimits
from service.domain.sending import SendCommand
from service.domain.turns import Turns
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_session, a_turn
from tests.domain.life import NoLog


class WaitingModel:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.told = asyncio.Event(), asyncio.Event()

    async def stream(self, _request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        self.asked.set()
        await self.told.wait()
        yield "a"
        yield Finish(FinishReason.STOP, "m")


class Model:
    """Answers at once."""

    async def stream(self, _request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        yield "a"
        yield Finish(FinishReason.STOP, "m")


def process(store: SqliteStore, model: ChatModel) -> Turns:
    """One of those that share the store."""
    return Turns(
        store,
        model,
        context_tokens=1000,
        recent_tokens=10_000,
        limits=TurnLimits(),
        max_turns=2,
        now=utc_now,
        new_id=new_id,
        clock=time.monotonic,
        log=NoLog(),
    )


@pytest.fixture
def looked_up(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The request keys that the store was asked for."""
    keys: list[str] = []
    turn_by_request = store.turn_by_request

    async def note(key: SessionKey, request_key: str) -> Turn | None:
        keys.append(request_key)
        return await turn_by_request(key, request_key)

    monkeypatch.setattr(store, "turn_by_request", note)
    return keys


async def turn_of(turns: Turns, session: Session, request_id: str) -> str:
    """Send, wait for the end, and return the turn's id."""
    command = SendCommand(ANONYMOUS, session.session_id, "hello", request_id=request_id)
    with await turns.sender.send(command) as live:
        return (await live.wait_for_ending()).turn_id


async def test_request_ids_of_a_session_are_looked_up_once_at_a_process(
    store: SqliteStore, looked_up: list[str]
) -> None:
    turns = process(store, Model())
    old = replace(a_turn(1), request_key="c:old", user_text="hello")
    session = await a_session(store, [old])
    first, *others = [await turn_of(turns, session, f"r{number}") for number in range(4)]
    assert looked_up == ["c:r0"]
    looked_up.clear()
    assert await turn_of(turns, session, "r0") == first
    assert await turn_of(turns, session, "r3") == others[-1]
    assert await turn_of(turns, session, "old") == old.turn_id
    assert looked_up == ["c:r0", "c:old"]
    await turns.drain(20, asyncio.Event())


async def test_request_ids_of_another_process_are_known_too(store: SqliteStore, looked_up: list[str]) -> None:
    here, there = process(store, Model()), process(store, Model())
    session = await a_session(store, [])
    await turn_of(here, session, "r0")
    other = await turn_of(there, session, "r1")
    assert await turn_of(here, session, "r1") == other
    looked_up.clear()
    for request_id in ("r2", "r3"):
        await turn_of(here, session, request_id)
    assert looked_up == ["c:r2"]
    assert await turn_of(here, session, "r1") == other
    for turns in (here, there):
        await turns.drain(20, asyncio.Event())


async def test_request_ids_of_a_long_session_are_looked_up_each_time(store: SqliteStore, looked_up: list[str]) -> None:
    turns = process(store, Model())
    session = await a_session(store, [a_turn(2 * number + 1) for number in range(64)])
    for request_id in ("r0", "r1"):
        await turn_of(turns, session, request_id)
    assert looked_up == ["c:r0", "c:r1"]
    await turns.drain(20, asyncio.Event())


async def test_a_send_counts_once_while_its_turn_begins(store: SqliteStore) -> None:
    model = WaitingModel()
    turns = process(store, model)
    session = await a_session(store, [])
    sending = asyncio.create_task(turns.sender.send(SendCommand(ANONYMOUS, session.session_id, "hello")))
    async with asyncio.timeout(20):
        while not (sending.done() and model.asked.is_set()):
            assert not turns.admission.is_full  # there is room for another
            await asyncio.sleep(0)
    assert not turns.admission.is_full
    with sending.result():
        model.told.set()
        await turns.drain(20, asyncio.Event())
