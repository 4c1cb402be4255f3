"""Headers and metadata: rules M1 to M10 of the transcoding rules."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rest import Limits, headers
from service.rest.headers import HeaderPolicy
from service.rest.refusal import Refusal
from tests.rest.kit import Answer, FakeInvoker, ask, attempt, failed, gallery_app, unhurried

Sent = list[tuple[str, str]]


async def _metadata(sent: Sent, **options: Any) -> list[tuple[str, str | bytes]]:
    invoker = FakeInvoker()
    answer = await ask(gallery_app(invoker, **options), "GET", "/v1/things", None, sent)
    assert answer.status == 200, answer.json
    return [entry for entry in invoker.call.metadata if entry[0] != "x-forwarded-for"]


async def _refused(sent: Sent, **options: Any) -> Answer:
    invoker = FakeInvoker()
    answer = await ask(gallery_app(invoker, **options), "GET", "/v1/things", None, sent)
    assert not invoker.calls
    return answer


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param([("Authorization", "Bearer x")], [("authorization", "Bearer x")], id="M1-authorization"),
        pytest.param([("Grpc-Metadata-Foo-Bar", "1")], [("foo-bar", "1")], id="M1-prefix"),
        pytest.param(
            [("traceparent", "00-a-b-01"), ("tracestate", "a=b")],
            [("traceparent", "00-a-b-01"), ("tracestate", "a=b")],
            id="M1-tracing",
        ),
        pytest.param([("baggage", "a=b")], [("baggage", "a=b")], id="M1-baggage"),
        pytest.param([("X-Request-Id", "r")], [("x-request-id", "r")], id="M1-request-id"),
        pytest.param([("Idempotency-Key", '"k"')], [("idempotency-key", '"k"')], id="M1-idempotency-key"),
        pytest.param(
            [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
            [("idempotency-key", "a"), ("idempotency-key", "b")],
            id="M1-both-of-two",
        ),
        pytest.param([("Last-Event-ID", "c1")], [("last-event-id", "c1")], id="M1-last-event-id"),
        pytest.param(
            [("Accept-Language", "de"), ("User-Agent", "u/1")],
            [("accept-language", "de"), ("user-agent", "u/1")],
            id="M1-language-and-agent",
        ),
        pytest.param([("Cookie", "a=b"), ("X-Tenant", "t"), ("Foo", "x"), ("Accept", "*/*")], [], id="M1-nothing-else"),
        pytest.param([("X-HTTP-Method-Override", "DELETE")], [], id="P18-no-override"),
        pytest.param([("Grpc-Metadata-x-bin", "-_8")], [("x-bin", b"\xfb\xff")], id="M3-binary"),
        pytest.param([("Grpc-Metadata-x-bin", "")], [("x-bin", b"")], id="M3-empty-binary"),
        pytest.param([("User-Agent", "caf\xe9")], [], id="M4-odd-agent-is-dropped"),
        pytest.param(
            [("Connection", "x"), ("TE", "gzip"), ("Upgrade", "h2c"), ("Keep-Alive", "1")], [], id="M7-hop-by-hop"
        ),
        pytest.param([("Proxy-Authorization", "x"), ("Proxy-Connection", "x")], [], id="M7-proxy"),
    ],
)
async def test_forwards(sent: Sent, expected: Any) -> None:
    assert await _metadata(sent) == expected


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([("Grpc-Metadata-Authorization", "x")], id="M2-authorization"),
        pytest.param([("Grpc-Metadata-grpc-timeout", "1S")], id="M2-grpc"),
        pytest.param([("Grpc-Metadata-grpc-status-details-bin", "")], id="M2-grpc-binary"),
        pytest.param([("Grpc-Metadata-X-Forwarded-For", "1.2.3.4")], id="M2-forwarded"),
        pytest.param([("Grpc-Metadata-X-Internal-User", "root")], id="M2-internal"),
        pytest.param([("Grpc-Metadata-:path", "/x")], id="M2-pseudo"),
        pytest.param([("Grpc-Metadata-X-Tenant", "other")], id="M2-reserved"),
        pytest.param([("Grpc-Metadata-Connection", "x")], id="M7-connection"),
        pytest.param([("Grpc-Metadata-TE", "x")], id="M7-te"),
        pytest.param([("Grpc-Metadata-Content-Type", "x")], id="M7-content-type"),
        pytest.param([("Grpc-Metadata-Host", "x")], id="M7-host"),
        pytest.param([("Grpc-Metadata-x-bin", "a")], id="M3-not-base64"),
        pytest.param([("Grpc-Metadata-x-bin", "****")], id="M3-alphabet"),
        pytest.param([("Grpc-Metadata-", "x")], id="M4-empty-key"),
        pytest.param([("Grpc-Metadata-a/b", "x")], id="M4-key"),
        pytest.param([("Grpc-Metadata-a", "caf\xe9")], id="M4-value"),
        pytest.param([("Grpc-Metadata-a", "tab\there")], id="M4-tab"),
        pytest.param([("Authorization", "caf\xe9")], id="M4-authorization"),
        pytest.param([("Idempotency-Key", "caf\xe9")], id="M4-idempotency-key"),
        pytest.param([("Grpc-Timeout", "1")], id="M6-no-unit"),
        pytest.param([("Grpc-Timeout", "123456789S")], id="M6-nine-digits"),
        pytest.param([("Grpc-Timeout", "1s")], id="M6-bad-unit"),
        pytest.param([("Grpc-Timeout", "-1S")], id="M6-negative"),
        pytest.param([("Grpc-Timeout", "1.5S")], id="M6-fraction"),
        pytest.param([("Grpc-Timeout", "")], id="M6-empty"),
        pytest.param([("X-Server-Timeout", "nan")], id="M6-server-timeout"),
    ],
)
async def test_refuses(sent: Sent) -> None:
    answer = await _refused(sent, reserved_metadata=["x-tenant"])
    assert (answer.status, answer.json["code"], answer.detail("ErrorInfo")["reason"]) == (400, 3, "INVALID_HEADER")


@pytest.mark.parametrize(
    ("sent", "trusted", "expected"),
    [
        pytest.param([], False, "192.0.2.1", id="M5-peer"),
        pytest.param([("X-Forwarded-For", "1.1.1.1")], False, "192.0.2.1", id="M5-not-trusted"),
        pytest.param([("X-Forwarded-For", "1.1.1.1")], True, "1.1.1.1, 192.0.2.1", id="M5-trusted"),
        pytest.param(
            [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "2.2.2.2, 3.3.3.3")],
            True,
            "1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1",
            id="M5-lists",
        ),
    ],
)
async def test_m5_forwarded_for(sent: Sent, trusted: bool, expected: str) -> None:
    invoker = FakeInvoker()
    await ask(gallery_app(invoker, trust_forwarded=trusted), "GET", "/v1/things", None, sent)
    assert dict(invoker.call.metadata)["x-forwarded-for"] == expected
    assert invoker.call.peer == "ipv4:192.0.2.1:5000"


@pytest.mark.parametrize(("trusted", "expected"), [(False, "h:80"), (True, "outer")])
async def test_m5_forwarded_host(trusted: bool, expected: str) -> None:
    metadata = await _metadata([("Host", "h:80"), ("X-Forwarded-Host", "outer")], trust_forwarded=trusted)
    assert ("x-forwarded-host", expected) in metadata


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param({}, 120.0, id="M6-default"),
        pytest.param({"Grpc-Timeout": "5S"}, 5.0, id="M6-seconds"),
        pytest.param({"Grpc-Timeout": "2M"}, 120.0, id="M6-minutes"),
        pytest.param({"Grpc-Timeout": "250m"}, 0.25, id="M6-milliseconds"),
        pytest.param({"Grpc-Timeout": "1000u"}, 0.001, id="M6-microseconds"),
        pytest.param({"Grpc-Timeout": "99999999n"}, 0.099999999, id="M6-nanoseconds"),
        pytest.param({"Grpc-Timeout": "99999999H"}, 3600.0, id="M6-capped"),
        pytest.param({"X-Server-Timeout": "1.5"}, 1.5, id="M6-server-timeout"),
        pytest.param({"Grpc-Timeout": "5S", "X-Server-Timeout": "1.5"}, 5.0, id="M6-grpc-first"),
    ],
)
async def test_m6_deadlines(sent: dict[str, str], expected: float) -> None:
    invoker = FakeInvoker()
    await ask(gallery_app(invoker), "GET", "/v1/things", None, sent)
    assert invoker.call.timeout_s == pytest.approx(expected)


async def test_m6_streams_have_a_default_of_their_own() -> None:
    invoker = FakeInvoker()
    await ask(gallery_app(invoker), "GET", "/v1/watch")
    assert invoker.call.timeout_s == 600.0


@pytest.mark.parametrize("target", ["/v1/things", "/v1/watch"])
async def test_m6_expiry_is_504(target: str) -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait, events=[None])
    answer = await ask(
        gallery_app(invoker, limits=Limits(deadline_slack_s=0.01)), "GET", target, None, {"Grpc-Timeout": "10m"}
    )
    assert (answer.status, answer.json["code"]) == (504, 4)
    assert answer.detail("ErrorInfo")["reason"] == "CALLER_DEADLINE_EXCEEDED"
    await asyncio.wait_for(invoker.cancelled.wait(), 5)


async def _answer_with(initial: Any = (), trailing: Any = (), sent: Any = (), reply: Any = None) -> Answer:
    invoker = FakeInvoker(initial_metadata=initial, trailing_metadata=trailing, reply=reply)
    return await ask(gallery_app(invoker), "GET", "/v1/things", None, sent)


async def test_m8_initial_metadata_comes_back() -> None:
    initial = [
        ("turn-id", "t1"),
        ("x-request-id", "r"),
        ("etag", 'W/"1"'),
        ("ratelimit-limit", "5"),
        ("a-bin", b"\xff"),
    ]
    answer = await _answer_with(initial)
    assert answer.headers["grpc-metadata-turn-id"] == "t1"
    assert answer.headers["x-request-id"] == "r"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["ratelimit-limit"] == "5"
    assert answer.headers["grpc-metadata-a-bin"] == "/w=="


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(("a", "x\r\nset-cookie: b"), id="M8-crlf"),
        pytest.param(("a\r\nb", "x"), id="M8-crlf-in-key"),
        pytest.param(("A", "x"), id="M8-upper-case"),
        pytest.param(("grpc-status", "0"), id="M8-grpc"),
        pytest.param(("content-type", "application/grpc"), id="M8-content-type"),
        pytest.param(("set-cookie", "a=b"), id="M8-cookie"),
        pytest.param(("a", "\x00"), id="M8-control"),
    ],
)
async def test_m8_what_is_not_fit_for_a_header_is_left_out(entry: tuple[str, str]) -> None:
    assert (await _answer_with([entry])).headers == (await _answer_with()).headers


async def test_m8_trailers_only_for_those_who_ask() -> None:
    trailing = [("cost", "1"), ("grpc-status", "0")]
    assert "grpc-trailer-cost" not in (await _answer_with(trailing=trailing)).headers
    asked = await _answer_with(trailing=trailing, sent={"TE": "trailers"})
    assert asked.headers["grpc-trailer-cost"] == "1"
    assert "grpc-trailer-grpc-status" not in asked.headers


async def test_m8_errors_carry_metadata_too() -> None:
    answer = await _answer_with([("turn-id", "t1")], [("cost", "1")], {"TE": "trailers"}, reply=failed(5))
    assert (answer.status, answer.headers["grpc-metadata-turn-id"], answer.headers["grpc-trailer-cost"]) == (
        404,
        "t1",
        "1",
    )


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([("Authorization", "x" * 17_000)], id="M10-one-large"),
        pytest.param([(f"Grpc-Metadata-{number}", "x" * 30) for number in range(300)], id="M10-many-small"),
    ],
)
async def test_m10_too_much_metadata(sent: Sent) -> None:
    answer = await _refused(sent)
    assert (answer.status, answer.json["code"]) == (431, 8)


_TOKEN = st.from_regex(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,20}", fullmatch=True)
_NAME = _TOKEN | st.builds(lambda name: b"grpc-metadata-" + name, _TOKEN) | st.sampled_from(sorted(headers._FORWARDED))


@unhurried
@given(st.lists(st.tuples(_NAME, st.binary(max_size=30)), max_size=8))
def test_whatever_comes_is_legal_metadata_or_refused(sent: list[tuple[bytes, bytes]]) -> None:
    metadata = attempt(lambda: HeaderPolicy().metadata(sent, "host", "peer"))
    if isinstance(metadata, Refusal):
        assert metadata.http_status == 400
        return
    for key, value in metadata:
        assert key == key.lower()
        assert not key.startswith("grpc-")
        assert isinstance(value, bytes) == key.endswith("-bin")
        assert isinstance(value, bytes) or (value.isascii() and value.isprintable()) or value == ""
