"""The command `chatsession` against the real service."""

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from chatsession.v1 import chat_session_pb2 as pb

from tests.e2e import terminal
from tests.e2e.starting import free_port
from tests.e2e.terminal import CTRL_C, CTRL_D, at_terminal
from tests.support.calls import whole_history
from tests.support.grpc_calls import GrpcCaller
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ENDLESS = "demo/slow:chunks=10000,delay_ms=20"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("cli"), STOP_GRACE_SECONDS="0.2") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def stubs(server: ServerProcess) -> AsyncIterator[GrpcCaller]:
    async with GrpcCaller(server) as stubs:
        yield stubs


def session_in(text: str) -> str:
    """The id in the line that `chat` leaves with."""
    found = re.search(r"chatsession chat --session (\w+)", text)
    assert found, text
    return found[1]


# Through pipes


async def test_new_writes_the_id_of_a_session(server: ServerProcess, stubs: GrpcCaller) -> None:
    created = await terminal.run(server, "new")
    assert (created.code, created.stderr) == (0, "")
    assert await stubs.said(created.stdout.strip()) == []


async def test_send_writes_the_answer_and_nothing_else(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    sent = await terminal.run(server, "send", session_id, "Grüß Gott 👋", "--model", "demo/echo")
    assert sent == terminal.Ended(0, "Grüß Gott 👋\n", "")


@pytest.mark.parametrize("options", [(), ("--stream",)])
async def test_send_takes_the_message_from_stdin(
    server: ServerProcess, stubs: GrpcCaller, options: tuple[str, ...]
) -> None:
    session_id = await stubs.create_session()
    sent = await terminal.run(server, "send", session_id, "-", "--model", "demo/echo", *options, stdin="one\ntwo\n")
    assert (sent.code, sent.stdout) == (0, "one\ntwo\n"), sent.stderr
    assert (await stubs.said(session_id))[0] == ("user", "one\ntwo")


async def test_history_writes_all_messages(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    await stubs.ask(session_id, "one", "demo/echo")
    await stubs.ask(session_id, "[bold]two[/bold]", "demo/echo")
    written = await terminal.run(server, "history", session_id)
    told = "user:\none\nassistant:\none\nuser:\n[bold]two[/bold]\nassistant:\n[bold]two[/bold]\n"
    assert written == terminal.Ended(0, told, "")


async def test_history_as_json_is_what_rest_answers(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    await stubs.ask(session_id, "one", "demo/echo")
    written = await terminal.run(server, "history", session_id, "--json")
    messages = json.loads(written.stdout)["history"]
    assert [(message["role"], message["content"]) for message in messages] == [("user", "one"), ("assistant", "one")]


async def test_chat_takes_every_line_of_a_pipe_as_a_message(server: ServerProcess, stubs: GrpcCaller) -> None:
    talked = await terminal.run(server, "chat", "--model", "demo/echo", stdin="one\n\ntwo\n")
    assert (talked.code, talked.stdout) == (0, "one\ntwo\n"), talked.stderr
    assert [content for _, content in await stubs.said(session_in(talked.stderr))] == ["one", "one", "two", "two"]


async def test_chat_goes_on_with_a_session(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    await stubs.ask(session_id, "before")
    talked = await terminal.run(server, "chat", "--session", session_id, stdin="after\n")
    assert "I see 2 user message(s)" in talked.stdout


async def test_a_failed_send_is_one_line_and_a_code(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    failed = await terminal.run(server, "send", session_id, "hi", "--model", "demo/error-429-quota")
    assert (failed.code, failed.stdout) == (7, "")
    assert failed.stderr.startswith("error: MODEL_QUOTA_EXHAUSTED: ")
    assert failed.stderr.count("\n") == 1


async def test_an_unknown_session_is_one_line_and_a_code(server: ServerProcess) -> None:
    failed = await terminal.run(server, "history", "nobody")
    assert (failed.code, failed.stdout) == (3, "")
    assert failed.stderr.startswith("error: SESSION_NOT_FOUND: ")
    assert failed.stderr.count("\n") == 1


async def test_a_service_that_is_not_there_is_told(server: ServerProcess) -> None:
    failed = await terminal.run(f"127.0.0.1:{free_port()}", "new")
    assert (failed.code, failed.stdout) == (5, "")
    assert "cannot reach" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("arguments", [("chat",), ("send", "SESSION", "hi", "--stream")])
async def test_an_interrupted_pipe_leaves_cleanly(
    server: ServerProcess, stubs: GrpcCaller, arguments: tuple[str, ...]
) -> None:
    session_id = await stubs.create_session()
    known = [session_id if argument == "SESSION" else argument for argument in arguments]
    left = await terminal.run_until_output_then_interrupt(server, *known, "--model", _ENDLESS, stdin="hi\n")
    assert left.code == 130
    assert left.stdout.startswith("word1 ")
    assert "interrupted" in left.stderr
    assert "Traceback" not in left.stderr


# At a terminal


async def test_at_a_terminal_one_talks(server: ServerProcess, stubs: GrpcCaller) -> None:
    async with at_terminal(server, "chat", "--model", "demo/echo") as screen:
        for message in ("how are you?", "Grüß Gott 👋"):
            await screen.shows("> ")
            screen.type(f"{message}\r")
            await screen.shows(message)  # what was typed
            await screen.shows(message)  # the answer
        await screen.shows("> ")
        assert await screen.leave_by(CTRL_D) == 0
        await screen.shows("resume with: ")
    told = [content for role, content in await stubs.said(session_in(screen.screen)) if role == "user"]
    assert told == ["how are you?", "Grüß Gott 👋"]


async def test_ctrl_c_at_the_prompt_leaves(server: ServerProcess) -> None:
    async with at_terminal(server, "chat") as screen:
        await screen.shows("> ")
        assert await screen.leave_by(CTRL_C) == 0
        await screen.shows("resume with: ")
    assert "Traceback" not in screen.screen


async def test_ctrl_c_in_an_answer_cancels_it_and_one_talks_on(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    async with at_terminal(server, "chat", "--session", session_id, "--model", _ENDLESS) as screen:
        await screen.shows("> ")
        screen.type("hi\r")
        await screen.shows("word3 ")
        screen.type(CTRL_C)
        await screen.shows("(cancelled)")
        await screen.shows("> ")
        assert await screen.leave_by(CTRL_C) == 0
    question, answer = await whole_history(stubs, session_id)
    assert (question.content, answer.turn_state) == ("hi", pb.Turn.CANCELLED)
    assert answer.content.startswith("word1 word2 word3 ")
    assert "Traceback" not in screen.screen


async def test_ctrl_c_in_a_send_leaves_and_the_answer_goes_on(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    model = "demo/slow:chunks=20,delay_ms=50"
    async with at_terminal(server, "send", session_id, "hi", "--stream", "--model", model) as screen:
        await screen.shows("word2 ")
        screen.type(CTRL_C)
        await screen.shows("interrupted")
        assert await screen.ends() == 130

    async def is_whole() -> bool:
        return (await whole_history(stubs, session_id))[-1].turn_state == pb.Turn.COMPLETED

    await until(is_whole)


async def test_chat_shows_an_error_and_goes_on(server: ServerProcess) -> None:
    async with at_terminal(server, "chat", "--model", "demo/flaky:fail=1,status=400") as screen:
        await screen.shows("> ")
        screen.type("hi\r")
        await screen.shows("error: MODEL_REFUSED_REQUEST")
        await screen.shows("> ")
        screen.type("hi\r")
        await screen.shows("Hello!")
        await screen.shows("> ")
        assert await screen.leave_by(CTRL_D) == 0


async def test_chat_shows_what_was_said_before(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    answer = await stubs.ask(session_id, "what was said")
    async with at_terminal(server, "chat", "--session", session_id) as screen:
        await screen.shows("what was said")
        await screen.shows(answer[:40])
        await screen.shows("> ")
        assert await screen.leave_by(CTRL_D) == 0


async def test_a_model_cannot_move_the_cursor(server: ServerProcess, stubs: GrpcCaller) -> None:
    session_id = await stubs.create_session()
    async with at_terminal(server, "send", session_id, "a\x1b[2Jb\x07c", "--model", "demo/echo") as screen:
        await screen.shows("a[2Jbc")
        assert await screen.ends() == 0
