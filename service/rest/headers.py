"""HTTP headers to call metadata, and back: allow-lists both ways.

A header sets metadata only if it is listed, or begins with `Grpc-Metadata-` and does not name a key that the service
trusts. Metadata comes back under `Grpc-Metadata-`, a few names under their own.
"""

import re
import secrets
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from google.rpc import code_pb2

from service.rest.invoke import Metadata
from service.rest.refusal import Headers, Reason, Refusal, bad_request
from service.rest.values import InvalidValue, bytes_from_text

RawHeaders = Iterable[tuple[bytes, bytes]]

_REQUIRED: Final = ("authorization", "x-request-id", "idempotency-key", "last-event-id")
_OPTIONAL: Final = ("traceparent", "tracestate", "baggage", "accept-language", "user-agent")
_FORWARDED: Final[dict[bytes, str]] = {name.encode(): name for name in (*_REQUIRED, *_OPTIONAL)}
_DROPPED_IF_ODD: Final = frozenset(_OPTIONAL)

_PREFIX: Final = b"grpc-metadata-"
_NEVER_SET: Final = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_NEVER_SET_PREFIXES: Final = ("grpc-", "x-forwarded-", "x-internal-", "x-real-ip")
_ENTRY_OVERHEAD: Final = 32

_OWN_NAME: Final = frozenset(["x-request-id", "retry-after", "location", "etag"])
_NEVER_SENT: Final = frozenset(["connection", "content-length", "content-type", "set-cookie", "transfer-encoding"])

_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(rb"[\x20-\x7e]*")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = re.compile(rb"[0-9]{1,8}(?:\.[0-9]{1,9})?")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(frozen=True, slots=True)
class HeaderPolicy:
    """Which headers may become metadata.

    reserved: keys that no header may set, because the service trusts them.
    trust_forwarded: a proxy in front sets X-Forwarded-For and X-Forwarded-Host; else what comes in them is dropped.
    max_metadata_bytes: more is refused with 431.
    """

    reserved: Collection[str] = frozenset()
    trust_forwarded: bool = False
    max_metadata_bytes: int = 16 * 1024

    def metadata(self, headers: RawHeaders, host: str, peer_host: str) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata of a call. Raises Refusal."""
        entries: list[tuple[str, str | bytes]] = []
        came_from: list[str] = []
        for name, value in headers:
            key = _FORWARDED.get(name)
            if key is not None:
                if _VALUE.fullmatch(value):
                    entries.append((key, value.decode("ascii")))
                elif key not in _DROPPED_IF_ODD:
                    raise _bad_header(key)
            elif name.startswith(_PREFIX):
                entries.append(self._prefixed(name[len(_PREFIX) :], value))
            elif self.trust_forwarded and name == b"x-forwarded-for" and _VALUE.fullmatch(value):
                came_from.append(value.decode("ascii"))
            elif self.trust_forwarded and name == b"x-forwarded-host" and _VALUE.fullmatch(value):
                host = value.decode("ascii")
        if peer_host:
            entries.append(("x-forwarded-for", ", ".join((*came_from, peer_host))))
        if host:
            entries.append(("x-forwarded-host", host))
        self._check_size(entries)
        return tuple(entries)

    def _prefixed(self, raw_key: bytes, value: bytes) -> tuple[str, str | bytes]:
        key = raw_key.decode("latin-1")
        shown = f"grpc-metadata-{key}"
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise _bad_header(shown)
        if key in _NEVER_SET or key in self.reserved or key.startswith(_NEVER_SET_PREFIXES):
            raise bad_request(Reason.INVALID_HEADER, f"the header {shown} is not for callers to set")
        if not key.endswith("-bin"):
            return key, value.decode("ascii")
        try:
            return key, bytes_from_text(value.decode("ascii"))
        except InvalidValue:
            raise bad_request(Reason.INVALID_HEADER, f"the header {shown} is not base64") from None

    def _check_size(self, entries: list[tuple[str, str | bytes]]) -> None:
        size = sum(len(key) + len(value) for key, value in entries) + _ENTRY_OVERHEAD * len(entries)
        if size > self.max_metadata_bytes:
            raise Refusal(
                431,
                code_pb2.RESOURCE_EXHAUSTED,
                Reason.HEADERS_TOO_LARGE,
                f"the headers make more than {self.max_metadata_bytes} bytes of metadata",
            )


def _bad_header(name: str) -> Refusal:
    return bad_request(Reason.INVALID_HEADER, f"the header {name} has characters that metadata cannot have")


def timeout_s(headers: Mapping[bytes, bytes], *, default_s: float, max_s: float) -> float:
    """Return the deadline that `Grpc-Timeout`, or `X-Server-Timeout` in seconds, asks for. Raises Refusal."""
    value = headers.get(b"grpc-timeout")
    if value is not None:
        match = _TIMEOUT.fullmatch(value)
        if match is None:
            raise bad_request(Reason.INVALID_HEADER, "the header grpc-timeout must be digits and one of H M S m u n")
        return min(int(match[1]) * _UNIT_S[match[2]], max_s)
    value = headers.get(b"x-server-timeout")
    if value is not None:
        if not _SECONDS.fullmatch(value):
            raise bad_request(Reason.INVALID_HEADER, "the header x-server-timeout must be seconds")
        return min(float(value), max_s)
    return min(default_s, max_s)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return what the shim's own errors call a request: the client's `X-Request-Id` if that is sound, else a new id."""
    sent = headers.get(b"x-request-id", b"").decode("latin-1")
    is_sound = sent.isascii() and sent.isprintable() and 0 < len(sent) <= 128
    return sent if is_sound else secrets.token_hex(8)


def from_metadata(metadata: Metadata, *, prefix: bytes = _PREFIX) -> Headers:
    """Return metadata as response headers. What is not fit for a header, or gRPC's own, is left out."""
    headers: list[tuple[bytes, bytes]] = []
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-") or key in _NEVER_SENT:
            continue
        raw = b64encode(value) if isinstance(value, bytes) else value.encode("ascii", "replace")
        if _VALUE.fullmatch(raw):
            own_name = key in _OWN_NAME or key.startswith(("ratelimit", "x-ratelimit-"))
            headers.append((key.encode() if own_name else prefix + key.encode(), raw))
    return headers
