"""Streamed answers: Server-Sent Events, newline-delimited JSON, or raw pieces of a file.

Each stream ends with exactly one terminal record, so that a cut can be told from an end:

                 message                        failure                      success
    SSE          data: {…}                      event: status, data: Status  event: done, data: {}
    NDJSON       {"result":{…}}                 {"error":Status}             {"result":{},"done":true}
    raw          its data                       the connection is cut        the end of the body

The `result` in the last line is for clients of grpc-gateway, which hand every line's on: an empty message is one that
they can pass over, and its absence is not.

The head of the answer waits for the first message, so that an early failure has its own HTTP status; after
`heartbeat_s` without one it goes out all the same.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from service.rest.exchange import Exchange
from service.rest.guard import Cut, Guard, Interrupted
from service.rest.refusal import Headers
from service.rest.status import retry_after_s
from service.rest.waiting import within

EventId = Callable[[Any], str]

_STREAM_HEADERS: Final = [(b"x-accel-buffering", b"no")]


class Format(Protocol):
    """How messages and the end of a stream are written."""

    content_type: bytes
    heartbeat: bytes

    def record(self, message: Message) -> bytes:
        """Write a message."""
        ...

    def failure(self, status: Status) -> bytes | None:
        """Write the end of a failed stream; None if the format has no word for it."""
        ...

    def success(self) -> bytes:
        """Write the end of a stream."""
        ...


class EventStream:
    """Server-Sent Events: unnamed events for messages, `status` for a failure, `done` for the end.

    event_id: gives an event's `id:`, which comes back as `Last-Event-ID`; empty for none.
    """

    content_type = b"text/event-stream"
    heartbeat = b":\n\n"

    def __init__(
        self, write: Callable[[Any], bytes], write_status: Callable[[Status], bytes], event_id: EventId | None
    ) -> None:
        self._write = write
        self._write_status = write_status
        self._event_id = event_id

    def record(self, message: Message) -> bytes:
        """Write a message."""
        data = self._write(message)
        event_id = self._event_id(message) if self._event_id is not None else ""
        if not event_id or not event_id.isprintable():
            return b"data: %b\n\n" % data
        return b"id: %b\ndata: %b\n\n" % (event_id.encode(), data)

    def failure(self, status: Status) -> bytes:
        """Write a status; where it says when to come back, so does `retry:`."""
        delay = retry_after_s(status)
        retry = b"" if delay is None else b"retry: %d\n" % round(delay * 1000)
        return b"event: status\n%bdata: %b\n\n" % (retry, self._write_status(status))

    def success(self) -> bytes:
        """Write the event after which a client must not reconnect."""
        return b"event: done\ndata: {}\n\n"


class JsonLines:
    """Newline-delimited JSON in the envelope of grpc-gateway, with a last line of its own.

    empty: the JSON of a result that says nothing.
    """

    content_type = b"application/x-ndjson"
    heartbeat = b""

    def __init__(self, write: Callable[[Any], bytes], write_status: Callable[[Status], bytes], empty: bytes) -> None:
        self._write = write
        self._write_status = write_status
        self._empty = empty

    def record(self, message: Message) -> bytes:
        """Write a message."""
        return b'{"result":%b}\n' % self._write(message)

    def failure(self, status: Status) -> bytes:
        """Write a status."""
        return b'{"error":%b}\n' % self._write_status(status)

    def success(self) -> bytes:
        """Write the line that says that nothing is missing."""
        return b'{"result":%b,"done":true}\n' % self._empty


class RawPieces:
    """The data of HttpBody messages, one behind the other; the first one gives the content type."""

    heartbeat = b""

    def __init__(self, write: Callable[[Any], tuple[bytes, bytes]]) -> None:
        self._write = write
        self.content_type = b"application/octet-stream"

    def record(self, message: Message) -> bytes:
        """Return the data of a message."""
        data, self.content_type = self._write(message)
        return data

    def failure(self, _: Status) -> None:
        """Nothing in a file can say that it is not whole."""

    def success(self) -> bytes:
        """Add nothing."""
        return b""


class Output:
    """The writing side of a stream: one write at a time, each within its limit, and a heartbeat in the silence.

    headers: gives the headers of the answer at the moment that its head is sent.
    guard: is told when a client does not read.
    """

    def __init__(self, exchange: Exchange, form: Format, headers: Callable[[], Headers], guard: Guard) -> None:
        self.started = False
        self._exchange = exchange
        self._form = form
        self._headers = headers
        self._guard = guard
        self._limits = exchange.limits
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self._beating: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(self._limits.heartbeat_s, self._tick)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send data, behind the head if it is the first. Raises Interrupted if the client does not read it."""
        try:
            async with self._lock:
                await within(self._limits.write_timeout_s, self._write(data, last=last))
        except TimeoutError:
            raise Interrupted(Cut.STALLED) from None

    async def _write(self, data: bytes, *, last: bool) -> None:
        if not self.started:
            self.started = True
            head = [(b"content-type", self._form.content_type), *_STREAM_HEADERS, *self._headers()]
            await self._exchange.start_response(200, head)
        if data or last:
            await self._exchange.send_chunk(data, last=last)
        self._last_write = self._loop.time()

    async def succeed(self) -> None:
        """End the stream well. Events that were asked for and never came: 204, at which EventSource stops asking."""
        if self.started or not isinstance(self._form, EventStream):
            await self.write(self._form.success(), last=True)
        else:
            await self._exchange.respond(204, self._headers())

    async def fail(self, status: Status) -> None:
        """End a stream that has begun with a status. Raises Interrupted, which cuts it, if the format has no word."""
        record = self._form.failure(status)
        if record is None:
            raise Interrupted(Cut.UNSPOKEN)
        await self.write(record, last=True)

    async def stop_heartbeat(self) -> None:
        """End the heartbeats; one that is being written is written to its end."""
        self._timer.cancel()
        if self._beating is not None:
            await asyncio.wait([self._beating])

    def _tick(self) -> None:
        due_s = self._last_write + self._limits.heartbeat_s - self._loop.time()
        if due_s <= 0:
            if self._beating is None or self._beating.done():
                self._beating = self._loop.create_task(self._beat())
            due_s = self._limits.heartbeat_s
        self._timer = self._loop.call_later(due_s, self._tick)

    async def _beat(self) -> None:
        try:
            await self.write(self._form.heartbeat)
        except Interrupted as interrupted:
            self._guard.cut(interrupted.cut)
