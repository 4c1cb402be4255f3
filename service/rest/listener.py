"""The HTTP listener: uvicorn's protocol with the bounds that it lacks.

uvicorn waits without end for the head or the body of a request, takes heads and trailers of any size, and waits for
open streams when it stops. Here each of these ends: see ListenerLimits. Errors below HTTP have the same JSON shape as
all others.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, NoReturn, cast

from google.protobuf import descriptor_pool
from google.rpc import code_pb2
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.rest.exchange import BODY_PASSED_ON, CLIENT_LEAVES, RESPONSE_TOGETHER, App
from service.rest.headers import request_id
from service.rest.refusal import Reason, Refusal, bad_request
from service.rest.status import status_of
from service.rest.transport import PatientTransport, Unread
from service.rest.writer import Writer

_uvicorn_log = logging.getLogger(f"{__name__}.uvicorn")
_uvicorn_log.setLevel(logging.ERROR)  # no line for each request that is not HTTP

_LAST_WORDS_S: Final = 1.0
_HEADER_OVERHEAD: Final = 32  # as HTTP/2 counts
_SMALL_BODY_BYTES: Final = 64 * 1024
_MAX_DROPPED_BYTES: Final = 1024 * 1024
_BODY_STEP_BYTES: Final = 1024 * 1024
_PHRASES: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Bounds on what one connection may cost, and all together.

    max_head_bytes: request line, headers and trailers, and 32 bytes on top for each of these (431).
    head_timeout_s: from the first byte of a request, or from connecting, to the end of its head (408).
    body_timeout_s: from there to the end of its body, or to the next MiB of it (408).
    keep_alive_s: silence between requests; longer than that of pooling clients, so that they close first.
    write_timeout_s: how long a client may leave what it was sent unread; then the connection is aborted.
    max_connections: more are answered 503 and closed.
    max_held_body_bytes: request bodies, of all connections together, that have come and wait for their answer; beyond
        it large ones are refused (503), and those of up to 64 KiB are not.
    max_unread_bytes: answers, of all connections together, that clients leave unread; beyond it the connection that
        has waited longest is aborted.
    max_pipelined: requests that may wait behind one that is being answered.
    linger_s: how long, behind a refusal, what a client still sends is read (up to 1 MiB) and dropped, so that it sees
        the answer.
    backlog: connections that the kernel holds before they are accepted.
    """

    max_head_bytes: int = 32 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    write_timeout_s: float = 30.0
    max_connections: int = 20_000
    max_held_body_bytes: int = 128 * 1024 * 1024
    max_unread_bytes: int = 64 * 1024 * 1024
    max_pipelined: int = 16
    linger_s: float = 2.0
    backlog: int = 2048


class _Refused(Exception):
    """Raised inside the parser's callbacks to stop it."""


class _Shared:
    """What the connections of a listener have in common."""

    def __init__(self, limits: ListenerLimits, domain: str, on_lost: Callable[[], None]) -> None:
        self.limits = limits
        self.domain = domain
        self.on_lost = on_lost
        self.unread = Unread(limits.max_unread_bytes)
        self.held_body_bytes = 0


class _Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, shared: _Shared, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._shared = shared
        self._limits = shared.limits
        self._refusal: Refusal | None = None
        self._is_refused = False
        self._head_is_open = False
        self._body_is_open = False
        self._head_bytes = self._step_bytes = 0
        self._unparsed_bytes = 0
        self._held_body_bytes = 0
        self._dropped_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._on_leaving: Callable[[], None] | None = None
        self.logger = _uvicorn_log

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._bounded = PatientTransport(transport, self._limits.write_timeout_s, self._shared.unread)
        self._extensions: Any = {
            BODY_PASSED_ON: {"tell": self._let_go},
            CLIENT_LEAVES: {"tell": self._tell_leaving},
            RESPONSE_TOGETHER: {"hold": self._bounded.hold, "release": self._bounded.release},
        }
        super().connection_made(self._bounded)  # type: ignore[arg-type]
        if len(self.connections) > self._limits.max_connections:
            self._refuse(_overloaded("too many connections"))
            return
        self._expect(self._limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        if self._running is not None:  # uvicorn tells only the last of pipelined requests
            self._leave(self._running)
        super().connection_lost(exc)
        self._bounded.expect_nothing()
        self._let_go_of_body()
        self._shared.on_lost()

    def _leave(self, cycle: RequestResponseCycle) -> None:
        """Have a request end as one whose client has left."""
        cycle.disconnected = True
        cycle.message_event.set()
        if self._on_leaving is not None:
            self._on_leaving()

    def _tell_leaving(self, on_leaving: Callable[[], None] | None) -> None:
        """Tell the request that is being answered when its client leaves; see TellLeaving."""
        self._on_leaving = on_leaving
        if on_leaving is not None:
            # As `receive` does: who does not read does not see the end of the connection.
            self.flow.resume_reading()
            if self._running is not None and self._running.disconnected:
                self.loop.call_soon(on_leaving)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bounded.expect_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._bounded.expect_nothing()

    # --- a request ---

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_refused:
            self._drop(len(data))
            return
        was_busy = self._head_is_open or self._body_is_open
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._is_refused:
            return
        if self._unparsed_bytes > self._limits.max_head_bytes:  # the parser keeps a header until it is whole
            self._refuse(self._head_too_large())
            return
        self._follow(was_busy)

    def _follow(self, was_busy: bool) -> None:
        """Time what is still to come of the request; a request that came whole never sets a timer."""
        if self._head_is_open:
            if not was_busy or self._read_timer is None:
                self._expect(self._limits.head_timeout_s)
        elif self._body_is_open:
            if self._read_timer is None:
                self._expect(self._limits.body_timeout_s)
        else:
            self._expect_nothing()

    def _expect(self, within_s: float) -> None:
        self._expect_nothing()
        self._read_timer = self.loop.call_later(within_s, self._too_slow)

    def _expect_nothing(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _too_slow(self) -> None:
        self._read_timer = None
        if self.flow.read_paused or (self._head_is_open and self._is_busy()):  # it is us who are slow
            self._expect(self._limits.body_timeout_s)
            return
        if not (self._head_is_open or self._body_is_open):
            self.transport.close()
            return
        if self._body_is_open and self._step_bytes >= _BODY_STEP_BYTES:
            self._step_bytes = 0
            self._expect(self._limits.body_timeout_s)
            return
        self._refuse(
            Refusal(408, code_pb2.DEADLINE_EXCEEDED, Reason.REQUEST_TIMEOUT, "the request did not arrive in time")
        )

    def on_message_begin(self) -> None:
        self._head_is_open = True
        self._body_is_open = False
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + _HEADER_OVERHEAD)
        if self._head_is_open:  # a trailer is not a header, and none means anything here
            super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._limits.max_head_bytes:
            self._stop_parsing(self._head_too_large())

    def on_headers_complete(self) -> None:
        problem = self._problem()
        if problem is not None:
            self._stop_parsing(problem)
        super().on_headers_complete()
        if self._on_leaving is not None:
            # uvicorn reads no more behind a pipelined request, and would not see that the client of the first leaves.
            self.flow.resume_reading()
        self._head_is_open = False
        self._body_is_open = True
        self._expect_nothing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._step_bytes += len(body)
        super().on_body(body)
        if self.cycle.response_complete:
            return
        self._held_body_bytes += len(body)
        self._shared.held_body_bytes += len(body)
        if (
            self._shared.held_body_bytes > self._limits.max_held_body_bytes
            and self._held_body_bytes > _SMALL_BODY_BYTES
        ):
            self._stop_parsing(_overloaded("too many large requests at once"))

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        self._body_is_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._let_go_of_body()
        super().on_response_complete()

    def _let_go_of_body(self) -> None:
        self._let_go(self._held_body_bytes)

    def _let_go(self, size: int) -> None:
        """So much of the body is held no more."""
        size = min(size, self._held_body_bytes)
        self._shared.held_body_bytes -= size
        self._held_body_bytes -= size

    def _stop_parsing(self, refusal: Refusal) -> NoReturn:
        """Have the parser come back through send_400_response."""
        self._refusal = refusal
        raise _Refused

    def _problem(self) -> Refusal | None:
        if len(self.pipeline) >= self._limits.max_pipelined:
            return bad_request(Reason.INVALID_REQUEST, "too many pipelined requests")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            return bad_request(Reason.INVALID_REQUEST, "a request must have one Host header")
        return None

    def _head_too_large(self) -> Refusal:
        return Refusal(
            431,
            code_pb2.RESOURCE_EXHAUSTED,
            Reason.HEADERS_TOO_LARGE,
            f"request line, headers and trailers may have at most {self._limits.max_head_bytes} bytes",
        )

    def _unsupported_upgrade_warning(self) -> None:
        """Serve the request without the upgrade; behind it the parser reads nothing more, so the connection ends."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # --- refusing below HTTP ---

    def send_400_response(self, msg: str) -> None:
        """Answer a request that could not be parsed."""
        self._refuse(self._refusal or bad_request(Reason.INVALID_REQUEST, "the request is not HTTP/1.1"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer and close; if that would pass for the answer to another request, only close.

        A connection that is closed with unread data resets, and the client may never see the answer. So only our side
        is ended at first.
        """
        self._expect_nothing()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if not self._may_answer():
            self.transport.close()
            return
        if self._is_busy():
            self._leave(self.cycle)
        # As far as they have come; where nothing of this request has, they are those of the one before.
        headers = dict(self.headers) if self._head_is_open or self._body_is_open else {}
        self.transport.write(_response(refusal, self._shared.domain, request_id(headers)))
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._read_timer = self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > _MAX_DROPPED_BYTES:
            self.flow.pause_reading()

    def cut_off(self) -> None:
        """End a request that is being answered as if its client had left."""
        if self._is_busy():
            self.transport.abort()

    def _may_answer(self) -> bool:
        """Whether the next answer is that to what is being received."""
        if not self._is_busy():
            return not self._body_is_open
        return self._body_is_open and not self.cycle.response_started and not self.pipeline

    def _is_busy(self) -> bool:
        """Whether a request waits for its answer, or for the rest of it."""
        return self.cycle is not None and not self.cycle.response_complete


def _overloaded(message: str) -> Refusal:
    return Refusal(503, code_pb2.UNAVAILABLE, Reason.OVERLOADED, message, retry_after_s=1.0)


def _response(refusal: Refusal, domain: str, request_id: str) -> bytes:
    status = status_of(refusal, domain=domain, request_id=request_id)
    body = Writer(descriptor_pool.Default()).text(status).encode()
    head = [
        b"HTTP/1.1 %d %b" % (refusal.http_status, _PHRASES[refusal.http_status]),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"connection: close",
        b"x-request-id: %b" % request_id.encode(),
    ]
    if refusal.retry_after_s is not None:
        head.append(b"retry-after: %d" % refusal.retry_after_s)
    return b"\r\n".join((*head, b"", body))


class Listener:
    """Serves an ASGI application on a port.

    port: 0 takes a free one; `port` tells which, once started.
    domain: `ErrorInfo.domain` of errors below HTTP.
    reuse_port: let several processes share the port.

    Installs no signal handlers, and sends no lifespan events.
    """

    def __init__(
        self,
        app: App,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: ListenerLimits = ListenerLimits(),
        domain: str = "",
        reuse_port: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self._limits = limits
        self._shared = _Shared(limits, domain, self._note_lost)
        self._reuse_port = reuse_port
        self._state = ServerState()
        self._config = Config(
            app,
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
        )
        self._server: asyncio.Server | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        self._config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Protocol(self._shared, self._config, self._state),
            self.host,
            self.port,
            backlog=self._limits.backlog,
            reuse_port=self._reuse_port or None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._tick()

    def _tick(self) -> None:
        """Renew the Date header, once a second."""
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        self._clock = asyncio.get_running_loop().call_later(1.0, self._tick)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    async def wait_until_empty(self) -> None:
        """Wait until no connection is open."""
        while self._state.connections:
            self._empty.clear()
            await self._empty.wait()

    def _note_lost(self) -> None:
        if not self._state.connections:
            self._empty.set()

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop listening, let open requests finish within the grace, then end what is left as if its clients had gone.

        Takes at most three seconds more than the grace.
        """
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._finish_tasks(grace_s)
        await self._finish_connections()
        if self._clock is not None:
            self._clock.cancel()
        await self._server.wait_closed()
        self._server = None

    async def _finish_tasks(self, grace_s: float) -> None:
        tasks = set(self._state.tasks)
        if tasks and grace_s > 0:
            _, tasks = await asyncio.wait(tasks, timeout=grace_s)
        for connection in cast(list[_Protocol], list(self._state.connections)):
            connection.cut_off()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)

    async def _finish_connections(self) -> None:
        """Let what is written be sent."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait_until_empty(), _LAST_WORDS_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
