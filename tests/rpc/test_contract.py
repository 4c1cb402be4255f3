"""What clients rest on, read from the descriptors."""

import pytest
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import error_reason_pb2
from google.api import annotations_pb2

from service.domain import errors
from service.rest.refusal import Reason
from service.rpc.status import code_of, to_status

SERVICE = pb.DESCRIPTOR.services_by_name["ChatSessionService"]

BINDINGS = [
    ("CreateSession", "post", "/session", "session", "/v1/sessions", "session"),
    ("GetSession", "get", "/v1/sessions/{session_id}", "", "", ""),
    ("ListSessions", "get", "/v1/sessions", "", "", ""),
    ("UpdateSession", "patch", "/v1/sessions/{session_id}", "session", "", ""),
    ("DeleteSession", "delete", "/v1/sessions/{session_id}", "", "", ""),
    ("SendMessage", "post", "/chat", "*", "/v1/sessions/{session_id}/messages", "*"),
    ("StreamMessage", "post", "/chat:stream", "*", "/v1/sessions/{session_id}/messages:stream", "*"),
    ("GetTurn", "get", "/v1/sessions/{session_id}/turns/{turn_id}", "", "", ""),
    ("AttachTurn", "get", "/v1/sessions/{session_id}/turns/{turn_id}:attach", "", "", ""),
    ("CancelTurn", "post", "/v1/sessions/{session_id}/turns/{turn_id}:cancel", "*", "", ""),
    ("GetHistory", "get", "/session/{session_id}/history", "", "/v1/sessions/{session_id}/messages", ""),
    ("UndeleteSession", "post", "/v1/sessions/{session_id}:undelete", "*", "", ""),
    ("SearchMessages", "get", "/v1/messages:search", "", "", ""),
    ("ExportSession", "get", "/v1/sessions/{session_id}:export", "", "", ""),
    ("ImportSession", "post", "/v1/sessions:import", "file", "", ""),
    ("EraseOwner", "post", "/v1/owner:erase", "*", "", ""),
    ("GetErasure", "get", "/v1/erasures/{erasure_id}", "", "", ""),
]

WITHOUT_PRESENCE = [
    (pb.CreateSessionResponse, ["session_id"]),
    (pb.SendMessageResponse, ["response"]),
    (pb.GetHistoryResponse, ["session_id", "history"]),
    (pb.Message, ["role", "content"]),
]


def test_methods_stand_in_the_order_that_gateways_match_in() -> None:
    assert [method.name for method in SERVICE.methods] == [row[0] for row in BINDINGS]


@pytest.mark.parametrize(
    ("name", "verb", "path", "body", "more_path", "more_body"), BINDINGS, ids=lambda value: str(value)
)
def test_http_bindings(name: str, verb: str, path: str, body: str, more_path: str, more_body: str) -> None:
    rule = SERVICE.methods_by_name[name].GetOptions().Extensions[annotations_pb2.http]
    assert (rule.WhichOneof("pattern"), getattr(rule, verb), rule.body) == (verb, path, body)
    more = [(getattr(binding, verb), binding.body) for binding in rule.additional_bindings]
    assert more == ([(more_path, more_body)] if more_path else [])


@pytest.mark.parametrize(("message", "names"), WITHOUT_PRESENCE)
def test_documented_answers_can_show_nothing_more(message: type, names: list[str]) -> None:
    assert [field.name for field in message.DESCRIPTOR.fields if not field.has_presence] == names


def all_errors(cls: type[errors.ChatError] = errors.ChatError) -> list[type[errors.ChatError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in all_errors(sub))]


@pytest.mark.parametrize("cls", all_errors())
def test_every_error_has_a_reason_of_the_contract_and_a_code(cls: type[errors.ChatError]) -> None:
    assert cls.reason in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    assert code_of(cls.__new__(cls)) > 0


CODES_OF_REASONS = {
    "INVALID_FIELD": 3, "MESSAGE_TOO_LARGE": 3, "SESSION_NOT_FOUND": 5, "SESSION_EXPIRED": 5, "TURN_NOT_FOUND": 5,
    "INVALID_IMPORT": 3, "ERASURE_NOT_FOUND": 5,
    "SESSION_BUSY": 10, "STALE_HISTORY": 10, "STALE_ETAG": 10, "TURN_CANCELLED": 10, "REQUEST_ID_REUSED": 6,
    "SESSION_EXISTS": 6, "OVERLOADED": 8, "MODEL_RATE_LIMITED": 8, "MODEL_QUOTA_EXHAUSTED": 8,
    "MODEL_UNAVAILABLE": 14, "STORE_UNAVAILABLE": 14, "SHUTTING_DOWN": 14, "MODEL_REFUSED_REQUEST": 9,
    "CONTEXT_TOO_LONG": 9, "MODEL_TIMEOUT": 4, "CALLER_DEADLINE_EXCEEDED": 4, "MODEL_AUTHENTICATION_FAILED": 13,
    "MODEL_INVALID_RESPONSE": 13, "INTERNAL_ERROR": 13, "TURN_LOST": 14,
}  # fmt: skip


@pytest.mark.parametrize("reason", CODES_OF_REASONS)
def test_codes_are_those_of_the_table(reason: str) -> None:
    classes = [cls for cls in all_errors() if cls.__dict__.get("reason") == reason and cls is not errors.ChatError]
    assert classes
    assert {code_of(cls.__new__(cls)) for cls in classes} == {CODES_OF_REASONS[reason]}


def test_status_carries_what_a_program_needs() -> None:
    error = errors.SessionBusy("busy", {"activeTurnId": "t1"}).of_send(
        errors.Committed.FALSE, errors.Retry.SAME_REQUEST
    )
    status = to_status(error, "r1")
    kinds = [detail.TypeName() for detail in status.details]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]


def test_a_repeat_that_cannot_help_has_no_delay() -> None:
    error = errors.SessionBusy("busy").of_send(errors.Committed.FALSE, errors.Retry.NO)
    assert [detail.TypeName() for detail in to_status(error).details] == ["google.rpc.ErrorInfo"]


@pytest.mark.parametrize("reason", Reason)
def test_reasons_of_the_rest_shim_are_in_the_contract(reason: Reason) -> None:
    assert reason.value in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
