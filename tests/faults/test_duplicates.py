"""The same request id, many times, at once and later: one turn, one call to the provider, equal answers."""

import asyncio
from uuid import uuid4

import pytest
from chatsession.errors import ChatSessionError, RequestIdReused, Retry
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.faults.conftest import Pair, Stage
from tests.support.calls import Caller, Seen, send_request, whole_history

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLOW = "demo/slow:chunks=6,delay_ms=80"

Result = tuple[str, str]
"""Turn id and text, or the reason of a failure."""


async def _sent(caller: Caller, request: pb.SendMessageRequest) -> Result:
    try:
        response = await caller.send(request)
    except ChatSessionError as error:
        return error.turn_id or "", error.reason
    return response.turn.turn_id, response.response


async def _streamed(caller: Caller, request: pb.SendMessageRequest) -> Result:
    seen = Seen()
    try:
        await seen.read(caller.stream(request))
    except ChatSessionError as error:
        return seen.turn_id, error.reason
    return seen.turn_id, seen.text


async def _fifty_at_once(pair: Pair, request: pb.SendMessageRequest) -> list[Result]:
    ways = [(send, caller) for send in (_sent, _streamed) for door in pair for caller in (door.grpc, door.rest)]
    return await asyncio.gather(*(send(caller, request) for send, caller in (ways * 7)[:50]))


def _provider_calls(demo: DemoServer, message: str) -> int:
    return demo.tally.by_message.get(message_key(message), 0)


async def test_fifty_sends_with_one_id_at_once_make_one_turn(pair: Pair, demo: DemoServer) -> None:
    session_id, message = await pair[0].grpc.create_session(), f"hello {uuid4()}"
    results = await _fifty_at_once(pair, send_request(session_id, message, model=SLOW, request_id="r1"))
    assert len(set(results)) == 1
    turn_id, text = results[0]
    assert text == "word1 word2 word3 word4 word5 word6 "
    assert _provider_calls(demo, message) == 1
    history = await whole_history(pair[1].grpc, session_id)
    assert [(m.role, m.content, m.seq, m.turn_id) for m in history] == [
        ("user", message, 1, turn_id),
        ("assistant", text, 2, turn_id),
    ]


async def test_a_failure_is_given_again_and_the_provider_is_not_asked_again(pair: Pair, demo: DemoServer) -> None:
    session_id, message = await pair[0].grpc.create_session(), f"hello {uuid4()}"
    request = send_request(session_id, message, model="demo/error-400:first_ms=0", request_id="r1")
    at_once = await _fifty_at_once(pair, request)
    later = [await _sent(caller, request) for door in pair for caller in (door.grpc, door.rest)]
    assert set(at_once) == set(later)
    assert {reason for _, reason in at_once} == {"MODEL_REFUSED_REQUEST"}
    assert len({turn_id for turn_id, _ in at_once}) == 1
    assert _provider_calls(demo, message) == 1
    assert [m.role for m in await whole_history(pair[0].grpc, session_id)] == ["user"]


async def test_a_replayed_failure_says_that_a_new_request_id_is_needed(pair: Pair, transport: str) -> None:
    caller = pair[0].by(transport)
    request = send_request(await caller.create_session(), "hello", model="demo/error-503", request_id="r1")
    for door in pair:
        with pytest.raises(ChatSessionError) as caught:
            await door.by(transport).send(request)
        assert caught.value.reason == "MODEL_UNAVAILABLE"
        assert caught.value.committed is True
        assert caught.value.retry is Retry.NEW_REQUEST_ID
        assert caught.value.retry_delay_s is not None
    request.request_id = "r2"
    request.settings.model = "demo/echo"
    assert (await caller.send(request)).response == "hello"


@pytest.mark.parametrize("changed", ["message", "settings"])
async def test_an_id_with_other_fields_is_refused_while_its_turn_runs_and_after(
    pair: Pair, transport: str, changed: str
) -> None:
    here, there = pair[0].by(transport), pair[1].by(transport)
    session_id = await here.create_session()
    request = send_request(session_id, "hello", model=SLOW, request_id="r1")
    other = pb.SendMessageRequest()
    other.CopyFrom(request)
    if changed == "message":
        other.message = "bye"
    else:
        other.settings.temperature = 0.5
    events = here.stream(request)
    turn_id = (await anext(events)).accepted.turn.turn_id
    await _is_refused_as_reused(there, other, turn_id)
    assert [event async for event in events][-1].HasField("ended")
    for caller in (here, there):
        await _is_refused_as_reused(caller, other, turn_id)
    assert len(await whole_history(here, session_id)) == 2


async def _is_refused_as_reused(caller: Caller, request: pb.SendMessageRequest, turn_id: str) -> None:
    with pytest.raises(RequestIdReused) as caught:
        await caller.send(request)
    assert caught.value.committed is False
    assert caught.value.retry is Retry.NEW_REQUEST_ID
    assert caught.value.turn_id == turn_id


async def test_view_and_busy_mode_may_differ_between_repeats(pair: Pair) -> None:
    request = send_request(await pair[0].grpc.create_session(), "hello", model="demo/echo", request_id="r1")
    first = await pair[0].grpc.send(request)
    request.on_busy, request.on_disconnect, request.expected_last_seq = pb.REJECT, pb.CANCEL, 77
    assert (await pair[1].grpc.send(request)).turn == first.turn


async def test_after_a_restart_of_all_servers_the_id_still_has_its_result(stage: Stage, demo: DemoServer) -> None:
    door, message = stage.fleet.doors[0], f"hello {uuid4()}"
    session_id = await door.grpc.create_session()
    good = send_request(session_id, message, model="demo/echo", request_id="good")
    bad = send_request(session_id, f"bad {message}", model="demo/error-400", request_id="bad")
    before = [await _sent(door.grpc, good), await _sent(door.grpc, bad)]
    for number in (0, 1):
        await stage.fleet.kill(number)
    await stage.fleet.heal()
    door = stage.fleet.doors[0]
    assert [await _sent(door.rest, good), await _sent(door.grpc, bad)] == before
    assert _provider_calls(demo, message) == 1
    assert _provider_calls(demo, f"bad {message}") == 1


async def test_the_same_id_in_two_sessions_makes_two_turns(pair: Pair) -> None:
    requests = [
        send_request(await pair[0].grpc.create_session(), text, model="demo/echo", request_id="r1")
        for text in ("one", "two")
    ]
    assert [await _sent(pair[1].grpc, request) for request in requests] != [("", "")]
    assert [(await pair[0].grpc.send(request)).response for request in requests] == ["one", "two"]
