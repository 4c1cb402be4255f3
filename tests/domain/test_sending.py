"""Sends and the bound of turns that run at once."""

import asyncio
import time
from collections.abc import AsyncGenerator

from service.domain.entities import ANONYMOUS, FinishReason, utc_now
from service.domain.ids import new_id
from service.domain.ports import Finish, ModelRequest
from service.domain.runner import TurnLimits
from service.domain.sending import SendCommand
from service.domain.turns import Turns
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_session
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


async def test_a_send_counts_once_while_its_turn_begins(store: SqliteStore) -> None:
    model = WaitingModel()
    turns = Turns(
        store,
        model,
        context_tokens=1000,
        recent_tokens=1000,
        limits=TurnLimits(),
        max_turns=2,
        now=utc_now,
        new_id=new_id,
        clock=time.monotonic,
        log=NoLog(),
    )
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
