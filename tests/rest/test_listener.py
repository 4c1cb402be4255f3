"""The listener on a real port: the limits that servers under a transcoder lack (section 8 of the transcoding rules)."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from service.rest import Listener, ListenerLimits
from service.rest import listener as listener_module
from service.rest.exchange import CLIENT_LEAVES
from service.rest.transport import PatientTransport
from tests.rest.kit import FakeInvoker, gallery_app, gallery_class
from tests.rest.wire import IMPATIENT, connected, serving, wired
from tests.support.attacks import ATTACKS, Attack, Tally, Target, besiege

_LEAVERS = {"slow head", "slow body", "2 MiB bodies, never ended", "single bytes", "endless chunked body"}
OK = b"HTTP/1.1 200 OK"


def _error(raw: bytes) -> tuple[int, Any]:
    """Parse an error response that ends the connection."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    parsed = json.loads(body)
    request_id = parsed["details"][0]["metadata"]["requestId"]
    assert f"x-request-id: {request_id}".encode() in head.split(b"\r\n")
    return int(head.split()[1]), parsed


async def test_serves_and_keeps_the_connection() -> None:
    async with wired(gallery_app()) as wire:
        for number in range(3):
            await wire.post(f"/v1/things/{number}", b'{"stringValue":"x"}')
            answer = await wire.answer()
            assert (answer.status, answer.json["id"], answer.json["stringValue"]) == (200, str(number), "x")
        assert "date" in answer.headers
        assert "server" not in answer.headers


class _Written:
    """A transport that notes what it is given."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_head_and_its_body_are_one_write(monkeypatch: pytest.MonkeyPatch, connection: str) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(
        listener_module,
        "PatientTransport",
        lambda transport, *args: PatientTransport(_Written(transport, writes), *args),
    )
    async with wired(gallery_app()) as wire:
        await wire.post("/v1/things/1", b'{"stringValue":"x"}', f"Connection: {connection}")
        assert (await wire.answer()).json["stringValue"] == "x"
    [written] = writes
    assert written.startswith(OK)
    assert written.endswith(b"}")


async def test_gives_the_port_and_takes_a_taken_one_badly() -> None:
    async with serving(gallery_app()) as listener:
        assert listener.port > 0
        with pytest.raises(OSError, match="in use"):
            await Listener(gallery_app(), port=listener.port).start()


async def test_stop_without_start() -> None:
    await Listener(gallery_app()).stop()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("", id="no-byte"),
        pytest.param("GET /v1/things HT", id="half-a-request-line"),
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: h\r\nX-A: ", id="half-a-header"),
    ],
)
async def test_a_head_that_does_not_come(sent: str) -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.send(sent)
        raw = await wire.closed()
    if sent:
        status, body = _error(raw)
        assert (status, body["code"], body["details"][0]["reason"]) == (408, 4, "REQUEST_TIMEOUT")
    else:
        assert raw == b""


async def test_a_head_that_drips() -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        reading = asyncio.create_task(wire.closed())
        for byte in b"GET /v1/things HTTP/1.1\r\nX-A: " + b"a" * 1000:
            if reading.done():
                break
            await wire.send(bytes([byte]))
            await asyncio.wait([reading], timeout=0.02)
        assert _error(await reading)[0] == 408


@pytest.mark.parametrize("length", ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_does_not_come(length: str) -> None:
    invoker = FakeInvoker()
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.send(f"POST /v1/things HTTP/1.1\r\nHost: h\r\n{length}\r\n")
        status, body = _error(await wire.closed())
    assert (status, body["code"], body["details"][0]["domain"]) == (408, 4, "wire.test")
    assert not invoker.calls


async def test_a_slow_answer_is_not_a_slow_request() -> None:
    go = asyncio.Event()
    invoker = FakeInvoker(wait=go.wait)
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.post("/v1/things", b"{}")
        await asyncio.wait_for(invoker.started.wait(), 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * IMPATIENT.body_timeout_s):
                await wire.head()
        go.set()
        assert (await wire.answer()).status == 200


async def test_an_idle_connection_is_closed_after_the_keep_alive() -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.get("/v1/things")
        assert (await wire.answer()).status == 200
        assert await wire.closed() == b""


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: h\r\nX-A: " + "a" * 5000 + "\r\n\r\n", id="one-long-header"),
        pytest.param("GET /v1/things HTTP/1.1\r\n" + "X-A: a\r\n" * 1000 + "\r\n", id="many-headers"),
        pytest.param("GET /v1/things?" + "a" * 5000 + " HTTP/1.1\r\nHost: h\r\n\r\n", id="long-url"),
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: h\r\nX-A: " + "a" * 300_000, id="endless-header"),
    ],
)
async def test_heads_that_are_too_large(head: str) -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.send(head)
        status, body = _error(await wire.closed())
    assert (status, body["code"], body["details"][0]["reason"]) == (431, 8, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        pytest.param("X-A: ", 408, id="half-a-head"),
        pytest.param("X-A: " + "a" * 5000 + "\r\n\r\n", 431, id="long-head"),
        pytest.param("Host: i\r\n\r\n", 400, id="two-hosts"),
        pytest.param("Content-Length: 2\r\n\r\n{", 408, id="half-a-body"),
    ],
)
async def test_errors_below_http_name_the_request_as_the_client_did(rest: str, status: int) -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.get("/v1/things", "X-Request-Id: before")
        await wire.answer()
        await wire.send(f"POST /v1/things HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n{rest}")
        found, body = _error(await wire.closed())
    assert (found, body["details"][0]["metadata"]) == (status, {"requestId": "mine"})


async def test_errors_below_http_never_name_the_request_before() -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.get("/v1/things", "X-Request-Id: before")
        await wire.answer()
        await wire.send("rubbish\r\n\r\n")
        _, body = _error(await wire.closed())
    assert len(body["details"][0]["metadata"]["requestId"]) == 16


@pytest.mark.parametrize(
    ("opening", "rest"),
    [
        pytest.param("0\r\n", "X-A: a\r\n" * 1000, id="many-trailers"),
        pytest.param("0\r\nX-A: ", "a" * 1000, id="one-trailer"),
        pytest.param("1;a=", "a" * 1000, id="chunk-extension"),
    ],
)
async def test_what_is_no_content_of_a_chunked_body_is_bounded_too(opening: str, rest: str) -> None:
    invoker = FakeInvoker()
    patient = replace(IMPATIENT, body_timeout_s=60)
    async with wired(gallery_app(invoker), patient) as wire:
        await wire.send(f"POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{opening}")
        reading = asyncio.create_task(wire.closed())
        for _ in range(1000):
            if reading.done():
                break
            await wire.send(rest)
            await asyncio.wait([reading], timeout=0.001)
        status, body = _error(await reading)
    assert (status, body["details"][0]["reason"]) == (431, "HEADERS_TOO_LARGE")
    assert not invoker.calls


async def test_trailers_are_not_headers() -> None:
    invoker = FakeInvoker()
    async with wired(gallery_app(invoker)) as wire:
        await wire.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await wire.send("0\r\nX-Request-Id: late\r\n\r\n")
        assert (await wire.answer()).status == 200
        await wire.get("/v1/things")
        assert (await wire.answer()).status == 200
    assert all("late" not in dict(call.metadata).values() for call in invoker.calls)


async def test_a_client_that_goes_on_sending_behind_a_refusal_is_not_read_for_long() -> None:
    limits = replace(IMPATIENT, linger_s=60)
    async with wired(gallery_app(), limits) as wire:
        await wire.send("rubbish\r\n\r\n")
        assert _error(await wire.closed())[0] == 400
        sending = asyncio.create_task(wire.send(*[b"x" * 1_000_000] * 64))
        done, _ = await asyncio.wait([sending], timeout=1)
        assert not done
        sending.cancel()
        wire.writer.transport.abort()


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param(
            "POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length-and-chunked",
        ),
        pytest.param(
            "POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            id="chunked-and-length",
        ),
        pytest.param(
            "POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two-lengths"
        ),
        pytest.param("POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\n{}", id="signed-length"),
        pytest.param(
            "POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            id="chunked-not-last",
        ),
        pytest.param(
            "POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad-chunk-size"
        ),
        pytest.param("GET /v1/things HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two-hosts"),
        pytest.param("GET /v1/\xe9 HTTP/1.1\r\nHost: h\r\n\r\n", id="P15-raw-eight-bit"),
        pytest.param("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", id="P15-authority"),
        pytest.param("GET v1/things HTTP/1.1\r\nHost: h\r\n\r\n", id="P15-relative"),
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n", id="bad-header-name"),
        pytest.param("GET /v1/things HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", id="nul-in-header"),
        pytest.param("rubbish\r\n\r\n", id="rubbish"),
        pytest.param("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
    ],
)
async def test_requests_that_are_not_http(request_text: str) -> None:
    invoker = FakeInvoker()
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.send(request_text)
        status, body = _error(await wire.closed())
    assert (status, body["code"], body["details"][0]["reason"]) == (400, 3, "INVALID_REQUEST")
    assert not invoker.calls


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param("http://other/v1/things/a%2Fb", "a/b", id="P15-absolute-form"),
        pytest.param("/v1/things/a%2Fb", "a/b", id="P1-encoded-slash"),
        pytest.param("/v1/things/%2e%2e", "..", id="P14-dots"),
        pytest.param("/v1/things/a+b", "a+b", id="P11-plus"),
    ],
)
async def test_targets_reach_the_shim_as_sent(target: str, path: str) -> None:
    async with wired(gallery_app()) as wire:
        await wire.get(target)
        assert (await wire.answer()).json["id"] == path


async def test_p15_asterisk_form() -> None:
    async with wired(gallery_app()) as wire:
        await wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.detail("ErrorInfo")["reason"]) == (400, "INVALID_URL")


@pytest.mark.parametrize("target", ["//v1/things", "/v1/x/../things", "/v1//things", "/v1/./things"])
async def test_p14_no_normalising(target: str) -> None:
    async with wired(gallery_app()) as wire:
        await wire.get(target)
        assert (await wire.answer()).status in (404, 405)


async def test_l1_a_large_body_is_answered_early_and_read_away() -> None:
    async with wired(gallery_app()) as wire:
        await wire.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        for _ in range(80):
            await wire.send(b" " * 100_000)
        assert await wire.closed() == b""


async def test_l1_a_chunked_body_is_counted() -> None:
    async with wired(gallery_app()) as wire:
        await wire.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            await wire.send(b"%x\r\n" % 100_000, b" " * 100_000, b"\r\n")
        assert (await wire.answer()).status == 413


async def test_b5_a_small_unwanted_body_does_not_cost_the_connection() -> None:
    async with wired(gallery_app()) as wire:
        for target in ("/nope", "/v1/things/me"):
            await wire.post(target, b"{}" * 1000)
            assert (await wire.answer()).status in (404, 400)
        await wire.get("/v1/things")
        assert (await wire.answer()).status == 200


async def test_expect_100_continue() -> None:
    async with wired(gallery_app()) as wire:
        await wire.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await wire.head()).status == 100
        await wire.send("{}")
        assert (await wire.answer()).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.send(*(f"GET /v1/things/{number} HTTP/1.1\r\nHost: h\r\n\r\n" for number in range(4)))
        assert [(await wire.answer()).json["id"] for _ in range(4)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("together", [3, 1])
async def test_a_client_that_leaves_is_noticed_behind_pipelined_requests(
    together: int, caplog: pytest.LogCaptureFixture
) -> None:
    go = asyncio.Event()
    invoker = FakeInvoker(wait=go.wait)
    request = "GET /v1/things HTTP/1.1\r\nHost: h\r\n\r\n"
    async with serving(gallery_app(invoker)) as listener:
        async with connected(listener) as wire:
            await wire.send(request * together)
            await asyncio.wait_for(invoker.started.wait(), 5)
            await wire.send(request)
            await asyncio.sleep(0.05)  # it has been read, or never will be
            wire.reset()
            await asyncio.wait_for(invoker.cancelled.wait(), 5)
        await asyncio.wait_for(listener.wait_until_empty(), 5)
        go.set()
    assert len(invoker.calls) == 1
    assert caplog.records == []


async def test_who_asks_late_is_told_that_the_client_has_left() -> None:
    told = asyncio.Event()

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope["extensions"][CLIENT_LEAVES]["tell"](told.set)
        assert not told.is_set()  # soon, not at once
        await told.wait()

    async with wired(app) as wire:
        await wire.get("/")
        wire.reset()
        await asyncio.wait_for(told.wait(), 5)


async def test_too_many_pipelined_requests_end_the_connection() -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait)
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.send("GET /v1/things HTTP/1.1\r\nHost: h\r\n\r\n" * 50)
        assert await wire.closed() == b""
    assert len(invoker.calls) <= 1


@pytest.mark.parametrize("second", ["rubbish\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nX-A: " + "a" * 5000 + "\r\n\r\n"])
async def test_a_bad_request_behind_another_never_passes_for_its_answer(second: str) -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait)
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.get("/v1/things")
        await asyncio.wait_for(invoker.started.wait(), 5)
        await wire.send(second)
        assert await wire.closed() == b""
        await asyncio.wait_for(invoker.cancelled.wait(), 5)


async def test_half_a_request_behind_another_does_not_end_it() -> None:
    go = asyncio.Event()
    invoker = FakeInvoker(wait=go.wait)
    async with wired(gallery_app(invoker), IMPATIENT) as wire:
        await wire.send("GET /v1/things HTTP/1.1\r\nHost: h\r\n\r\nGET /v1/th")
        await asyncio.wait_for(invoker.started.wait(), 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * IMPATIENT.head_timeout_s):
                await wire.head()
        go.set()
        assert (await wire.answer()).status == 200
        assert _error(await wire.closed())[0] == 408


async def test_a_large_body_before_the_next_head_is_not_counted_as_head() -> None:
    body = b'{"stringValue":"' + b"x" * 50_000 + b'"}'
    async with wired(gallery_app(), IMPATIENT) as wire:
        for _ in range(3):
            await wire.post("/v1/things", body)
        await wire.get("/v1/things")
        assert [(await wire.answer()).status for _ in range(4)] == [200] * 4


async def test_an_unread_body_that_stops_coming_ends_the_connection_without_a_word() -> None:
    async with wired(gallery_app(), IMPATIENT) as wire:
        await wire.send("POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n")
        assert (await wire.answer()).status == 404
        assert await wire.closed() == b""


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_upgrades_are_not_made(protocol: str) -> None:
    async with wired(gallery_app()) as wire:
        await wire.get("/v1/things", "Connection: Upgrade", f"Upgrade: {protocol}")
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.closed() == b""


async def test_http_1_0() -> None:
    async with wired(gallery_app()) as wire:
        await wire.send("GET /v1/things HTTP/1.0\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.closed() == b""


async def test_too_many_connections() -> None:
    async with serving(gallery_app(), ListenerLimits(max_connections=1)) as listener, connected(listener) as first:
        await first.get("/v1/things")
        assert (await first.answer()).status == 200
        async with connected(listener) as second:
            status, body = _error(await second.closed())
        assert (status, body["code"], body["details"][0]["reason"]) == (503, 14, "OVERLOADED")
        await first.get("/v1/things")
        assert (await first.answer()).status == 200


async def test_large_bodies_are_refused_while_others_hold_too_much() -> None:
    limits = ListenerLimits(max_held_body_bytes=300_000)
    app = gallery_app()
    async with serving(app, limits) as listener, connected(listener) as holder, connected(listener) as wire:
        await holder.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: 250000\r\n\r\n", " " * 249_000)
        large, small = (b'{"stringValue":"' + b"x" * size + b'"}' for size in (100_000, 50_000))
        await wire.post("/v1/things", small)
        assert (await wire.answer()).status == 200
        await wire.post("/v1/things", large)
        refusal = await wire.head()
        assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
        holder.reset()
        await _until(lambda: listener.connections == 0)
        async with connected(listener) as later:
            for _ in range(4):  # each is let go of when it is answered
                await later.post("/v1/things", large)
                assert (await later.answer()).status == 200


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody here could set an event
            await asyncio.sleep(0.01)


def _hardly_reading(listener: Listener) -> socket.socket:
    """Connect with little room for what is not read."""
    sock = socket.create_connection((listener.host, listener.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    return sock


async def test_who_has_left_answers_unread_longest_goes_first() -> None:
    invoker = FakeInvoker(gallery_class("Thing")(id="x" * 20_000_000))
    async with serving(gallery_app(invoker), ListenerLimits(max_unread_bytes=44_000_000)) as listener:
        async with AsyncExitStack() as stack:
            wires = []
            for number in range(4):
                wire = await stack.enter_async_context(connected(listener, sock=_hardly_reading(listener), limit=1000))
                await wire.get("/v1/things")
                await wire.head()
                wires.append(wire)
                await _until(lambda number=number: len(invoker.calls) == number + 1)  # type: ignore[misc]
            await _until(lambda: listener.connections == 2)
            for wire in wires[:2]:
                assert len(await wire.closed()) < 20_000_000
            for wire in wires[2:]:
                assert len(await wire._within(wire.reader.readexactly(20_000_000))) == 20_000_000
        await asyncio.wait_for(listener.wait_until_empty(), 10)


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.name in _LEAVERS], ids=str)
async def test_no_task_outlives_the_attackers(attack: Attack) -> None:
    before = asyncio.all_tasks()
    tally = Tally()
    async with serving(gallery_app()) as listener:
        target = Target(listener.host, listener.port)
        besieging = asyncio.create_task(besiege(attack, target, tally, attackers=20, within_s=0.2))
        await _until(lambda: tally.begun == 20 and listener.connections > 0)
        besieging.cancel()
        await asyncio.wait([besieging])
        await asyncio.wait_for(listener.wait_until_empty(), 10)
        await _until(lambda: asyncio.all_tasks() <= before)


async def test_stop_lets_an_answer_finish_within_the_grace() -> None:
    go = asyncio.Event()
    invoker = FakeInvoker(wait=go.wait)
    async with serving(gallery_app(invoker)) as listener, connected(listener) as busy, connected(listener) as idle:
        await busy.get("/v1/things")
        await asyncio.wait_for(invoker.started.wait(), 5)
        stopping = asyncio.create_task(listener.stop(grace_s=5))
        assert await idle.closed() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(listener.host, listener.port)
        go.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await asyncio.wait_for(stopping, 5)


async def test_stop_lets_what_is_written_be_sent() -> None:
    size = 10_000_000
    invoker = FakeInvoker(gallery_class("Thing")(id="x" * size))
    async with serving(gallery_app(invoker)) as listener, connected(listener) as wire:
        await wire.get("/v1/things")
        await wire.head()
        stopping = asyncio.create_task(listener.stop(grace_s=1))
        assert len(await wire.closed()) > size
        await asyncio.wait_for(stopping, 5)


async def test_stop_cancels_what_outlives_the_grace() -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait)
    async with serving(gallery_app(invoker)) as listener, connected(listener) as wire:
        await wire.get("/v1/things")
        await asyncio.wait_for(invoker.started.wait(), 5)
        async with asyncio.timeout(5):
            await listener.stop(grace_s=0.05)
        assert invoker.cancelled.is_set()
        assert OK not in await wire.closed()


async def test_stop_ends_a_request_that_is_still_coming_as_if_its_client_had_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(gallery_app()) as listener, connected(listener) as wire:
        await wire.send("POST /v1/things HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n")
        await _until(lambda: bool(listener.connections))
        await listener.stop()
        assert await wire.closed() == b""
    assert caplog.records == []


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
async def test_a_reader_that_stalls_on_a_large_answer_is_cut(headers: tuple[str, ...]) -> None:
    invoker = FakeInvoker(gallery_class("Thing")(id="x" * 20_000_000))
    async with serving(gallery_app(invoker), IMPATIENT) as listener, connected(listener, limit=1) as wire:
        await wire.get("/v1/things", *headers)
        await asyncio.wait_for(invoker.started.wait(), 5)
        await asyncio.wait_for(listener.wait_until_empty(), 10)


async def test_a_reader_that_is_only_slow_gets_it_all() -> None:
    size = 6_000_000
    invoker = FakeInvoker(gallery_class("Thing")(id="x" * size))
    async with (
        serving(gallery_app(invoker), IMPATIENT) as listener,
        connected(listener, sock=_hardly_reading(listener), limit=10_000) as wire,
    ):
        await wire.get("/v1/things", "Connection: close")
        await wire.head()
        read = 0
        while data := await wire.reader.read(200_000):
            read += len(data)
            await asyncio.sleep(IMPATIENT.write_timeout_s / 100)
        assert read > size
