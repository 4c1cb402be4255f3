"""Bodies that go to the RPC in pieces, while they come: rule S11 of the transcoding rules, as asked for."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from google.api.http_pb2 import HttpRule

from service.rest import Limits, ListenerLimits, RestApp
from tests.rest.kit import FAST, Answer, FakeInvoker, ask, failed, service_with
from tests.rest.wire import Wire, wired
from tests.support.waiting import until

TYPE = {"Content-Type": "application/x-ndjson"}
MIB = 1024 * 1024


def upload_app(invoker: FakeInvoker, limits: Limits = FAST, **options: Any) -> RestApp:
    rules = HttpRule(post="/v1/parts/{id}", body="file"), HttpRule(post="/v1/parts", body="file")
    service = service_with(*rules, takes="Part", client_streaming=True)
    return RestApp([service], invoker, domain="upload.test", uploads=True, limits=limits, **options)


def files(invoker: FakeInvoker) -> bytes:
    """The file that an invoker got, and nothing else behind the first request."""
    first, *rest = invoker.requests
    assert (first.file.data, {request.id for request in rest} - {""}) == (b"", set())
    assert all(request.file.data and not request.file.content_type for request in rest)
    return b"".join(request.file.data for request in rest)


async def begin(wire: Wire, *headers: str) -> None:
    """Send the head of an upload."""
    await wire.send("\r\n".join(["POST /v1/parts/x HTTP/1.1", "Host: h", "Content-Type: a/b", *headers, "", ""]))


async def send_chunk(wire: Wire, data: bytes) -> None:
    await wire.send(f"{len(data):x}\r\n", data, "\r\n")


async def has_come(invoker: FakeInvoker, count: int) -> bool:
    return len(invoker.requests) >= count


async def has_taken(invoker: FakeInvoker, size: int) -> bool:
    return sum(len(request.file.data) for request in invoker.requests) >= size


def reason(answer: Answer) -> str:
    return str(answer.detail("ErrorInfo")["reason"])


async def test_s11_the_first_request_has_path_query_and_type_and_the_others_the_body() -> None:
    invoker = FakeInvoker()
    answer = await ask(upload_app(invoker), "POST", "/v1/parts?id=x", b"some bytes", TYPE)
    assert (answer.status, answer.json["id"]) == (200, "")
    assert (invoker.requests[0].id, invoker.requests[0].file.content_type) == ("x", "application/x-ndjson")
    assert files(invoker) == b"some bytes"
    await ask(upload_app(invoker), "POST", "/v1/parts/y", b"\xff\x00", TYPE)
    assert (invoker.requests[0].id, files(invoker)) == ("y", b"\xff\x00")


@pytest.mark.parametrize("body", [None, b""])
async def test_s11_no_body_is_an_empty_file(body: bytes | None) -> None:
    invoker = FakeInvoker()
    assert (await ask(upload_app(invoker), "POST", "/v1/parts/x", body)).status == 200
    assert (len(invoker.requests), files(invoker)) == (1, b"")


@pytest.mark.parametrize("target", ["/v1/parts/x?id=y", "/v1/parts?nothing=1", "/v1/parts?file.data=eA"])
async def test_s11_refuses_a_bad_query_before_the_call(target: str) -> None:
    invoker = FakeInvoker()
    answer = await ask(upload_app(invoker), "POST", target, b"body", TYPE)
    assert (answer.status, invoker.calls, invoker.requests) == (400, [], [])


async def test_s11_a_compressed_body_is_refused() -> None:
    answer = await ask(upload_app(FakeInvoker()), "POST", "/v1/parts", b"x", {"Content-Encoding": "gzip"})
    assert answer.status == 415


async def test_s11_the_rpc_gets_pieces_while_they_come() -> None:
    invoker = FakeInvoker()
    async with wired(upload_app(invoker)) as wire:
        await begin(wire, "Transfer-Encoding: chunked")
        for number in range(3):
            await send_chunk(wire, b"%d" % number)
            await until(partial(has_come, invoker, number + 2))
        assert files(invoker) == b"012"
        assert invoker.calls == []
        await wire.send("0\r\n\r\n")
        assert (await wire.answer()).status == 200
        await begin(wire, "Content-Length: 4")
        await wire.send(b"next")
        assert (await wire.answer()).status == 200
    assert files(invoker) == b"next"


async def test_s11_a_body_is_not_read_faster_than_the_rpc_takes_it() -> None:
    steps = asyncio.Semaphore(0)
    invoker = FakeInvoker(wait=steps.acquire)
    limits = replace(FAST, write_timeout_s=10, body_timeout_s=10)
    async with wired(upload_app(invoker, limits)) as wire:
        await begin(wire, f"Content-Length: {32 * MIB}")
        sending = asyncio.create_task(wire.send(bytes(32 * MIB)))
        await invoker.started.wait()
        await asyncio.wait([sending], timeout=0.3)
        assert not sending.done()  # the sockets between cannot hold it
        assert sum(len(request.file.data) for request in invoker.requests) < 2 * MIB
        for _ in range(1000):
            steps.release()
        await sending
        while not invoker.calls:
            steps.release()
            await asyncio.sleep(0)
        assert (await wire.answer()).status == 200
    assert len(files(invoker)) == 32 * MIB


@pytest.mark.parametrize("length", ["Content-Length: 101", "Transfer-Encoding: chunked"])
async def test_s11_a_body_beyond_its_own_limit_is_refused(length: str) -> None:
    invoker = FakeInvoker()
    limits = replace(FAST, max_upload_bytes=100, max_body_bytes=10)
    async with wired(upload_app(invoker, limits)) as wire:
        await begin(wire, length)
        await (send_chunk(wire, bytes(101)) if "chunked" in length else wire.send(bytes(101)))
        answer = await wire.answer()
        assert (answer.status, reason(answer)) == (413, "BODY_TOO_LARGE")
        assert "100 bytes" in answer.json["message"]
    assert invoker.calls == []
    assert invoker.cancelled.is_set() == ("chunked" in length)


async def test_s11_a_body_within_its_own_limit_may_be_longer_than_others() -> None:
    invoker = FakeInvoker()
    limits = replace(FAST, max_upload_bytes=100, max_body_bytes=10, max_message_bytes=10)
    assert (await ask(upload_app(invoker, limits), "POST", "/v1/parts", bytes(100), TYPE)).status == 200
    assert len(files(invoker)) == 100


async def test_s11_a_body_that_does_not_go_on_ends_the_call() -> None:
    invoker = FakeInvoker()
    async with wired(upload_app(invoker)) as wire:
        await begin(wire, "Transfer-Encoding: chunked")
        await send_chunk(wire, b"begin")
        answer = await wire.answer()
    assert (answer.status, reason(answer)) == (408, "REQUEST_TIMEOUT")
    assert invoker.cancelled.is_set()


async def test_s11_a_body_that_goes_on_may_take_longer_than_others() -> None:
    invoker = FakeInvoker()
    limits = ListenerLimits(body_timeout_s=1.5)
    async with wired(upload_app(invoker, replace(FAST, body_timeout_s=5)), limits) as wire:
        await begin(wire, f"Content-Length: {8 * MIB}")
        for _ in range(8):
            await wire.send(bytes(MIB))
            await asyncio.sleep(0.3)
        assert (await wire.answer()).status == 200
    assert len(files(invoker)) == 8 * MIB


async def test_s11_a_body_may_be_longer_than_all_bodies_that_are_held() -> None:
    invoker = FakeInvoker()
    limits = ListenerLimits(max_held_body_bytes=2 * MIB)
    async with wired(upload_app(invoker, replace(FAST, max_upload_bytes=8 * MIB)), limits) as wire:
        await begin(wire, f"Content-Length: {6 * MIB}")
        for number in range(1, 25):
            await wire.send(bytes(MIB // 4))
            await until(partial(has_taken, invoker, number * MIB // 4))
        assert (await wire.answer()).status == 200
    assert len(files(invoker)) == 6 * MIB


async def test_s11_a_client_that_leaves_ends_the_call() -> None:
    invoker = FakeInvoker()
    async with wired(upload_app(invoker, replace(FAST, body_timeout_s=10))) as wire:
        await begin(wire, "Content-Length: 10")
        await invoker.started.wait()
        wire.reset()
        async with asyncio.timeout(5):
            await invoker.cancelled.wait()
    assert invoker.calls == []


async def test_s11_the_deadline_ends_the_call() -> None:
    invoker = FakeInvoker()
    limits = replace(FAST, stream_timeout_s=0.05, unary_timeout_s=60, body_timeout_s=10)
    async with wired(upload_app(invoker, limits)) as wire:
        await begin(wire, "Content-Length: 10")
        answer = await wire.answer()
    assert (answer.status, reason(answer)) == (504, "CALLER_DEADLINE_EXCEEDED")
    assert invoker.cancelled.is_set()


async def test_s11_a_failure_before_the_end_of_the_body_is_seen() -> None:
    class Hasty(FakeInvoker):
        async def upload(self, call: Any, requests: Any) -> Any:
            await anext(requests)
            await anext(requests)
            raise failed(3, "not that")

    async with wired(upload_app(Hasty(), replace(FAST, drain_timeout_s=5))) as wire:
        await begin(wire, f"Content-Length: {4 * MIB}")
        await wire.send(bytes(4 * MIB))
        answer = await wire.answer()
    assert (answer.status, answer.json["message"]) == (400, "not that")


async def test_s11_a_fault_of_the_service_tells_nothing() -> None:
    answer = await ask(upload_app(FakeInvoker(reply=ValueError("secret"))), "POST", "/v1/parts", b"x", TYPE)
    assert (answer.status, b"secret" in answer.body) == (500, False)


async def test_s11_the_openapi_document_describes_it() -> None:
    document = json.loads((await ask(upload_app(FakeInvoker()), "GET", "/openapi.json")).body)
    operation = document["paths"]["/v1/parts"]["post"]
    assert operation["requestBody"]["content"] == {"*/*": {}}
    assert [parameter["name"] for parameter in operation["parameters"]] == ["id"]
    assert "application/json" in operation["responses"]["200"]["content"]
