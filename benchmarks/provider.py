"""A model provider that costs little: `python -m benchmarks.provider`.

Speaks as much of OpenAI's API as is called here.
Answers are chosen by the last message, so that every contender gets the same one to the same question. A model named
`bench:chunks=100,delay_ms=20,first_ms=200` answers with so many tokens at that pace; any other name answers with 20 to
400 tokens at once, streamed or whole as asked. Prints its port.
"""

import asyncio
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
import uvloop

from benchmarks import data

_CREATED = 1_700_000_000
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Pace:
    """How an answer comes; chunks 0 = as many tokens as the answer has."""

    chunks: int = 0
    delay_s: float = 0.0
    first_s: float = 0.0


@cache
def pace_of(model: str) -> Pace:
    """Read a model's name."""
    name, _, keys = model.partition(":")
    if name != "bench":
        return Pace()
    numbers = {key: int(value) for key, _, value in (pair.partition("=") for pair in keys.split(",") if pair)}
    return Pace(numbers.get("chunks", 0), numbers.get("delay_ms", 0) / 1000, numbers.get("first_ms", 0) / 1000)


@cache
def _events(model: str, number: int, with_usage: bool) -> tuple[bytes, ...]:
    """Return the events of one streamed answer: role, tokens, ending."""
    head = {
        "id": f"chatcmpl-{number:029d}",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    tail: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice], **tail})

    texts = _tokens(model, number)
    ending = chunk({}, "stop")
    if with_usage:
        ending += _event({**head, "choices": [], "usage": _usage(len(texts))})
    start = chunk({"role": "assistant", "content": "", "refusal": None})
    return (start, *(chunk({"content": text}) for text in texts), ending + b"data: [DONE]\n\n")


@cache
def _burst(model: str, number: int, with_usage: bool) -> bytes:
    return _STREAM_HEAD + _framed(b"".join(_events(model, number, with_usage))) + _LAST_CHUNK


@cache
def _whole(model: str, number: int) -> bytes:
    texts = _tokens(model, number)
    message = {"role": "assistant", "content": "".join(texts), "refusal": None, "annotations": []}
    body = orjson.dumps(
        {
            "id": f"chatcmpl-{number:029d}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _usage(len(texts)),
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    )
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _tokens(model: str, number: int) -> tuple[str, ...]:
    chunks = pace_of(model).chunks
    return data.tokens(chunks) if chunks else data.answers()[number]


def _usage(output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 100,
        "completion_tokens": output_tokens,
        "total_tokens": 100 + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(body)


def _framed(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


class _Connection(asyncio.Protocol):
    """One client, one request after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        body_start, body_end = head_end + 4, head_end + 4 + _content_length(head)
        if len(self._buffer) < body_end:
            return
        body = bytes(self._buffer[body_start:body_end])
        del self._buffer[:body_end]
        self._answer(orjson.loads(body))

    def _answer(self, body: dict[str, Any]) -> None:
        model, last = body["model"], body["messages"][-1]["content"]
        number = zlib.crc32(orjson.dumps(last)) % len(data.answers())
        pace = pace_of(model)
        if not body.get("stream"):
            self._later(pace.first_s + pace.delay_s * pace.chunks, self._write, _whole(model, number))
            return
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if pace.delay_s:
            events = _events(model, number, with_usage)
            self._write(_STREAM_HEAD + _framed(events[0]))
            self._later(pace.first_s or pace.delay_s, self._next, events, 1, pace.delay_s)
        else:
            self._later(pace.first_s, self._write, _burst(model, number, with_usage))

    def _next(self, events: tuple[bytes, ...], index: int, delay_s: float) -> None:
        if index + 2 < len(events):
            self._write(_framed(events[index]))
            self._later(delay_s, self._next, events, index + 1, delay_s)
        else:
            self._write(_framed(events[index] + events[index + 1]) + _LAST_CHUNK)

    def _later(self, delay_s: float, call: Any, *args: Any) -> None:
        if delay_s:
            self._timer = asyncio.get_running_loop().call_later(delay_s, call, *args)
        else:
            call(*args)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _content_length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def listen() -> asyncio.Server:
    """Listen on a free port."""
    return await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=16384)


async def _serve() -> None:
    server = await listen()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
