"""Every reason of an error, provoked: the same status over gRPC and over REST, also inside streams."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import grpc
import pytest
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.e2e.waiting import until_logged
from tests.parity.conftest import Place, opened
from tests.parity.fields import BAD_FIELDS, SESSION
from tests.parity.outcomes import Outcome, agree, begin, outcome_of
from tests.parity.reasons import CODES, OF_BOTH
from tests.support.calls import FILE_TYPE, Caller, send_request
from tests.support.rest_calls import RestCaller, failure_in
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(60)]

_PROVOKED: set[str] = set()

_SILENT = "demo/slow:chunks=1,first_ms=60000"
_STUCK = "demo/slow:chunks=1000,delay_ms=60"

Test = Callable[..., Awaitable[None]]


def provokes(*reasons: str) -> Callable[[Test], Test]:
    """A test that is given each of these reasons, and checks that errors have it."""
    _PROVOKED.update(reasons)
    return pytest.mark.parametrize("reason", reasons)


sent = pytest.mark.parametrize("method", ["SendMessage", "StreamMessage"])


def check(reason: str, *outcomes: Outcome) -> None:
    """Check the reason, and that it has the code that the contract says. RestCaller checks the HTTP status."""
    for outcome in outcomes:
        assert outcome.error, "nothing failed"
        assert (outcome.error.reason, outcome.error.code.name) == (reason, CODES[reason])


def check_all(reason: str, outcomes: list[Outcome]) -> None:
    """Check the reason, and that the outcomes of calls in sessions of their own are the same."""
    check(reason, *outcomes)
    agree(outcome.masked() for outcome in outcomes)


def check_exactly(reason: str, outcomes: list[Outcome]) -> None:
    """Check the reason, and that the outcomes of calls about the same thing are exactly the same."""
    check(reason, *outcomes)
    agree(outcome.exact() for outcome in outcomes)


async def each(place: Place, method: str, request: Message) -> list[Outcome]:
    """Make the same call each way at once."""
    return await asyncio.gather(*(outcome_of(caller, method, request) for caller in place.callers))


async def each_alone(place: Place, method: str, message: str, model: str, **fields: Any) -> list[Outcome]:
    """Send the same each way at once, each to a session of its own."""

    async def send(caller: Caller) -> Outcome:
        session_id = await caller.create_session()
        return await outcome_of(caller, method, send_request(session_id, message, model=model, **fields))

    return await asyncio.gather(*map(send, place.callers))


@asynccontextmanager
async def busy(caller: Caller, model: str = _SILENT, **fields: Any) -> AsyncIterator[tuple[str, str]]:
    """A session whose turn runs; its id and the turn's."""
    session_id = await caller.create_session()
    async with aclosing(caller.stream(send_request(session_id, "busy", model=model, **fields))) as events:
        turn_id = (await anext(events)).accepted.turn.turn_id
        yield session_id, turn_id
        await caller.cancel_turn(session_id, turn_id)


# All of them


async def test_every_reason_of_both_is_provoked() -> None:
    # Every method is implemented. The limits of both are apart: tests/e2e/test_large_answers.py, tests/rest.
    assert _PROVOKED | {"NOT_IMPLEMENTED", "RESPONSE_TOO_LARGE"} == OF_BOTH


# What the caller did


_OF_A_SESSION: dict[str, Callable[[str], Message]] = {
    "SendMessage": lambda session_id: send_request(session_id, "hi"),
    "StreamMessage": lambda session_id: send_request(session_id, "hi"),
    "GetHistory": lambda session_id: pb.GetHistoryRequest(session_id=session_id),
    "GetTurn": lambda session_id: pb.GetTurnRequest(session_id=session_id, turn_id="none"),
    "AttachTurn": lambda session_id: pb.AttachTurnRequest(session_id=session_id, turn_id="none"),
    "CancelTurn": lambda session_id: pb.CancelTurnRequest(session_id=session_id, turn_id="none"),
    "GetSession": lambda session_id: pb.GetSessionRequest(session_id=session_id),
    "UpdateSession": lambda session_id: pb.UpdateSessionRequest(session_id=session_id, session=pb.Session(title="t")),
    "DeleteSession": lambda session_id: pb.DeleteSessionRequest(session_id=session_id),
    "UndeleteSession": lambda session_id: pb.UndeleteSessionRequest(session_id=session_id),
    "ExportSession": lambda session_id: pb.ExportSessionRequest(session_id=session_id),
    "SearchMessages": lambda session_id: pb.SearchMessagesRequest(query="hi", session_id=session_id),
}
of_a_session = pytest.mark.parametrize("method", _OF_A_SESSION)


@of_a_session
@provokes("SESSION_NOT_FOUND")
async def test_a_session_that_is_not_there(main: Place, reason: str, method: str) -> None:
    check_exactly(reason, await each(main, method, _OF_A_SESSION[method]("nobody")))


@provokes("SESSION_NOT_FOUND")
@pytest.mark.parametrize("method", [method for method in _OF_A_SESSION if method != "UndeleteSession"])
async def test_a_session_that_was_deleted(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session()
    await main.callers[0].unary("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    check_exactly(reason, await each(main, method, _OF_A_SESSION[method](session_id)))


@of_a_session
@provokes("SESSION_EXPIRED")
async def test_a_session_that_has_come_to_its_end(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session(ttl=Duration(nanos=1_000_000))

    async def is_over() -> bool:
        outcome = await outcome_of(main.callers[0], "GetSession", pb.GetSessionRequest(session_id=session_id))
        return outcome.error is not None

    await until(is_over)
    check_exactly(reason, await each(main, method, _OF_A_SESSION[method](session_id)))


@provokes("STALE_ETAG")
@pytest.mark.parametrize("method", ["UpdateSession", "DeleteSession"])
async def test_an_etag_of_older_settings(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session()
    update = pb.UpdateSessionRequest(session_id=session_id, session=pb.Session(title="new"))
    old = await main.callers[0].unary("GetSession", pb.GetSessionRequest(session_id=session_id))
    await main.callers[0].unary("UpdateSession", update)
    update.session.etag = old.etag
    delete = pb.DeleteSessionRequest(session_id=session_id, etag=old.etag)
    check_exactly(reason, await each(main, method, update if method == "UpdateSession" else delete))


@provokes("SESSION_EXISTS")
@pytest.mark.parametrize("method", ["CreateSession", "ImportSession"])
async def test_an_id_of_another_session(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session(title="the first")
    request: Message = pb.CreateSessionRequest(session_id=session_id)
    if method == "ImportSession":
        request = a_file(await main.callers[0].export_session(session_id))
    check_exactly(reason, await each(main, method, request))


@provokes("INVALID_IMPORT")
@pytest.mark.parametrize(
    ("file", "line"), [(b"", "1"), (b"hello\n", "1"), (b'{"kind":"end"}', "1")], ids=["empty", "text", "cut"]
)
async def test_a_file_that_was_not_exported(main: Place, reason: str, file: bytes, line: str) -> None:
    outcomes = await each(main, "ImportSession", a_file(file))
    check_exactly(reason, outcomes)
    assert outcomes[0].error
    assert outcomes[0].error.metadata["line"] == line


def a_file(file: bytes) -> pb.ImportSessionRequest:
    return pb.ImportSessionRequest(file=HttpBody(content_type=FILE_TYPE, data=file))


@provokes("ERASURE_NOT_FOUND")
async def test_an_erasure_that_is_not_there(main: Place, reason: str) -> None:
    check_exactly(reason, await each(main, "GetErasure", pb.GetErasureRequest(erasure_id="none")))


@provokes("TURN_NOT_FOUND")
@pytest.mark.parametrize("method", ["GetTurn", "AttachTurn", "CancelTurn"])
async def test_a_turn_that_is_not_there(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session()
    request = getattr(pb, f"{method}Request")(session_id=session_id, turn_id="none")
    check_exactly(reason, await each(main, method, request))


@provokes("INVALID_FIELD")
@pytest.mark.parametrize(
    ("method", "request_pb", "field"),
    BAD_FIELDS,
    ids=[f"{method} {field} {number}" for number, (method, _, field) in enumerate(BAD_FIELDS)],
)
async def test_a_field_that_cannot_be(main: Place, reason: str, method: str, request_pb: Any, field: str) -> None:
    session_id = await main.callers[0].create_session()
    if getattr(request_pb, "session_id", "") == SESSION:
        request_pb = type(request_pb).FromString(request_pb.SerializeToString())
        request_pb.session_id = session_id
    outcomes = await each(main, method, request_pb)
    check_exactly(reason, outcomes)
    assert outcomes[0].error
    assert list(outcomes[0].error.field_violations) == [field]
    assert outcomes[0].error.metadata["field"] == field
    assert outcomes[0].error.message.startswith(f"{field}: ")
    assert await main.callers[0].said(session_id) == []


@sent
@provokes("MESSAGE_TOO_LARGE")
async def test_a_message_that_is_too_large(main: Place, reason: str, method: str) -> None:
    check_exactly(reason, await each(main, method, send_request("any", "é" * 131_073)))


@sent
@provokes("SESSION_BUSY")
async def test_a_busy_session(main: Place, reason: str, method: str) -> None:
    async with busy(main.callers[0]) as (session_id, _):
        check_exactly(reason, await each(main, method, send_request(session_id, "no", on_busy=pb.REJECT)))


@sent
@provokes("STALE_HISTORY")
async def test_a_history_that_has_moved_on(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session()
    check_exactly(reason, await each(main, method, send_request(session_id, "hi", expected_last_seq=7)))


@sent
@provokes("REQUEST_ID_REUSED")
async def test_a_request_id_of_another_message(main: Place, reason: str, method: str) -> None:
    session_id = await main.callers[0].create_session()
    await main.callers[0].ask(session_id, "one", request_id="r")
    check_exactly(reason, await each(main, method, send_request(session_id, "other", request_id="r")))


@provokes("OVERLOADED")
async def test_a_session_for_which_too_many_wait(tmp_path: Path, reason: str) -> None:
    async with opened(tmp_path, MAX_WAITING="1") as place, busy(place.callers[0]) as (session_id, turn_id):
        caller = place.callers[0]
        waiting = asyncio.create_task(caller.ask(session_id, "waits", "demo/echo"))
        for _ in range(2):  # what was sent before on this connection has come in
            await caller.said(session_id)
        for method in ("SendMessage", "StreamMessage"):
            check_exactly(reason, await each(place, method, send_request(session_id, "no", request_id="r")))
        await caller.cancel_turn(session_id, turn_id)
        assert await waiting == "waits"


@provokes("TURN_CANCELLED")
async def test_a_turn_that_was_cancelled(main: Place, reason: str) -> None:
    session_id = await main.callers[0].create_session()
    request = send_request(session_id, "hi", model=_SILENT, request_id="r")
    sending = [asyncio.ensure_future(outcome_of(caller, "SendMessage", request)) for caller in main.callers]

    async def running() -> str:
        page = await main.callers[0].history(pb.GetHistoryRequest(session_id=session_id, view=pb.FULL))
        return page.active_turn_id

    await main.callers[0].cancel_turn(session_id, await until(running))
    check_exactly(reason, await asyncio.gather(*sending))
    check_exactly(reason, await each(main, "SendMessage", request))


# Deadlines


@sent
@provokes("CALLER_DEADLINE_EXCEEDED")
@pytest.mark.parametrize("request_id", ["r", ""])
async def test_a_turn_that_goes_on_after_the_deadline(hasty: Place, reason: str, method: str, request_id: str) -> None:
    outcomes = await each_alone(hasty, method, "hi", _SILENT, request_id=request_id)
    check_all(reason, outcomes)
    assert {outcome.error.committed for outcome in outcomes if outcome.error} == {True}


@sent
@provokes("CALLER_DEADLINE_EXCEEDED")
async def test_a_message_that_waits_beyond_the_deadline(hasty: Place, reason: str, method: str) -> None:
    session_id = await hasty.callers[0].create_session()
    check(reason, await outcome_of(hasty.callers[0], "StreamMessage", send_request(session_id, "hi", model=_SILENT)))
    check_exactly(reason, await each(hasty, method, send_request(session_id, "waits")))


@provokes("CALLER_DEADLINE_EXCEEDED")
async def test_a_watcher_whose_time_is_up(hasty: Place, reason: str) -> None:
    session_id = await hasty.callers[0].create_session()
    running = await outcome_of(hasty.callers[0], "StreamMessage", send_request(session_id, "hi", model=_STUCK))
    assert running.error
    turn_id = running.error.turn_id
    outcomes = await each(hasty, "AttachTurn", pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id))
    check(reason, *outcomes)
    # How far the text came is a matter of time.
    agree(replace(outcome, messages=()).exact() for outcome in outcomes)


async def test_a_deadline_of_the_callers_own_has_the_same_code(main: Place) -> None:
    """Over gRPC the caller's library ends the call itself, without details."""
    by_grpc, by_rest = main.callers[:2]
    assert isinstance(by_rest, RestCaller)
    request = send_request(await by_grpc.create_session(), "hi", model=_SILENT)
    with pytest.raises(ChatSessionError) as caught:
        await by_grpc.unary("SendMessage", request, timeout_s=0.2)
    body = f'{{"sessionId":"{await by_rest.create_session()}","message":"hi","settings":{{"model":"{_SILENT}"}}}}'
    status, _, answer = await by_rest.call("POST", "/chat", body.encode(), {"Grpc-Timeout": "200m"})
    assert failure_in(status, answer).code is caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


# The model

_MODELS = {
    "MODEL_RATE_LIMITED": "demo/error-429:retry_after_s=7",
    "MODEL_QUOTA_EXHAUSTED": "demo/error-429-quota",
    "MODEL_UNAVAILABLE": "demo/error-500",
    "MODEL_REFUSED_REQUEST": "demo/error-400",
    "CONTEXT_TOO_LONG": "demo/error-context",
    "MODEL_TIMEOUT": "demo/silent",
    "MODEL_AUTHENTICATION_FAILED": "demo/error-401",
    "MODEL_INVALID_RESPONSE": "demo/html",
}


@sent
@provokes(*_MODELS)
async def test_a_model_that_fails(main: Place, reason: str, method: str) -> None:
    check_all(reason, await each_alone(main, method, "hi", _MODELS[reason]))


# The store, the process


_OF_NO_SESSION: dict[str, Message] = {
    "CreateSession": pb.CreateSessionRequest(),
    "ListSessions": pb.ListSessionsRequest(),
    "EraseOwner": pb.EraseOwnerRequest(),
    "GetErasure": pb.GetErasureRequest(erasure_id="any"),
}


@provokes("STORE_UNAVAILABLE")
@pytest.mark.parametrize("method", [*_OF_A_SESSION, *_OF_NO_SESSION])
async def test_a_database_that_is_not_there(storeless: Place, reason: str, method: str) -> None:
    request = _OF_NO_SESSION[method] if method in _OF_NO_SESSION else _OF_A_SESSION[method]("any")
    check_exactly(reason, await each(storeless, method, request))


@provokes("INTERNAL_ERROR")
async def test_a_session_that_was_damaged(tmp_path: Path, reason: str) -> None:
    async with opened(tmp_path) as place:
        session_id = await place.callers[0].create_session()
        with closing(sqlite3.connect(tmp_path / "chatsession.db", isolation_level=None)) as connection:
            connection.execute("UPDATE sessions SET doc = '[]' WHERE session_id = ?", (session_id,))
        check_exactly(reason, await each(place, "GetHistory", pb.GetHistoryRequest(session_id=session_id)))
        for method in ("SendMessage", "StreamMessage"):
            check_exactly(reason, await each(place, method, send_request(session_id, "hi")))


@provokes("SHUTTING_DOWN")
async def test_a_server_that_stops(tmp_path: Path, reason: str) -> None:
    """New messages are refused; those who watch a turn are sent away when the grace is over."""
    async with opened(tmp_path, STOP_GRACE_SECONDS="2") as place:
        caller = place.callers[0]
        session_id, idle = await caller.create_session(), await caller.create_session()
        request = send_request(session_id, "hi", model=_SILENT, request_id="r")
        events = caller.stream(request)
        turn_id = (await anext(events)).accepted.turn.turn_id
        watch = pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id)
        watching = await begin(place.callers, "AttachTurn", watch)
        joined = await begin(place.callers, "StreamMessage", request)
        place.server.send_signal(SIGTERM)
        await until_logged(place.server, "stopping")
        check_exactly(reason, await each(place, "SendMessage", send_request(idle, "too late")))
        check_exactly(reason, await each(place, "StreamMessage", send_request(idle, "too late")))
        check_exactly(reason, await asyncio.gather(*watching))
        check_exactly(reason, await asyncio.gather(*joined))
        await events.aclose()


@provokes("TURN_LOST")
async def test_a_turn_whose_process_was_lost(tmp_path: Path, reason: str) -> None:
    """Its time is up when another process finds it."""
    async with opened(tmp_path, TURN_TIMEOUT_SECONDS="0.8") as place:
        session_id = await place.callers[0].create_session()
        request = send_request(session_id, "hi", model=_SILENT, request_id="r")
        events = place.callers[0].stream(request)
        turn_id = (await anext(events)).accepted.turn.turn_id
        await place.server.kill()
        await events.aclose()
    async with opened(tmp_path, LEASE_SECONDS="1") as place:
        for method in ("SendMessage", "StreamMessage"):
            check_exactly(reason, await each(place, method, request))
        watch = pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id)
        check_exactly(reason, await each(place, "AttachTurn", watch))
