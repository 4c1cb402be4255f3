"""Several messages at once to one session: one turn at a time, and the caller says what a second one does."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import grpc
import pytest
from chatsession.errors import ChatSessionError, Retry, SessionBusy, StaleHistory, TurnCancelled
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.faults.conftest import Pair
from tests.support.calls import Caller, Seen, send_request, whole_history
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

STUCK = "demo/stall:chunks=3"
STUCK_TEXT = "word1 word2 word3 "


async def _start_stuck(caller: Caller) -> tuple[str, str, asyncio.Task[Seen]]:
    """Start a turn that says three words and then runs on; returns session, turn, and who watches it."""
    session_id = await caller.create_session()
    seen, spoken = Seen(), asyncio.Event()

    async def watch() -> Seen:
        async for event in caller.stream(send_request(session_id, "stuck", model=STUCK)):
            if seen.take(event).text == STUCK_TEXT:
                spoken.set()
        return seen

    task = asyncio.create_task(watch())
    await spoken.wait()
    return session_id, seen.turn_id, task


async def _round_trip(caller: Caller, session_id: str) -> None:
    """Return when the server has handled what was sent before on this connection."""
    await caller.history(pb.GetHistoryRequest(session_id=session_id))


def _pairs(history: list[pb.Message]) -> list[tuple[str, str]]:
    """Return (user text, answer) of each turn; fails unless users and assistants alternate in order of seq."""
    assert [message.role for message in history] == ["user", "assistant"] * (len(history) // 2)
    seqs = [message.seq for message in history]
    assert seqs == sorted(set(seqs))
    pairs = list(zip(history[::2], history[1::2], strict=True))
    assert all(user.turn_id == assistant.turn_id for user, assistant in pairs)
    return [(user.content, assistant.content) for user, assistant in pairs]


async def test_twenty_messages_at_once_are_answered_one_after_the_other(pair: Pair, demo: DemoServer) -> None:
    session_id = await pair[0].grpc.create_session()
    callers = [door.by(transport) for door in pair for transport in ("grpc", "rest")]
    texts = [f"message {number}" for number in range(20)]
    answers = await asyncio.gather(
        *(
            callers[number % 4].send(send_request(session_id, text, model="demo/echo:delay_ms=10"))
            for number, text in enumerate(texts)
        )
    )
    assert [answer.response for answer in answers] == texts
    history = _pairs(await whole_history(pair[0].grpc, session_id))
    assert sorted(history) == sorted((text, text) for text in texts)


async def test_those_who_wait_at_one_server_are_answered_in_order_of_arrival(pair: Pair) -> None:
    """Over gRPC, whose calls share one connection: over HTTP a later one could overtake on another."""
    here, there = pair[0].grpc, pair[1].grpc
    session_id, turn_id, watcher = await _start_stuck(here)
    texts = [f"message {number}" for number in range(8)]
    waiting = []
    for text in texts:
        waiting.append(asyncio.create_task(here.send(send_request(session_id, text, model="demo/echo"))))
        await _round_trip(here, session_id)
    await there.cancel_turn(session_id, turn_id)
    await asyncio.gather(*waiting, watcher)
    assert [user for user, _ in _pairs(await whole_history(there, session_id))] == ["stuck", *texts]


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_reject_says_which_turn_is_in_the_way_and_when_to_come_again(
    pair: Pair, transport: str, where: int
) -> None:
    session_id, turn_id, watcher = await _start_stuck(pair[0].grpc)
    with pytest.raises(SessionBusy) as caught:
        await pair[where].by(transport).send(send_request(session_id, "no", request_id="r1", on_busy=pb.REJECT))
    assert caught.value.active_turn_id == turn_id
    assert caught.value.code is grpc.StatusCode.ABORTED
    assert caught.value.committed is False
    assert caught.value.retry is Retry.SAME_REQUEST
    assert caught.value.retry_delay_s
    await pair[1].grpc.cancel_turn(session_id, turn_id)
    await watcher
    again = send_request(session_id, "no", request_id="r1", on_busy=pb.REJECT, model="demo/echo")
    assert (await pair[where].by(transport).send(again)).response == "no"


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_interrupt_ends_the_running_turn_and_takes_its_place(pair: Pair, transport: str, where: int) -> None:
    session_id, turn_id, watcher = await _start_stuck(pair[0].by(transport))
    interrupting = send_request(session_id, "now", model="demo/echo", on_busy=pb.INTERRUPT)
    assert (await pair[where].by(transport).send(interrupting)).response == "now"
    seen = await watcher
    assert seen.ended
    assert (seen.ended.state, seen.ended.response) == (pb.Turn.CANCELLED, STUCK_TEXT)
    assert _pairs(await whole_history(pair[1].grpc, session_id)) == [("stuck", STUCK_TEXT), ("now", "now")]
    assert (await pair[1].grpc.get_turn(session_id, turn_id)).state == pb.Turn.CANCELLED


async def test_an_interrupted_caller_is_told_to_use_a_new_request_id(pair: Pair, transport: str) -> None:
    caller = pair[0].by(transport)
    session_id = await caller.create_session()
    stuck = asyncio.create_task(caller.send(send_request(session_id, "stuck", model=STUCK, request_id="r1")))
    await until(lambda: whole_history(pair[1].grpc, session_id))
    await pair[1].grpc.send(send_request(session_id, "now", model="demo/echo", on_busy=pb.INTERRUPT))
    with pytest.raises(TurnCancelled) as caught:
        await stuck
    assert caught.value.committed is True
    assert caught.value.retry is Retry.NEW_REQUEST_ID


async def test_interrupt_goes_before_those_who_wait(pair: Pair) -> None:
    caller = pair[0].grpc
    session_id, _, watcher = await _start_stuck(caller)
    waiting = asyncio.create_task(caller.send(send_request(session_id, "later", model="demo/echo")))
    await _round_trip(caller, session_id)
    await caller.send(send_request(session_id, "now", model="demo/echo", on_busy=pb.INTERRUPT))
    await asyncio.gather(waiting, watcher)
    assert [user for user, _ in _pairs(await whole_history(caller, session_id))] == ["stuck", "now", "later"]


async def _leave_by_cancel(sending: "asyncio.Task[object]") -> None:
    sending.cancel()
    await asyncio.wait((sending,))


async def _leave_by_deadline(sending: "asyncio.Task[object]") -> None:
    with pytest.raises(ChatSessionError) as caught:
        await sending
    # The other end of a broken HTTP connection hears nothing.
    assert caught.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("leave", "timeout_s"), [(_leave_by_cancel, 60.5), (_leave_by_deadline, 0.5)], ids=["cancel", "deadline"]
)
@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_a_queued_caller_that_leaves_is_never_accepted(
    pair: Pair,
    demo: DemoServer,
    transport: str,
    where: int,
    leave: Callable[["asyncio.Task[object]"], object],
    timeout_s: float,
) -> None:
    session_id, turn_id, watcher = await _start_stuck(pair[0].grpc)
    caller = pair[where].by(transport)
    texts = [f"gone {uuid4()}" for _ in range(3)]
    sending = [
        asyncio.create_task(caller.send(send_request(session_id, text, model="demo/echo"), timeout_s=timeout_s))
        for text in texts
    ]
    await _round_trip(caller, session_id)
    for task in sending:
        await leave(task)  # type: ignore[misc]
    await _round_trip(caller, session_id)
    await pair[1].grpc.cancel_turn(session_id, turn_id)
    await watcher
    assert (await pair[where].grpc.send(send_request(session_id, "next", model="demo/echo"))).response == "next"
    assert [user for user, _ in _pairs(await whole_history(caller, session_id))] == ["stuck", "next"]
    assert all(message_key(text) not in demo.tally.by_message for text in texts)


async def _stale(caller: Caller, request: pb.SendMessageRequest) -> int | None:
    """Return the number that the refusal names."""
    with pytest.raises(StaleHistory) as caught:
        await caller.send(request)
    assert caught.value.committed is False
    assert caught.value.retry is Retry.NO
    return caught.value.last_seq


async def test_an_idle_session_is_sent_to_only_at_the_expected_number(pair: Pair, transport: str) -> None:
    here, there = pair[0].by(transport), pair[1].by(transport)
    session_id = await here.create_session()
    assert await _stale(here, send_request(session_id, "a", expected_last_seq=1)) == 0
    await there.send(send_request(session_id, "a", model="demo/echo", expected_last_seq=0))
    for wrong in (0, 1, 3):
        assert await _stale(here, send_request(session_id, "b", expected_last_seq=wrong)) == 2
    await here.send(send_request(session_id, "b", model="demo/echo", expected_last_seq=2))
    assert _pairs(await whole_history(there, session_id)) == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_queue_refuses_at_once_what_is_older_than_the_running_turn(pair: Pair, where: int) -> None:
    session_id, turn_id, watcher = await _start_stuck(pair[0].grpc)
    assert await _stale(pair[where].grpc, send_request(session_id, "b", expected_last_seq=0)) == 1
    await pair[0].grpc.cancel_turn(session_id, turn_id)
    await watcher


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_queue_waits_for_the_expected_number(pair: Pair, where: int) -> None:
    caller = pair[where].grpc
    session_id, turn_id, watcher = await _start_stuck(pair[0].grpc)
    after_answer = send_request(session_id, "b", model="demo/echo", expected_last_seq=2)
    after_question = send_request(session_id, "c", model="demo/echo", expected_last_seq=1)
    waiting = asyncio.create_task(caller.send(after_answer))
    await _round_trip(caller, session_id)
    stale = asyncio.create_task(_stale(caller, after_question))
    await _round_trip(caller, session_id)
    assert not waiting.done()
    assert not stale.done()
    await pair[0].grpc.cancel_turn(session_id, turn_id)
    assert (await waiting).response == "b"
    # Which number it hears depends on when it looks: before the turn of "b", while that runs, or after it.
    assert await stale in (2, 3, 4)
    await watcher


@pytest.mark.parametrize("where", [0, 1], ids=["same-server", "other-server"])
async def test_a_stale_interrupt_cancels_nothing(pair: Pair, where: int) -> None:
    session_id, turn_id, watcher = await _start_stuck(pair[0].grpc)
    caller = pair[where].grpc
    for wrong in (0, 2, 3):
        request = send_request(session_id, "b", on_busy=pb.INTERRUPT, expected_last_seq=wrong)
        assert await _stale(caller, request) == 1
    assert (await caller.get_turn(session_id, turn_id)).state == pb.Turn.RUNNING
    right = send_request(session_id, "b", model="demo/echo", on_busy=pb.INTERRUPT, expected_last_seq=1)
    assert (await caller.send(right)).response == "b"
    assert (await watcher).text == STUCK_TEXT
