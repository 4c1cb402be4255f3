"""Every method answers the same over gRPC and over REST, by every HTTP rule and in both forms of a stream."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tests.parity.conftest import WAYS, Place, opened
from tests.parity.outcomes import Outcome, agree, begin, outcome_of
from tests.support.calls import FILE_TYPE, Caller, Seen, send_request
from tests.support.http_rules import SERVICE, bindings_of
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

_STUCK = "demo/slow:chunks=1000,delay_ms=60"


@dataclass(frozen=True)
class Scene:
    """A session with a turn that was answered and one that failed, of the request ids `well` and `badly`."""

    session_id: str
    turn_id: str
    end: str
    """The cursor after the answered turn."""
    failed_turn_id: str
    etag: str
    file: bytes

    @property
    def well(self) -> pb.SendMessageRequest:
        return send_request(self.session_id, 'häl\u2028lo "you" 👋 \\ \x01', model="demo/echo", request_id="well")

    @property
    def badly(self) -> pb.SendMessageRequest:
        return send_request(self.session_id, "oh", model="demo/error-500", request_id="badly")


async def _scene(caller: Caller) -> Scene:
    session_id = await caller.create_session(title="parity")
    scene = Scene(session_id, "", "", "", "", b"")
    well = await Seen().read(caller.stream(scene.well))
    badly = await outcome_of(caller, "SendMessage", scene.badly)
    # Turns are archived behind their answers, and found from then on.
    await until(lambda: _is_found(caller, pb.SearchMessagesRequest(query="oh", session_id=session_id)))
    session = await caller.unary("GetSession", pb.GetSessionRequest(session_id=session_id))
    file = await caller.export_session(session_id)
    return Scene(session_id, well.turn_id, well.cursor, badly.reply.metadata["turn-id"], session.etag, file)


async def _is_found(caller: Caller, request: pb.SearchMessagesRequest) -> bool:
    page = await caller.unary("SearchMessages", request)
    return bool(page.matches)


Make = Callable[[Scene], Message]

# Calls that leave everything as it is: asked each way of the same session, they answer exactly the same.
_READS: list[tuple[str, str, Make]] = [
    ("GetTurn", "answered", lambda s: pb.GetTurnRequest(session_id=s.session_id, turn_id=s.turn_id)),
    ("GetTurn", "failed", lambda s: pb.GetTurnRequest(session_id=s.session_id, turn_id=s.failed_turn_id)),
    ("CancelTurn", "answered", lambda s: pb.CancelTurnRequest(session_id=s.session_id, turn_id=s.turn_id)),
    ("CancelTurn", "failed", lambda s: pb.CancelTurnRequest(session_id=s.session_id, turn_id=s.failed_turn_id)),
    ("AttachTurn", "answered", lambda s: pb.AttachTurnRequest(session_id=s.session_id, turn_id=s.turn_id)),
    ("AttachTurn", "failed", lambda s: pb.AttachTurnRequest(session_id=s.session_id, turn_id=s.failed_turn_id)),
    (
        "AttachTurn",
        "after the end",
        lambda s: pb.AttachTurnRequest(session_id=s.session_id, turn_id=s.turn_id, after_cursor=s.end),
    ),
    ("SendMessage", "again", lambda s: s.well),
    ("SendMessage", "again, failed", lambda s: s.badly),
    ("StreamMessage", "again", lambda s: s.well),
    ("StreamMessage", "again, failed", lambda s: s.badly),
    ("GetHistory", "basic", lambda s: pb.GetHistoryRequest(session_id=s.session_id)),
    ("GetHistory", "full", lambda s: pb.GetHistoryRequest(session_id=s.session_id, view=pb.FULL)),
    ("GetHistory", "page", lambda s: pb.GetHistoryRequest(session_id=s.session_id, page_size=1, view=pb.FULL)),
    (
        "GetHistory",
        "backwards",
        lambda s: pb.GetHistoryRequest(session_id=s.session_id, after_seq=1, order_by="seq desc", view=pb.FULL),
    ),
    ("GetSession", "", lambda s: pb.GetSessionRequest(session_id=s.session_id)),
    ("ListSessions", "", lambda _: pb.ListSessionsRequest(page_size=3)),
    (
        "ListSessions",
        "every field",
        lambda _: pb.ListSessionsRequest(
            page_size=3, filter='NOT labels."a.b/c" = "é" AND title:PAR', order_by="create_time", show_deleted=True
        ),
    ),
    ("SearchMessages", "", lambda _: pb.SearchMessagesRequest(query='"hal lo" you', page_size=3)),
    ("SearchMessages", "one session", lambda s: pb.SearchMessagesRequest(query="oh", session_id=s.session_id)),
    ("UndeleteSession", "not deleted", lambda s: pb.UndeleteSessionRequest(session_id=s.session_id)),
    ("ExportSession", "", lambda s: pb.ExportSessionRequest(session_id=s.session_id)),
]

# Calls that change something: each way does the same to a session of its own.
_SETTINGS = pb.ModelSettings(
    model="demo/echo", temperature=0.25, top_p=1, max_output_tokens=50, seed=-7, stop_sequences=["never", "\n\n"]
)
_WRITES: list[tuple[str, str, Make]] = [
    ("CreateSession", "plain", lambda _: pb.CreateSessionRequest()),
    (
        "CreateSession",
        "full",
        lambda _: pb.CreateSessionRequest(
            view=pb.FULL,
            session=pb.Session(title="ünï", labels={"a.b/c": "d"}, instructions="Be brief.", settings=_SETTINGS),
        ),
    ),
    (
        "CreateSession",
        "chosen id",
        lambda s: pb.CreateSessionRequest(
            session_id=f"chosen-{s.session_id}",
            view=pb.FULL,
            session=pb.Session(ttl=Duration(seconds=100), idle_ttl=Duration(nanos=2_500_000)),
        ),
    ),
    ("CreateSession", "once", lambda s: pb.CreateSessionRequest(request_id=s.session_id, view=pb.FULL)),
    ("SendMessage", "plain", lambda s: pb.SendMessageRequest(session_id=s.session_id, message="hi")),
    ("SendMessage", "full", lambda s: send_request(s.session_id, "hi", settings=_SETTINGS, request_id="new")),
    (
        "SendMessage",
        "every field",
        lambda s: send_request(
            s.session_id,
            "hi",
            model="demo/length:chunks=2",
            expected_last_seq=3,
            on_busy=pb.INTERRUPT,
            on_disconnect=pb.CANCEL,
        ),
    ),
    ("StreamMessage", "plain", lambda s: pb.SendMessageRequest(session_id=s.session_id, message="hi")),
    ("StreamMessage", "cut", lambda s: send_request(s.session_id, "hi", model="demo/cut:chunks=2")),
    ("StreamMessage", "empty", lambda s: send_request(s.session_id, "hi", model="demo/empty")),
    (
        "UpdateSession",
        "by mask",
        lambda s: pb.UpdateSessionRequest(
            session_id=s.session_id,
            session=pb.Session(title="new", settings=_SETTINGS, etag=s.etag),
            update_mask=FieldMask(paths=["title", "labels", "settings.stop_sequences", "idle_ttl"]),
        ),
    ),
    (
        "UpdateSession",
        "what is set",
        lambda s: pb.UpdateSessionRequest(session_id=s.session_id, session=pb.Session(labels={"a": ""})),
    ),
    ("DeleteSession", "", lambda s: pb.DeleteSessionRequest(session_id=s.session_id)),
    ("DeleteSession", "as read", lambda s: pb.DeleteSessionRequest(session_id=s.session_id, etag=s.etag)),
    (
        "ImportSession",
        "",
        lambda s: pb.ImportSessionRequest(
            session_id=f"copy-{s.session_id}", file=HttpBody(content_type=FILE_TYPE, data=s.file)
        ),
    ),
]

# Of all sessions of a caller: compared on a server of their own.
_OF_ALL = {"EraseOwner", "GetErasure"}


def _ids(table: list[tuple[str, str, Make]]) -> list[str]:
    return [f"{method} {what}".strip() for method, what, _ in table]


async def test_every_method_is_compared() -> None:
    assert {method for method, *_ in (*_READS, *_WRITES)} | _OF_ALL == set(SERVICE.methods_by_name)


async def test_every_http_rule_is_used() -> None:
    """Two of the ways are REST, one by the primary rule, one by the additional one."""
    assert {len(bindings_of(method)) for method in SERVICE.methods_by_name} == {1, len(WAYS) - 1}


@pytest.mark.parametrize(("method", "what", "make"), _READS, ids=_ids(_READS))
async def test_a_read_answers_exactly_the_same(main: Place, method: str, what: str, make: Make) -> None:
    scene = await _scene(main.callers[0])
    agree([(await outcome_of(caller, method, make(scene))).exact() for caller in main.callers])


@pytest.mark.parametrize(("method", "what", "make"), _WRITES, ids=_ids(_WRITES))
async def test_a_write_does_and_answers_the_same(main: Place, method: str, what: str, make: Make) -> None:
    outcomes = []
    for caller in main.callers:
        scene = await _scene(caller)
        outcome = await outcome_of(caller, method, make(scene))
        after = await outcome_of(caller, "GetHistory", pb.GetHistoryRequest(session_id=scene.session_id, view=pb.FULL))
        outcomes.append((outcome.masked(), after.masked()))
    agree(map("\n".join, outcomes))


async def test_an_undeleted_session_answers_the_same(main: Place) -> None:
    outcomes = []
    for caller in main.callers:
        scene = await _scene(caller)
        await caller.unary("DeleteSession", pb.DeleteSessionRequest(session_id=scene.session_id))
        undelete = pb.UndeleteSessionRequest(session_id=scene.session_id)
        outcomes.append((await outcome_of(caller, "UndeleteSession", undelete)).masked())
    agree(outcomes)


async def test_an_erasure_answers_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        begun = []
        for caller in place.callers:
            await _scene(caller)
            outcome = await outcome_of(caller, "EraseOwner", pb.EraseOwnerRequest())
            begun.append(outcome.masked())
            request = pb.GetErasureRequest(erasure_id=outcome.messages[0].erasure_id)
            await until(lambda caller=caller, request=request: _is_done(caller, request))
            agree([(await outcome_of(other, "GetErasure", request)).exact() for other in place.callers])
        agree(begun)


async def _is_done(caller: Caller, request: pb.GetErasureRequest) -> bool:
    erasure = await caller.unary("GetErasure", request)
    return bool(erasure.state == pb.Erasure.DONE)


# The first of several pages.
_PAGES: list[tuple[str, str, Make]] = [
    ("GetHistory", "", lambda s: pb.GetHistoryRequest(session_id=s.session_id, page_size=1)),
    ("ListSessions", "", lambda _: pb.ListSessionsRequest(page_size=1, filter="title = parity")),
    ("SearchMessages", "", lambda s: pb.SearchMessagesRequest(query="you", session_id=s.session_id, page_size=1)),
]


@pytest.mark.parametrize(("method", "what", "make"), _PAGES, ids=_ids(_PAGES))
async def test_a_page_token_of_one_way_is_good_for_the_others(main: Place, method: str, what: str, make: Make) -> None:
    await main.callers[0].create_session(title="parity")
    scene = await _scene(main.callers[0])
    pages = []
    for caller in main.callers:
        request: Any = make(scene)
        request.page_token = (await caller.unary(method, request)).next_page_token
        assert request.page_token
        pages += [(await outcome_of(other, method, request)).exact() for other in main.callers]
    agree(pages)


async def test_a_cursor_of_one_way_is_good_for_the_others(main: Place) -> None:
    for caller in main.callers:
        session_id = await caller.create_session()
        request = send_request(session_id, "hi", model="demo/slow:chunks=4,delay_ms=20")
        seen = Seen()
        places = [seen.take(event).copy() async for event in caller.stream(request)]
        assert len(places) > 2
        for place in places:
            attach = pb.AttachTurnRequest(session_id=session_id, turn_id=seen.turn_id, after_cursor=place.cursor)
            rests = [await outcome_of(other, "AttachTurn", attach) for other in main.callers]
            agree(rest.exact() for rest in rests)
            assert place.text + "".join(event.delta.text for event in rests[0].messages) == seen.text


async def test_those_who_watch_a_running_turn_see_the_same(main: Place) -> None:
    session_id = await main.callers[0].create_session()
    async with asyncio.timeout(20):
        sent = main.callers[0].stream(send_request(session_id, "hi", model=_STUCK))
        turn_id = (await anext(sent)).accepted.turn.turn_id
        attach = pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id)
        watching = await begin(main.callers, "AttachTurn", attach)
        seen = Seen()
        while seen.text.count(" ") < 5:
            seen.take(await anext(sent))
        cancel = pb.CancelTurnRequest(session_id=session_id, turn_id=turn_id)
        cancelling = [outcome_of(caller, "CancelTurn", cancel) for caller in main.callers]
        agree(cancelled.exact() for cancelled in await asyncio.gather(*cancelling))
        watched: list[Outcome] = await asyncio.gather(*watching)
        await sent.aclose()
    # When each of them came, and so what it was told of the turn's text at first, is its own.
    for outcome in watched:
        outcome.messages[0].accepted.turn.response = ""
    agree(outcome.exact() for outcome in watched)
    assert watched[0].messages[-1].ended.turn.state == pb.Turn.CANCELLED
