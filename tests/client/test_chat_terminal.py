"""`chatsession chat` in a terminal: typing, streaming, Ctrl-C and Ctrl-D."""

import asyncio

import grpc
from chatsession.v1 import chat_session_pb2 as pb

from .scripted import SESSION, TURN, Refusal, Scripted, a_turn, accepted, busy_store, delta, ended
from .terminal import terminal

CTRL_C, CTRL_D, LEFT = "\x03", "\x04", "\x1b[D"
CREATED = pb.CreateSessionResponse(session_id=SESSION)
RESUME = f"chatsession chat --session {SESSION}"


async def test_an_answer_is_shown_as_it_comes(server: Scripted) -> None:
    more = asyncio.Event()
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), more, delta("lo", "c2"), ended("Hello")])
    async with terminal(server.target, "chat", "--model", "m") as shown:
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("Hel")
        more.set()
        await shown.expect("lo\r\n")
        await shown.expect("> ")
        shown.type(CTRL_D)
        await shown.expect(f"{RESUME} --model m")
        assert await shown.exit_code() == 0
    assert server.requests("StreamMessage")[0].settings.model == "m"


async def test_lines_can_be_edited(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), ended("ok")])
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        shown.type(f"ac{LEFT}b\r")
        await shown.expect("ok")
    assert server.requests("StreamMessage")[0].message == "abc"


async def test_ctrl_c_at_the_prompt_leaves(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        shown.type("half a thought")
        await shown.expect("half a thought")
        await shown.press_until(CTRL_C, RESUME)
        assert await shown.exit_code() == 0
    assert server.methods() == ["CreateSession"]


async def test_ctrl_c_stops_the_answer_and_goes_on(server: Scripted) -> None:
    cancelled, rest = asyncio.Event(), [delta("lo", "c2"), ended("Hello", pb.Turn.CANCELLED)]
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), cancelled, *rest], [accepted(), ended("again")])
    server.on("CancelTurn", [cancelled.set, a_turn(pb.Turn.CANCELLED, "Hello")])
    # Only if the key came while the call was being read: that gives the call up.
    server.on("AttachTurn", rest)
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("Hel")
        shown.type(CTRL_C)
        await shown.expect("lo\r\n")
        await shown.expect("(cancelled)")
        await shown.expect("> ")
        shown.type("and?\r")
        await shown.expect("again")
    assert [request.turn_id for request in server.requests("CancelTurn")] == [TURN]


async def test_ctrl_c_before_the_message_is_accepted_gives_up(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [asyncio.Event()])
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        server.called.clear()
        shown.type("hi\r")
        async with asyncio.timeout(30):
            await server.called.wait()
        shown.type(CTRL_C)
        await shown.expect("(cancelled)")
        await shown.expect("> ")
    assert "CancelTurn" not in server.methods()


async def test_an_error_is_red_and_the_talk_goes_on(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on(
        "StreamMessage",
        [Refusal(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_REFUSED_REQUEST", "no such model")],
        [accepted(), ended("ok")],
    )
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("\x1b[31merror: MODEL_REFUSED_REQUEST: no such model")
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("ok")
    first, second = server.requests("StreamMessage")
    assert first.request_id != second.request_id


async def test_the_same_message_after_an_uncertain_send_is_the_same_send(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [busy_store(3600)], [accepted(), ended("ok")], [accepted(), ended("fine")])
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        for answer in ("not be sent twice", "ok", "fine"):
            shown.type("hi\r")
            await shown.expect(answer)
            await shown.expect("> ")
    first, second, third = (request.request_id for request in server.requests("StreamMessage"))
    assert first == second
    assert second != third


async def test_a_model_cannot_move_the_cursor(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), ended("a\x1b]0;evil\x07b\x9bc\td\n")])
    async with terminal(server.target, "chat") as shown:
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("a]0;evilbc\td\r\n")


async def test_a_resumed_session_shows_the_last_exchange_and_what_still_runs(server: Scripted) -> None:
    page = pb.GetHistoryResponse(
        history=[pb.Message(role="assistant", content="old answer"), pb.Message(role="user", content="old question")],
        active_turn_id=TURN,
    )
    server.on("GetHistory", [page])
    server.on("AttachTurn", [accepted(), delta("run", "c1"), ended("running")])
    async with terminal(server.target, "chat", "--session", SESSION) as shown:
        await shown.expect("> old question")
        await shown.expect("old answer")
        await shown.expect("running")
        await shown.expect("> ")
    request = server.requests("GetHistory")[0]
    assert (request.order_by, request.page_size) == ("seq desc", 2)


async def test_markdown_is_rendered_when_asked_for(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), ended("**bold**")])
    async with terminal(server.target, "chat", "--markdown") as shown:
        await shown.expect("> ")
        shown.type("hi\r")
        await shown.expect("\x1b[1mbold\x1b[0m")


async def test_ctrl_c_ends_a_send_with_130(server: Scripted) -> None:
    server.on("SendMessage", [asyncio.Event()])
    async with terminal(server.target, "send", SESSION, "hi") as shown:
        async with asyncio.timeout(30):
            await server.called.wait()
        shown.type(CTRL_C)
        await shown.expect("interrupted")
        assert await shown.exit_code() == 130
