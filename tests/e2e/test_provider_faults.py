"""What callers see of a model provider that fails, and that their sessions go on.

The provider is a demo server in this process; the service reaches it as it would OpenAI, by OPENAI_BASE_URL.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.e2e.refusals import check_refused
from tests.e2e.starting import free_port
from tests.support.calls import Caller, Seen, send_request, whole_history
from tests.support.door import connect
from tests.support.server import ServerProcess, running_server

module_loop = pytest.mark.asyncio(loop_scope="module")

_LIMITS = {
    "CONNECT_TIMEOUT_SECONDS": "1",
    "FIRST_TOKEN_TIMEOUT_SECONDS": "0.5",
    "STALL_TIMEOUT_SECONDS": "0.5",
    "MODEL_ATTEMPTS": "2",
}
_HANGS_S = 30.0
_THREE_WORDS = "word1 word2 word3 "


@dataclass(frozen=True)
class Fault:
    """A model that fails before it says anything, and what its caller is told."""

    model: str
    code: str
    reason: str


_FAULTS = {
    "rate limit": Fault("demo/error-429:retry_after_s=0,retry_after_ms=50", "RESOURCE_EXHAUSTED", "MODEL_RATE_LIMITED"),
    "rate limit with a long wait": Fault("demo/error-429:retry_after_s=60", "RESOURCE_EXHAUSTED", "MODEL_RATE_LIMITED"),
    "quota": Fault("demo/error-429-quota", "RESOURCE_EXHAUSTED", "MODEL_QUOTA_EXHAUSTED"),
    "500": Fault("demo/error-500", "UNAVAILABLE", "MODEL_UNAVAILABLE"),
    "reset before an answer": Fault("demo/reset:chunks=0", "UNAVAILABLE", "MODEL_UNAVAILABLE"),
    "silence": Fault("demo/silent", "DEADLINE_EXCEEDED", "MODEL_TIMEOUT"),
    "silence behind the head": Fault("demo/silent:head=1", "DEADLINE_EXCEEDED", "MODEL_TIMEOUT"),
    "signs of life and no words": Fault("demo/silent:alive_ms=100", "DEADLINE_EXCEEDED", "MODEL_TIMEOUT"),
    "HTML": Fault("demo/html", "INTERNAL", "MODEL_INVALID_RESPONSE"),
    "JSON of another kind": Fault("demo/no-choices", "INTERNAL", "MODEL_INVALID_RESPONSE"),
    "an event that is no JSON": Fault("demo/bad-json:chunks=0", "INTERNAL", "MODEL_INVALID_RESPONSE"),
    "key refused in the answer": Fault("demo/error-401", "INTERNAL", "MODEL_AUTHENTICATION_FAILED"),
    "unknown model": Fault("demo/no-such-model", "FAILED_PRECONDITION", "MODEL_REFUSED_REQUEST"),
    "bad request": Fault("demo/error-400", "FAILED_PRECONDITION", "MODEL_REFUSED_REQUEST"),
    "context too long": Fault("demo/error-context", "FAILED_PRECONDITION", "CONTEXT_TOO_LONG"),
}
_RETRIED = {"MODEL_RATE_LIMITED", "MODEL_UNAVAILABLE", "MODEL_TIMEOUT", "MODEL_INVALID_RESPONSE"}

# Models that break off after three words.
_BROKEN_OFF = {
    "stall": "demo/stall:chunks=3",
    "stall with signs of life": "demo/stall:chunks=3,alive_ms=100",
    "clean cut": "demo/cut:chunks=3",
    "cut in the middle of HTTP": "demo/cut:chunks=3,abrupt=1",
    "cut with RST": "demo/reset:chunks=3,delay_ms=20",
    "error in the stream": "demo/error-after:chunks=3",
    "an event that is no JSON": "demo/bad-json:chunks=3",
}


async def send_whole(face: Caller, session_id: str, message: str, model: str) -> str:
    return await face.ask(session_id, message, model)


async def send_streamed(face: Caller, session_id: str, message: str, model: str) -> str:
    """Send over a stream; checks that it is told of the end before it is told of the failure."""
    seen = Seen()
    try:
        await seen.read(face.stream(send_request(session_id, message, model=model)))
    finally:
        assert seen.ended, "no event told of the end"
    assert seen.ended.response == seen.text
    return seen.text


Way = Callable[[Caller, str, str, str], Awaitable[str]]
either_way = pytest.mark.parametrize("way", [send_whole, send_streamed])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider() -> AsyncIterator[DemoServer]:
    demo = DemoServer()
    await demo.start()
    yield demo
    await demo.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(provider: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    settings = {"OPENAI_BASE_URL": provider.base_url, **_LIMITS}
    async with running_server(tmp_path_factory.mktemp("faults"), **settings) as server, connect("grpc", server) as face:
        # From here on the SDK is loaded, and a limit in a test is the limit of the fault.
        await face.ask(await face.create_session(), "hi")
        yield server


@pytest_asyncio.fixture(loop_scope="module", params=["grpc", "rest"])
async def face(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Caller]:
    async with connect(request.param, server) as face:
        yield face


async def context_of_next(face: Caller, session_id: str) -> list[tuple[str, str]]:
    """Send a message that is answered, and return what the model was given before it."""
    *before, last = json.loads(await face.ask(session_id, "what do you see?", "demo/context"))
    assert last == {"role": "user", "content": "what do you see?"}
    return [(message["role"], message["content"]) for message in before]


def states_of(messages: list[pb.Message]) -> list[tuple[str, str]]:
    return [(message.role, pb.Turn.State.Name(message.turn_state)) for message in messages]


@module_loop
@either_way
@pytest.mark.parametrize("fault", _FAULTS.values(), ids=_FAULTS)
async def test_a_fault_before_the_answer_fails_the_turn_and_not_the_session(
    face: Caller, way: Way, fault: Fault
) -> None:
    session_id = await face.create_session()
    first = await face.ask(session_id, "first")
    async with asyncio.timeout(_HANGS_S):
        with pytest.raises(ChatSessionError) as caught:
            await way(face, session_id, "lost", fault.model)
    check_refused(caught.value, fault.code, fault.reason)
    assert caught.value.metadata["committed"] == "true"
    assert caught.value.metadata["retry"] == ("NEW_REQUEST_ID" if fault.reason in _RETRIED else "NO")
    assert (caught.value.retry_delay_s is not None) == (fault.reason in _RETRIED)
    assert states_of(await whole_history(face, session_id)) == [
        ("user", "COMPLETED"),
        ("assistant", "COMPLETED"),
        ("user", "FAILED"),
    ]
    assert (await face.said(session_id))[-1] == ("user", "lost")
    assert await context_of_next(face, session_id) == [("user", "first"), ("assistant", first)]


@module_loop
@either_way
@pytest.mark.parametrize("model", _BROKEN_OFF.values(), ids=_BROKEN_OFF)
async def test_an_answer_that_breaks_off_is_kept(face: Caller, way: Way, model: str) -> None:
    session_id = await face.create_session()
    async with asyncio.timeout(_HANGS_S):
        assert await way(face, session_id, "hi", model) == _THREE_WORDS
    turns = await whole_history(face, session_id)
    assert states_of(turns) == [("user", "INCOMPLETE"), ("assistant", "INCOMPLETE")]
    assert await context_of_next(face, session_id) == [("user", "hi"), ("assistant", _THREE_WORDS)]


@module_loop
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("demo/stall:chunks=3", "PROVIDER_CUT"),
        ("demo/cut:chunks=3", "PROVIDER_CUT"),
        ("demo/length:chunks=3", "MAX_OUTPUT_TOKENS"),
        ("demo/filter:chunks=3", "CONTENT_FILTER"),
    ],
)
async def test_a_stream_says_why_the_answer_is_not_whole(face: Caller, model: str, reason: str) -> None:
    events = [event async for event in face.stream(send_request(await face.create_session(), "hi", model=model))]
    turn = events[-1].ended.turn
    assert (turn.state, turn.finish_reason, turn.response) == (
        pb.Turn.INCOMPLETE,
        pb.Turn.FinishReason.Value(reason),
        _THREE_WORDS,
    )


@module_loop
async def test_a_provider_that_fails_once_is_asked_again(face: Caller, provider: DemoServer) -> None:
    session_id = await face.create_session()
    message = f"for {session_id}"
    assert "Hello!" in await face.ask(session_id, message, "demo/flaky:fail=1")
    assert provider.tally.by_message[message_key(message)] == 2
    assert [state for _, state in states_of(await whole_history(face, session_id))] == ["COMPLETED"] * 2


@module_loop
async def test_no_error_holds_the_providers_own_text(face: Caller) -> None:
    with pytest.raises(ChatSessionError) as caught:
        await face.ask(await face.create_session(), "hi", "demo/error-500")
    assert "scripted" not in str(vars(caught.value))


@module_loop
async def test_one_failing_session_does_not_hold_up_another(face: Caller) -> None:
    silent, well = await face.create_session(), await face.create_session()
    waiting = asyncio.ensure_future(face.ask(silent, "hi", "demo/silent"))
    assert "Hello!" in await face.ask(well, "hi")
    with pytest.raises(ChatSessionError):
        await waiting


async def test_a_wrong_key_is_told_and_a_right_one_mends_the_session(tmp_path: Path) -> None:
    demo = DemoServer()
    settings = {"OPENAI_BASE_URL": await demo.start(), **_LIMITS}
    async with (
        running_server(tmp_path, OPENAI_API_KEY="wrong", **settings) as server,
        connect("rest", server) as face,
    ):
        session_id = await face.create_session()
        async with asyncio.timeout(_HANGS_S):
            with pytest.raises(ChatSessionError) as caught:
                await face.ask(session_id, "lost")
    check_refused(caught.value, "INTERNAL", "MODEL_AUTHENTICATION_FAILED")
    assert caught.value.metadata["retry"] == "NO"
    async with (
        running_server(tmp_path, OPENAI_API_KEY="right", **settings) as server,
        connect("rest", server) as face,
    ):
        assert await context_of_next(face, session_id) == []
        assert (await face.said(session_id))[0] == ("user", "lost")
    await demo.stop()


async def test_a_provider_that_is_not_there_is_told_and_may_come(tmp_path: Path) -> None:
    port = free_port()
    settings = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", **_LIMITS}
    async with running_server(tmp_path, **settings) as server, connect("grpc", server) as face:
        session_id = await face.create_session()
        async with asyncio.timeout(_HANGS_S):
            with pytest.raises(ChatSessionError) as caught:
                await face.ask(session_id, "lost")
        check_refused(caught.value, "UNAVAILABLE", "MODEL_UNAVAILABLE")
        demo = DemoServer(port=port)
        await demo.start()
        assert await context_of_next(face, session_id) == []
        await demo.stop()
