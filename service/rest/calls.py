"""Serves a request whose binding is known: calls the RPC and answers with what comes of it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Final

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from service.rest import media
from service.rest.answers import Answers, call_headers, cut_short
from service.rest.bindings import Binding
from service.rest.exchange import Exchange
from service.rest.guard import Cut, Guard, Interrupted
from service.rest.headers import HeaderPolicy, timeout_s
from service.rest.invoke import Call, CallFailed, Invoker
from service.rest.limits import Limits
from service.rest.refusal import Refusal, internal_error, response_too_large
from service.rest.routes import Match
from service.rest.streams import EventId, EventStream, Format, JsonLines, Output, RawPieces
from service.rest.uploads import Upload

_LARGE_BYTES: Final = 256 * 1024

_log = logging.getLogger(__name__)


class Calls:
    """Makes calls, and ends them when their client leaves, their time is up, or the server drains.

    event_id, drain_retry_s: see RestApp.
    """

    def __init__(
        self,
        invoker: Invoker,
        answers: Answers,
        policy: HeaderPolicy,
        limits: Limits,
        *,
        event_id: EventId | None,
        drain_retry_s: float,
    ) -> None:
        self._invoker = invoker
        self._answers = answers
        self._policy = policy
        self._limits = limits
        self._event_id = event_id
        self._drain_retry_s = drain_retry_s
        self._streams: set[Guard] = set()
        self._reading_large = asyncio.Semaphore(1)
        self.draining = False

    def drain(self) -> None:
        """End open streams, and begin no more. Unary calls go on."""
        self.draining = True
        for guard in list(self._streams):
            guard.cut(Cut.DRAIN)

    def turned_away(self) -> Refusal:
        """Return what a caller is told while the server drains."""
        return cut_short(Cut.DRAIN, self._limits, retry_after_s=self._drain_retry_s)

    async def serve(self, exchange: Exchange, match: Match[Binding]) -> None:
        """Serve a request. Raises Refusal, or Interrupted if its client is gone."""
        binding, path_values = match
        call = await self._call(exchange, binding, path_values)
        if binding.is_upload:
            await self._upload(exchange, binding, call)
        elif binding.is_stream:
            await self._stream(exchange, binding, call)
        else:
            await self._unary(exchange, binding, call)

    async def _call(self, exchange: Exchange, binding: Binding, path_values: tuple[str, ...]) -> Call:
        limits, headers = self._limits, exchange.headers
        is_long = binding.is_stream or binding.is_upload
        default_s = limits.stream_timeout_s if is_long else limits.unary_timeout_s
        timeout = timeout_s(headers, default_s=default_s, max_s=limits.max_timeout_s)
        metadata = self._policy.metadata(exchange.raw_headers, exchange.host, exchange.peer_host)
        media.check_not_encoded(headers)
        if binding.is_upload:
            exchange.check_length(limits.max_upload_bytes)
            body = b""  # comes behind
        else:
            body = await exchange.body()
        if body and binding.takes_body and not binding.takes_raw_body:
            media.check_json_type(headers)
        parts = path_values, exchange.query, body, headers.get(b"content-type", b"")
        if len(body) > _LARGE_BYTES:  # all others would wait for it
            async with self._reading_large:  # one thread more is enough to share the interpreter with
                request = await asyncio.to_thread(binding.request, *parts)
        else:
            request = binding.request(*parts)
        return Call(binding.method, request, metadata, timeout, exchange.peer)

    async def _unary(self, exchange: Exchange, binding: Binding, call: Call) -> None:
        guard = self._guard(exchange, call)
        await self._answer(exchange, binding, call, guard, self._invoker.unary(call))

    async def _upload(self, exchange: Exchange, binding: Binding, call: Call) -> None:
        upload = Upload(exchange, self._cut_after_s(call))

        async def requests() -> AsyncGenerator[Message, None]:
            yield call.request
            async for piece in upload.pieces():
                yield binding.piece(piece)

        async with aclosing(requests()) as pieces:
            await self._answer(exchange, binding, call, upload.guard, self._invoker.upload(call, pieces))

    async def _answer(
        self, exchange: Exchange, binding: Binding, call: Call, guard: Guard, calling: Awaitable[Message]
    ) -> None:
        """Answer with the one response that a call has."""
        try:
            async with guard:
                reply = await calling
        except CallFailed as failed:
            await self._answers.fail(exchange, failed.status, call)
            return
        except Interrupted as interrupted:
            raise self._refusal_of(interrupted) from None
        body, content_type = binding.response(reply)
        if len(body) > self._limits.max_response_bytes:
            raise response_too_large()
        await exchange.respond(200, [(b"content-type", content_type), *call_headers(exchange, call)], body)

    async def _stream(self, exchange: Exchange, binding: Binding, call: Call) -> None:
        if self.draining:  # since the request came
            raise self.turned_away()
        guard = self._guard(exchange, call)
        form = self._format(exchange, binding)
        output = Output(exchange, form, lambda: call_headers(exchange, call), guard)
        self._streams.add(guard)
        failure: Status | Refusal | None = None
        try:
            async with guard, aclosing(self._invoker.stream(call)) as replies:
                async for reply in replies:
                    await output.write(form.record(reply))
        except CallFailed as failed:
            failure = failed.status
        except Interrupted as interrupted:
            failure = self._refusal_of(interrupted)
        except Exception:
            _log.exception("unexpected error in %s", exchange.template)
            failure = internal_error()
        finally:
            self._streams.discard(guard)
            await output.stop_heartbeat()
        await self._end_stream(exchange, call, output, failure)

    async def _end_stream(
        self, exchange: Exchange, call: Call, output: Output, failure: Status | Refusal | None
    ) -> None:
        """Answer with an early failure, or write the terminal record."""
        if failure is None:
            await output.succeed()
        elif output.started:
            status = self._answers.status_of(failure, exchange) if isinstance(failure, Refusal) else failure
            exchange.code = status.code
            await output.fail(status)
        elif isinstance(failure, Refusal):
            raise failure
        else:
            await self._answers.fail(exchange, failure, call)

    def _guard(self, exchange: Exchange, call: Call) -> Guard:
        return Guard(exchange.receive, self._cut_after_s(call), tell_leaving=exchange.tell_leaving)

    def _cut_after_s(self, call: Call) -> float | None:
        """Return when the shim itself ends a call that outlives its deadline."""
        return None if call.timeout_s is None else call.timeout_s + self._limits.deadline_slack_s

    def _refusal_of(self, interrupted: Interrupted) -> Refusal:
        """Return what a client is told; if it is gone, there is nobody to tell, and Interrupted is raised again."""
        if interrupted.cut in (Cut.GONE, Cut.STALLED):
            raise interrupted
        return cut_short(interrupted.cut, self._limits, retry_after_s=self._drain_retry_s)

    def _format(self, exchange: Exchange, binding: Binding) -> Format:
        if binding.writes_raw:
            return RawPieces(binding.response)
        if media.accepts_events(exchange.headers):
            return EventStream(binding.json, self._answers.body, self._event_id)
        return JsonLines(binding.json, self._answers.body, binding.empty_json)
