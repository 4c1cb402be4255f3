"""Cancelling, from anywhere: for good, with what was said kept, and a context that stays well-formed."""

import asyncio
import json
import random
from contextlib import aclosing

import pytest
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from tests.faults.conftest import Pair
from tests.support.calls import Caller, Seen, send_request, whole_history
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

STUCK = "demo/stall:chunks=3"
STUCK_TEXT = "word1 word2 word3 "
_HANGS_S = 30.0


async def _read_until_spoken(events: object, seen: Seen) -> None:
    while seen.text != STUCK_TEXT:
        seen.take(await anext(events))  # type: ignore[call-overload]


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_a_cancel_ends_a_turn_that_is_stuck_and_keeps_its_text(
    pair: Pair, demo: DemoServer, transport: str, where: int
) -> None:
    here, there = pair[0].by(transport), pair[where].by(transport)
    session_id, seen, closed = await here.create_session(), Seen(), demo.tally.closed_by_client
    events = here.stream(send_request(session_id, "hello", model=STUCK))
    await _read_until_spoken(events, seen)
    turn = await there.cancel_turn(session_id, seen.turn_id)
    await seen.read(events)
    assert (turn.state, turn.response, turn.last_seq) == (pb.Turn.CANCELLED, STUCK_TEXT, 2)
    assert turn == seen.ended
    async with asyncio.timeout(_HANGS_S):
        await demo.until(lambda tally: tally.closed_by_client == closed + 1)
    assert (await there.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    assert [m.content for m in await whole_history(here, session_id)] == ["hello", STUCK_TEXT, "next", "next"]


async def test_a_turn_cancelled_before_its_first_word_keeps_the_message_alone(pair: Pair, demo: DemoServer) -> None:
    session_id = await pair[0].grpc.create_session()
    events = pair[0].grpc.stream(send_request(session_id, "hello", model="demo/silent"))
    seen = Seen().take(await anext(events))
    turn = await pair[1].grpc.cancel_turn(session_id, seen.turn_id)
    assert (await seen.read(events)).ended == turn
    assert (turn.state, turn.response, turn.first_seq, turn.last_seq) == (pb.Turn.CANCELLED, "", 1, 1)
    assert [m.role for m in await whole_history(pair[0].grpc, session_id)] == ["user"]


async def test_many_cancels_at_once_all_get_the_same_ending(pair: Pair) -> None:
    session_id, seen = await pair[0].grpc.create_session(), Seen()
    events = pair[0].grpc.stream(send_request(session_id, "hello", model=STUCK))
    await _read_until_spoken(events, seen)
    callers = [door.by(transport) for door in pair for transport in ("grpc", "rest")] * 3
    turns = await asyncio.gather(*(caller.cancel_turn(session_id, seen.turn_id) for caller in callers))
    await seen.read(events)
    assert all(turn == seen.ended for turn in turns)


async def test_a_cancel_of_an_ended_turn_returns_it_unchanged(pair: Pair, transport: str) -> None:
    session_id = await pair[0].grpc.create_session()
    turn = (await pair[0].grpc.send(send_request(session_id, "hello", model="demo/echo"))).turn
    for door in pair:
        assert await door.by(transport).cancel_turn(session_id, turn.turn_id) == turn


async def test_a_turn_that_was_to_end_with_its_caller_is_cancelled_when_it_leaves(
    pair: Pair, demo: DemoServer, transport: str
) -> None:
    caller = pair[0].by(transport)
    session_id, seen, closed = await caller.create_session(), Seen(), demo.tally.closed_by_client
    events = caller.stream(send_request(session_id, "hello", model=STUCK, on_disconnect=pb.CANCEL))
    async with aclosing(events):
        await _read_until_spoken(events, seen)
    async with asyncio.timeout(_HANGS_S):
        await demo.until(lambda tally: tally.closed_by_client == closed + 1)
    turn = await _ended(pair[1].grpc, session_id, seen.turn_id)
    assert (turn.state, turn.response) == (pb.Turn.CANCELLED, STUCK_TEXT)


async def test_a_unary_caller_that_leaves_cancels_a_turn_that_was_to_end_with_it(pair: Pair, transport: str) -> None:
    caller = pair[0].by(transport)
    session_id = await caller.create_session()
    sending = asyncio.create_task(
        caller.send(send_request(session_id, "hello", model="demo/silent", on_disconnect=pb.CANCEL))
    )
    [message] = await until(lambda: whole_history(pair[1].grpc, session_id))
    sending.cancel()
    turn = await _ended(pair[1].grpc, session_id, message.turn_id)
    assert turn.state == pb.Turn.CANCELLED


async def test_only_the_last_caller_to_leave_cancels(pair: Pair) -> None:
    caller = pair[0].grpc
    session_id, first, second = await caller.create_session(), Seen(), Seen()
    request = send_request(session_id, "hello", model=STUCK, on_disconnect=pb.CANCEL, request_id="r1")
    events, joined = caller.stream(request), caller.stream(request)
    await _read_until_spoken(events, first)
    await _read_until_spoken(joined, second)
    await events.aclose()
    await caller.history(pb.GetHistoryRequest(session_id=session_id))
    assert (await caller.get_turn(session_id, first.turn_id)).state == pb.Turn.RUNNING
    await joined.aclose()
    assert (await _ended(caller, session_id, first.turn_id)).state == pb.Turn.CANCELLED


async def test_a_turn_goes_on_when_its_callers_leave(pair: Pair, transport: str) -> None:
    caller = pair[0].by(transport)
    session_id = await caller.create_session()
    async with aclosing(caller.stream(send_request(session_id, "hello", model="demo/slow:chunks=8"))) as events:
        seen = Seen().take(await anext(events))
    turn = await _ended(pair[1].grpc, session_id, seen.turn_id)
    assert (turn.state, turn.response) == (pb.Turn.COMPLETED, "".join(f"word{n} " for n in range(1, 9)))


async def _ended(caller: Caller, session_id: str, turn_id: str) -> pb.Turn:
    async def look() -> pb.Turn | None:
        turn = await caller.get_turn(session_id, turn_id)
        return turn if turn.HasField("end_time") else None

    turn = await until(look)
    assert turn is not None
    return turn


# What each kind of turn leaves for the model to read: its answer, or None if the turn is left out.
_TURNS = {
    "demo/echo": "demo/echo",
    "demo/length:chunks=2": "word1 word2 ",
    "demo/filter:chunks=2": "word1 word2 ",
    "demo/cut:chunks=2": "word1 word2 ",
    "demo/reset:chunks=2": "word1 word2 ",
    "demo/error-after:chunks=1": "word1 ",
    "demo/error-400": None,
    "demo/error-503": None,
    "demo/empty": None,
    STUCK: STUCK_TEXT,
    "demo/silent": None,
}


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_mix_of_endings_the_next_context_is_well_formed(pair: Pair, seed: int) -> None:
    """The message of each turn is its model's name, which the echo then says."""
    models = random.Random(seed).sample(list(_TURNS), len(_TURNS))
    session_id = await pair[0].grpc.create_session(instructions="Be brief.")
    for number, model in enumerate(models):
        await _play(pair[number % 2].grpc, pair[1 - number % 2].grpc, session_id, model)
    asked = await pair[0].rest.send(send_request(session_id, "context?", model="demo/context"))
    said = [part for model in models if (answer := _TURNS[model]) for part in (model, answer)]
    roles = ["system", *["user", "assistant"] * (len(said) // 2), "user"]
    expected = list(zip(roles, ["Be brief.", *said, "context?"], strict=True))
    assert [(message["role"], message["content"]) for message in json.loads(asked.response)] == expected
    sent = [m.content for m in await whole_history(pair[1].grpc, session_id) if m.role == "user"]
    assert sent == [*models, "context?"]


async def _play(caller: Caller, other: Caller, session_id: str, model: str) -> None:
    """Send a message to this model and wait for its end; those that never end by themselves are cancelled."""
    seen = Seen()
    events = caller.stream(send_request(session_id, model, model=model))
    seen.take(await anext(events))
    if model == STUCK:
        await _read_until_spoken(events, seen)
    if model in (STUCK, "demo/silent"):
        await other.cancel_turn(session_id, seen.turn_id)
    await _ended(other, session_id, seen.turn_id)
    await events.aclose()
