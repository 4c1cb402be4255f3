"""`chatsession` through pipes: what it writes where, and its exit codes."""

import json
import signal

import chatsession
import grpc
import pytest
from chatsession.v1 import chat_session_pb2 as pb

from .scripted import BREAK, SESSION, Refusal, Scripted, a_turn, accepted, busy_store, delta, ended, snapshot
from .terminal import run

HELLO = pb.SendMessageResponse(response="Hello", turn=a_turn(pb.Turn.COMPLETED, "Hello"))
CREATED = pb.CreateSessionResponse(session_id=SESSION, session=pb.Session(session_id=SESSION, title="T"))


async def test_new_writes_the_id(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    ran = await run(server.target, "new", "--title", "T", "--model", "m")
    assert (ran.code, ran.out, ran.err) == (0, f"{SESSION}\n", "")
    assert server.requests("CreateSession")[0].session.settings.model == "m"


async def test_send_writes_the_answer(server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    ran = await run(server.target, "send", SESSION, "hi")
    assert (ran.code, ran.out, ran.err) == (0, "Hello\n", "")


async def test_send_takes_the_message_from_stdin(server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    await run(server.target, "send", SESSION, "-", stdin="two\nlines\n")
    assert server.requests("SendMessage")[0].message == "two\nlines"


async def test_send_passes_its_options(server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    await run(server.target, "send", SESSION, "hi", "--on-busy", "reject", "--request-id", "r1", "--model", "m")
    request = server.requests("SendMessage")[0]
    assert (request.on_busy, request.request_id, request.settings.model) == (pb.REJECT, "r1", "m")


async def test_send_json_is_what_rest_answers(server: Scripted) -> None:
    server.on("SendMessage", [HELLO])
    answer = json.loads((await run(server.target, "send", SESSION, "hi", "--json")).out)
    assert answer["response"] == "Hello"
    assert answer["turn"]["state"] == "COMPLETED"


async def test_send_stream_mends_itself(server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), BREAK])
    server.on("AttachTurn", [delta("lo", "c2"), ended("Hello")])
    ran = await run(server.target, "send", SESSION, "hi", "--stream")
    assert (ran.code, ran.out) == (0, "Hello\n")


async def test_send_stream_json_is_an_event_a_line(server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), delta("Hel", "c1"), snapshot("Bye", "c2"), ended("Bye")])
    ran = await run(server.target, "send", SESSION, "hi", "--stream", "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [next(iter(event)) for event in events] == ["accepted", "text", "replaced", "ended"]
    assert all(event["cursor"] for event in events)


async def test_an_unfinished_answer_is_said_to_be_so(server: Scripted) -> None:
    server.on("StreamMessage", [accepted(), ended("Hel", pb.Turn.INCOMPLETE)])
    ran = await run(server.target, "send", SESSION, "hi", "--stream")
    assert (ran.code, ran.out, ran.err) == (0, "Hel\n", "(incomplete)\n")


async def test_history_is_text_or_json(server: Scripted) -> None:
    page = pb.GetHistoryResponse(history=[pb.Message(role="user", content="[b]hi[/b]", seq=1)])
    server.on("GetHistory", [page], [page])
    assert (await run(server.target, "history", SESSION)).out == "user:\n[b]hi[/b]\n"
    shown = json.loads((await run(server.target, "history", SESSION, "--json")).out)
    assert shown == {"sessionId": SESSION, "history": [{"role": "user", "content": "[b]hi[/b]", "seq": 1}]}


async def test_chat_from_a_pipe_sends_each_line(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [accepted(), ended("one")], [accepted(), ended("two")])
    ran = await run(server.target, "chat", stdin="a\n\nb")
    assert (ran.code, ran.out) == (0, "one\ntwo\n")
    assert [request.message for request in server.requests("StreamMessage")] == ["a", "b"]
    assert f"chatsession chat --session {SESSION}" in ran.err
    assert "\x1b" not in ran.out + ran.err


async def test_chat_from_a_pipe_stops_at_the_first_error(server: Scripted) -> None:
    server.on("CreateSession", [CREATED])
    server.on("StreamMessage", [Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONTEXT_TOO_LONG", "too long")])
    ran = await run(server.target, "chat", stdin="a\nb\n")
    assert (ran.code, len(server.requests("StreamMessage"))) == (7, 1)
    assert "error: CONTEXT_TOO_LONG: too long. Shorten the message" in ran.err


@pytest.mark.parametrize(
    ("refusal", "code", "said"),
    [
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", fields={"message": "empty"}), 2, "message: empty."),
        (Refusal(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"), 3, "chatsession new"),
        (Refusal(grpc.StatusCode.ABORTED, "SESSION_BUSY"), 4, "--on-busy"),
        (Refusal(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"), 4, "--request-id"),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "TURN_LOST", metadata={"retry": "NO"}), 5, "TURN_LOST"),
        (Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "CALLER_DEADLINE_EXCEEDED"), 6, "--timeout"),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE", metadata={"retry": "NO"}), 7, "MODEL_UNAVAILABLE"),
        (Refusal(grpc.StatusCode.INTERNAL, "INTERNAL_ERROR", metadata={"requestId": "q1"}), 1, "q1"),
        (Refusal(grpc.StatusCode.PERMISSION_DENIED, message="a\nb"), 1, "PERMISSION_DENIED: a b."),
    ],
    ids=lambda value: getattr(value, "reason", None),
)
async def test_errors_are_one_line_and_an_exit_code(server: Scripted, refusal: Refusal, code: int, said: str) -> None:
    server.on("SendMessage", [refusal])
    ran = await run(server.target, "send", SESSION, "hi")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1


async def test_a_saved_message_without_an_answer_is_said_to_be_saved(server: Scripted) -> None:
    metadata = {"retry": "NEW_REQUEST_ID", "committed": "true"}
    server.on("SendMessage", [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "MODEL_RATE_LIMITED", metadata=metadata)])
    assert "The message is saved" in (await run(server.target, "send", SESSION, "hi")).err


async def test_an_uncertain_send_says_how_to_repeat_it(server: Scripted) -> None:
    server.on("SendMessage", [busy_store(60)])
    ran = await run(server.target, "send", SESSION, "hi", "--timeout", "5")
    assert ran.code == 5
    assert f"--request-id {server.requests('SendMessage')[0].request_id}." in ran.err


async def test_an_unreachable_server_is_named() -> None:
    ran = await run("127.0.0.1:1", "history", SESSION)
    assert ran.code == 5
    assert "cannot reach 127.0.0.1:1" in ran.err
    assert "Traceback" not in ran.err


async def test_wrong_usage_is_2(server: Scripted) -> None:
    assert (await run(server.target, "send", SESSION)).code == 2


async def test_version_and_help_need_no_server() -> None:
    assert (await run("127.0.0.1:1", "--version")).out == f"chatsession {chatsession.__version__}\n"
    shown = await run("127.0.0.1:1", "send", "--help")
    assert (shown.code, "Exit codes" in shown.out) == (0, True)


async def test_an_unexpected_fault_is_one_line(server: Scripted) -> None:
    ran = await run(server.target, "send", SESSION, "\udcff")
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_interrupted_is_what_shells_expect() -> None:
    from chatsession.cli.failure import INTERRUPTED

    assert INTERRUPTED == 128 + signal.SIGINT
