"""A server that is killed or paused at a chosen point of a turn, and what the other server makes of the turn."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.faults.conftest import Pair, Stage
from tests.support.calls import Caller, Events, Seen, send_request, whole_history
from tests.support.fleet import Fleet
from tests.support.mongo_proxy import Command, Fate, once
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(60)]

LONG = "demo/slow:chunks=200,delay_ms=50"


@pytest.fixture
def fleet(stage: Stage) -> Fleet:
    """Two servers with a short lease."""
    return stage.fleet


async def _until_words(events: Events, seen: Seen, count: int) -> Seen:
    while seen.text.count(" ") < count:
        seen.take(await anext(events))
    return seen


async def _until_saved(caller: Caller, session_id: str, turn_id: str) -> str:
    """Return the text of a turn of the other server as soon as some of it is saved."""

    async def look() -> str:
        return (await caller.get_turn(session_id, turn_id)).response

    return await until(look)


def _calls(demo: DemoServer, message: str) -> int:
    return demo.tally.by_message.get(message_key(message), 0)


async def _contents(caller: Caller, session_id: str) -> list[str]:
    return [message.content for message in await whole_history(caller, session_id)]


async def test_killed_after_accept_the_turn_is_asked_again(fleet: Fleet, demo: DemoServer, one_transport: str) -> None:
    here, there = (door.by(one_transport) for door in fleet.doors)
    session_id = await here.create_session()
    message = f"hello {session_id}"
    request = send_request(session_id, message, model="demo/slow:chunks=3,first_ms=900,delay_ms=5", request_id="r1")
    events = here.stream(request)
    seen = Seen().take(await anext(events))
    await fleet.kill(0)
    await events.aclose()
    response = await there.send(request)
    assert response.response == "word1 word2 word3 "
    assert response.turn.turn_id == seen.turn_id
    assert response.turn.attempt > 1
    assert _calls(demo, message) <= response.turn.attempt
    assert await _contents(there, session_id) == [message, response.response]


async def test_killed_after_a_checkpoint_the_saved_text_is_kept(
    fleet: Fleet, demo: DemoServer, one_transport: str
) -> None:
    here, there = (door.by(one_transport) for door in fleet.doors)
    session_id = await here.create_session()
    message = f"hello {session_id}"
    request = send_request(session_id, message, model=LONG, request_id="r1")
    events = here.stream(request)
    seen = await _until_words(events, Seen(), 3)
    saved = await _until_saved(there, session_id, seen.turn_id)
    await fleet.kill(0)
    await events.aclose()
    await seen.read(there.attach(session_id, seen.turn_id, seen.cursor))
    assert seen.ended
    assert seen.ended.state == pb.Turn.INCOMPLETE
    assert seen.ended.finish_reason == pb.Turn.PROVIDER_CUT
    assert seen.text == seen.ended.response
    assert seen.text.startswith(saved)
    assert (await there.send(request)).turn == seen.ended
    assert _calls(demo, message) == 1
    assert (await there.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    assert await _contents(there, session_id) == [message, seen.text, "next", "next"]


async def test_killed_before_the_first_checkpoint_shown_text_is_replaced(fleet: Fleet, one_transport: str) -> None:
    """The text was shown and never saved: the other server asks again and tells viewers to replace what they have."""
    here, there = (door.by(one_transport) for door in fleet.doors)
    session_id = await here.create_session()
    events = here.stream(send_request(session_id, "hello", model="demo/slow:chunks=20,delay_ms=40"))
    seen = await _until_words(events, Seen(), 2)
    await fleet.kill(0)
    await events.aclose()
    await seen.read(there.attach(session_id, seen.turn_id, seen.cursor))
    assert seen.ended
    assert seen.snapshots == 1
    assert seen.text == seen.ended.response
    assert seen.ended.attempt > 1


@contextmanager
def _no_archive(path: str) -> Iterator[None]:
    """Keep the archive of turns from being written, as if the process had gone before it."""
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER lost BEFORE INSERT ON turns BEGIN SELECT RAISE(IGNORE); END")
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER lost")


@pytest.mark.parametrize("store_kind", ["sqlite"])
async def test_killed_between_end_and_archive_nothing_is_missing_on_sqlite(stage: Stage, demo: DemoServer) -> None:
    here, there = (door.grpc for door in stage.fleet.doors)
    session_id = await here.create_session()
    request = send_request(session_id, f"hello {session_id}", model="demo/echo", request_id="r1")
    with _no_archive(stage.sqlite_path):
        first = await here.send(request)
        await stage.fleet.kill(0)
    await _is_whole_after_end(there, demo, request, first)


async def _is_whole_after_end(
    caller: Caller, demo: DemoServer, request: pb.SendMessageRequest, first: pb.SendMessageResponse | None
) -> None:
    """The turn of `request` ended, and its process went before more was done."""
    session_id, message = request.session_id, request.message
    again = await caller.send(request)
    assert first is None or again == first
    assert (await caller.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    assert (await caller.send(request)) == again
    assert await caller.get_turn(session_id, again.turn.turn_id) == again.turn
    assert await _contents(caller, session_id) == [message, message, "next", "next"]
    assert _calls(demo, message) == 1


# Points in the middle of a write: the proxy before A's MongoDB knows when.


def _kill_first_at(stage: Stage, kind: str, fate: Fate) -> asyncio.Event:
    """Kill server A when it first sends a write of this kind, which has this fate; the event tells when."""
    killed, proxy = asyncio.Event(), stage.proxies[0]

    async def kill() -> None:
        if fate is Fate.HOLD_ANSWER:
            await proxy.held.wait()
        await stage.fleet.kill(0)
        killed.set()

    async def act(_: Command) -> Fate:
        killing = asyncio.create_task(kill())
        if fate is Fate.CUT_BEFORE:
            await killing
        return fate

    proxy.rule = once(kind, act)
    return killed


on_mongo = pytest.mark.parametrize("store_kind", ["mongo"])


@on_mongo
@pytest.mark.parametrize("fate", [Fate.CUT_BEFORE, Fate.HOLD_ANSWER], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["accept", "end", "archive"])
async def test_killed_while_a_write_is_under_way_the_repeat_makes_one_turn(
    stage: Stage, demo: DemoServer, kind: str, fate: Fate
) -> None:
    """Killed before the database saw the write, and after it was applied and before the server heard of it."""
    here, there = (door.grpc for door in stage.fleet.doors)
    session_id = await here.create_session()
    request = send_request(session_id, f"hello {session_id}", model="demo/echo", request_id="r1")
    killed = _kill_first_at(stage, kind, fate)
    outcome = (await asyncio.gather(here.send(request), return_exceptions=True))[0]
    await killed.wait()
    if kind == "end" and fate is Fate.CUT_BEFORE:
        # The answer was never saved: it is asked for again.
        response = await there.send(request)
        assert (response.response, response.turn.state) == (request.message, pb.Turn.COMPLETED)
        assert 2 <= _calls(demo, request.message) <= response.turn.attempt
    else:
        first = outcome if isinstance(outcome, pb.SendMessageResponse) else None
        await _is_whole_after_end(there, demo, request, first)


@on_mongo
async def test_an_ending_that_arrives_after_the_lease_was_lost_is_refused(stage: Stage, demo: DemoServer) -> None:
    """A's END, of a failure, is on its way for so long that B has taken the turn over and answers it."""
    here, there = (door.grpc for door in stage.fleet.doors)
    arrive, held = asyncio.Event(), asyncio.Event()

    async def hold(_: Command) -> Fate:
        held.set()
        await arrive.wait()
        return Fate.PASS

    stage.proxies[0].rule = once("end", hold)
    session_id = await here.create_session()
    model = "demo/flaky:fail=1,first_ms=900"
    request = send_request(session_id, f"hello {session_id}", model=model, request_id="r1")
    sending = asyncio.create_task(here.send(request))
    await held.wait()
    await until(lambda: _async(_calls(demo, request.message) == 2))
    arrive.set()
    await stage.proxies[0].idle()
    response = await there.send(request)
    assert response.turn.state == pb.Turn.COMPLETED
    assert await sending == response
    assert (await there.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    assert await _contents(here, session_id) == [request.message, response.response, "next", "next"]


# Pauses beyond the lease.

Pause = Callable[[], Awaitable[None]]


@pytest.fixture
def pause_first(stage: Stage) -> Pause:
    """Pause server A; not while it holds the lock of the SQLite file, which would stop the other server as well."""

    def holds_lock() -> bool:
        if not stage.sqlite_path:
            return False
        with closing(sqlite3.connect(stage.sqlite_path, timeout=0.3, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    async def pause() -> None:
        stage.fleet.server(0).pause()
        while await asyncio.to_thread(holds_lock):
            stage.fleet.server(0).resume()
            await asyncio.sleep(0)
            stage.fleet.server(0).pause()

    return pause


async def test_paused_in_its_answer_beyond_the_lease_a_server_writes_nothing_when_it_wakes(
    fleet: Fleet, demo: DemoServer, one_transport: str, pause_first: Pause
) -> None:
    here, there = (door.by(one_transport) for door in fleet.doors)
    session_id = await here.create_session()
    message, closed = f"hello {session_id}", demo.tally.closed_by_client
    events = here.stream(send_request(session_id, message, model=LONG))
    seen = await _until_words(events, Seen(), 3)
    saved = await _until_saved(there, session_id, seen.turn_id)
    await pause_first()
    other = await Seen().read(there.attach(session_id, seen.turn_id))
    assert other.ended
    assert other.ended.state == pb.Turn.INCOMPLETE
    assert other.text.startswith(saved)
    assert (await there.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    before = await whole_history(there, session_id)
    fleet.server(0).resume()
    # The viewer at A is told how the turn ended at B, and A leaves the provider.
    await seen.read(events)
    assert seen.ended == other.ended
    assert seen.text == other.text
    await demo.until(lambda tally: tally.closed_by_client == closed + 1)
    assert await whole_history(here, session_id) == before
    assert await there.get_turn(session_id, seen.turn_id) == other.ended
    assert [m.content for m in before] == [message, other.text, "next", "next"]


async def test_a_whole_answer_found_on_waking_is_not_written_over_another(
    fleet: Fleet, demo: DemoServer, pause_first: Pause
) -> None:
    """While A is paused its provider says everything, and B asks again; A wakes with an answer that is nobody's."""
    here, there = (door.grpc for door in fleet.doors)
    session_id = await here.create_session()
    message, finished = f"hello {session_id}", demo.tally.finished
    request = send_request(session_id, message, model="demo/slow:chunks=5,first_ms=700,delay_ms=5", request_id="r1")
    events = here.stream(request)
    seen = Seen().take(await anext(events))
    await until(lambda: _async(_calls(demo, message) == 1))
    await pause_first()
    response = await there.send(request)
    assert response.turn.state == pb.Turn.COMPLETED
    assert response.turn.attempt > 1
    async with asyncio.timeout(10):
        await demo.until(lambda tally: tally.finished >= finished + 2)
    fleet.server(0).resume()
    await seen.read(events)
    assert seen.ended == response.turn
    assert seen.text == response.response
    assert _calls(demo, message) <= response.turn.attempt
    assert await _contents(here, session_id) == [message, response.response]


async def _async(value: bool) -> bool:
    return value


async def test_paused_for_less_than_the_lease_a_server_goes_on(pair: Pair) -> None:
    here, there = (door.grpc for door in pair)
    session_id = await here.create_session()
    events = here.stream(send_request(session_id, "hello", model="demo/slow:chunks=20,delay_ms=50"))
    seen = await _until_words(events, Seen(), 3)
    pair[0].server.pause()
    await there.history(pb.GetHistoryRequest(session_id=session_id))
    pair[0].server.resume()
    await seen.read(events)
    assert seen.ended
    assert (seen.ended.state, seen.ended.attempt) == (pb.Turn.COMPLETED, 1)
    assert seen.text == "".join(f"word{number} " for number in range(1, 21))
