"""Streamed answers on a real port: rules W1 to W14 of the transcoding rules."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from service.rest import Call, Limits
from service.rest.exchange import Exchange
from tests.rest.kit import FAST, FakeInvoker, ask, failed, gallery_app, gallery_class
from tests.rest.wire import IMPATIENT, connected, lines, serving, wired

EVENTS = "Accept: text/event-stream"


def event(number: int, name: str = "e") -> Any:
    return gallery_class("Event")(name=name, number=number)


def names(message: Any) -> str:
    return str(message.name)


class Steps:
    """Lets a stream go on one step at a time."""

    def __init__(self) -> None:
        self._steps = asyncio.Semaphore(0)

    async def wait(self) -> None:
        await self._steps.acquire()

    def go(self) -> None:
        self._steps.release()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param("text/event-stream", "text/event-stream", id="W1-events"),
        pytest.param("Text/Event-Stream; q=0.5, */*", "text/event-stream", id="W1-among-others"),
        pytest.param("application/x-ndjson", "application/x-ndjson", id="W1-lines"),
        pytest.param("text/event-stream;q=0", "application/x-ndjson", id="W1-refused-events"),
        pytest.param("application/json", "application/x-ndjson", id="W1-json"),
        pytest.param("*/*", "application/x-ndjson", id="W1-anything"),
    ],
)
async def test_w1_accept_selects_the_form(accept: str, content_type: str) -> None:
    answer = await ask(gallery_app(FakeInvoker(events=[event(1)])), "GET", "/v1/watch", None, {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)


async def test_w1_a_post_stream_takes_a_body() -> None:
    invoker = FakeInvoker(events=[event(1)])
    answer = await ask(gallery_app(invoker), "POST", "/v1/watch", {"id": "x"})
    assert lines(answer.body) == [{"result": {"name": "e", "number": 1}}, {"result": {}, "done": True}]
    assert invoker.call.request.id == "x"


async def test_s8_response_body_makes_the_records() -> None:
    answer = await ask(gallery_app(FakeInvoker(events=[event(1)])), "GET", "/v1/watch/names")
    assert lines(answer.body) == [{"result": "e"}, {"result": None, "done": True}]


async def test_w2_w5_lines() -> None:
    async with wired(gallery_app(FakeInvoker(events=[event(1), event(2)]))) as wire:
        await wire.get("/v1/watch")
        answer = await wire.answer()
    assert (
        answer.body
        == b'{"result":{"name":"e","number":1}}\n{"result":{"name":"e","number":2}}\n{"result":{},"done":true}\n'
    )


async def test_w2_w5_w7_events() -> None:
    app = gallery_app(FakeInvoker(events=[event(1, "c1"), event(2, "two\nlines \u2028")]), event_id=names)
    async with wired(app) as wire:
        await wire.get("/v1/watch", EVENTS)
        answer = await wire.answer()
    assert answer.body.decode().split("\n\n") == [
        'id: c1\ndata: {"name":"c1","number":1}',
        'data: {"name":"two\\nlines \u2028","number":2}',
        "event: done\ndata: {}",
        "",
    ]


@pytest.mark.parametrize("event_id", ["", "a\nb", "a\rb", "a\0b"])
async def test_w7_ids_that_would_break_the_framing_are_left_out(event_id: str) -> None:
    app = gallery_app(FakeInvoker(events=[event(1)]), event_id=lambda _: event_id)
    answer = await ask(app, "GET", "/v1/watch", None, {"Accept": "text/event-stream"})
    assert answer.body.startswith(b"data: ")


async def test_w2_a_stream_without_a_message() -> None:
    answer = await ask(gallery_app(), "GET", "/v1/watch", None, {"Accept": "text/event-stream"})
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    answer = await ask(gallery_app(), "GET", "/v1/watch")
    assert (answer.status, answer.body) == (200, b'{"result":{},"done":true}\n')


@pytest.mark.parametrize("headers", [(), (EVENTS,)])
async def test_w3_an_early_failure_has_its_own_status(headers: tuple[str, ...]) -> None:
    invoker = FakeInvoker(events=[failed(5, "no such thing")], initial_metadata=[("turn-id", "t")])
    async with wired(gallery_app(invoker)) as wire:
        await wire.get("/v1/watch", *headers)
        answer = await wire.answer()
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert answer.headers["grpc-metadata-turn-id"] == "t"
    assert answer.json == {"code": 5, "message": "no such thing", "details": []}


async def test_w4_a_late_failure_is_the_last_line() -> None:
    told: list[Exchange] = []
    app = gallery_app(FakeInvoker(events=[event(1), failed(14, "late")]), on_finish=told.append)
    async with wired(app) as wire:
        await wire.get("/v1/watch")
        answer = await wire.answer()
    assert answer.status == 200
    assert lines(answer.body)[1:] == [{"error": {"code": 14, "message": "late", "details": []}}]
    assert (told[0].http_status, told[0].code) == (200, 14)


async def test_w4_a_late_failure_is_the_last_event() -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000))
    async with wired(gallery_app(FakeInvoker(events=[event(1), failed(14, "late", retry)]))) as wire:
        await wire.get("/v1/watch", EVENTS)
        answer = await wire.answer()
    last = answer.body.decode().split("\n\n")[-2]
    assert last.startswith('event: status\nretry: 250\ndata: {"code":14,"message":"late","details":[{"@type":')


async def test_w4_r6_a_late_exception_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await ask(gallery_app(FakeInvoker(events=[event(1), RuntimeError("secret")])), "GET", "/v1/watch")
    error = lines(answer.body)[-1]["error"]
    assert (error["code"], error["message"]) == (13, "internal error")
    assert "secret" in caplog.text


async def test_w4_r6_a_message_without_a_json_form_ends_the_stream() -> None:
    invoker = FakeInvoker(events=[gallery_class("Thing")(time_value={"nanos": -1})])
    app = gallery_app(invoker)
    answer = await ask(app, "GET", "/v1/watch/names")
    assert (answer.status, answer.json["code"]) == (500, 13)
    await asyncio.wait_for(invoker.cancelled.wait(), 5)


async def test_w6_each_message_is_sent_as_it_comes() -> None:
    steps = Steps()
    async with wired(gallery_app(FakeInvoker(events=[event(1), event(2)], wait=steps.wait))) as wire:
        await wire.get("/v1/watch")
        steps.go()
        head = await wire.head()
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["x-accel-buffering"] == "no"
        assert await wire.chunk() == b'{"result":{"name":"e","number":1}}\n'
        steps.go()
        assert await wire.chunk() == b'{"result":{"name":"e","number":2}}\n'
        assert await wire.chunk() == b'{"result":{},"done":true}\n'
        assert await wire.chunk() == b""


async def test_w3_w7_heartbeats_fill_the_silence() -> None:
    steps = Steps()
    async with wired(gallery_app(FakeInvoker(events=[event(1)], wait=steps.wait), limits=FAST)) as wire:
        await wire.get("/v1/watch", EVENTS)
        assert (await wire.head()).status == 200
        assert await wire.chunk() == b":\n\n"
        assert await wire.chunk() == b":\n\n"
        steps.go()
        rest = b"".join([chunk async for chunk in wire.chunks()]).replace(b":\n\n", b"")
    assert rest == b'data: {"name":"e","number":1}\n\nevent: done\ndata: {}\n\n'


class Silent(FakeInvoker):
    """Streams nothing, and that slowly."""

    async def stream(self, call: Call) -> AsyncGenerator[Any, None]:
        await self.wait()  # type: ignore[misc]
        for nothing in ():
            yield nothing


@pytest.mark.parametrize(
    ("header", "end"), [(EVENTS, b"event: done\ndata: {}\n\n"), ("X-A: b", b'{"result":{},"done":true}\n')]
)
async def test_w3_after_the_grace_an_empty_stream_is_no_204(header: str, end: bytes) -> None:
    steps = Steps()
    async with wired(gallery_app(Silent(wait=steps.wait), limits=FAST)) as wire:
        await wire.get("/v1/watch", header)
        assert (await wire.head()).status == 200
        steps.go()
        rest = b"".join([chunk async for chunk in wire.chunks()])
    assert rest.replace(b":\n\n", b"") == end


async def test_m6_the_deadline_ends_a_stream_that_has_begun() -> None:
    steps = Steps()
    invoker = FakeInvoker(events=[event(1), event(2)], wait=steps.wait)
    async with wired(gallery_app(invoker, limits=FAST)) as wire:
        await wire.get("/v1/watch", "Grpc-Timeout: 100m")
        steps.go()
        answer = await wire.answer()
    assert [list(line) for line in lines(answer.body)] == [["result"], ["error"]]
    assert lines(answer.body)[1]["error"]["code"] == 4
    assert invoker.cancelled.is_set()


async def test_w8_a_large_record_is_one_line() -> None:
    async with wired(gallery_app(FakeInvoker(events=[event(1, "x" * 500_000)]))) as wire:
        await wire.get("/v1/watch")
        answer = await wire.answer()
    assert len(lines(answer.body)[0]["result"]["name"]) == 500_000


async def test_w9_a_client_that_does_not_read_blocks_the_rpc_and_is_cut() -> None:
    sent = 0

    async def count() -> None:
        nonlocal sent
        sent += 1

    big = event(1, "x" * 100_000)
    invoker = FakeInvoker(events=[big] * 100_000, wait=count)
    told: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
    app = gallery_app(invoker, limits=FAST, on_finish=told.set_result)
    async with serving(app, IMPATIENT) as listener, connected(listener, limit=1) as wire:
        await wire.get("/v1/watch")
        exchange = await asyncio.wait_for(told, 10)
        assert sent < 1000
        assert exchange.http_status == 499
        await asyncio.wait_for(invoker.cancelled.wait(), 5)


async def test_w10_a_client_that_leaves_cancels_the_rpc_at_once() -> None:
    steps = Steps()
    told: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
    invoker = FakeInvoker(events=[event(1), event(2)], wait=steps.wait)
    async with wired(gallery_app(invoker, on_finish=told.set_result)) as wire:
        await wire.get("/v1/watch")
        steps.go()
        await wire.head()
        wire.reset()
        await asyncio.wait_for(invoker.cancelled.wait(), 5)
        assert (await asyncio.wait_for(told, 5)).http_status == 499


async def test_w10_a_client_that_leaves_a_unary_call() -> None:
    invoker = FakeInvoker(wait=asyncio.Event().wait)
    async with wired(gallery_app(invoker)) as wire:
        await wire.post("/v1/things", b"{}")
        await asyncio.wait_for(invoker.started.wait(), 5)
        wire.reset()
        await asyncio.wait_for(invoker.cancelled.wait(), 5)


@pytest.mark.parametrize("headers", [(), (EVENTS,)])
async def test_w12_draining_ends_streams_with_a_record_of_its_own(headers: tuple[str, ...]) -> None:
    steps = Steps()
    invoker = FakeInvoker(events=[event(1), event(2)], wait=steps.wait)
    app = gallery_app(invoker)
    async with wired(app) as wire:
        await wire.get("/v1/watch", *headers)
        steps.go()
        await wire.head()
        await wire.chunk()
        app.drain()
        rest = b"".join([chunk async for chunk in wire.chunks()])
    assert b'"code":14' in rest
    assert b'"retryDelay":"1s"' in rest
    assert b"SHUTTING_DOWN" in rest
    assert rest.startswith(b"event: status\nretry: 1000\n" if headers else b'{"error":')
    assert invoker.cancelled.is_set()


async def test_w12_draining_before_the_first_message_is_503() -> None:
    invoker = FakeInvoker(events=[event(1)], wait=asyncio.Event().wait)
    app = gallery_app(invoker)
    async with wired(app) as wire:
        await wire.get("/v1/watch", EVENTS)
        await asyncio.wait_for(invoker.started.wait(), 5)
        app.drain()
        answer = await wire.answer()
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, 14, "1")


async def test_r9_files_are_streamed_raw() -> None:
    body = gallery_class("Part")().file
    pieces = []
    for data in (b"\xff\0", b"", b"z"):
        piece = type(body)(content_type="image/png", data=data)
        pieces.append(piece)
    async with wired(gallery_app(FakeInvoker(events=pieces))) as wire:
        await wire.get("/v1/watch/file", EVENTS)
        answer = await wire.answer()
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/png", b"\xff\0z")


async def test_r9_w4_a_file_that_fails_is_cut() -> None:
    piece = type(gallery_class("Part")().file)(content_type="image/png", data=b"x")
    async with wired(gallery_app(FakeInvoker(events=[piece, failed(14)]))) as wire:
        await wire.get("/v1/watch/file")
        await wire.head()
        assert await wire.chunk() == b"x"
        with pytest.raises(asyncio.IncompleteReadError):
            await wire.chunk()


async def test_many_streams_at_once() -> None:
    app = gallery_app(FakeInvoker(events=[event(number) for number in range(20)]), limits=Limits())
    async with serving(app) as listener:

        async def one() -> int:
            async with connected(listener) as wire:
                await wire.get("/v1/watch")
                return len(lines((await wire.answer()).body))

        assert await asyncio.gather(*(one() for _ in range(50))) == [21] * 50
