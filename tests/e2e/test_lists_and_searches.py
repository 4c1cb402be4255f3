"""Sessions are listed and messages found over either face."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from chatsession.errors import ChatSessionError
from chatsession.v1 import chat_session_pb2 as pb

from tests.e2e.conftest import Settings, store_and_face
from tests.e2e.refusals import check_refused
from tests.e2e.waiting import first_text
from tests.support.calls import Caller, send_request, whole_history
from tests.support.door import connect
from tests.support.rest_calls import RestCaller
from tests.support.server import running_server
from tests.support.waiting import until

_SLOW = "demo/slow:chunks=200,delay_ms=100"


@pytest_asyncio.fixture
async def face(store: Settings, face_name: str, tmp_path: Path) -> AsyncIterator[Caller]:
    """A service of its own, which must have logged no error."""
    async with running_server(tmp_path, **store) as server:
        async with connect(face_name, server) as face:
            yield face
        assert [entry for entry in server.log if entry.get("level") not in ("info", "warning")] == []


async def create(face: Caller, session_id: str, **fields: Any) -> None:
    await face.unary("CreateSession", pb.CreateSessionRequest(session_id=session_id, session=pb.Session(**fields)))


async def pages(face: Caller, method: str, request: Any, items: str) -> list[Any]:
    """All pages of a list or a search, each as its items."""
    found = []
    while True:
        page = await face.unary(method, request)
        found.append(list(getattr(page, items)))
        assert len(found) < 100
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def listed(face: Caller, **fields: Any) -> list[str]:
    found = await pages(face, "ListSessions", pb.ListSessionsRequest(**fields), "sessions")
    return [session.session_id for page in found for session in page]


async def found(face: Caller, query: str, **fields: Any) -> list[tuple[str, int, str]]:
    request = pb.SearchMessagesRequest(query=query, **fields)
    matches = [match for page in await pages(face, "SearchMessages", request, "matches") for match in page]
    return [(match.session_id, match.seq, match.role) for match in matches]


async def refused(face: Caller, method: str, request: Any, field: str) -> str:
    with pytest.raises(ChatSessionError) as caught:
        await face.unary(method, request)
    check_refused(caught.value, "INVALID_ARGUMENT", "INVALID_FIELD")
    return str(caught.value.field_violations[field])


@store_and_face
async def test_sessions_are_listed_page_by_page(face: Caller) -> None:
    for number in range(7):
        labels = {"parity": str(number % 2), "team": "ö & =?"}
        await create(face, f"s{number}", title=f"Session No. {number}", labels=labels)
    assert await listed(face) == [f"s{number}" for number in reversed(range(7))]
    await face.ask("s2", "hi", "demo/echo")
    assert await listed(face, page_size=3) == ["s2", "s6", "s5", "s4", "s3", "s1", "s0"]
    assert await listed(face, order_by="create_time", page_size=2) == [f"s{number}" for number in range(7)]
    by_label = 'labels.parity = "1" AND labels.team = "ö & =?"'
    assert await listed(face, filter=by_label, page_size=1) == ["s5", "s3", "s1"]
    assert await listed(face, filter='NOT title:"no. 2" AND labels.parity = 0') == ["s6", "s4", "s0"]
    [by_time] = await pages(face, "ListSessions", pb.ListSessionsRequest(order_by="create_time desc"), "sessions")
    at = by_time[3].create_time
    later = [session.session_id for session in by_time if session.create_time.ToMilliseconds() > at.ToMilliseconds()]
    filter_by_time = f'create_time > "{at.ToJsonString()}" AND labels:parity'
    assert await listed(face, filter=filter_by_time, order_by="create_time desc") == later
    assert await listed(face, filter=f"update_time > {at.ToJsonString()}") == ["s2", *later]

    first = await face.unary("ListSessions", pb.ListSessionsRequest(page_size=2))
    for other in ({"filter": "labels:a"}, {"order_by": "create_time"}, {"show_deleted": True}):
        token = first.next_page_token
        why = await refused(face, "ListSessions", pb.ListSessionsRequest(page_token=token, **other), "page_token")
        assert "another query" in why
    why = await refused(face, "ListSessions", pb.ListSessionsRequest(filter="labels:a OR title:b"), "filter")
    assert why == "at character 10: expected AND"


@store_and_face
async def test_a_list_shows_what_runs_and_what_is_deleted(face: Caller) -> None:
    await create(face, "running", instructions="be brief")
    await create(face, "deleted")
    deleted = await face.unary("DeleteSession", pb.DeleteSessionRequest(session_id="deleted"))
    async with aclosing(face.stream(send_request("running", "hi", model=_SLOW))) as events:
        await first_text(events)
        [[session]] = await pages(face, "ListSessions", pb.ListSessionsRequest(), "sessions")
        assert session == await face.unary("GetSession", pb.GetSessionRequest(session_id="running"))
        assert session.active_turn_id
        assert session.instructions == "be brief"
        both = pb.ListSessionsRequest(show_deleted=True, order_by="create_time")
        [sessions] = await pages(face, "ListSessions", both, "sessions")
        assert {session.session_id for session in sessions} == {"running", "deleted"}
        assert deleted in sessions
        await face.cancel_turn("running", (await listed_one(face)).active_turn_id)
    assert not (await listed_one(face)).HasField("active_turn_id")


async def listed_one(face: Caller) -> Any:
    [[session]] = await pages(face, "ListSessions", pb.ListSessionsRequest(), "sessions")
    return session


@store_and_face
async def test_messages_are_found_while_their_session_is_there(face: Caller) -> None:
    for session_id in ("a", "b"):
        await create(face, session_id)
        for message in ("Wo ist die Straßenbahn? 👋 Die Straßenbahn!", "nothing to see"):
            await face.ask(session_id, message, "demo/echo")
    everywhere = [(session_id, seq, role) for session_id in "ba" for seq, role in ((2, "assistant"), (1, "user"))]
    assert await found(face, "STRASSENBAHN wo") == everywhere
    assert await found(face, '"ist die" strassenbahn', page_size=1) == everywhere
    assert await found(face, "strassenbahn", session_id="a") == everywhere[2:]
    assert await found(face, '"die ist"') == []
    assert await found(face, "strassenbahn nothing") == []

    page = await face.unary("SearchMessages", pb.SearchMessagesRequest(query="strassenbahn", page_size=1))
    [match] = page.matches
    assert match.snippet == "Wo ist die Straßenbahn? 👋 Die Straßenbahn!"
    assert [match.snippet[span.start : span.end] for span in match.spans] == ["Straßenbahn", "Straßenbahn"]
    answer = (await whole_history(face, "b"))[1]
    assert (match.turn_id, match.create_time) == (answer.turn_id, answer.create_time)
    for other in ({"query": "nothing"}, {"query": "strassenbahn", "session_id": "b"}):
        request = pb.SearchMessagesRequest(page_token=page.next_page_token, **other)
        assert "another query" in await refused(face, "SearchMessages", request, "page_token")

    await face.unary("DeleteSession", pb.DeleteSessionRequest(session_id="b"))
    assert await found(face, "strassenbahn") == everywhere[2:]
    with pytest.raises(ChatSessionError) as caught:
        await found(face, "strassenbahn", session_id="b")
    check_refused(caught.value, "NOT_FOUND", "SESSION_NOT_FOUND")
    await face.unary("UndeleteSession", pb.UndeleteSessionRequest(session_id="b"))
    assert await found(face, "strassenbahn") == everywhere


async def got(rest: RestCaller, target: str) -> Any:
    status, _, body = await rest.call("GET", target)
    assert status == 200, body
    return json.loads(body)


async def test_both_are_plain_json_over_rest(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RestCaller(server) as rest:
        assert await got(rest, "/v1/sessions") == {"sessions": [], "nextPageToken": ""}
        assert await got(rest, "/v1/messages:search?query=x") == {"matches": [], "nextPageToken": ""}
        await create(rest, "a", title="t", labels={"k": "v w"})
        await rest.ask("a", "ä 👋 needle", "demo/echo")
        wanted = quote('labels.k = "v w" AND title:T')
        answer = await got(rest, f"/v1/sessions?filter={wanted}&pageSize=5")
        assert [session["sessionId"] for session in answer["sessions"]] == ["a"]

        async def first_page() -> Any:
            page = await got(rest, "/v1/messages:search?query=needle&pageSize=1")
            return page["matches"] and page

        answer = await until(first_page)  # a turn is found once it is archived, a moment after its answer
        assert answer["nextPageToken"]
        [match] = answer["matches"]
        assert (match["role"], match["seq"], match["spans"]) == ("assistant", 2, [{"start": 4, "end": 10}])
