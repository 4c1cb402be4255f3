"""The chat contract over the shim: the documented paths answer exactly what is documented."""

from typing import Any

import pytest
from chatsession.v1 import chat_session_pb2 as pb
from openapi_spec_validator import validate

from service.rest import RestApp
from tests.rest.kit import Answer, FakeInvoker, ask
from tests.rest.wire import lines

SERVICES = list(pb.DESCRIPTOR.services_by_name.values())


def chat_app(reply: Any = None, events: Any = ()) -> tuple[RestApp, FakeInvoker]:
    invoker = FakeInvoker(reply, events)
    return RestApp(SERVICES, invoker, domain="chatsession", event_id=lambda event: event.cursor, uploads=True), invoker


@pytest.mark.parametrize("body", [None, "{}", b""])
async def test_create_session(body: Any) -> None:
    app, invoker = chat_app(pb.CreateSessionResponse(session_id="s1"))
    answer = await ask(app, "POST", "/session", body)
    assert (answer.status, answer.body) == (200, b'{"sessionId":"s1"}')
    assert invoker.call.request.HasField("session") == (body == "{}")


async def test_create_session_with_settings_and_parameters() -> None:
    app, invoker = chat_app(pb.CreateSessionResponse(session_id="s1"))
    answer = await ask(app, "POST", "/v1/sessions?sessionId=mine&view=FULL", {"title": "t", "settings": {"topP": 0.5}})
    assert answer.status == 200
    request = invoker.call.request
    assert (request.session_id, request.view, request.session.title) == ("mine", pb.FULL, "t")
    assert (request.session.settings.top_p, request.session.settings.HasField("seed")) == (0.5, False)


async def test_chat() -> None:
    app, invoker = chat_app(pb.SendMessageResponse(response="Hi!\n„ä“"))
    answer = await ask(app, "POST", "/chat", {"sessionId": "s1", "message": "hello"})
    assert answer.body.decode() == '{"response":"Hi!\\n„ä“"}'
    assert invoker.call.request == pb.SendMessageRequest(session_id="s1", message="hello")


async def test_history() -> None:
    messages = [pb.Message(role="user", content="a"), pb.Message(role="assistant", content="b")]
    app, _ = chat_app(pb.GetHistoryResponse(session_id="s1", history=messages))
    answer = await ask(app, "GET", "/session/s1/history")
    assert answer.body == (
        b'{"sessionId":"s1","history":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
    )
    app, _ = chat_app(pb.GetHistoryResponse(session_id="s1"))
    assert (await ask(app, "GET", "/session/s1/history")).body == b'{"sessionId":"s1","history":[]}'


@pytest.mark.parametrize(
    ("method", "target", "rpc"),
    [
        ("GET", "/v1/sessions/s", "GetSession"),
        ("GET", "/v1/sessions", "ListSessions"),
        ("PATCH", "/v1/sessions/s?updateMask=title", "UpdateSession"),
        ("DELETE", "/v1/sessions/s?etag=x", "DeleteSession"),
        ("POST", "/v1/sessions/s/messages", "SendMessage"),
        ("POST", "/chat:stream", "StreamMessage"),
        ("POST", "/v1/sessions/s/messages:stream", "StreamMessage"),
        ("GET", "/v1/sessions/s/turns/t", "GetTurn"),
        ("GET", "/v1/sessions/s/turns/t:attach", "AttachTurn"),
        ("GET", "/v1/sessions/s/turns/t%3Aattach", "GetTurn"),
        ("POST", "/v1/sessions/s/turns/t:cancel", "CancelTurn"),
        ("GET", "/v1/sessions/s/messages?pageSize=5&order_by=seq%20desc", "GetHistory"),
    ],
)
async def test_every_binding(method: str, target: str, rpc: str) -> None:
    app, invoker = chat_app()
    answer = await ask(app, method, target)
    assert answer.status == 200
    assert invoker.call.method.name == rpc
    assert getattr(invoker.call.request, "session_id", "s") in ("s", "")


async def test_verbs_are_not_ids() -> None:
    app, _ = chat_app()
    answer = await ask(app, "GET", "/v1/sessions/s/turns/t:cancel")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("method", "target", "body", "field"),
    [
        ("POST", "/chat", {"sessionId": "s", "mesage": "x"}, "mesage"),
        ("POST", "/chat", {"sessionId": 5, "message": "x"}, "session_id"),
        ("POST", "/session", {"labels": {"a": 1}}, 'session.labels["a"]'),
        ("POST", "/session", {"ttl": "60"}, "session.ttl"),
        ("POST", "/session", {"ttl": "60s", "expireTime": "2026-01-02T03:04:05Z"}, "session.expire_time"),
        ("POST", "/chat?view=FULL", {"sessionId": "s"}, "view"),
        ("GET", "/v1/sessions?pageSize=many", None, "pageSize"),
        ("GET", "/v1/sessions/s/messages?session_id=other", None, "session_id"),
    ],
)
async def test_field_errors(method: str, target: str, body: Any, field: str) -> None:
    app, _ = chat_app()
    answer = await ask(app, method, target, body)
    assert (answer.status, answer.violation) == (400, field)
    info = answer.detail("ErrorInfo")
    assert (info["reason"], info["domain"]) == ("INVALID_FIELD", "chatsession")


async def _stream(accept: str) -> Answer:
    turn = pb.Turn(turn_id="t1", state=pb.Turn.RUNNING)
    events = [
        pb.TurnEvent(cursor="c1", accepted=pb.TurnAccepted(turn=turn)),
        pb.TurnEvent(cursor="c2", delta=pb.TextDelta(text="Hi")),
    ]
    app, invoker = chat_app(events=events)
    answer = await ask(app, "GET", "/v1/sessions/s/turns/t1:attach", None, {"Accept": accept, "Last-Event-ID": "c0"})
    assert ("last-event-id", "c0") in invoker.call.metadata
    return answer


async def test_events_can_be_resumed() -> None:
    events = (await _stream("text/event-stream")).body.decode().split("\n\n")
    assert [event.split("\n")[0] for event in events] == ["id: c1", "id: c2", "event: done", ""]
    assert events[1] == 'id: c2\ndata: {"cursor":"c2","delta":{"text":"Hi"}}'


async def test_lines() -> None:
    first, second, last = lines((await _stream("*/*")).body)
    assert first["result"]["accepted"]["turn"]["state"] == "RUNNING"
    assert second == {"result": {"cursor": "c2", "delta": {"text": "Hi"}}}
    assert last == {"result": {}, "done": True}


async def test_the_document_is_valid() -> None:
    app, _ = chat_app()
    document = (await ask(app, "GET", "/openapi.json")).json
    validate(document)
    assert {"/session", "/chat", "/session/{sessionId}/history"} <= set(document["paths"])
    body = document["components"]["schemas"]["SendMessageRequest"]
    assert body["required"] == ["sessionId", "message"]
    response = document["components"]["schemas"]["SendMessageResponse"]
    assert response["required"] == ["response"]
