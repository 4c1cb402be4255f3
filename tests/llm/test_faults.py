import json
import time
from email.utils import formatdate

import pytest
from multidict import CIMultiDict

from service.domain.errors import (
    ContextTooLong,
    ModelAuthenticationFailed,
    ModelError,
    ModelInvalidResponse,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelUnavailable,
)
from service.llm.faults import event_fault, public_code, retry_after_s, status_fault


def fault(status: int, error: object = None, **headers: str) -> ModelError:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return status_fault(status, named, json.dumps({"error": error}).encode())


STATUSES = [
    (400, None, ModelRefusedRequest),
    (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, ContextTooLong),
    (
        400,
        {"code": 400, "type": "BadRequestError", "message": "This model's maximum context length is 8"},
        ContextTooLong,
    ),
    (400, {"code": 400, "type": "exceed_context_size_error"}, ContextTooLong),
    (400, {"code": "content_filter"}, ModelRefusedRequest),
    (401, {"code": "invalid_api_key", "type": "invalid_request_error"}, ModelAuthenticationFailed),
    (401, "no", ModelAuthenticationFailed),
    (402, None, ModelQuotaExhausted),
    (403, {"type": "invalid_request_error"}, ModelAuthenticationFailed),
    (403, {"code": "insufficient_quota"}, ModelQuotaExhausted),
    (404, {"code": "model_not_found"}, ModelRefusedRequest),
    (405, None, ModelRefusedRequest),
    (408, None, ModelUnavailable),
    (409, None, ModelUnavailable),
    (413, None, ContextTooLong),
    (418, None, ModelRefusedRequest),
    (422, None, ModelRefusedRequest),
    (429, None, ModelRateLimited),
    (429, {"code": "rate_limit_exceeded", "type": "tokens"}, ModelRateLimited),
    (429, {"code": "insufficient_quota"}, ModelQuotaExhausted),
    (429, {"code": None, "type": "insufficient_quota"}, ModelQuotaExhausted),
    (500, None, ModelUnavailable),
    (502, "<html>", ModelUnavailable),
    (503, {"type": "invalid_request_error"}, ModelUnavailable),
    (529, {"type": "overloaded_error"}, ModelUnavailable),
    (302, None, ModelInvalidResponse),
    (304, None, ModelInvalidResponse),
]


@pytest.mark.parametrize(("status", "error", "cls"), STATUSES)
def test_statuses(status: int, error: object, cls: type[ModelError]) -> None:
    got = fault(status, error)
    assert type(got) is cls
    assert got.metadata["providerStatus"] == str(status)
    assert str(status) in str(got)


@pytest.mark.parametrize(
    "body", [b"", b"<html>no</html>", b"[]", b"7", b'{"error": 7}', b'{"error": []}', b"\xff", b"{"]
)
def test_the_status_alone_is_enough(body: bytes) -> None:
    assert type(status_fault(503, {}, body)) is ModelUnavailable


def test_an_error_without_its_envelope_is_read() -> None:
    assert type(status_fault(429, {}, b'{"object":"error","code":"insufficient_quota"}')) is ModelQuotaExhausted


EVENTS = [
    ({"code": "server_error"}, ModelUnavailable),
    ({"code": "rate_limit_exceeded"}, ModelRateLimited),
    ({"type": "insufficient_quota"}, ModelQuotaExhausted),
    ({"code": "context_length_exceeded"}, ContextTooLong),
    ({"type": "invalid_request_error"}, ModelRefusedRequest),
    ({"code": 429}, ModelRateLimited),
    ({"code": "503"}, ModelUnavailable),
    ({"code": 401}, ModelAuthenticationFailed),
    ({"code": 7}, ModelUnavailable),
    ({"code": ["x"], "type": {}}, ModelUnavailable),
    ("overloaded", ModelUnavailable),
    (True, ModelUnavailable),
    ([1], ModelUnavailable),
]


@pytest.mark.parametrize(("error", "cls"), EVENTS)
def test_errors_inside_a_stream(error: object, cls: type[ModelError]) -> None:
    assert type(event_fault(error)) is cls


DELAYS = [
    ({}, None),
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, 86_400.0),
    ({"retry-after": "1e300"}, 86_400.0),
    ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ({"retry-after": "Thu, 99 Foo 2020 99:99:99 GMT"}, None),
]


@pytest.mark.parametrize(("headers", "delay_s"), DELAYS)
def test_retry_after(headers: dict[str, str], delay_s: float | None) -> None:
    assert retry_after_s(headers) == delay_s


def test_retry_after_as_a_date() -> None:
    delay_s = retry_after_s({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert delay_s is not None
    assert 10 <= delay_s <= 31  # counted from a clock that goes on


def test_the_delay_is_in_the_error_where_a_repeat_helps() -> None:
    assert fault(429, None, Retry_After="7").retry_delay_s == 7.0
    assert fault(503, None, Retry_After="7").retry_delay_s == 7.0
    assert fault(429).retry_delay_s == ModelRateLimited.default_retry_delay_s
    assert fault(429, {"code": "insufficient_quota"}, Retry_After="7").retry_delay_s is None
    assert fault(401, None, Retry_After="7").retry_delay_s is None


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("Error.Kind2", "Error.Kind2"),
        ("no spaces", ""),
        ("sk-abc", ""),
        ("x" * 65, ""),
        ("<b>", ""),
        ("a\nb", ""),
        ("ü", ""),
        ("has_gsk_key_in_it", ""),
        ("", ""),
    ],
)
def test_only_plain_codes_are_shown(code: str, shown: str) -> None:
    assert public_code(code, secret="gsk_key") == shown
