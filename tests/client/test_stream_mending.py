"""A streamed answer has no gap and no repeat, whatever happens to its calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import chatsession
import grpc
import pytest
from chatsession import Accepted, AsyncChatClient, Ended, Replaced, Text
from chatsession.v1 import chat_session_pb2 as pb

from tests.support.proxy import accepted_are_served

from .conftest import QUICK
from .scripted import (
    BREAK,
    SESSION,
    TURN,
    Refusal,
    Scripted,
    a_turn,
    accepted,
    busy_store,
    delta,
    ended,
    heartbeat,
    snapshot,
    unknown_kind,
)

WHOLE = [accepted(), delta("Hel", "c1"), delta("lo", "c2"), ended("Hello")]


async def texts(stream: chatsession.AnswerStream) -> list[str]:
    async with stream:
        return [text async for text in stream]


async def test_yields_the_text_and_knows_the_turn(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", WHOLE)
    stream = client.stream(SESSION, "hi")
    assert (stream.turn_id, stream.turn) == (None, None)
    assert await texts(stream) == ["Hel", "lo"]
    assert stream.turn_id == TURN
    assert stream.turn is not None
    assert stream.turn.state == pb.Turn.COMPLETED
    assert stream.text == "Hello"


async def test_events_are_accepted_text_ended(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", WHOLE)
    events = [event async for event in client.stream(SESSION, "hi").events()]
    assert events == [
        Accepted(a_turn(), "c0"),
        Text("Hel", "c1"),
        Text("lo", "c2"),
        Ended(a_turn(pb.Turn.COMPLETED, "Hello"), "end"),
    ]


async def test_answer_waits_for_all_of_it(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", WHOLE)
    answer = await client.stream(SESSION, "hi").answer()
    assert (answer.text, answer.is_complete, answer.turn.turn_id) == ("Hello", True, TURN)


async def test_attaches_after_the_last_cursor(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), BREAK])
    server.on("AttachTurn", [accepted("c1"), BREAK], [accepted("c1"), delta("lo", "c2"), ended("Hello")])
    assert await texts(client.stream(SESSION, "hi")) == ["Hel", "lo"]
    assert [(r.turn_id, r.after_cursor) for r in server.requests("AttachTurn")] == [(TURN, "c1")] * 2


async def test_accepted_is_told_once(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), BREAK])
    server.on("AttachTurn", WHOLE)
    events = [type(event) async for event in client.stream(SESSION, "hi").events()]
    assert events == [Accepted, Text, Text, Ended]


@pytest.mark.parametrize("events", range(len(WHOLE)))
async def test_breaks_after_each_event(client: AsyncChatClient, server: Scripted, events: int) -> None:
    server.on("StreamMessage", [*WHOLE[:events], BREAK], WHOLE)
    server.on("AttachTurn", WHOLE[events:])
    assert "".join(await texts(client.stream(SESSION, "hi"))) == "Hello"


async def test_lost_before_accepted_sends_the_same_request_again(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [BREAK], [busy_store()], WHOLE)
    stream = client.stream(SESSION, "hi")
    assert await texts(stream) == ["Hel", "lo"]
    first, *others = server.requests("StreamMessage")
    assert others == [first, first]
    assert first.request_id == stream.request_id


async def test_an_end_without_ended_means_attach_again(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1")])
    server.on("AttachTurn", [accepted("c1"), delta("lo", "c2")], [accepted("c2"), ended("Hello")])
    assert await texts(client.stream(SESSION, "hi")) == ["Hel", "lo"]


async def test_a_server_that_never_ends_the_turn_is_given_up(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted()])
    server.on("AttachTurn", *[[accepted()]] * 10)
    with pytest.raises(chatsession.Unavailable) as caught:
        await texts(client.stream(SESSION, "hi"))
    assert (caught.value.turn_id, caught.value.committed) == (TURN, True)
    assert len(server.requests("AttachTurn")) == QUICK.max_attempts - 1


async def test_progress_forgets_failures(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), BREAK])
    letters = "abcdefgh"
    server.on("AttachTurn", *[[delta(letter, letter), BREAK] for letter in letters], [ended(letters)])
    assert "".join(await texts(client.stream(SESSION, "hi"))) == letters


async def test_heartbeats_and_unknown_kinds_move_only_the_cursor(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), heartbeat("c1"), delta("Hello", "c2"), unknown_kind("c3"), BREAK])
    server.on("AttachTurn", [ended("Hello")])
    stream = client.stream(SESSION, "hi")
    assert await texts(stream) == ["Hello"]
    assert [r.after_cursor for r in server.requests("AttachTurn")] == ["c3"]


async def test_a_snapshot_that_goes_on_yields_only_the_rest(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), snapshot("Hello", "c2"), ended("Hello!")])
    assert await texts(client.stream(SESSION, "hi")) == ["Hel", "lo", "!"]


async def test_a_contradicting_snapshot_is_told(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), snapshot("Bye", "c2"), delta("!", "c3"), ended("Bye!")])
    stream = client.stream(SESSION, "hi")
    events = [event async for event in stream.events()]
    assert events[1:-1] == [Text("Hel", "c1"), Replaced("Bye", "c2"), Text("!", "c3")]
    assert stream.text == "Bye!"


async def test_text_iteration_goes_on_after_replaced(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), snapshot("Bye", "c2"), delta("!", "c3"), ended("Bye!")])
    async with client.stream(SESSION, "hi") as stream:
        with pytest.raises(chatsession.TextReplaced) as caught:
            _ = [text async for text in stream]
        assert caught.value.text == "Bye"
        assert [text async for text in stream] == ["!"]
    assert server.methods() == ["StreamMessage"]


async def test_a_final_text_that_contradicts_is_told(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hello wor", "c1"), ended("Hello", pb.Turn.INCOMPLETE)])
    stream = client.stream(SESSION, "hi")
    assert Replaced("Hello", "end") in [event async for event in stream.events()]


async def test_a_failed_turn_raises_its_error_after_the_text(client: AsyncChatClient, server: Scripted) -> None:
    metadata = {"retry": "NEW_REQUEST_ID", "turnId": TURN, "committed": "true"}
    refusal = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "MODEL_TIMEOUT", "the model fell silent", metadata)
    server.on(
        "StreamMessage", [accepted(), delta("Hel", "c1"), ended("", pb.Turn.FAILED, error=refusal.status()), refusal]
    )
    seen = []

    async def read() -> None:
        async for event in client.stream(SESSION, "hi").events():
            seen.append(type(event))  # noqa: PERF401  # a comprehension would lose them

    with pytest.raises(chatsession.ModelFailed, match="the model fell silent") as caught:
        await read()
    assert seen == [Accepted, Text, Ended]
    assert caught.value.retry is chatsession.Retry.NEW_REQUEST_ID
    assert caught.value.committed is True


async def test_a_failed_turn_raises_its_own_error_if_the_call_breaks(client: AsyncChatClient, server: Scripted) -> None:
    error = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONTEXT_TOO_LONG").status()
    server.on("StreamMessage", [accepted(), ended("", pb.Turn.FAILED, error=error), BREAK])
    with pytest.raises(chatsession.ContextTooLong):
        await texts(client.stream(SESSION, "hi"))


async def test_refusals_that_no_repeat_can_mend_are_raised_at_once(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")])
    with pytest.raises(chatsession.SessionNotFound):
        await texts(client.stream(SESSION, "hi"))


async def test_a_cancelled_turn_just_ends(client: AsyncChatClient, server: Scripted) -> None:
    asked = asyncio.Event()
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), asked, ended("Hel", pb.Turn.CANCELLED)])
    server.on("CancelTurn", [a_turn(pb.Turn.CANCELLED, "Hel")])
    async with client.stream(SESSION, "hi") as stream:
        async for _ in stream:
            turn = await stream.cancel()
            asked.set()
    assert turn is not None
    assert turn.state == pb.Turn.CANCELLED
    assert stream.turn is not None
    assert stream.turn.state == pb.Turn.CANCELLED


async def test_cancel_before_accepted_gives_up(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [asyncio.Event()])
    stream = client.stream(SESSION, "hi")
    reader = asyncio.create_task(texts(stream))
    async with asyncio.timeout(30):
        await server.called.wait()
    assert await stream.cancel() is None
    with pytest.raises(chatsession.TurnCancelled) as caught:
        await reader
    assert caught.value.committed is None
    async with asyncio.timeout(30):
        await server.cancelled.wait()


async def test_leaving_early_cancels_the_call(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), asyncio.Event()])
    async with client.stream(SESSION, "hi") as stream:
        async for _ in stream:
            break
    async with asyncio.timeout(30):
        await server.cancelled.wait()


async def test_leaving_the_bare_iterator_cancels_the_call(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), asyncio.Event()])
    stream = client.stream(SESSION, "hi")
    async for _ in stream:
        break
    async with asyncio.timeout(30):
        await server.cancelled.wait()


async def test_an_abandoned_iterator_leaves_the_next_one_alone(client: AsyncChatClient, server: Scripted) -> None:
    more = asyncio.Event()
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), more, delta("lo", "c2"), ended("Hello")])
    async with client.stream(SESSION, "hi") as stream:
        abandoned: Any = aiter(stream)
        assert await anext(abandoned) == "Hel"
        following = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
        await abandoned.aclose()
        more.set()
        assert await following == "lo"
    assert server.methods() == ["StreamMessage"]


async def test_a_cancelled_reader_cancels_the_call_and_may_go_on_later(
    client: AsyncChatClient, server: Scripted
) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), asyncio.Event()])
    server.on("AttachTurn", [accepted("c1"), delta("lo", "c2"), ended("Hello")])
    stream, seen = client.stream(SESSION, "hi"), asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            seen.set()

    async with asyncio.timeout(30):
        reader = asyncio.create_task(read())
        await seen.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    async with asyncio.timeout(30):
        await server.cancelled.wait()
    assert [text async for text in stream] == ["lo"]


async def test_the_deadline_names_the_turn_that_goes_on(client: AsyncChatClient, server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), asyncio.Event()])
    stream = client.stream(SESSION, "hi", timeout_s=0.2)
    with pytest.raises(chatsession.DeadlineExceeded) as caught:
        await texts(stream)
    assert (caught.value.turn_id, caught.value.request_id) == (TURN, stream.request_id)
    assert caught.value.committed is True


async def test_attach_goes_on_from_a_cursor(client: AsyncChatClient, server: Scripted) -> None:
    server.on("AttachTurn", [accepted("c1"), snapshot("Hello", "c2"), ended("Hello")])
    assert await texts(client.attach(SESSION, TURN, "c1", text="Hel")) == ["lo"]


async def test_attach_without_the_text_cannot_tell_what_is_new(client: AsyncChatClient, server: Scripted) -> None:
    server.on(
        "AttachTurn", [accepted("c1"), delta("lo", "c2"), ended("Hello")], [snapshot("Hello", "c2"), ended("Hello")]
    )
    assert await texts(client.attach(SESSION, TURN, "c1")) == ["lo"]
    events = [event async for event in client.attach(SESSION, TURN, "c1").events()]
    assert events[0] == Replaced("Hello", "c2")


async def test_attach_after_the_end_asks_for_the_turn(client: AsyncChatClient, server: Scripted) -> None:
    server.on("AttachTurn", [])
    server.on("GetTurn", [a_turn(pb.Turn.COMPLETED, "Hello")])
    stream = client.attach(SESSION, TURN, "end", text="Hello")
    assert [type(event) async for event in stream.events()] == [Ended]


@asynccontextmanager
async def cuttable(target: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A TCP proxy that drops its connection whenever the event is set."""
    cut, connections, callers = asyncio.Event(), set(), []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*target.split(":"))
        work = pump(reader, server_writer), pump(server_reader, writer), cut.wait()
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.clear()
            for task in tasks:
                task.cancel()
            for side in (writer, server_writer):
                side.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            for side in (writer, server_writer):
                with suppress(OSError):
                    await side.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)
        connections.add(asyncio.ensure_future(serve(reader, writer)))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = proxy.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", cut
    finally:
        proxy.close()
        await accepted_are_served()
        for connection in connections:
            connection.cancel()
        for writer in callers:  # one whose connection was cancelled before its first step has nobody else
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)
        await proxy.wait_closed()


async def test_a_cut_connection_is_mended(server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), asyncio.Event()])
    server.on("AttachTurn", [accepted("c1"), delta("lo", "c2"), ended("Hello")])
    async with cuttable(server.target) as (target, cut), AsyncChatClient(target) as client:
        seen = []
        async with client.stream(SESSION, "hi") as stream:
            async for text in stream:
                seen.append(text)
                cut.set()
    assert seen == ["Hel", "lo"]
