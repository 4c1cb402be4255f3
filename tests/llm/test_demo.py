import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.llm.demo import DemoServer
from service.llm.script import SCRIPTS, UnknownModelError, docs_table, play
from service.llm.tally import Tally, message_key

pytestmark = pytest.mark.timeout(30)

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def http(demo: DemoServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(demo.base_url + "/") as session:
        yield session


async def complete(http: aiohttp.ClientSession, **body: object) -> tuple[int, dict[str, object]]:
    async with http.post("chat/completions", json={"messages": HI, **body}) as response:
        return response.status, await response.json()


async def chunks(http: aiohttp.ClientSession, **body: object) -> list[object]:
    async with http.post("chat/completions", json={"messages": HI, "stream": True, **body}) as response:
        text = await response.text()
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in text.split("\n\n") if line]


async def text_of(http: aiohttp.ClientSession, **body: object) -> str:
    _, completion = await complete(http, **body)
    return completion["choices"][0]["message"]["content"]


async def test_whole_answers_have_openais_form(http: aiohttp.ClientSession) -> None:
    status, body = await complete(http, model="gpt-3.5-turbo")
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-3.5-turbo"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


@pytest.mark.parametrize("delay_ms", [0, 1])
async def test_streams_have_openais_form(http: aiohttp.ClientSession, delay_ms: int) -> None:
    model = f"demo/tokens:n=3,delay_ms={delay_ms}"
    got = await chunks(http, model=model, stream_options={"include_usage": True})
    assert got[-1] == "[DONE]"
    assert [c["choices"] for c in got[-2:-1]] == [[]]
    assert got[-2]["usage"]["completion_tokens"] == 3
    deltas = [c["choices"][0] for c in got[:-2]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert "".join(d["delta"].get("content", "") for d in deltas) == "word1 word2 word3 "
    assert [d["finish_reason"] for d in deltas] == [None] * 4 + ["stop"]
    assert len({c["id"] for c in got[:-1]}) == 1
    assert {c["object"] for c in got[:-1]} == {"chat.completion.chunk"}


async def test_a_stream_has_usage_only_if_asked(http: aiohttp.ClientSession) -> None:
    got = await chunks(http, model="demo/empty")
    assert not [c for c in got[:-1] if "usage" in c]
    got = await chunks(http, model="demo/empty:usage=0", stream_options={"include_usage": True})
    assert not [c for c in got[:-1] if c["usage"]]


async def test_chat_tells_the_context(http: aiohttp.ClientSession) -> None:
    messages = [*HI, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "and now"}]
    text = await text_of(http, model="demo/chat", messages=messages)
    assert '"and now"' in text
    assert "2 user message(s)" in text
    assert json.loads(await text_of(http, model="demo/context", messages=messages)) == messages


async def test_echo_says_the_last_user_message(http: aiohttp.ClientSession) -> None:
    content = " two  spaces\n\n🙂 "
    assert await text_of(http, model="demo/echo", messages=[{"role": "user", "content": content}]) == content


async def test_big_has_its_size(http: aiohttp.ClientSession) -> None:
    assert len(await text_of(http, model="demo/big:kib=300,chunk_bytes=512")) == 300 * 1024


@pytest.mark.parametrize("key", ["max_completion_tokens", "max_tokens"])
async def test_obeys_the_token_cap(http: aiohttp.ClientSession, key: str) -> None:
    _, body = await complete(http, model="demo/tokens:n=10", **{key: 3})
    assert body["choices"][0]["message"]["content"] == "word1 word2 word3 "
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("stop", "text"), [("word3", "word1 word2 "), (["x", "d2"], "word1 wor"), (["no"], "word1 word2 word3 ")]
)
async def test_obeys_stop_sequences(http: aiohttp.ClientSession, stop: object, text: str) -> None:
    assert await text_of(http, model="demo/tokens:n=3", stop=stop) == text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"model":"m"}',
        b'{"model":"m","messages":[]}',
        b'{"model":"m","messages":[7]}',
        b'{"model":"m","messages":[{"role":"user"}]}',
        b'{"model":"","messages":[{"role":"user","content":"a"}]}',
    ],
)
async def test_refuses_a_wrong_request(http: aiohttp.ClientSession, body: bytes) -> None:
    async with http.post("chat/completions", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "model", ["demo/", "demo/nope", "demo/slow:x=1", "demo/slow:chunks=-1", "demo/slow:chunks=99999999999999"]
)
async def test_an_unknown_demo_model_is_not_found(http: aiohttp.ClientSession, model: str) -> None:
    status, body = await complete(http, model=model)
    assert status == 404
    assert body["error"]["code"] == "model_not_found"


async def test_refuses_the_wrong_key(http: aiohttp.ClientSession) -> None:
    async with http.get("models", headers={"Authorization": "Bearer wrong"}) as response:
        assert response.status == 401


async def test_lists_its_models(http: aiohttp.ClientSession) -> None:
    async with http.get("models") as response:
        ids = {model["id"] for model in (await response.json())["data"]}
    assert ids == {"gpt-3.5-turbo", *(f"demo/{name}" for name in SCRIPTS)}


async def test_flaky_counts_each_message_for_itself(http: aiohttp.ClientSession) -> None:
    other = [{"role": "user", "content": "other"}]
    asked = [HI, HI, other, HI, other, other]
    statuses = [(await complete(http, model="demo/flaky:fail=2", messages=m))[0] for m in asked]
    assert statuses == [503, 503, 503, 200, 503, 200]


async def test_counts_what_it_was_asked(http: aiohttp.ClientSession, demo: DemoServer) -> None:
    await complete(http, model="demo/echo")
    await complete(http, model="demo/error-500")
    async with http.get("demo/stats") as response:
        stats = await response.json()
    assert stats["calls"] == stats["finished"] == 2
    assert stats["by_model"] == {"demo/echo": 1, "demo/error-500": 1}
    assert stats["by_message"] == {message_key("hi"): 2}
    assert stats["open"] == stats["closed_by_client"] == 0
    assert stats["connections"] == 1
    async with http.delete("demo/stats") as response:
        assert (await response.json())["calls"] == 0
    assert demo.tally.calls == 0


async def test_counts_clients_that_leave(demo: DemoServer) -> None:
    async with aiohttp.ClientSession() as session:
        body = {"model": "demo/silent:head=1", "messages": HI, "stream": True}
        response = await session.post(f"{demo.base_url}/chat/completions", json=body)
        assert demo.tally.open == 1
        response.close()
        await demo.until(lambda tally: tally.closed_by_client == 1)
    assert demo.tally.open == 0


async def test_stops_with_answers_under_way(demo: DemoServer) -> None:
    async with aiohttp.ClientSession() as session:
        body = {"model": "demo/silent", "messages": HI}
        call = asyncio.create_task(session.post(f"{demo.base_url}/chat/completions", json=body))
        await demo.until(lambda tally: tally.open == 1)
        await demo.stop()
        with pytest.raises(aiohttp.ClientError):
            await call
    assert demo.tally.closed_by_client == 0


async def test_starts_again_after_a_stop(demo: DemoServer) -> None:
    await demo.stop()
    await demo.start()
    async with aiohttp.ClientSession() as session, session.get(f"{demo.base_url}/models") as response:
        assert response.status == 200


def test_memory_of_the_tally_is_bounded() -> None:
    tally = Tally()
    for number in range(60_000):
        tally.begin(f"model {number}", f"text {number}")
    assert len(tally.by_model) == 1_000
    assert len(tally.by_message) == 50_000
    assert tally.forgotten == 10_000
    assert tally.calls == 60_000


def test_every_script_is_documented_and_deterministic() -> None:
    assert len(docs_table().splitlines()) == len(SCRIPTS)
    for name, (function, _) in SCRIPTS.items():
        assert function.__doc__
        assert play(f"demo/{name}", HI, 0) == play(f"demo/{name}", HI, 0)


def test_says_which_keys_a_script_knows() -> None:
    with pytest.raises(UnknownModelError, match="it knows first_ms, delay_ms, usage, chunks"):
        play("demo/length:bytes=1", HI, 0)


def test_runs_alone() -> None:
    command = [sys.executable, "-m", "service.llm.demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        assert "OPENAI_BASE_URL=http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
