"""One HTTP request and its answer, over ASGI."""

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from google.rpc import code_pb2

from service.rest.guard import Cut, Interrupted, Message, Receive, TellLeaving
from service.rest.limits import Limits
from service.rest.refusal import Headers, Refusal, body_too_large, body_too_slow
from service.rest.waiting import within

Scope = Message
Send = Callable[[Message], Awaitable[None]]

_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
_DIGITS: Final = frozenset(b"0123456789")
_ABSOLUTE: Final = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)
_SKIPPED_BYTES: Final = 64 * 1024


BODY_PASSED_ON = "http.request.passed_on"
"""Extension of the ASGI scope: `tell` wants to know how many bytes of a body are held no more."""
CLIENT_LEAVES = "http.client.leaves"
"""Extension of the ASGI scope: `tell` is a TellLeaving."""
RESPONSE_TOGETHER = "http.response.together"
"""Extension of the ASGI scope: what is sent between `hold` and `release` goes out as one, a head and its body, say."""


class Exchange:
    """A request that is being answered.

    headers: of the request; where one came twice, the last. `raw_headers` has all.
    template: of the rule that serves it, `(none)` if none does; fit to be a metric's label.
    rpc: full name of the method that is called; empty if none is.
    request_id: named by the shim's own errors; empty until there is one.
    code: the gRPC code of the answer.
    http_status: 0 while nothing is sent; 499 if the client left.
    extra_headers: what every answer to this request carries.
    """

    __slots__ = (
        "_send",
        "body_bytes",
        "body_is_read",
        "code",
        "extra_headers",
        "headers",
        "http_status",
        "limits",
        "method",
        "path",
        "query",
        "raw_headers",
        "receive",
        "request_id",
        "rpc",
        "scope",
        "sent_bytes",
        "start",
        "template",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.limits = limits
        self.method: str = scope["method"]
        self.path = _path(scope)
        self.query: bytes = scope.get("query_string", b"")
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        self.start = monotonic()
        self.template = "(none)"
        self.rpc = ""
        self.request_id = ""
        self.code: int = code_pb2.OK
        self.http_status = 0
        self.body_bytes = 0
        self.body_is_read = not self.has_body
        self.sent_bytes = 0
        self.extra_headers: list[tuple[bytes, bytes]] = []

    @property
    def peer(self) -> str:
        """The client's address in gRPC's form."""
        client: tuple[str, int] | None = self.scope.get("client")
        if client is None:
            return "unknown"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    @property
    def peer_host(self) -> str:
        """The client's address without its port; empty if it is not known."""
        client: tuple[str, int] | None = self.scope.get("client")
        return client[0] if client is not None else ""

    @property
    def host(self) -> str:
        """The Host header."""
        return self.headers.get(b"host", b"").decode("latin-1")

    @property
    def tell_leaving(self) -> TellLeaving | None:
        """What tells when the client leaves, beside `receive`; None if the server has no such thing."""
        tell: TellLeaving | None = self.extension(CLIENT_LEAVES).get("tell")
        return tell

    @property
    def has_body(self) -> bool:
        """Whether a body may follow. HTTP/2 need not announce one."""
        return self.scope.get("http_version", "1.1") >= "2" or self._announces_body

    @property
    def _announces_body(self) -> bool:
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    def extension(self, name: str) -> Mapping[str, Any]:
        """Return what the server offers beyond ASGI under this name; empty if it does not."""
        extensions: Mapping[str, Mapping[str, Any]] = self.scope.get("extensions", _NONE)
        return extensions.get(name, _NONE)

    async def body(self) -> bytes:
        """Read the request's body, within its limits of size and time. Raises Refusal, or Interrupted."""
        if not self.has_body:
            return b""
        limit = self.limits.max_body_bytes
        self.check_length(limit)
        try:
            body = await within(self.limits.body_timeout_s, self._read(limit))
        except TimeoutError:
            raise body_too_slow() from None
        self.body_is_read = True
        self.body_bytes = len(body)
        return body

    def check_length(self, limit: int) -> None:
        """Raise Refusal if the body says that it is longer than that."""
        if b"content-length" in self.headers and self._declared_length() > limit:
            raise body_too_large(limit)

    async def _read(self, limit: int, *, keep: bool = True) -> bytes:
        before = bytearray()  # not a list: a client may send single bytes
        size = 0
        while True:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise Interrupted(Cut.GONE)
            piece: bytes = event.get("body", b"")
            size += len(piece)
            if size > limit:
                raise body_too_large(limit)
            if not event.get("more_body", False):
                return bytes(before + piece) if before else piece
            if keep:
                before += piece

    async def start_response(self, status: int, headers: Headers, *, cache: bytes = b"no-store") -> None:
        """Send the head of the answer; chunks follow."""
        self.http_status = status
        head = [*headers, (b"cache-control", cache), _NO_SNIFFING, *self.extra_headers]
        await self._sent({"type": "http.response.start", "status": status, "headers": head})

    async def send_chunk(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body."""
        self.sent_bytes += len(data)
        await self._sent({"type": "http.response.body", "body": data, "more_body": not last})

    async def _sent(self, event: Message) -> None:
        try:
            await self._send(event)
        except OSError:
            raise Interrupted(Cut.GONE) from None

    async def respond(self, status: int, headers: Headers, body: bytes = b"", *, cache: bytes = b"no-store") -> None:
        """Send a whole answer, and finish with the request's body if that was not read.

        A connection that is closed with unread data resets, and the client may never see the answer. So what is too
        much for the server to skip is read and dropped for a while before the end.
        """
        head = list(headers)
        if status not in (204, 304):
            head.append((b"content-length", str(len(body)).encode()))
        content = b"" if self.method == "HEAD" else body
        linger = not self.body_is_read and self._declared_length() > _SKIPPED_BYTES
        if linger:
            self.close_connection()
        try:
            sending = self._send_together(status, head, content, cache=cache, last=not linger)
            await within(self.limits.write_timeout_s, sending)
            if linger:
                await self._drop_body()
                await self.send_chunk(b"", last=True)
        except TimeoutError:
            raise Interrupted(Cut.STALLED) from None

    async def _send_together(self, status: int, head: Headers, content: bytes, *, cache: bytes, last: bool) -> None:
        together = self.extension(RESPONSE_TOGETHER) or _APART
        together["hold"]()
        try:
            await self.start_response(status, head, cache=cache)
            await self.send_chunk(content, last=last)
        finally:
            together["release"]()

    def close_connection(self) -> None:
        """Tell the client not to send another request on this connection; HTTP/2 has no word for it."""
        if self.scope.get("http_version", "1.1") < "2":
            self.extra_headers.append((b"connection", b"close"))

    def _declared_length(self) -> int:
        """Return the length of the request's body; if it is not a plain number, one that is too long."""
        length = self.headers.get(b"content-length", b"")
        return int(length) if 0 < len(length) < 19 and _DIGITS.issuperset(length) else 1 << 62

    async def _drop_body(self) -> None:
        with contextlib.suppress(TimeoutError, Refusal, Interrupted):
            await within(self.limits.drain_timeout_s, self._read(self.limits.max_drain_bytes, keep=False))


def _ignore() -> None:
    """There is nothing to do."""


_NONE: Final[Mapping[str, Any]] = {}
_APART: Final = {"hold": _ignore, "release": _ignore}


def _path(scope: Scope) -> str:
    """Return the path as it was sent; of a request in absolute form (RFC 9112, 3.2.2), the path in it."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~").encode()
    if not raw.startswith(b"/"):
        raw = _ABSOLUTE.sub(b"", raw) or b"/"
    return raw.decode("latin-1")


App = Callable[[Scope, Receive, Send], Awaitable[None]]
Finished = Callable[[Exchange], Any]
