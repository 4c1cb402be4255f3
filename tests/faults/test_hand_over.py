"""A server that stops in the middle of answers hands them over; callers are told to come again, and lose nothing."""

import asyncio
from collections.abc import Awaitable

import grpc
import pytest
from chatsession.errors import ChatSessionError, Retry
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.e2e.waiting import until_logged
from tests.faults.conftest import Stage
from tests.support.calls import Caller, Events, Seen, send_request, whole_history
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "demo/slow:chunks=300,delay_ms=50"


async def _until_words(events: Events, seen: Seen, count: int) -> None:
    while seen.text.count(" ") < count:
        seen.take(await anext(events))


async def _is_sent_away(reading: Awaitable[object]) -> ChatSessionError:
    with pytest.raises(ChatSessionError) as caught:
        await reading
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert error.retry_delay_s is not None
    return error


async def test_viewers_are_sent_away_and_get_the_ending_at_the_other_server(
    stop_stage: Stage, one_transport: str
) -> None:
    here, there = stop_stage.fleet.doors
    session_id, seen = await here.grpc.create_session(), Seen()
    events = here.by(one_transport).stream(send_request(session_id, "hello", model=LONG, request_id="r1"))
    await _until_words(events, seen, 10)
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    error = await _is_sent_away(seen.read(events))
    assert error.retry is Retry.SAME_REQUEST
    assert error.turn_id == seen.turn_id
    shown = seen.text
    await seen.read(there.by(one_transport).attach(session_id, seen.turn_id, seen.cursor))
    # Given up by its owner: nobody had to wait for the end of a lease.
    taken_over = await until_logged(there.server, "turn taken over", turn_id=seen.turn_id)
    assert taken_over["released"]
    assert seen.ended
    assert seen.ended.state == pb.Turn.INCOMPLETE
    assert seen.ended.finish_reason == pb.Turn.PROVIDER_CUT
    assert seen.text == seen.ended.response
    assert seen.text.startswith(shown)
    assert await stopping == 0
    repeated = await there.by(one_transport).send(send_request(session_id, "hello", model=LONG, request_id="r1"))
    assert repeated.turn == seen.ended
    assert [m.content for m in await whole_history(there.grpc, session_id)] == ["hello", seen.text]


async def test_a_turn_without_text_is_asked_again_by_the_other_server(stop_stage: Stage, demo: DemoServer) -> None:
    here, there = stop_stage.fleet.doors
    session_id = await here.grpc.create_session()
    model, message = "demo/slow:chunks=3,delay_ms=10,first_ms=2500", f"hello {session_id}"
    sending = asyncio.create_task(here.grpc.send(send_request(session_id, message, model=model, request_id="r1")))
    await until(lambda: _calls(demo, message))
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    assert (await _is_sent_away(sending)).committed is True
    response = await there.grpc.send(send_request(session_id, message, model=model, request_id="r1"))
    assert response.response == "word1 word2 word3 "
    assert (response.turn.state, response.turn.attempt) == (pb.Turn.COMPLETED, 2)
    assert await _calls(demo, message) == 2
    assert await stopping == 0


async def _calls(demo: DemoServer, message: str) -> int:
    return demo.tally.by_message.get(message_key(message), 0)


async def test_whoever_waits_or_comes_is_sent_away_with_nothing_saved(stop_stage: Stage, one_transport: str) -> None:
    here, there = stop_stage.fleet.doors
    session_id, seen = await here.grpc.create_session(), Seen()
    events = here.grpc.stream(send_request(session_id, "hello", model=LONG, request_id="r1"))
    await _until_words(events, seen, 1)
    queued = asyncio.create_task(here.by(one_transport).send(send_request(session_id, "queued", model="demo/echo")))
    watched = asyncio.create_task(Seen().read(here.by(one_transport).attach(session_id, seen.turn_id)))
    await here.by(one_transport).history(pb.GetHistoryRequest(session_id=session_id))
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    error = await _is_sent_away(queued)
    assert (error.committed, error.retry) == (False, Retry.SAME_REQUEST)
    await _is_sent_away(watched)
    await _is_sent_away(seen.read(events))
    assert await stopping == 0
    await seen.read(there.grpc.attach(session_id, seen.turn_id, seen.cursor))
    assert [m.content for m in await whole_history(there.grpc, session_id)] == ["hello", seen.text]


async def test_a_turn_that_ends_within_the_grace_is_answered(stop_stage: Stage, one_transport: str) -> None:
    door = stop_stage.fleet.doors[0]
    session_id, seen = await door.grpc.create_session(), Seen()
    events = door.by(one_transport).stream(send_request(session_id, "hello", model="demo/slow:chunks=5,delay_ms=20"))
    await _until_words(events, seen, 1)
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    await seen.read(events)
    assert seen.ended
    assert seen.ended.state == pb.Turn.COMPLETED
    assert seen.text == seen.ended.response == "".join(f"word{number} " for number in range(1, 6))
    assert await stopping == 0


async def test_viewers_of_a_turn_elsewhere_are_sent_away_at_once(stop_stage: Stage, one_transport: str) -> None:
    """The stopping server does not run the turn, so that nothing of it can end within the grace."""
    there, here = stop_stage.fleet.doors
    session_id, seen = await here.grpc.create_session(), Seen()
    events = here.grpc.stream(send_request(session_id, "hello", model="demo/stall:chunks=2"))
    await _until_words(events, seen, 2)
    watching = there.by(one_transport).attach(session_id, seen.turn_id)
    await anext(watching)
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    await _is_sent_away(_drain(watching))
    assert await stopping == 0
    await here.grpc.cancel_turn(session_id, seen.turn_id)
    await seen.read(events)
    assert seen.ended
    assert seen.ended.state == pb.Turn.CANCELLED


async def _drain(events: Events) -> None:
    async for _ in events:
        pass


async def test_a_stream_without_request_id_does_not_ask_for_the_same_send_again(
    stop_stage: Stage, one_transport: str
) -> None:
    """The message is saved, and nothing could tell a repeat from a second message."""
    door = stop_stage.fleet.doors[0]
    caller: Caller = door.by(one_transport)
    session_id, seen = await caller.create_session(), Seen()
    events = caller.stream(send_request(session_id, "hello", model=LONG))
    await _until_words(events, seen, 1)
    stopping = asyncio.create_task(stop_stage.fleet.stop(0))
    with pytest.raises(ChatSessionError) as caught:
        await seen.read(events)
    assert caught.value.reason == "SHUTTING_DOWN"
    assert caught.value.committed is True
    assert caught.value.retry is Retry.NO
    assert await stopping == 0
