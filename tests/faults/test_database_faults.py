"""A database whose connections break, stall and are refused: the same check of histories against what was told."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest
import pytest_asyncio
from chatsession import AsyncChatClient
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.faults.conftest import Stage, Stages
from tests.support.calls import Seen, send_request, whole_history
from tests.support.door import Door
from tests.support.mongo_proxy import Command, Fate, MongoProxy, Rule
from tests.support.workload import Ledger, Worker, all_settled, faults_in

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(90)]

T = TypeVar("T")

STALL_S = 5.0
OUTAGE_S = 1.0
DURATION_S = float(os.environ.get("FAULT_SECONDS", "60")) / 4
FINISH_S = 45.0
WRITES = {"accept", "checkpoint", "end", "archive"}


async def _cut_before(_: MongoProxy) -> Fate:
    return Fate.CUT_BEFORE


async def _cut_after(_: MongoProxy) -> Fate:
    return Fate.CUT_AFTER


async def _stall(_: MongoProxy) -> Fate:
    """Carried out late: by then the server has given the try up, and repeated it."""
    await asyncio.sleep(STALL_S)
    return Fate.PASS


async def _refuse(proxy: MongoProxy) -> Fate:
    """The database goes away, and takes no connections for a while."""
    proxy.outage(OUTAGE_S)
    return Fate.CUT_BEFORE


Harm = Callable[[MongoProxy], Awaitable[Fate]]
HARMS: list[Harm] = [_cut_before, _cut_after, _stall, _refuse]
each_harm = pytest.mark.parametrize("harm", HARMS, ids=["cut-before", "cut-after", "stall", "refusal"])


@pytest_asyncio.fixture(loop_scope="session")
async def stalling(stages: Stages, mongo_uri: str) -> AsyncIterator[Stage]:
    async with stages.lent("mongo", "stalling", mongo_uri) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stopping(stages: Stages, mongo_uri: str) -> AsyncIterator[Stage]:
    async with stages.lent("mongo", "stop", mongo_uri) as stage:
        yield stage


class Harmer:
    """Harms the first write of each of these kinds, whichever proxy it comes by."""

    def __init__(self, kinds: set[str], harm: Harm) -> None:
        self._kinds = kinds
        self._harm = harm
        self.harmed: set[str] = set()
        self._busy = 0

    def rule(self, proxy: MongoProxy) -> Rule:
        """The rule for one proxy."""

        async def rule(command: Command) -> Fate:
            if command.kind not in self._kinds - self.harmed:
                return Fate.PASS
            self.harmed.add(command.kind)
            return await self._harm(proxy)

        return rule


def _client(door: Door) -> AsyncChatClient:
    return AsyncChatClient(door.server.grpc_target, timeout_s=40, stream_timeout_s=40)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call for as long as it is told that the database is away: that may outlast the server's patience."""
    while True:
        try:
            return await call()
        except ChatSessionError as error:
            if error.reason != "STORE_UNAVAILABLE" or error.retry_delay_s is None:
                raise
            await asyncio.sleep(error.retry_delay_s)


def _settings(model: str) -> pb.ModelSettings:
    return pb.ModelSettings(model=model)


@each_harm
async def test_each_write_of_a_turn_survives_it(stalling: Stage, demo: DemoServer, harm: Harm) -> None:
    """The published client sends, and repeats by itself; one turn each, and one call of the provider."""
    here, there = stalling.fleet.doors
    session_id = await here.grpc.create_session()
    harmer = Harmer(set(WRITES), harm)
    stalling.proxies[0].rule = harmer.rule(stalling.proxies[0])
    text = "".join(f"word{number} " for number in range(1, 13))
    messages = [f"{number} {session_id}" for number in range(2)]
    # Longer than two beats: the timer that saves turns may have begun before, for another turn.
    model = "demo/slow:chunks=12,delay_ms=110"
    async with _client(here) as client:
        for message in messages:
            answer = await client.send(session_id, message, settings=_settings(model))
            assert answer.text == text
    assert harmer.harmed == WRITES
    await stalling.proxies[0].idle()
    for door in (here, there):
        history = await _patiently(partial(whole_history, door.grpc, session_id))
        assert [m.content for m in history] == [part for message in messages for part in (message, text)]
        assert [m.seq for m in history] == [1, 2, 3, 4]
    assert [demo.tally.by_message[message_key(message)] for message in messages] == [1, 1]


@each_harm
async def test_a_cancel_survives_it(stalling: Stage, harm: Harm) -> None:
    here, there = stalling.fleet.doors
    session_id, seen = await here.grpc.create_session(), Seen()
    events = here.grpc.stream(send_request(session_id, "hello", model="demo/stall:chunks=2"))
    while seen.text != "word1 word2 ":
        seen.take(await anext(events))
    harmer = Harmer({"request_cancel"}, harm)
    stalling.proxies[1].rule = harmer.rule(stalling.proxies[1])
    turn = await there.grpc.cancel_turn(session_id, seen.turn_id)
    await seen.read(events)
    assert harmer.harmed == {"request_cancel"}
    assert turn == seen.ended
    assert (turn.state, turn.response) == (pb.Turn.CANCELLED, "word1 word2 ")
    await stalling.proxies[1].idle()
    assert await _patiently(lambda: here.grpc.get_turn(session_id, seen.turn_id)) == turn


@each_harm
async def test_a_hand_over_and_its_taking_over_survive_it(stopping: Stage, harm: Harm) -> None:
    here, there = stopping.fleet.doors
    session_id, seen = await here.grpc.create_session(), Seen()
    harmer = Harmer({"release", "take_over"}, harm)
    for proxy in stopping.proxies:
        proxy.rule = harmer.rule(proxy)
    events = here.grpc.stream(send_request(session_id, "hello", model="demo/slow:chunks=300,delay_ms=50"))
    while seen.text.count(" ") < 3:
        seen.take(await anext(events))
    await stopping.fleet.stop(0)
    await events.aclose()
    shown = seen.text
    await _patiently(lambda: seen.read(there.grpc.attach(session_id, seen.turn_id, seen.cursor)))
    assert harmer.harmed == {"release", "take_over"}
    assert seen.ended
    assert seen.ended.state == pb.Turn.INCOMPLETE
    assert seen.text == seen.ended.response
    assert seen.text.startswith(shown)
    for proxy in stopping.proxies:
        await proxy.idle()
    assert await _patiently(lambda: there.grpc.get_turn(session_id, seen.turn_id)) == seen.ended


@each_harm
async def test_a_session_is_made_once_or_the_caller_knows_that_it_may_not_be(stalling: Stage, harm: Harm) -> None:
    here, there = stalling.fleet.doors
    harmer = Harmer({"insert_session"}, harm)
    stalling.proxies[0].rule = harmer.rule(stalling.proxies[0])
    async with _client(here) as client:
        session = await client.create_session(title="one")
    assert harmer.harmed == {"insert_session"}
    await stalling.proxies[0].idle()
    assert await _patiently(lambda: whole_history(there.grpc, session.session_id)) == []


@pytest.mark.timeout(DURATION_S + FINISH_S + 60)
async def test_nothing_is_lost_or_doubled_when_the_database_fails_at_random(stopping: Stage, demo: DemoServer) -> None:
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1, 10**6)
    print(f"FAULT_SEED={seed}")
    chances, done = random.Random(seed), dict.fromkeys(HARMS, 0)
    end = time.monotonic() + DURATION_S

    def rule_of(proxy: MongoProxy) -> Rule:
        async def rule(command: Command) -> Fate:
            # Reads as well; some of those are the driver's own.
            if time.monotonic() > end or chances.random() > (0.04 if command.kind else 0.01):
                return Fate.PASS
            [harm] = chances.choices(HARMS, (4, 4, 2, 1))
            done[harm] += 1
            return await harm(proxy)

        return rule

    ledger, doors = Ledger(), stopping.fleet.doors
    sessions = [await doors[0].grpc.create_session() for _ in range(6)]
    for proxy in stopping.proxies:
        proxy.rule = rule_of(proxy)
    workers = [Worker(f"{seed}db{number}", lambda: doors, sessions, ledger, seed) for number in range(8)]
    async with asyncio.timeout(DURATION_S + FINISH_S), asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(worker.run(end))
    for proxy in stopping.proxies:
        await proxy.idle()
    await all_settled(doors[0].grpc, sessions, timeout_s=FINISH_S)
    for door in doors:
        faults = await faults_in(door.grpc, ledger, lambda text: demo.tally.by_message.get(message_key(text), 0))
        assert not faults, "\n".join(faults)
    tries = sum(told.tries for told in ledger.sends)
    print(f"{len(ledger.sends)} sends, {tries} tries, { ({harm.__name__: count for harm, count in done.items()}) }")
    assert not stopping.fleet.log_of("another turn stands in this one's place")
    assert not stopping.fleet.log_of("call failed unexpectedly")
