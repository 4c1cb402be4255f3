"""Ends of the service, in good order and not, and what callers and the next start see of them."""

import asyncio
import signal
from contextlib import aclosing
from pathlib import Path

import pytest
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.refusals import check_refused
from tests.e2e.waiting import first_text, until_logged
from tests.support.calls import Caller, Events, send_request, whole_history
from tests.support.door import connect
from tests.support.rest_calls import RestCaller
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

_SLOW = "demo/slow:chunks=12,delay_ms=100"
_SLOW_TEXT = "".join(f"word{number} " for number in range(1, 13))
_ENDLESS = "demo/slow:chunks=10000,delay_ms=50"
# Longer than any test waits: who ends all the same has not waited for it.
_ENDLESS_GRACE = "600"

signal_and_face = pytest.mark.parametrize(
    ("number", "face_name"), [(signal.SIGTERM, "grpc"), (signal.SIGINT, "rest")], indirect=["face_name"]
)


async def rest_of(events: Events, text: str) -> tuple[str, pb.TurnEvent]:
    """Read a stream to its end; return all text, and the last event."""
    last = pb.TurnEvent()
    async for last in events:
        text += last.delta.text
    return text, last


async def cut_off(events: Events, text: str) -> tuple[str, ChatSessionError]:
    """Read a stream to the status that it ends with; return all text, and that."""
    try:
        async for event in events:
            text += event.delta.text
    except ChatSessionError as refused:
        return text, refused
    raise AssertionError("the stream ended well")


async def is_ended(face: Caller, session_id: str) -> bool:
    """Whether the newest turn of a session is over."""
    return (await whole_history(face, session_id))[-1].turn_state != pb.Turn.RUNNING


async def until_has_message(face: Caller, session_id: str) -> None:
    """Wait until a message is saved."""

    async def has_message() -> bool:
        return bool(await face.said(session_id))

    await until(has_message)


async def check_ended_well(server: ServerProcess) -> None:
    """Wait for the end of a server that was told to stop; check that it was no failure and logged none."""
    assert await server.wait() == 0
    assert [entry for entry in server.log if entry.get("level") not in ("debug", "info", "warning")] == []


def check_sent_away(refused: ChatSessionError, *, committed: str, retry: str) -> None:
    check_refused(refused, "UNAVAILABLE", "SHUTTING_DOWN")
    assert (refused.metadata["committed"], refused.metadata["retry"]) == (committed, retry)
    assert (refused.retry_delay_s is None) == (retry == "NO")
    assert ("turnId" in refused.metadata) == (committed == "true")


@store_and_face
async def test_sigkill_between_turns_loses_nothing(store: Settings, face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        told = []
        for message in ("one", "two", "three"):
            told += [("user", message), ("assistant", await face.ask(session_id, message))]
        await server.kill()
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        assert await face.said(session_id) == told
        assert "I see 4 user message(s)" in await face.ask(session_id, "four")


async def test_sigkill_in_a_stream_keeps_the_message_and_what_was_shown_long_ago(
    store: Settings, tmp_path: Path
) -> None:
    async with running_server(tmp_path, **store) as server, connect("grpc", server) as face:
        session_id = await face.create_session()
        async with aclosing(face.stream(send_request(session_id, "hi", model=_ENDLESS))) as events:
            await first_text(events)
            # What is older than a checkpoint and a half is saved.
            for _ in range(25):
                await anext(events)
            await server.kill()
    async with running_server(tmp_path, LEASE_SECONDS="1", **store) as server, connect("grpc", server) as face:
        await until(lambda: is_ended(face, session_id))
        (question, answer) = await whole_history(face, session_id)
        assert (question.content, answer.turn_state) == ("hi", pb.Turn.INCOMPLETE)
        assert answer.content.startswith("word1 word2 word3 ")
        assert "I see 2 user message(s)" in await face.ask(session_id, "again")


@store_and_face
async def test_sigterm_in_a_stream_finishes_the_answer(store: Settings, face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        async with aclosing(face.stream(send_request(session_id, "hi", model=_SLOW))) as events:
            text = await first_text(events)
            server.send_signal(signal.SIGTERM)
            text, last = await rest_of(events, text)
        assert (text, last.ended.turn.state) == (_SLOW_TEXT, pb.Turn.COMPLETED)
        await check_ended_well(server)
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        assert await face.said(session_id) == [("user", "hi"), ("assistant", _SLOW_TEXT)]


async def test_sigterm_finishes_an_answer_that_nobody_waits_for(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect("grpc", server) as face:
        session_id = await face.create_session()
        async with aclosing(face.stream(send_request(session_id, "hi", model=_SLOW))) as events:
            await first_text(events)
        server.send_signal(signal.SIGTERM)
        await check_ended_well(server)
    async with running_server(tmp_path) as server, connect("grpc", server) as face:
        assert await face.said(session_id) == [("user", "hi"), ("assistant", _SLOW_TEXT)]


async def test_sigterm_finishes_a_unary_call(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        answer = asyncio.ensure_future(face.ask(session_id, "hi", _SLOW))
        await until_has_message(face, session_id)
        server.send_signal(signal.SIGTERM)
        assert await answer == _SLOW_TEXT
        await check_ended_well(server)


@store_and_face
async def test_an_answer_longer_than_the_grace_is_kept_as_far_as_it_came(
    store: Settings, face_name: str, tmp_path: Path
) -> None:
    async with (
        running_server(tmp_path, STOP_GRACE_SECONDS="0.3", **store) as server,
        connect(face_name, server) as face,
    ):
        session_id = await face.create_session()
        async with aclosing(face.stream(send_request(session_id, "hi", model=_ENDLESS))) as events:
            text = await first_text(events)
            server.send_signal(signal.SIGTERM)
            text, refused = await cut_off(events, text)
        check_sent_away(refused, committed="true", retry="NO")
        await check_ended_well(server)
    async with running_server(tmp_path, **store) as server, connect(face_name, server) as face:
        await until(lambda: is_ended(face, session_id))
        question, answer = await whole_history(face, session_id)
        assert (question.content, answer.turn_state) == ("hi", pb.Turn.INCOMPLETE)
        assert answer.content.startswith(text)
        assert "I see 2 user message(s)" in await face.ask(session_id, "again")


async def test_a_unary_caller_beyond_the_grace_is_told_to_repeat(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path, STOP_GRACE_SECONDS="0.3") as server, connect(face_name, server) as face:
        session_id = await face.create_session()
        answer = asyncio.ensure_future(face.ask(session_id, "hi", _ENDLESS, request_id="once"))
        await until_has_message(face, session_id)
        server.send_signal(signal.SIGTERM)
        with pytest.raises(ChatSessionError) as caught:
            await answer
        check_sent_away(caught.value, committed="true", retry="SAME_REQUEST")
        await check_ended_well(server)


async def test_a_stopping_server_takes_no_new_message(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, connect(face_name, server) as face:
        busy, idle = await face.create_session(), await face.create_session()
        async with aclosing(face.stream(send_request(busy, "hi", model=_SLOW))) as events:
            text = await first_text(events)
            server.send_signal(signal.SIGTERM)
            await until_logged(server, "stopping")
            with pytest.raises(ChatSessionError) as caught:
                await face.ask(idle, "too late")
            check_sent_away(caught.value, committed="false", retry="SAME_REQUEST")
            assert (await rest_of(events, text))[0] == _SLOW_TEXT


async def test_a_stopping_server_says_that_it_is_not_ready(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RestCaller(server) as rest:
        session_id = await rest.create_session()
        async with aclosing(rest.stream(send_request(session_id, "hi", model=_SLOW))) as events:
            text = await first_text(events)
            server.send_signal(signal.SIGTERM)
            await until_logged(server, "stopping")
            assert (await rest.call("GET", "/readyz"))[0] == 503
            assert (await rest.call("GET", "/healthz"))[0] == 200
            assert (await rest_of(events, text))[0] == _SLOW_TEXT


@signal_and_face
async def test_a_second_signal_ends_the_grace(number: signal.Signals, face_name: str, tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, STOP_GRACE_SECONDS=_ENDLESS_GRACE) as server,
        connect(face_name, server) as face,
    ):
        session_id = await face.create_session()
        async with aclosing(face.stream(send_request(session_id, "hi", model=_ENDLESS))) as events:
            text = await first_text(events)
            server.send_signal(number)
            await until_logged(server, "stopping")
            server.send_signal(number)
            _, refused = await cut_off(events, text)
            await check_ended_well(server)
        check_sent_away(refused, committed="true", retry="NO")


async def test_an_idle_server_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, STOP_GRACE_SECONDS=_ENDLESS_GRACE) as server,
        connect("grpc", server) as stubs,
        connect("rest", server) as rest,
    ):
        await stubs.create_session()
        await rest.create_session()
        server.send_signal(signal.SIGTERM)
        await check_ended_well(server)


async def test_callers_that_leave_do_not_harm_the_server(face_name: str, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        for _ in range(10):
            async with connect(face_name, server) as face:
                session_id = await face.create_session()
                async with aclosing(face.stream(send_request(session_id, "hi", model=_SLOW))) as events:
                    await first_text(events)
        async with connect(face_name, server) as face:
            await until(lambda: is_ended(face, session_id))
            assert await face.said(session_id) == [("user", "hi"), ("assistant", _SLOW_TEXT)]
        server.send_signal(signal.SIGTERM)
        await check_ended_well(server)


async def test_it_goes_on_and_stops_in_good_order_when_nobody_takes_its_log(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RestCaller(server) as caller:
        server.stop_reading_log()
        session_id = await caller.create_session()
        for _ in range(3):
            await caller.send(send_request(session_id, "hi"))
        assert len(await caller.said(session_id)) == 6
        assert await server.stop() == 0
