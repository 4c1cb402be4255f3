"""Requests with one field that cannot be. SESSION stands for the id of a session that exists."""

from typing import Any

from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.calls import FILE_TYPE

SESSION = "SESSION"


def _send(**fields: Any) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(**{"session_id": SESSION, "message": "hi", **fields})


def _settings(**fields: Any) -> pb.SendMessageRequest:
    return _send(settings=pb.ModelSettings(**fields))


def _create(**fields: Any) -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(session=pb.Session(**fields))


def _update(*paths: str, **fields: Any) -> pb.UpdateSessionRequest:
    mask = FieldMask(paths=paths) if paths else None
    return pb.UpdateSessionRequest(session_id=SESSION, session=pb.Session(**fields), update_mask=mask)


def _import(session_id: str, content_type: str = FILE_TYPE) -> pb.ImportSessionRequest:
    return pb.ImportSessionRequest(session_id=session_id, file=HttpBody(content_type=content_type, data=b"{}\n"))


def _history(**fields: Any) -> pb.GetHistoryRequest:
    return pb.GetHistoryRequest(session_id=SESSION, **fields)


BAD_FIELDS: list[tuple[str, Message, str]] = [
    ("SendMessage", _send(session_id="a b"), "session_id"),
    ("SendMessage", _send(session_id="x" * 65), "session_id"),
    ("SendMessage", _send(message=""), "message"),
    ("SendMessage", _send(view=99), "view"),
    ("SendMessage", _send(on_busy=99), "on_busy"),
    ("SendMessage", _send(on_disconnect=-1), "on_disconnect"),
    ("SendMessage", _send(expected_last_seq=-1), "expected_last_seq"),
    ("SendMessage", _send(request_id="a b"), "request_id"),
    ("SendMessage", _send(request_id="x" * 129), "request_id"),
    ("StreamMessage", _send(request_id="x" * 129), "request_id"),
    ("StreamMessage", _settings(temperature=2.1), "settings.temperature"),
    ("SendMessage", _settings(model=""), "settings.model"),
    ("SendMessage", _settings(model="x" * 257), "settings.model"),
    ("SendMessage", _settings(model="a\nb"), "settings.model"),
    ("SendMessage", _settings(temperature=2.1), "settings.temperature"),
    ("SendMessage", _settings(temperature=-0.1), "settings.temperature"),
    ("SendMessage", _settings(temperature=float("nan")), "settings.temperature"),
    ("SendMessage", _settings(top_p=float("inf")), "settings.top_p"),
    ("SendMessage", _settings(max_output_tokens=0), "settings.max_output_tokens"),
    ("SendMessage", _settings(stop_sequences=["a"] * 5), "settings.stop_sequences"),
    ("SendMessage", _settings(stop_sequences=[""]), "settings.stop_sequences"),
    ("CreateSession", _create(title="x" * 257), "session.title"),
    ("CreateSession", _create(instructions="x" * 32_769), "session.instructions"),
    ("CreateSession", _create(labels={"": "x"}), "session.labels"),
    ("CreateSession", _create(labels={"x" * 64: "x"}), "session.labels"),
    ("CreateSession", _create(labels={"a": "x" * 257}), "session.labels"),
    ("CreateSession", _create(labels={str(number): "" for number in range(33)}), "session.labels"),
    ("CreateSession", _create(settings=pb.ModelSettings(temperature=9)), "session.settings.temperature"),
    ("CreateSession", pb.CreateSessionRequest(view=7), "view"),
    ("CreateSession", pb.CreateSessionRequest(session_id="-"), "session_id"),
    ("CreateSession", pb.CreateSessionRequest(request_id="a b"), "request_id"),
    ("CreateSession", _create(session_id="another"), "session.session_id"),
    ("CreateSession", _create(etag='W/"1"'), "session.etag"),
    ("CreateSession", _create(ttl=Duration()), "session.ttl"),
    ("CreateSession", _create(ttl=Duration(seconds=-5)), "session.ttl"),
    ("CreateSession", _create(expire_time=Timestamp(seconds=5)), "session.expire_time"),
    ("CreateSession", _create(idle_ttl=Duration(nanos=999_999)), "session.idle_ttl"),
    ("GetHistory", _history(page_size=-1), "page_size"),
    ("GetHistory", _history(after_seq=-1), "after_seq"),
    ("GetHistory", _history(order_by="time"), "order_by"),
    ("GetHistory", _history(page_token="bm9wZQ"), "page_token"),
    ("GetHistory", _history(page_token="€" * 1000), "page_token"),
    ("GetHistory", _history(view=9), "view"),
    ("GetTurn", pb.GetTurnRequest(session_id=SESSION, turn_id="-"), "turn_id"),
    ("CancelTurn", pb.CancelTurnRequest(session_id=SESSION, turn_id="a/b"), "turn_id"),
    ("AttachTurn", pb.AttachTurnRequest(session_id=SESSION, turn_id="one", after_cursor="nope"), "after_cursor"),
    ("GetSession", pb.GetSessionRequest(session_id="-"), "session_id"),
    ("UpdateSession", _update(title="x" * 257), "session.title"),
    ("UpdateSession", _update(ttl=Duration(seconds=-5)), "session.ttl"),
    ("UpdateSession", _update(session_id="another"), "session.session_id"),
    ("UpdateSession", _update("title", "nothing"), "update_mask"),
    ("UpdateSession", _update("last_seq"), "update_mask"),
    ("UpdateSession", _update("*", "title"), "update_mask"),
    ("UpdateSession", pb.UpdateSessionRequest(session_id="-"), "session_id"),
    ("DeleteSession", pb.DeleteSessionRequest(session_id="a/b"), "session_id"),
    ("UndeleteSession", pb.UndeleteSessionRequest(session_id="-"), "session_id"),
    ("ExportSession", pb.ExportSessionRequest(session_id="-"), "session_id"),
    ("ImportSession", _import("-"), "session_id"),
    ("ImportSession", _import("", content_type="text/plain"), "file.content_type"),
    ("ListSessions", pb.ListSessionsRequest(page_size=-1), "page_size"),
    ("ListSessions", pb.ListSessionsRequest(page_token="bm9wZQ"), "page_token"),
    ("ListSessions", pb.ListSessionsRequest(page_token="W10"), "page_token"),
    ("ListSessions", pb.ListSessionsRequest(order_by="title"), "order_by"),
    ("ListSessions", pb.ListSessionsRequest(filter="title"), "filter"),
    ("ListSessions", pb.ListSessionsRequest(filter="x" * 4097), "filter"),
    ("SearchMessages", pb.SearchMessagesRequest(), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x" * 257), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query='"?" -'), "query"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", session_id="-"), "session_id"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", page_size=-1), "page_size"),
    ("SearchMessages", pb.SearchMessagesRequest(query="x", page_token="bm9wZQ"), "page_token"),
    ("GetErasure", pb.GetErasureRequest(erasure_id="-"), "erasure_id"),
]
