"""Broken streams: whoever attaches again, anywhere, has the whole answer and nothing twice."""

import asyncio
import time
from contextlib import aclosing
from itertools import cycle

import grpc
import pytest
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from tests.faults.conftest import Pair
from tests.support.calls import Caller, Events, Seen, send_request
from tests.support.door import doors

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The pieces come faster than checkpoints are written, so that a cursor of A is ahead of what B can read.
MODEL = "demo/slow:chunks=24,delay_ms=60"
ANSWER = "".join(f"word{number} " for number in range(1, 25))


async def _take_one(events: Events, seen: Seen) -> None:
    async with aclosing(events):
        seen.take(await anext(events))


async def test_a_stream_broken_after_every_event_goes_on_at_the_other_server(pair: Pair, transport: str) -> None:
    """One viewer that gets a single event from each connection: at A, at B by the other transport, at A, ..."""
    other = {"grpc": "rest", "rest": "grpc"}[transport]
    first, second = pair[0].by(transport), pair[1].by(other)
    session_id = await first.create_session()
    seen = Seen()
    await _take_one(first.stream(send_request(session_id, "hello", model=MODEL)), seen)
    for caller in cycle((second, first)):
        await _take_one(caller.attach(session_id, seen.turn_id, seen.cursor), seen)
        if seen.ended:
            break
    assert seen.text == ANSWER == seen.ended.response
    assert seen.snapshots == 0
    assert seen.kinds[0] == "accepted"
    assert seen.kinds.count("accepted") == 1


async def test_after_each_event_the_other_server_gives_exactly_the_rest(pair: Pair, transport: str) -> None:
    """For each event that A sends, while it sends it, a viewer attaches at B after it and reads to the end."""
    first, second = pair[0].by(transport), pair[1].by(transport)
    session_id = await first.create_session()
    seen, viewers = Seen(), []
    async for event in first.stream(send_request(session_id, "hello", model=MODEL)):
        seen.take(event)
        mine = seen.copy()
        viewers.append(asyncio.create_task(mine.read(second.attach(session_id, mine.turn_id, mine.cursor))))
    resumed = await asyncio.gather(*viewers)
    assert len(resumed) > 10
    assert {viewer.text for viewer in resumed} == {ANSWER}
    assert all(viewer.ended and viewer.ended.response == ANSWER for viewer in resumed)
    assert all(viewer.snapshots == 0 for viewer in resumed)
    assert all(viewer.kinds.count("ended") == 1 for viewer in resumed)


async def test_after_the_end_every_cursor_still_gives_the_rest(pair: Pair, transport: str) -> None:
    first, second = pair[0].by(transport), pair[1].by(transport)
    session_id = await first.create_session()
    seen = Seen()
    events = first.stream(send_request(session_id, "hello", model="demo/slow:chunks=5,delay_ms=20"))
    places = [seen.take(event).copy() async for event in events]
    for place in places:
        rest = await place.copy().read(second.attach(session_id, seen.turn_id, place.cursor))
        assert rest.text == seen.text
        assert rest.kinds.count("ended") == 1
    nothing = [event async for event in second.attach(session_id, seen.turn_id, seen.cursor)]
    assert nothing == []


async def test_a_stream_of_a_failed_turn_ends_with_its_error_wherever_it_is_attached(
    pair: Pair, transport: str
) -> None:
    first = pair[0].by(transport)
    session_id = await first.create_session()
    sent = Seen()
    outcomes = [await _outcome(sent, first.stream(send_request(session_id, "hello", model="demo/error-400")))]
    outcomes += [await _outcome(Seen(), door.by(transport).attach(session_id, sent.turn_id)) for door in pair]
    assert outcomes == [(pb.Turn.FAILED, grpc.StatusCode.FAILED_PRECONDITION, "MODEL_REFUSED_REQUEST")] * 3


async def _outcome(seen: Seen, events: Events) -> tuple[object, object, str]:
    code, reason = grpc.StatusCode.OK, ""
    try:
        await seen.read(events)
    except ChatSessionError as error:
        code, reason = error.code, error.reason
    return seen.ended and seen.ended.state, code, reason


@pytest.mark.timeout(90)
async def test_a_thousand_viewers_of_one_turn_all_get_the_same_text(pair: Pair) -> None:
    """500 over gRPC at the server that runs the turn; 250 over gRPC and 250 over SSE at the other one."""
    here, there = pair
    session_id = await here.grpc.create_session()
    async with doors(here.server, here.server, there.server) as extra:
        events = here.grpc.stream(send_request(session_id, "hello", model="demo/slow:chunks=10,delay_ms=500"))
        turn_id = (await anext(events)).accepted.turn.turn_id
        started = time.monotonic()
        callers: list[Caller] = [extra[0].grpc, extra[1].grpc] * 250 + [extra[2].grpc, there.rest] * 250
        seen = await asyncio.gather(*(Seen().read(caller.attach(session_id, turn_id)) for caller in callers))
        print(f"1,000 viewers: {time.monotonic() - started:.1f} s for an answer of 5 s")
        await events.aclose()
    assert len(seen) == 1000
    assert {viewer.text for viewer in seen} == {"".join(f"word{number} " for number in range(1, 11))}
    assert {viewer.ended.state for viewer in seen if viewer.ended} == {pb.Turn.COMPLETED}
    assert all(viewer.ended for viewer in seen)
    assert sum(viewer.snapshots for viewer in seen) == 0


async def test_a_viewer_that_leaves_does_not_disturb_the_others(pair: Pair) -> None:
    session_id = await pair[0].grpc.create_session()
    seen = Seen()
    async for event in pair[0].grpc.stream(send_request(session_id, "hello", model=MODEL)):
        seen.take(event)
        leaving = pair[1].grpc.attach(session_id, seen.turn_id)
        await anext(leaving)
        await leaving.aclose()
    assert seen.text == ANSWER
