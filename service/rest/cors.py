"""Cross-origin requests (the Fetch standard's CORS protocol), for origins that are listed."""

from collections.abc import Collection, Sequence
from typing import Final

from service.rest.exchange import Exchange
from service.rest.refusal import Headers

_ALLOWED_HEADERS: Final = (
    b"Authorization, Content-Type, Grpc-Timeout, Idempotency-Key, Last-Event-ID, X-Request-Id, X-Server-Timeout, "
    b"Traceparent, Tracestate, Baggage"
)
_MAX_AGE_S: Final = b"600"


class Cors:
    """Decides which origins may read answers, and then all of them with all their headers.

    Credentials (cookies) are never allowed, which is what makes a `*` safe.

    origins: such as `https://example.org`; `*` for any.
    """

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = b"*" in self._origins

    def headers(self, exchange: Exchange) -> Headers:
        """Return what an answer to this request carries."""
        if not self._origins:
            return []
        headers = [(b"vary", b"Origin")]
        allowed = self._allowed(exchange)
        if allowed:
            headers += [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", b"*")]
        return headers

    def preflight(self, exchange: Exchange, methods: Sequence[str]) -> Headers | None:
        """Return what answers a preflight beside `headers`; None if the request is not one, or not allowed."""
        if exchange.method != "OPTIONS" or b"access-control-request-method" not in exchange.headers:
            return None
        if not self._allowed(exchange):
            return None
        return [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", _MAX_AGE_S),
        ]

    def _allowed(self, exchange: Exchange) -> bytes:
        origin: bytes = exchange.headers.get(b"origin", b"")
        if origin and origin in self._origins:
            return origin
        return b"*" if origin and self._any else b""
