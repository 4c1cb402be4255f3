"""Answers: rules P15 to P17, R1 to R12, section 6, and L1 to L7 of the transcoding rules."""

import asyncio
import json
import logging
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.rest import CallFailed, Limits
from service.rest.exchange import Exchange
from service.rest.status import HTTP_STATUS, http_status
from service.rest.writer import Writer
from tests.rest.kit import FAST, Answer, FakeInvoker, ask, failed, gallery_app, gallery_class, scope_of


@pytest.mark.parametrize("code", list(range(17)))
async def test_r2_every_code_has_its_status(code: int) -> None:
    expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]
    assert HTTP_STATUS[code] == expected[code]
    if code:
        answer = await ask(gallery_app(FakeInvoker(failed(code))), "GET", "/v1/things")
        assert (answer.status, answer.json["code"]) == (expected[code], code)


@pytest.mark.parametrize("code", [17, 99, -1])
def test_r2_unknown_codes_are_500(code: int) -> None:
    assert http_status(code) == 500


async def test_r1_an_empty_reply_is_an_object() -> None:
    answer = await ask(gallery_app(), "DELETE", "/v1/things/1")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")


async def test_r3_errors_are_a_flat_status_with_details() -> None:
    answer = await ask(gallery_app(FakeInvoker(failed(5, "no such thing"))), "GET", "/v1/things")
    assert answer.body == b'{"code":5,"message":"no such thing","details":[]}'


async def test_r4_details_are_unpacked() -> None:
    failure = failed(3, "bad", error_details_pb2.ErrorInfo(reason="R", domain="d", metadata={"b": "2", "a": "1"}))
    answer = await ask(gallery_app(FakeInvoker(failure)), "GET", "/v1/things")
    assert answer.json["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "R",
            "domain": "d",
            "metadata": {"a": "1", "b": "2"},
        }
    ]


@pytest.mark.parametrize(
    "detail",
    [
        pytest.param(AnyMessage(type_url="x/no.Such", value=b"\1\2"), id="R4-unknown-type"),
        pytest.param(AnyMessage(type_url="x/google.rpc.ErrorInfo", value=b"\xff"), id="R4-rubbish"),
        pytest.param(AnyMessage(type_url="x/google.rpc.RetryInfo", value=b"\xff"), id="R4-rubbish-retry-info"),
        pytest.param(AnyMessage(value=b"\xff"), id="R4-no-type"),
    ],
)
async def test_r4_odd_details_do_not_fail_the_answer(detail: AnyMessage) -> None:
    failure = CallFailed(status_pb2.Status(code=14, message="busy", details=[detail]))
    answer = await ask(gallery_app(FakeInvoker(failure)), "GET", "/v1/things")
    assert (answer.status, answer.json["message"]) == (503, "busy")
    assert answer.json["details"][0]["@type"] == detail.type_url


async def test_r5_when_even_the_error_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    app = gallery_app(FakeInvoker(failed(5)))

    def broken(*_: Any) -> str:
        raise RuntimeError("secret")

    monkeypatch.setattr(Writer, "text", broken)
    answer = await ask(app, "GET", "/v1/things")
    assert (answer.status, answer.body) == (500, b'{"code":13,"message":"internal error","details":[]}')


@pytest.mark.parametrize("target", ["/v1/things", "/v1/watch"])
async def test_r6_unexpected_exceptions_say_nothing(target: str, caplog: pytest.LogCaptureFixture) -> None:
    invoker = FakeInvoker(RuntimeError("secret"), events=[RuntimeError("secret")])
    with caplog.at_level(logging.ERROR):
        answer = await ask(gallery_app(invoker), "GET", target, None, {"X-Request-Id": "r-1"})
    assert (answer.status, answer.json["code"], answer.json["message"]) == (500, 13, "internal error")
    assert b"secret" not in answer.body
    assert answer.detail("ErrorInfo")["metadata"] == {"requestId": "r-1"}
    assert "secret" in caplog.text


async def test_r6_a_reply_without_a_json_form() -> None:
    thing = gallery_class("Thing")()
    thing.time_value.nanos = -1
    answer = await ask(gallery_app(FakeInvoker(thing)), "GET", "/v1/things")
    assert (answer.status, answer.json["code"]) == (500, 13)


def _retry(**delay: int) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(**delay))


@pytest.mark.parametrize(
    ("code", "delay", "expected"),
    [
        pytest.param(14, {"seconds": 2}, "2", id="R7-503"),
        pytest.param(8, {"seconds": 1, "nanos": 1}, "2", id="R7-rounded-up"),
        pytest.param(14, {"nanos": 5}, "1", id="R7-less-than-one"),
        pytest.param(14, {}, "0", id="R7-at-once"),
        pytest.param(14, {"seconds": -5}, "0", id="R7-negative"),
        pytest.param(10, {"seconds": 2}, None, id="R7-not-on-409"),
    ],
)
async def test_r7_retry_after(code: int, delay: dict[str, int], expected: str | None) -> None:
    answer = await ask(gallery_app(FakeInvoker(failed(code, "x", _retry(**delay)))), "GET", "/v1/things")
    assert answer.headers.get("retry-after") == expected


async def test_r7_no_retry_after_without_retry_info() -> None:
    answer = await ask(gallery_app(FakeInvoker(failed(14))), "GET", "/v1/things")
    assert "retry-after" not in answer.headers


async def test_r7_401_says_how_to_authenticate() -> None:
    answer = await ask(gallery_app(FakeInvoker(failed(16))), "GET", "/v1/things")
    assert answer.headers["www-authenticate"] == 'Bearer realm="gallery.test"'


async def test_r9_files() -> None:
    reply = gallery_class("Part")(file={"content_type": "text/csv", "data": b"a,b\xff"}).file
    answer = await ask(gallery_app(FakeInvoker(reply)), "GET", "/v1/download")
    assert (answer.body, answer.headers["content-type"]) == (b"a,b\xff", "text/csv")


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "application/xml;q=1", "", "*/*"])
async def test_r10_w14_accept_is_ignored(accept: str) -> None:
    answer = await ask(gallery_app(), "GET", "/v1/things", None, {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/nope", None, 404),
        ("PUT", "/v1/things/1", None, 405),
        ("POST", "/v1/things", b"{", 400),
        ("GET", "/v1/%zz", None, 400),
        ("GET", "/v1/things?" + "x" * 20_000, None, 414),
        ("POST", "/v1/things", b" " * (2 * 1024 * 1024 + 1), 413),
    ],
)
async def test_r11_the_shims_own_errors_have_the_same_shape(
    method: str, target: str, body: bytes | None, status: int
) -> None:
    answer = await ask(gallery_app(), method, target, body, {"X-Request-Id": "mine"})
    assert answer.status == status
    assert list(answer.json) == ["code", "message", "details"]
    info = answer.detail("ErrorInfo")
    assert (info["domain"], info["metadata"]) == ("gallery.test", {"requestId": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["content-type"] == "application/json"


async def test_r11_an_odd_request_id_is_replaced() -> None:
    answer = await ask(gallery_app(), "GET", "/nope", None, {"X-Request-Id": "x" * 200})
    assert len(answer.headers["x-request-id"]) == 16


@pytest.mark.parametrize("target", ["/v1/things", "/nope", "/v1/watch", "/healthz"])
async def test_r12_nothing_is_stored_or_sniffed(target: str) -> None:
    answer = await ask(gallery_app(), "GET", target)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_p15_unknown_paths() -> None:
    answer = await ask(gallery_app(), "GET", "/gallery.v1.Gallery/Hidden")
    assert (answer.status, answer.json["code"]) == (404, 5)


@pytest.mark.parametrize("raw_path", [b"http://h/v1/things/a%2Fb", b"HTTPS://h:1/v1/things/a%2Fb"])
async def test_p15_absolute_form_where_the_server_does_not_split_it(raw_path: bytes) -> None:
    exchange = Exchange({**scope_of("GET", "/"), "raw_path": raw_path}, None, None, Limits())  # type: ignore[arg-type]
    assert exchange.path == "/v1/things/a%2Fb"


async def test_p1_a_server_that_gives_no_raw_path() -> None:
    scope = {**scope_of("GET", "/"), "path": "/v1/things/a b%:c"}
    del scope["raw_path"]
    exchange = Exchange(scope, None, None, Limits())  # type: ignore[arg-type]
    assert exchange.path == "/v1/things/a%20b%25:c"


async def test_b5_http_2_need_not_announce_a_body() -> None:
    invoker = FakeInvoker()
    events = [{"type": "http.request", "body": b'{"id":"x"}', "more_body": False}]

    async def receive() -> Any:
        return events.pop() if events else await asyncio.Event().wait()

    async def send(_: Any) -> None: ...

    await gallery_app(invoker)({**scope_of("POST", "/v1/things"), "http_version": "2"}, receive, send)
    assert invoker.call.request.id == "x"


async def test_p16_other_methods() -> None:
    answer = await ask(gallery_app(), "PATCH", "/v1/things/x")
    assert (answer.status, answer.json["code"], answer.headers["allow"]) == (405, 12, "DELETE, GET, POST")


async def test_p17_head_only_by_rule() -> None:
    assert (await ask(gallery_app(), "HEAD", "/v1/things")).status == 405
    answer = await ask(gallery_app(), "HEAD", "/v1/probe")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 100


async def test_p17_options() -> None:
    answer = await ask(gallery_app(), "OPTIONS", "/v1/things/x")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "DELETE, GET, POST", b"")
    assert (await ask(gallery_app(), "OPTIONS", "/nope")).status == 404


async def test_s3_a_rule_for_any_method() -> None:
    invoker = FakeInvoker()
    for method in ("GET", "PATCH", "OPTIONS", "PURGE"):
        assert (await ask(gallery_app(invoker), method, "/v1/whatever")).status == 200
    assert len(invoker.calls) == 4


async def test_l1_bodies_that_are_too_large() -> None:
    app = gallery_app(limits=Limits(max_body_bytes=10, drain_timeout_s=0.05))
    fits = b'{"id":"a"}'
    assert (await ask(app, "POST", "/v1/things", fits)).status == 200
    for headers in ({}, {"transfer-encoding": "chunked"}, {"content-length": "10"}):
        answer = await ask(app, "POST", "/v1/things", fits + b" ", headers)
        assert (answer.status, answer.json["code"]) == (413, 8)
        assert answer.detail("ErrorInfo")["reason"] == "BODY_TOO_LARGE"


async def test_l2_an_answer_that_is_too_large() -> None:
    app = gallery_app(FakeInvoker(gallery_class("Thing")(id="x" * 10_000)), limits=Limits(max_response_bytes=5_000))
    answer = await ask(app, "GET", "/v1/things")
    assert (answer.status, answer.json["code"]) == (500, 8)


async def test_l4_cors_is_off_by_default() -> None:
    answer = await ask(gallery_app(), "GET", "/v1/things", None, {"Origin": "https://a.test"})
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        pytest.param(["https://a.test"], "https://a.test", "https://a.test", id="L4-listed"),
        pytest.param(["https://a.test"], "https://b.test", None, id="L4-not-listed"),
        pytest.param(["https://a.test"], "https://a.test.evil", None, id="L4-no-prefixes"),
        pytest.param(["https://a.test"], "null", None, id="L4-null"),
        pytest.param(["*"], "https://b.test", "*", id="L4-any"),
    ],
)
@pytest.mark.parametrize("target", ["/v1/things", "/nope"])
async def test_l4_cors(origins: list[str], origin: str, allowed: str | None, target: str) -> None:
    answer = await ask(gallery_app(cors_origins=origins), "GET", target, None, {"Origin": origin})
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert ("access-control-expose-headers" in answer.headers) == (allowed is not None)
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"


async def test_l4_preflight() -> None:
    app = gallery_app(cors_origins=["https://a.test"])
    asked = {"Origin": "https://a.test", "Access-Control-Request-Method": "POST"}
    answer = await ask(app, "OPTIONS", "/v1/things/1", None, asked)
    assert answer.status == 204
    assert answer.headers["access-control-allow-methods"] == "DELETE, GET, POST"
    for name in ("Authorization", "Content-Type", "Grpc-Timeout", "Idempotency-Key", "Last-Event-ID"):
        assert name in answer.headers["access-control-allow-headers"]
    answer = await ask(app, "OPTIONS", "/v1/things/1", None, {**asked, "Origin": "https://b.test"})
    assert "access-control-allow-methods" not in answer.headers


@pytest.mark.parametrize(
    ("target", "health", "status"),
    [
        ("/healthz", "NOT_SERVING", 200),
        ("/healthz?service=", "NOT_SERVING", 200),
        ("/healthz?service=a.B", "SERVING", 200),
        ("/healthz?service=a.B", "NOT_SERVING", 503),
        ("/healthz?service=a.B", "UNKNOWN", 503),
        ("/healthz?service=a.B", "SERVICE_UNKNOWN", 404),
        ("/readyz", "SERVING", 200),
        ("/readyz", "NOT_SERVING", 503),
        ("/readyz?service=a.B", "SERVICE_UNKNOWN", 404),
    ],
)
async def test_l5_health(target: str, health: str, status: int) -> None:
    asked: list[str] = []

    def ready(service: str) -> str:
        asked.append(service)
        return health

    answer = await ask(gallery_app(ready=ready), "GET", target)
    assert answer.status == status
    assert asked in ([], [""], ["a.B"])
    assert answer.json["status"] in (health, "SERVING")


async def test_l5_health_takes_get_and_head() -> None:
    assert (await ask(gallery_app(), "HEAD", "/readyz")).body == b""
    answer = await ask(gallery_app(), "POST", "/readyz")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await ask(gallery_app(), "GET", "/readyz?" + "a=b&" * 100)).status == 400


async def test_l6_the_document_is_cacheable() -> None:
    app = gallery_app(title="Gallery")
    answer = await ask(app, "GET", "/openapi.json")
    assert answer.json["info"]["title"] == "Gallery"
    assert answer.headers["cache-control"] == "no-cache"
    again = await ask(app, "GET", "/openapi.json", None, {"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert (await ask(app, "GET", "/openapi.json", None, {"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/docs", "text/html"),
        ("/docs/docs.js", "text/javascript"),
        ("/docs/swagger-ui-bundle.js", "text/javascript"),
        ("/docs/swagger-ui.css", "text/css"),
        ("/docs/favicon-32x32.png", "image/png"),
    ],
)
async def test_l6_the_page_comes_from_local_files(target: str, content_type: str) -> None:
    answer = await ask(gallery_app(), "GET", target)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "connect-src 'self';" in answer.headers["content-security-policy"]
    if content_type == "text/html":
        assert b"//" not in answer.body


async def test_l7_each_exchange_is_told_once_by_its_template() -> None:
    told: list[tuple[Any, ...]] = []

    def tell(exchange: Exchange) -> None:
        told.append((exchange.template, exchange.rpc, exchange.http_status, exchange.code))

    app = gallery_app(FakeInvoker(), on_finish=tell)
    await ask(app, "GET", "/v1/things/1")
    await ask(app, "GET", "/v1/nope/1")
    await ask(app, "POST", "/v1/things", b"{", {"content-type": "application/json"})
    await ask(app, "GET", "/healthz")
    assert told == [
        ("/v1/things/{id}", "gallery.v1.Gallery.GetThing", 200, 0),
        ("(none)", "", 404, 5),
        ("/v1/things", "gallery.v1.Gallery.CreateThing", 400, 3),
        ("/healthz", "", 200, 0),
    ]


async def _leave(app: Any, target: str, invoker: FakeInvoker) -> list[Any]:
    """Send a request, and leave once the call has begun. Returns what was sent by then."""
    sent: list[Any] = []
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    task = asyncio.create_task(app(scope_of("GET", target), receive, send))
    await invoker.started.wait()
    left.set()
    async with asyncio.timeout(5):
        await task
    return sent


@pytest.mark.parametrize("target", ["/v1/things", "/v1/watch"])
async def test_w10_w11_a_client_that_leaves(target: str) -> None:
    told: list[Exchange] = []
    invoker = FakeInvoker(wait=asyncio.Event().wait, events=[None])
    sent = await _leave(gallery_app(invoker, on_finish=told.append), target, invoker)
    assert sent == []
    assert invoker.cancelled.is_set()
    assert [(exchange.http_status, exchange.code) for exchange in told] == [(499, code_pb2.CANCELLED)]


async def test_w10_an_invoker_that_turns_cancellation_into_a_status() -> None:
    class Stubborn(FakeInvoker):
        async def unary(self, call: Any) -> Any:
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise failed(1) from None

    invoker = Stubborn()
    assert await _leave(gallery_app(invoker), "/v1/things", invoker) == []


async def test_a_cancelled_server_task_stays_cancelled() -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_: Any) -> None:
        raise AssertionError

    task = asyncio.create_task(gallery_app(invoker)(scope_of("GET", "/v1/things"), receive, send))
    await invoker.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert invoker.cancelled.is_set()


async def test_a_body_that_never_comes() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(event: Any) -> None:
        sent.append(event)

    scope = scope_of("POST", "/v1/things", [("content-length", "5")])
    async with asyncio.timeout(5):
        await gallery_app(limits=FAST)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == 4


async def test_w12_draining_turns_new_requests_away() -> None:
    invoker = FakeInvoker()
    app = gallery_app(invoker, drain_retry_s=1.5)
    app.drain()
    answer = await ask(app, "GET", "/v1/things")
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, 14, "2")
    assert answer.detail("RetryInfo") == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}
    assert answer.headers["connection"] == "close"
    assert not invoker.calls
    assert (await ask(app, "GET", "/readyz")).status == 503
    assert (await ask(app, "GET", "/healthz")).status == 200


async def test_w12_a_stream_that_draining_overtakes() -> None:
    invoker = FakeInvoker(events=[gallery_class("Event")()])
    app = gallery_app(invoker)
    sent: list[Any] = []

    async def receive() -> Any:
        app.drain()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope_of("POST", "/v1/watch", [("content-length", "2")]), receive, send)
    assert sent[0]["status"] == 503
    assert not invoker.calls


async def test_w12_draining_lets_unary_calls_finish() -> None:
    go = asyncio.Event()
    invoker = FakeInvoker(wait=go.wait)
    app = gallery_app(invoker)
    task = asyncio.create_task(ask(app, "GET", "/v1/things"))
    await invoker.started.wait()
    app.drain()
    go.set()
    answer: Answer = await task
    assert answer.status == 200


async def test_lifespan_is_acknowledged() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await gallery_app()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_other_protocols_are_not_served() -> None:
    with pytest.raises(NotImplementedError):
        await gallery_app()({"type": "websocket"}, None, None)  # type: ignore[arg-type]
