import asyncio
import json
import logging
import socket
import subprocess
import sys
import traceback
from contextlib import aclosing

import pytest

from service.domain.entities import FinishReason, ModelSettings, Role
from service.domain.errors import (
    ContextTooLong,
    ModelAuthenticationFailed,
    ModelError,
    ModelInvalidResponse,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelTimeout,
    ModelUnavailable,
)
from service.domain.ports import ContextMessage, Finish, ModelRequest
from service.llm.demo import DemoServer
from service.llm.openai import Limits, OpenAIModel
from tests.llm.helpers import EVENT_STREAM, KEY, MakeModel, ask, head, outcome_of, raw_server, sending

pytestmark = pytest.mark.timeout(30)

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"part "},"finish_reason":null}]}\n\n'
STOP = b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("streaming", [True, False])
async def test_gives_the_answer_and_how_it_ended(make_model: MakeModel, demo: DemoServer, streaming: bool) -> None:
    model = await make_model(demo.base_url, streaming=streaming)
    outcome = await outcome_of(model, ask("demo/echo", "Größe 🙂 über\nalles"))
    assert outcome.text == "Größe 🙂 über\nalles"
    assert outcome.finish is not None
    assert outcome.finish.finish_reason is FinishReason.STOP
    assert outcome.finish.model == "demo/echo"
    assert outcome.finish.usage is not None
    assert outcome.finish.usage.input_tokens
    assert outcome.finish.usage.output_tokens == 4


async def test_gives_text_as_it_is_written(model: OpenAIModel, demo: DemoServer) -> None:
    async with aclosing(model.stream(ask("demo/stall:chunks=1"))) as stream:
        assert await anext(stream) == "word1 "
        assert demo.tally.open == 1


async def test_sends_context_and_settings(make_model: MakeModel) -> None:
    requests: list[bytes] = []
    async with raw_server(sending(EVENT_STREAM + CHUNK + STOP + DONE), requests) as url:
        model = await make_model(url, organization="org-1", project="proj-1")
        messages = [ContextMessage(Role.SYSTEM, "be kind"), ContextMessage(Role.USER, "hi")]
        settings = ModelSettings("m1", 0.5, 0.9, 100, 7, ("END", "STOP"))
        await outcome_of(model, ModelRequest(messages, settings))
        await outcome_of(model, ask())
    sent_head, body = requests[0].split(b"\r\n\r\n")
    assert json.loads(body) == {
        "model": "m1",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 100,
        "seed": 7,
        "stop": ["END", "STOP"],
    }
    assert sent_head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    sent = dict(line.lower().split(b": ", 1) for line in sent_head.splitlines()[1:])
    assert sent[b"authorization"] == b"bearer " + KEY.lower().encode()
    assert sent[b"openai-organization"] == b"org-1"
    assert sent[b"openai-project"] == b"proj-1"
    assert sent[b"user-agent"].startswith(b"asyncopenai/python")
    assert json.loads(requests[1].split(b"\r\n\r\n")[1]) == {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_keeps_the_query_of_the_base_url_and_sends_no_key_where_there_is_none(make_model: MakeModel) -> None:
    requests: list[bytes] = []
    async with raw_server(sending(EVENT_STREAM + CHUNK + STOP), requests) as url:
        await outcome_of(
            await make_model(f"{url}/?api-version=2", api_key=None, max_tokens_field="max_tokens"),
            ask(max_output_tokens=5),
        )
    assert requests[0].startswith(b"POST /v1/chat/completions?api-version=2 HTTP/1.1\r\n")
    assert b"authorization" not in requests[0].lower()
    assert b'"max_tokens":5' in requests[0]


async def test_sends_a_context_of_several_mebibytes(make_model: MakeModel, demo: DemoServer) -> None:
    text = "x" * (3 * 2**20)
    outcome = await outcome_of(
        await make_model(demo.base_url, max_event_bytes=4 * 2**20, max_answer_bytes=4 * 2**20), ask("demo/echo", text)
    )
    assert outcome.text == text


FAULTS = [
    ("demo/error-400", ModelRefusedRequest, ""),
    ("demo/error-404", ModelRefusedRequest, ""),
    ("demo/error-422", ModelRefusedRequest, ""),
    ("demo/no-such-model", ModelRefusedRequest, ""),
    ("demo/error-context", ContextTooLong, ""),
    ("demo/error-401", ModelAuthenticationFailed, ""),
    ("demo/error-403", ModelAuthenticationFailed, ""),
    ("demo/error-429", ModelRateLimited, ""),
    ("demo/error-429-quota", ModelQuotaExhausted, ""),
    ("demo/error-408", ModelUnavailable, ""),
    ("demo/error-409", ModelUnavailable, ""),
    ("demo/error-500", ModelUnavailable, ""),
    ("demo/error-503", ModelUnavailable, ""),
    ("demo/html", ModelInvalidResponse, ""),
    ("demo/no-choices", ModelInvalidResponse, ""),
    ("demo/bad-json:chunks=0", ModelInvalidResponse, ""),
    ("demo/bad-json", ModelInvalidResponse, "word1 word2 "),
    ("demo/tools", ModelInvalidResponse, "word1 word2 "),
    ("demo/cut", ModelUnavailable, "word1 word2 word3 "),
    ("demo/cut:abrupt=1", ModelUnavailable, "word1 word2 word3 "),
    ("demo/cut:chunks=0", ModelUnavailable, ""),
    ("demo/reset", ModelUnavailable, "word1 word2 word3 "),
    ("demo/reset:chunks=0", ModelUnavailable, ""),
    ("demo/error-after", ModelUnavailable, "word1 word2 "),
    ("demo/error-after:status=429", ModelRateLimited, "word1 word2 "),
    ("demo/error-after:status=429,quota=1", ModelQuotaExhausted, "word1 word2 "),
    ("demo/error-after:chunks=0,status=400", ModelRefusedRequest, ""),
]


@pytest.mark.parametrize(("name", "cls", "text"), FAULTS)
async def test_faults_of_a_streaming_provider(model: OpenAIModel, name: str, cls: type[ModelError], text: str) -> None:
    outcome = await outcome_of(model, ask(name))
    assert type(outcome.error) is cls
    assert outcome.text == text
    assert "scripted" not in str(outcome.error)


WHOLE_FAULTS = [
    ("demo/error-429-quota", ModelQuotaExhausted),
    ("demo/html", ModelInvalidResponse),
    ("demo/bad-json", ModelInvalidResponse),
    ("demo/no-choices", ModelInvalidResponse),
    ("demo/cut", ModelInvalidResponse),
    ("demo/cut:abrupt=1", ModelUnavailable),
    ("demo/reset", ModelUnavailable),
    ("demo/reset:chunks=0", ModelUnavailable),
    ("demo/error-after", ModelUnavailable),
    ("demo/silent", ModelTimeout),
    ("demo/stall", ModelTimeout),
    ("demo/slow:delay_ms=300", ModelTimeout),
]


@pytest.mark.parametrize(("name", "cls"), WHOLE_FAULTS)
async def test_faults_of_a_provider_without_streaming(
    make_model: MakeModel, demo: DemoServer, name: str, cls: type[ModelError]
) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, streaming=False, first_token_s=0.3), ask(name))
    assert type(outcome.error) is cls
    assert outcome.text == ""


@pytest.mark.parametrize(
    ("name", "reason", "text"),
    [
        ("demo/length", FinishReason.MAX_OUTPUT_TOKENS, "word1 word2 word3 word4 word5 "),
        ("demo/filter", FinishReason.CONTENT_FILTER, "word1 word2 word3 word4 word5 "),
        ("demo/empty", FinishReason.STOP, ""),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_finish_reasons(
    make_model: MakeModel, demo: DemoServer, name: str, reason: FinishReason, text: str, streaming: bool
) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, streaming=streaming), ask(name))
    assert outcome.finish is not None
    assert outcome.finish.finish_reason is reason
    assert outcome.text == text


async def test_a_wrong_key_is_ours(make_model: MakeModel, demo: DemoServer) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, api_key="wrong"), ask())
    assert type(outcome.error) is ModelAuthenticationFailed


@pytest.mark.parametrize(
    ("name", "delay_s"),
    [
        ("demo/error-429:retry_after_s=7", 7.0),
        ("demo/error-429:retry_after_ms=1500", 1.5),
        ("demo/error-429:retry_after_s=0", ModelRateLimited.default_retry_delay_s),
        ("demo/error-503:retry_after_s=4", 4.0),
    ],
)
async def test_the_provider_says_when_to_come_again(model: OpenAIModel, name: str, delay_s: float) -> None:
    outcome = await outcome_of(model, ask(name))
    assert outcome.error is not None
    assert outcome.error.retry_delay_s == delay_s


@pytest.mark.parametrize(
    "name",
    [
        "demo/silent",
        "demo/silent:head=1",
        "demo/silent:alive_ms=20",
        "demo/silent:alive_ms=20,empty=1",
        "demo/slow:first_ms=5000",
    ],
)
async def test_no_first_token_within_its_limit(make_model: MakeModel, demo: DemoServer, name: str) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, first_token_s=0.2), ask(name))
    assert type(outcome.error) is ModelTimeout
    assert "0.2 s" in str(outcome.error)
    await demo.until(lambda tally: tally.closed_by_client == 1)


@pytest.mark.parametrize("name", ["demo/stall", "demo/stall:alive_ms=20", "demo/stall:alive_ms=20,empty=1"])
async def test_silence_between_pieces_has_its_own_limit(make_model: MakeModel, demo: DemoServer, name: str) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, silence_s=0.2), ask(name))
    assert type(outcome.error) is ModelTimeout
    assert outcome.text == "word1 word2 word3 "
    await demo.until(lambda tally: tally.closed_by_client == 1)


async def test_an_answer_may_take_longer_than_the_limits_of_its_parts(make_model: MakeModel, demo: DemoServer) -> None:
    model = await make_model(demo.base_url, first_token_s=1.5, silence_s=1.5)
    outcome = await outcome_of(model, ask("demo/slow:chunks=10,delay_ms=200"))
    assert len(outcome.text.split()) == 10


async def test_a_slow_reader_is_not_the_providers_silence(make_model: MakeModel, demo: DemoServer) -> None:
    model = await make_model(demo.base_url, silence_s=0.1)
    async with aclosing(model.stream(ask("demo/slow:chunks=3,delay_ms=10"))) as stream:
        got = [await anext(stream)]
        await asyncio.sleep(0.2)
        got += [piece async for piece in stream]
    assert isinstance(got[-1], Finish)


async def test_reasoning_keeps_the_first_token_limit_away(make_model: MakeModel) -> None:
    thought = b'data: {"choices":[{"delta":{"reasoning_content":"hm"},"finish_reason":null}]}\n\n'

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM)
        for _ in range(8):
            writer.write(thought)
            await asyncio.sleep(0.25)
        writer.write(CHUNK + STOP + USAGE + DONE)

    async with raw_server(handle) as url:
        outcome = await outcome_of(await make_model(url, first_token_s=1.5, silence_s=1.5), ask())
    assert outcome.text == "part "


@pytest.mark.parametrize("tail", [b"", DONE, USAGE, b": bye\n\n"])
async def test_waits_only_shortly_for_what_comes_after_the_finish_reason(make_model: MakeModel, tail: bytes) -> None:
    left = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + CHUNK + STOP + tail)
        await reader.read()
        left.set()

    async with raw_server(handle) as url:
        outcome = await outcome_of(await make_model(url, usage_wait_s=0.2), ask())
        await left.wait()
    assert outcome.finish is not None
    assert (outcome.finish.usage is not None) == (tail == USAGE)


@pytest.mark.parametrize("tail", [DONE, USAGE, USAGE + DONE])
async def test_does_not_wait_once_nothing_of_use_can_come(make_model: MakeModel, tail: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + CHUNK + STOP + tail)
        await reader.read()

    async with raw_server(handle) as url:
        model = await make_model(url, usage_wait_s=60.0)
        async with asyncio.timeout(30):
            outcome = await outcome_of(model, ask())
    assert outcome.finish is not None


async def test_a_reset_after_the_finish_reason_spoils_nothing(make_model: MakeModel) -> None:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", "text/event-stream", Content_Length="100000") + CHUNK + STOP)

    async with raw_server(handle) as url:
        outcome = await outcome_of(await make_model(url), ask())
    assert outcome.finish is not None


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_characters_cut_by_packets_stay_whole(make_model: MakeModel, size: int) -> None:
    stream = 'data: {"choices":[{"delta":{"content":"日本🙂é"}}]}\r\n\r\n'.encode() + STOP
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    async with raw_server(sending(EVENT_STREAM, *parts)) as url:
        outcome = await outcome_of(await make_model(url), ask())
    assert outcome.text == "日本🙂é"


@pytest.mark.parametrize("with_length", [True, False])
async def test_takes_a_whole_answer_from_a_server_that_cannot_stream(make_model: MakeModel, with_length: bool) -> None:
    body = b'\n{"choices":[{"message":{"content":"whole"},"finish_reason":"stop"}]}'
    headers = {"Content_Length": str(len(body))} if with_length else {}
    async with raw_server(sending(head("200 OK", **headers), body[:20], body[20:])) as url:
        outcome = await outcome_of(await make_model(url), ask())
    assert outcome.text == "whole"


ODD_ANSWERS = [
    EVENT_STREAM,
    EVENT_STREAM + b"\n\n\n",
    head("200 OK", "text/html") + b"<!doctype html><p>hi",
    head("200 OK", "text/plain") + b"it works",
    head("200 OK") + b'{"choices": [',
    head("200 OK") + b"[]",
    head("200 OK", Content_Encoding="gzip") + b"no gzip",
    head("204 No Content"),
    head("302 Found") + b"",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    EVENT_STREAM + b"data: " + b"x" * 300_000,
    EVENT_STREAM + b"data: " + b"x" * 300_000 + b"\n\n",
    head("200 OK") + b'{"a":"' + b"x" * 600_000,
]


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=lambda answer: repr(answer[:60]))
async def test_odd_answers_are_invalid_or_broken(make_model: MakeModel, answer: bytes) -> None:
    async with raw_server(sending(answer)) as url:
        outcome = await outcome_of(await make_model(url, max_event_bytes=100_000, max_answer_bytes=500_000), ask())
    assert type(outcome.error) in (ModelInvalidResponse, ModelUnavailable)


@pytest.mark.parametrize("start", [b"data: ", b": ", b'{"a":"', b"<html>"])
async def test_a_flood_is_ended_at_its_limit(make_model: MakeModel, start: bytes) -> None:
    left = asyncio.Event()

    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + start)
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            left.set()

    async with raw_server(handle) as url:
        outcome = await outcome_of(await make_model(url, max_event_bytes=10**6, max_answer_bytes=10**6), ask())
        await left.wait()
    assert type(outcome.error) is ModelInvalidResponse


async def test_an_answer_over_its_limit_keeps_its_beginning(make_model: MakeModel, demo: DemoServer) -> None:
    outcome = await outcome_of(await make_model(demo.base_url, max_answer_bytes=100_000), ask("demo/big:kib=200"))
    assert type(outcome.error) is ModelInvalidResponse
    assert 0 < len(outcome.text) <= 100_000
    await demo.until(lambda tally: tally.open == 0)


@pytest.mark.parametrize("status", [b"500 Oops", b"429 Slow down"])
async def test_an_error_whose_body_never_ends_is_known_by_its_status(make_model: MakeModel, status: bytes) -> None:
    async with raw_server(sending(b"HTTP/1.1 " + status + b"\r\n\r\n" + b"x" * 200_000)) as url:
        outcome = await outcome_of(await make_model(url), ask())
    assert type(outcome.error) in (ModelUnavailable, ModelRateLimited)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_listens(make_model: MakeModel, scheme: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        outcome = await outcome_of(await make_model(f"{scheme}://127.0.0.1:{bound.getsockname()[1]}/v1"), ask())
    assert type(outcome.error) is ModelUnavailable
    assert "cannot be reached" in str(outcome.error)


async def test_no_tls_on_the_other_side(make_model: MakeModel, demo: DemoServer) -> None:
    outcome = await outcome_of(await make_model(demo.base_url.replace("http:", "https:")), ask())
    assert type(outcome.error) is ModelUnavailable


async def test_an_unknown_host(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    outcome = await outcome_of(await make_model("http://model.invalid/v1"), ask())
    assert type(outcome.error) is ModelUnavailable


async def test_the_wait_for_a_connection_is_bounded(make_model: MakeModel, demo: DemoServer) -> None:
    model = await make_model(demo.base_url, max_connections=1, connect_s=0.1)
    async with aclosing(model.stream(ask("demo/stall"))) as stream:
        await anext(stream)
        outcome = await outcome_of(model, ask())
    assert type(outcome.error) is ModelUnavailable
    assert (await outcome_of(model, ask())).finish is not None


async def test_connections_are_used_again(model: OpenAIModel, demo: DemoServer) -> None:
    for name in ("demo/chat", "demo/slow:chunks=2,delay_ms=1", "demo/error-500", "demo/empty") * 3:
        await outcome_of(model, ask(name))
    assert demo.stats()["connections"] == 1


@pytest.mark.parametrize("name", ["demo/stall", "demo/slow:chunks=1000,delay_ms=50"])
async def test_closing_the_generator_closes_the_connection_at_once(
    model: OpenAIModel, demo: DemoServer, name: str
) -> None:
    stream = model.stream(ask(name))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(20):
        await demo.until(lambda tally: tally.closed_by_client == 1 and tally.open == 0)


@pytest.mark.parametrize("name", ["demo/silent", "demo/silent:head=1", "demo/stall"])
async def test_cancelling_the_reader_closes_the_connection_at_once(
    model: OpenAIModel, demo: DemoServer, name: str
) -> None:
    task = asyncio.create_task(outcome_of(model, ask(name)))
    await demo.until(lambda tally: tally.open == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        await demo.until(lambda tally: tally.closed_by_client == 1 and tally.open == 0)


async def test_a_generator_that_was_never_started_calls_nobody(model: OpenAIModel, demo: DemoServer) -> None:
    await model.stream(ask()).aclose()
    assert demo.tally.calls == 0


async def test_hundreds_of_streams_at_once(model: OpenAIModel, demo: DemoServer) -> None:
    asks = [ask("demo/tokens:n=20,delay_ms=50", f"number {number}") for number in range(200)]
    outcomes = await asyncio.gather(*(outcome_of(model, request) for request in asks))
    assert all(len(outcome.text.split()) == 20 for outcome in outcomes)
    assert demo.tally.most_open == 200


async def test_closing_ends_open_streams_and_refuses_new_ones(model: OpenAIModel, demo: DemoServer) -> None:
    task = asyncio.create_task(outcome_of(model, ask("demo/silent")))
    await demo.until(lambda tally: tally.open == 1)
    await model.close()
    await model.close()
    assert type((await task).error) is ModelUnavailable
    assert type((await outcome_of(model, ask())).error) is ModelUnavailable


async def test_closing_what_was_never_opened() -> None:
    await OpenAIModel(model="m").close()


async def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(
    make_model: MakeModel, demo: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []
    async with raw_server(sending(EVENT_STREAM + CHUNK + STOP), requests) as proxy:
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert (await outcome_of(await make_model("http://model.invalid/v1"), ask())).text == "part "
        assert (await outcome_of(await make_model(demo.base_url), ask("demo/echo"))).text == "hi"
    assert requests[0].startswith(b"POST http://model.invalid/v1/chat/completions HTTP/1.1\r\n")


LEAKS = [
    head("401 Unauthorized") + json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY, "type": KEY}}).encode(),
    head("500 Oops") + KEY.encode(),
    EVENT_STREAM + CHUNK + b"data: " + json.dumps({"error": {"message": KEY, "code": KEY}}).encode() + b"\n\n",
    EVENT_STREAM + CHUNK + b"data: not json " + KEY.encode() + b"\n\n",
    head("200 OK", "text/html") + b"<html>" + KEY.encode(),
    b"nonsense " + KEY.encode() + b"\r\n",
]


@pytest.mark.parametrize("answer", LEAKS, ids=lambda answer: repr(answer[:40]))
async def test_the_key_shows_nowhere(make_model: MakeModel, caplog: pytest.LogCaptureFixture, answer: bytes) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_server(sending(answer)) as url:
        model = await make_model(url)
        error = (await outcome_of(model, ask())).error
    assert error is not None
    shown = [repr(model), repr(error), repr(error.metadata), "".join(traceback.format_exception(error)), caplog.text]
    assert not [text for text in shown if KEY in text]


async def test_the_providers_own_text_is_for_the_debug_log_only(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    answer = head("400 Bad Request") + b'{"error":{"message":"you asked about elephants' + b"x" * 5000 + b'"}}'
    async with raw_server(sending(answer)) as url:
        model = await make_model(url)
        with caplog.at_level(logging.INFO):
            error = (await outcome_of(model, ask())).error
        assert "elephants" not in caplog.text
        with caplog.at_level(logging.DEBUG):
            await outcome_of(model, ask())
    assert "elephants" not in str(error)
    assert "elephants" in caplog.text
    assert "x" * 1000 not in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "line\nbreak"},
        {"api_key": "schlüssel"},
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http:///v1"},
        {"base_url": "http://user:secret@host/v1"},
    ],
)
def test_refuses_settings_that_cannot_work(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"API key|base_url") as caught:
        OpenAIModel(model="m", **options)
    assert "secret" not in str(caught.value)
    assert "line" not in str(caught.value)


@pytest.mark.parametrize("limit", Limits.__slots__)
def test_limits_are_positive(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        Limits(**{limit: 0})


def test_importing_the_adapter_does_not_import_the_sdk() -> None:
    code = "import sys, service.llm.openai, service.llm.retrying, service.llm.demo; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False"
