"""What the shim serves that is no RPC: health, the OpenAPI document and the page that shows it."""

import functools
import hashlib
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final
from urllib.parse import parse_qs

from service.rest.exchange import Exchange
from service.rest.refusal import Headers, invalid_field, method_not_allowed

Page = Callable[[Exchange], Awaitable[None]]
Ready = Callable[[str], str]
"""Returns SERVING, NOT_SERVING or SERVICE_UNKNOWN for a service's full name; the empty name means all of them."""

_HEALTH_STATUS: Final = {"SERVING": 200, "SERVICE_UNKNOWN": 404}
_ASSET_TYPES: Final = {
    "index.html": b"text/html; charset=utf-8",
    "docs.js": b"text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}
_PAGE_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def health_pages(ready: Ready) -> dict[str, Page]:
    """Return `/healthz`, which says that the process lives, and `/readyz`, which says that it serves.

    Either takes `?service=`, and then says how that service is.
    """

    async def live(exchange: Exchange) -> None:
        service = _service(exchange)
        await _respond_health(exchange, ready(service) if service else "SERVING")

    async def readiness(exchange: Exchange) -> None:
        await _respond_health(exchange, ready(_service(exchange)))

    return {"/healthz": _only_get(live), "/readyz": _only_get(readiness)}


def _service(exchange: Exchange) -> str:
    try:
        found = parse_qs(exchange.query.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise invalid_field("service", "must be the full name of a service") from None
    return found.get("service", [""])[-1]


async def _respond_health(exchange: Exchange, health: str) -> None:
    body = json.dumps({"status": health}).encode()
    await exchange.respond(_HEALTH_STATUS.get(health, 503), [(b"content-type", b"application/json")], body)


def document_page(document: Callable[[], bytes]) -> Page:
    """Return the page of a JSON document that is built when it is first asked for."""
    build = functools.cache(document)

    async def serve(exchange: Exchange) -> None:
        await _respond_cacheable(exchange, b"application/json", build())

    return _only_get(serve)


def docs_pages() -> dict[str, Page]:
    """Return the pages of Swagger UI, from files of this package."""
    return {
        **{f"/docs/{name}": _asset_page(name) for name in _ASSET_TYPES if name != "index.html"},
        "/docs": _asset_page("index.html"),
    }


def _asset_page(name: str) -> Page:
    @functools.cache
    def read() -> bytes:
        return resources.files(__package__).joinpath("static", name).read_bytes()

    async def serve(exchange: Exchange) -> None:
        await _respond_cacheable(exchange, _ASSET_TYPES[name], read(), [(b"content-security-policy", _PAGE_POLICY)])

    return _only_get(serve)


async def _respond_cacheable(exchange: Exchange, content_type: bytes, body: bytes, headers: Headers = ()) -> None:
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
    if etag in exchange.headers.get(b"if-none-match", b""):
        await exchange.respond(304, [(b"etag", etag)], cache=b"no-cache")
    else:
        await exchange.respond(
            200, [(b"content-type", content_type), (b"etag", etag), *headers], body, cache=b"no-cache"
        )


def _only_get(page: Page) -> Page:
    async def serve(exchange: Exchange) -> None:
        if exchange.method not in ("GET", "HEAD"):
            raise method_not_allowed(["GET", "HEAD"])
        await page(exchange)

    return serve
