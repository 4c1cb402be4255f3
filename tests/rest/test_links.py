"""Links of the OpenAPI document: which answers hold the ids that other operations want."""

from typing import Any

from chatsession.v1 import chat_session_pb2 as pb
from openapi_spec_validator import validate

from service.rest.links import Links
from service.rest.openapi import Document
from service.rest.rules import Rule, rules_of

_RULES = rules_of([pb.DESCRIPTOR.services_by_name["ChatSessionService"]], uploads=True)
_LINKS = Links(_RULES)


def links_of(method: str) -> dict[str, Any]:
    return _LINKS.of(_rule(method))


def _rule(method: str) -> Rule:
    return next(rule for rule in _RULES if rule.method.name == method)


def test_an_id_of_the_answer_leads_to_the_operations_that_want_it() -> None:
    assert links_of("CreateSession")["GetHistory"] == {
        "operationId": "ChatSessionService_GetHistory",
        "parameters": {"sessionId": "$response.body#/sessionId"},
    }


def test_an_operation_that_wants_more_is_not_linked() -> None:
    assert "GetTurn" not in links_of("CreateSession")
    assert links_of("ListSessions") == {}


def test_the_binding_with_the_ids_in_its_path_is_linked() -> None:
    assert links_of("CreateSession")["SendMessage"]["operationId"] == "ChatSessionService_SendMessage_2"


def test_ids_within_a_message_that_may_be_absent_are_told_as_such() -> None:
    assert links_of("SendMessage")["CancelTurn"] == {
        "operationId": "ChatSessionService_CancelTurn",
        "parameters": {"sessionId": "$response.body#/turn/sessionId", "turnId": "$response.body#/turn/turnId"},
        "description": "If the answer has `turn`.",
    }


def test_an_operation_is_not_linked_to_itself() -> None:
    assert "GetTurn" in links_of("CancelTurn")
    assert "GetTurn" not in links_of("GetTurn")


def test_only_operations_that_are_served_are_linked() -> None:
    names = {f"chatsession.v1.ChatSessionService.{name}" for name in ("GetHistory", "UpdateSession")}
    made = Document(_RULES, title="T", version="1", unserved=names).value()
    validate(made)
    links = made["paths"]["/session"]["post"]["responses"]["200"]["links"]
    assert links.keys() == {
        "GetSession",
        "DeleteSession",
        "UndeleteSession",
        "ExportSession",
        "SendMessage",
        "StreamMessage",
    }
