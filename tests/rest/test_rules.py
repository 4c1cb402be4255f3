"""Reading HTTP rules at start-up: rules S1 to S12 of the transcoding rules."""

import logging
from typing import Any

import pytest
from google.api.http_pb2 import CustomHttpPattern, HttpRule

from service.rest.routes import RouteConflict
from service.rest.rules import RuleError, rules_of
from tests.rest.kit import FakeInvoker, gallery, gallery_app, service_with


def _made_rules(*http_rules: HttpRule, **streaming: bool) -> list[Any]:
    return rules_of([service_with(*http_rules, **streaming)])


def test_s1_a_method_without_a_rule_has_no_route() -> None:
    assert "Hidden" not in {rule.method.name for rule in rules_of([gallery()])}


def test_s2_additional_bindings_follow_and_inherit_nothing() -> None:
    rules = _made_rules(
        HttpRule(post="/a/{id}", body="*", response_body="id", additional_bindings=[HttpRule(get="/b/{id}")])
    )
    assert [(rule.http_method, rule.template.text, rule.body, rule.response_body, rule.number) for rule in rules] == [
        ("POST", "/a/{id}", "*", "id", 0),
        ("GET", "/b/{id}", "", "", 1),
    ]


@pytest.mark.parametrize("http_method", ["get", "put", "post", "delete", "patch"])
def test_s3_plain_methods(http_method: str) -> None:
    (rule,) = _made_rules(HttpRule(**{http_method: "/a"}))
    assert rule.http_method == http_method.upper()


@pytest.mark.parametrize(("kind", "http_method"), [("*", "*"), ("HEAD", "HEAD"), ("options", "OPTIONS")])
def test_s3_custom_methods(kind: str, http_method: str) -> None:
    (rule,) = _made_rules(HttpRule(custom=CustomHttpPattern(kind=kind, path="/a")))
    assert rule.http_method == http_method


@pytest.mark.parametrize(
    ("http_rule", "problem"),
    [
        pytest.param(HttpRule(get="/a//b"), "empty segment", id="S4-bad-template"),
        pytest.param(HttpRule(body="*"), "without a method", id="S3-no-pattern"),
        pytest.param(HttpRule(custom=CustomHttpPattern(path="/a")), "without a kind", id="S3-no-kind"),
        pytest.param(
            HttpRule(
                get="/a",
                additional_bindings=[HttpRule(get="/b", additional_bindings=[HttpRule(get="/c")])],
            ),
            "additional binding",
            id="S2-nested-bindings",
        ),
        pytest.param(HttpRule(get="/a/{nope}"), "nope is not a field", id="S6-no-such-field"),
        pytest.param(HttpRule(get="/a/{parent}"), "parent cannot be written as text", id="S6-message"),
        pytest.param(HttpRule(get="/a/{strings}"), "strings cannot be", id="S6-repeated"),
        pytest.param(HttpRule(get="/a/{labels}"), "labels cannot be", id="S6-map"),
        pytest.param(HttpRule(get="/a/{any}"), "any cannot be", id="S6-any"),
        pytest.param(HttpRule(get="/a/{value}"), "value cannot be", id="S6-value"),
        pytest.param(HttpRule(get="/a/{struct}"), "struct cannot be", id="S6-struct"),
        pytest.param(HttpRule(get="/a/{parents.name}"), "parents.name is not", id="S6-through-repeated"),
        pytest.param(HttpRule(get="/a/{labels.key}"), "labels.key is not", id="S6-through-map"),
        pytest.param(HttpRule(get="/a/{id.x}"), "id.x is not", id="S6-through-scalar"),
        pytest.param(HttpRule(get="/a/{any.type_url}"), "any.type_url is not", id="S6-through-any"),
        pytest.param(HttpRule(get="/a/{time_value.seconds}"), "time_value.seconds is not", id="S6-inside-timestamp"),
        pytest.param(HttpRule(get="/a/{int32Value}"), "int32Value is not", id="S6-json-name"),
        pytest.param(HttpRule(post="/a", body="nope"), "body 'nope'", id="S7-no-such-field"),
        pytest.param(HttpRule(post="/a", body="parent.name"), "body 'parent.name'", id="S7-nested"),
        pytest.param(HttpRule(post="/a/{id}", body="id"), "both the body and in the path", id="S7-in-path-too"),
        pytest.param(HttpRule(post="/a", response_body="nope"), "response_body 'nope'", id="S8-no-such-field"),
        pytest.param(HttpRule(post="/a", response_body="parent.name"), "response_body", id="S8-nested"),
        pytest.param(HttpRule(get="/a", body="*"), "GET has no body", id="S9-get-with-body"),
    ],
)
def test_refuses_and_names_the_method(http_rule: HttpRule, problem: str) -> None:
    with pytest.raises(RuleError, match=problem) as caught:
        _made_rules(http_rule)
    assert "made.Made.M0" in str(caught.value)


@pytest.mark.parametrize(
    "http_rule",
    [
        pytest.param(HttpRule(get="/a/{parent.parent.name}"), id="S6-nested"),
        pytest.param(HttpRule(get="/a/{kind}"), id="S6-enum"),
        pytest.param(HttpRule(get="/a/{time_value}/{duration_value}/{mask}/{int64_wrapper}"), id="S6-well-known"),
        pytest.param(HttpRule(get="/a/{one_string}/{optional_bool}"), id="S6-oneof-and-optional"),
        pytest.param(HttpRule(post="/a", body="strings"), id="S7-repeated"),
        pytest.param(HttpRule(post="/a", body="labels"), id="S7-map"),
        pytest.param(HttpRule(post="/a/{parent.name}", body="parent"), id="S7-field-partly-in-path"),
        pytest.param(HttpRule(get="/a", response_body="strings"), id="S8-repeated"),
    ],
)
def test_accepts(http_rule: HttpRule) -> None:
    assert len(_made_rules(http_rule)) == 1


def test_s9_warns_of_a_body_of_delete(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _made_rules(HttpRule(delete="/a", body="*"))
    assert "made.Made.M0" in caplog.text


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((HttpRule(get="/a/{id}"), HttpRule(get="/a/{string_value}")), id="S10-other-names"),
        pytest.param((HttpRule(get="/a/{id}"), HttpRule(get="/a/*")), id="S10-variable-and-wildcard"),
        pytest.param((HttpRule(get="/a/{id=x/*}"), HttpRule(get="/a/x/{id}")), id="S10-pattern-spelled-out"),
        pytest.param((HttpRule(get="/abc"), HttpRule(get="/%61bc")), id="S10-escaped-literal"),
        pytest.param((HttpRule(get="/a/**"), HttpRule(get="/a/{id=**}")), id="S10-many"),
    ],
)
def test_s10_refuses_rules_for_the_same_requests(rules: tuple[HttpRule, ...]) -> None:
    from service.rest import RestApp

    with pytest.raises(RouteConflict, match=r"M1 .*M0 "):
        RestApp([service_with(*rules)], FakeInvoker())


def test_s10_other_methods_or_verbs_are_no_conflict() -> None:
    from service.rest import RestApp

    RestApp([service_with(HttpRule(get="/a"), HttpRule(post="/a"), HttpRule(get="/a:b"))], FakeInvoker())


def test_s11_refuses_streams_of_requests_unless_asked_to_skip_them() -> None:
    service = service_with(HttpRule(post="/a", body="*"), client_streaming=True)
    with pytest.raises(RuleError, match="stream of requests"):
        rules_of([service])
    assert rules_of([service], skip_client_streaming=True) == []


def test_s11_takes_streams_of_pieces_of_a_file_if_asked_to() -> None:
    service = service_with(HttpRule(post="/a/{id}", body="file"), takes="Part", client_streaming=True)
    with pytest.raises(RuleError, match="stream of requests"):
        rules_of([service])
    assert [rule.body for rule in rules_of([service], uploads=True)] == ["file"]
    assert rules_of([service], uploads=True, skip_client_streaming=True) == []


@pytest.mark.parametrize(
    ("body", "streaming"),
    [
        pytest.param("*", {}, id="S11-json"),
        pytest.param("id", {}, id="S11-field-of-json"),
        pytest.param("", {}, id="S11-no-body"),
        pytest.param("file", {"server_streaming": True}, id="S11-both-ways"),
    ],
)
def test_s11_takes_no_other_stream_of_requests(body: str, streaming: dict[str, bool]) -> None:
    service = service_with(HttpRule(post="/a", body=body), takes="Part", client_streaming=True, **streaming)
    with pytest.raises(RuleError, match=r"made\.Made\.M0.*stream of requests"):
        rules_of([service], uploads=True)


def test_s12_the_whole_gallery_can_be_served() -> None:
    assert gallery_app() is not None
