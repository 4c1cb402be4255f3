"""A small OpenAI-compatible server with scripted answers, on loopback: `python -m service.llm.demo --port 8099`.

`POST /v1/chat/completions` (streamed and whole), `GET /v1/models`, and for tests `GET` and `DELETE /v1/demo/stats`.
Models are scripts by name (`script.py`); every other name answers like `demo/chat`. The API key `wrong` is refused, any
other is right, and so is none. `max_completion_tokens` (or `max_tokens`) and `stop` cut an answer short as they should.
"""

import argparse
import asyncio
import contextlib
import itertools
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from service.llm.script import (
    SCRIPTS,
    Exit,
    Messages,
    Plan,
    Refusal,
    UnknownModelError,
    docs_table,
    last_user_text,
    play,
    refusal,
)
from service.llm.tally import Tally

_MAX_BODY_BYTES = 64 * 1024 * 1024
_LARGE_WRITE_BYTES = 64 * 1024
_CREATED = 1_700_000_000
_RESET = struct.pack("ii", 1, 0)
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class DemoServer:
    """The server in this process. `tally` holds its counts; see `until` to wait for one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._runner: web.ServerRunner | None = None
        self._numbers = itertools.count(1)
        self._is_stopping = False
        self._server: web.Server | None = None
        self._changed = asyncio.Event()
        self.tally = Tally()
        self.base_url = ""

    async def start(self) -> str:
        """Listen, and return the base URL for clients; port 0 takes a free one."""
        # Cancelled as soon as the client leaves: that is how it is counted.
        self._is_stopping = False
        self._server = web.Server(self._serve, handler_cancellation=True, keepalive_timeout=75.0, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        await site.start()
        self.base_url = f"http://{self._host}:{self._runner.addresses[0][1]}/v1"
        return self.base_url

    async def stop(self) -> None:
        """Close all connections, whatever runs on them."""
        self._is_stopping = True
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, condition: Callable[[Tally], bool]) -> None:
        """Wait until the counts are so."""
        while not condition(self.tally):
            self._changed.clear()
            await self._changed.wait()

    def stats(self) -> dict[str, object]:
        """Return the counts, and how many connections are open, idle ones too."""
        return {**self.tally.as_json(), "connections": len(self._server.connections) if self._server else 0}

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization", "") == "Bearer wrong":
            return _response(refusal(401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided"))
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return await self._complete(request)
            case "GET", "/v1/models":
                return _json({"object": "list", "data": [_model(name) for name in _model_names()]})
            case "GET", "/v1/demo/stats":
                return _json(self.stats())
            case "DELETE", "/v1/demo/stats":
                self.tally.clear()
                return _json(self.stats())
            case _:
                return _response(refusal(404, None, "invalid_request_error", "no such path"))

    async def _complete(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await _read_json(request)
            model, messages = _checked(body)
        except ValueError as exc:
            return _response(refusal(400, None, "invalid_request_error", str(exc)))
        earlier_calls = self.tally.begin(model, last_user_text(messages))
        self._changed.set()
        try:
            outcome = play(model, messages, earlier_calls)
            if isinstance(outcome, Refusal):
                response: web.StreamResponse = _response(outcome)
            else:
                call = _Call(request, body, model, messages, outcome, next(self._numbers))
                response = await (call.stream() if body.get("stream") else call.whole())
            self.tally.finished += 1
            return response
        except UnknownModelError as exc:
            self.tally.finished += 1
            return _response(refusal(404, "model_not_found", "invalid_request_error", str(exc)))
        except (asyncio.CancelledError, ConnectionError):
            if not self._is_stopping:
                self.tally.closed_by_client += 1
            raise
        finally:
            self.tally.open -= 1
            self._changed.set()


class _Call:
    """One completion on its way to the client."""

    def __init__(
        self, request: web.BaseRequest, body: dict[str, Any], model: str, messages: Messages, plan: Plan, number: int
    ) -> None:
        self._request = request
        self._plan = plan
        self._pieces, self._finish_reason = _capped(plan, body)
        self._id = f"chatcmpl-demo{number}"
        self._model = model
        self._input_tokens = sum(4 + len(m["content"]) // 4 for m in messages)
        options = body.get("stream_options")
        self._usage_asked = isinstance(options, dict) and bool(options.get("include_usage"))
        self._head = (
            b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":%s,"system_fingerprint":"fp_demo",'
            % (self._id.encode(), int(time.time()), orjson.dumps(model))
        )
        # With include_usage every chunk but the last has a null there.
        self._tail = b',"usage":null}\n\n' if self._usage_asked else b"}\n\n"

    async def stream(self) -> web.StreamResponse:
        plan = self._plan
        response = web.StreamResponse(headers=_EVENTS)
        if plan.silent_head:
            await self._exit(response)
            return response
        await response.prepare(self._request)
        start = self._chunk(b'{"role":"assistant","content":"","refusal":null}')
        if plan.first_s:
            await response.write(start)
            await asyncio.sleep(plan.first_s)
            start = b""
        if plan.delay_s:
            for piece in self._pieces:
                await response.write(start + self._text_chunk(piece))
                start = b""
                await asyncio.sleep(plan.delay_s)
            await response.write(start)
        else:
            await self._write_all(response, start)
        await self._exit(response)
        return response

    async def whole(self) -> web.StreamResponse:
        plan = self._plan
        if plan.silent_head:
            response = web.StreamResponse()
            await self._exit(response)
            return response
        await asyncio.sleep(plan.first_s + plan.delay_s * len(self._pieces))
        match plan.exit:
            case Exit.FINISH:
                return _json(self._completion())
            case Exit.ERROR:
                return _json({"error": plan.error}, status=500)
            case Exit.JUNK:
                return web.Response(body=b'{"id": oops', content_type="application/json")
            case Exit.CUT:
                return _json({**self._completion(), "choices": []})
            case _:
                response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100000"})
                await response.prepare(self._request)
                await response.write(b'{"id":"chatcmpl-demo"')
                await self._exit(response)
                return response

    async def _write_all(self, response: web.StreamResponse, start: bytes) -> None:
        """Write all pieces at once, in writes of bounded size."""
        waiting = [start]
        size_bytes = 0
        for piece in self._pieces:
            waiting.append(chunk := self._text_chunk(piece))
            size_bytes += len(chunk)
            if size_bytes > _LARGE_WRITE_BYTES:
                await response.write(b"".join(waiting))
                waiting.clear()
                size_bytes = 0
        if self._plan.exit is Exit.FINISH:
            waiting.append(self._ending())
        await response.write(b"".join(waiting))

    async def _exit(self, response: web.StreamResponse) -> None:
        plan = self._plan
        match plan.exit:
            case Exit.FINISH:
                if plan.delay_s:
                    await response.write(self._ending())
            case Exit.CUT:
                pass
            case Exit.STALL:
                await self._stay_silent(response)
            case Exit.ERROR:
                await response.write(b"data: %s\n\n" % orjson.dumps({"error": plan.error}))
            case Exit.JUNK:
                await response.write(b'data: {"id": oops\n\n')
            case Exit.RESET | Exit.ABRUPT:
                self._drop(with_reset=plan.exit is Exit.RESET)
                return
        if response.prepared:
            await response.write_eof()

    async def _stay_silent(self, response: web.StreamResponse) -> None:
        """Wait until the client leaves, which cancels us."""
        sign = self._text_chunk("") if self._plan.alive_empty else b": keep-alive\n\n"
        while True:
            await asyncio.sleep(self._plan.alive_s or 3600.0)
            if self._plan.alive_s:
                await response.write(sign)

    def _drop(self, *, with_reset: bool) -> None:
        transport = self._request.transport
        if transport is None:
            return
        if with_reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            transport.close()

    def _chunk(self, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        return b'%s"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]%s' % (
            self._head,
            delta,
            finish_reason,
            self._tail,
        )

    def _text_chunk(self, text: str) -> bytes:
        return self._chunk(b'{"content":%s}' % orjson.dumps(text))

    def _ending(self) -> bytes:
        ending = self._chunk(b"{}", orjson.dumps(self._finish_reason))
        if self._usage_asked and self._plan.usage:
            ending += b'%s"choices":[],"usage":%s}\n\n' % (self._head, orjson.dumps(self._usage()))
        return ending + b"data: [DONE]\n\n"

    def _usage(self) -> dict[str, Any]:
        output_tokens = len(self._pieces)
        return {
            "prompt_tokens": self._input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": self._input_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    def _completion(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._pieces), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        completion = {
            "id": self._id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._model,
            "choices": [choice],
            "system_fingerprint": "fp_demo",
        }
        return {**completion, "usage": self._usage()} if self._plan.usage else completion


async def _read_json(request: web.BaseRequest) -> dict[str, Any]:
    """Return the request's body; raises ValueError."""
    parts = []
    size_bytes = 0
    while data := await request.content.readany():
        parts.append(data)
        size_bytes += len(data)
        if size_bytes > _MAX_BODY_BYTES:
            raise ValueError("the request is too large")
    body = orjson.loads(b"".join(parts))
    if not isinstance(body, dict):
        raise ValueError("the request must be a JSON object")
    return body


def _checked(body: dict[str, Any]) -> tuple[str, Messages]:
    """Return model and messages, content parts joined; raises ValueError."""
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not model:
        raise ValueError("you must provide a model parameter")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a non-empty array")
    return model, [_message(message) for message in messages]


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError("each message must have a role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise ValueError("each message must have content")
    return {"role": message["role"], "content": content}


def _capped(plan: Plan, body: dict[str, Any]) -> tuple[list[str], str]:
    """Return the pieces within the caller's token cap and before its stop sequences, and the finish reason."""
    pieces, finish_reason = list(plan.pieces), plan.finish_reason
    if stops := body.get("stop"):
        text = "".join(pieces)
        cuts = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop in text]
        if cuts:
            pieces = _first_chars(pieces, min(cuts))
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if isinstance(limit, int) and 0 < limit < len(pieces):
        return pieces[:limit], "length"
    return pieces, finish_reason


def _first_chars(pieces: list[str], count: int) -> list[str]:
    kept = []
    for piece in pieces:
        if count <= 0:
            break
        kept.append(piece[:count])
        count -= len(piece)
    return kept


def _model_names() -> list[str]:
    return ["gpt-3.5-turbo", *(f"demo/{name}" for name in SCRIPTS)]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "demo"}


def _response(outcome: Refusal) -> web.Response:
    return web.Response(
        status=outcome.status, body=outcome.body, content_type=outcome.content_type, headers=outcome.headers
    )


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json", status=status)


async def _run(host: str, port: int) -> None:
    server = DemoServer(host, port)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"demo model server: OPENAI_BASE_URL={await server.start()}", flush=True)
    await stop.wait()
    await server.stop()


def main() -> None:
    """Run the server until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m service.llm.demo", description="OpenAI-compatible demo server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--models", action="store_true", help="print the scripted models and their keys")
    arguments = parser.parse_args()
    if arguments.models:
        print(docs_table())
        return
    asyncio.run(_run(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
