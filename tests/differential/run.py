"""Sends the same requests to our shim and to another gateway, over one gRPC server, and compares what comes of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
from yarl import URL

from service.rest import Listener, RestApp
from tests.differential.gateways import Api
from tests.differential.outcomes import Difference, Outcome, differences, parsed
from tests.differential.requests import Request, requests
from tests.differential.upstream import PROBE, ChannelInvoker, Upstream

API = Api(
    folders=(Path(__file__).parents[1] / "rest" / "protos", Path(__file__).parent / "protos"),
    files=("gallery.proto", "forms.proto"),
    services=("gallery.v1.Gallery", "forms.v1.Forms"),
)

_AT_ONCE = 8
_REQUEST_TIMEOUT_S = 10.0
_OUR_HEADERS = {"accept-encoding", "accept", "user-agent", "content-type"}

Gateway = Callable[[Api, str], AbstractAsyncContextManager[str]]


@dataclass(frozen=True)
class Pair:
    """One request, its outcomes here and there, and how they differ."""

    request: Request
    ours: Outcome
    theirs: Outcome
    differences: Sequence[Difference]


async def compare(gateway: Gateway, spared: Callable[[Request], bool]) -> list[Pair]:
    """Send every request that is not spared to both. Raises Unavailable."""
    pool = await API.pool()
    services = [pool.FindServiceByName(name) for name in API.services]
    upstream = Upstream(services)
    async with (
        upstream.serving() as address,
        grpc.aio.insecure_channel(address) as channel,
        gateway(API, address) as their_url,
        _shim(RestApp(services, ChannelInvoker(channel), domain="shim.test")) as our_url,
        _client() as session,
    ):
        client = _Client(session, upstream)
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def pair(request: Request) -> Pair:
            async with at_once:
                ours, theirs = await asyncio.gather(client.send(our_url, request), client.send(their_url, request))
                return Pair(request, ours, theirs, differences(ours, theirs))

        return await asyncio.gather(*(pair(request) for request in requests(pool) if not spared(request)))


@asynccontextmanager
async def _shim(app: RestApp) -> AsyncIterator[str]:
    listener = Listener(app, port=0, domain="shim.test")
    await listener.start()
    try:
        yield f"http://{listener.host}:{listener.port}"
    finally:
        await listener.stop()


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0),
        skip_auto_headers=_OUR_HEADERS,
        auto_decompress=False,
    )


class _Client:
    """Sends requests byte for byte as they are."""

    def __init__(self, session: aiohttp.ClientSession, upstream: Upstream) -> None:
        self._session = session
        self._upstream = upstream
        self._sent = 0

    async def send(self, url: str, request: Request) -> Outcome:
        """Send one request and return what came of it on both sides of the gateway."""
        self._sent += 1
        probe = str(self._sent)
        headers = {**dict(request.headers), PROBE: probe}
        try:
            async with self._session.request(
                request.method,
                URL(url + request.target, encoded=True),
                data=request.body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            return Outcome(0, type(error).__name__, None, *self._upstream.received.pop(probe, (None, None)))
        kind = response.headers.get("content-type", "").partition(";")[0]
        rpc, message = self._upstream.received.pop(probe, (None, None))
        stream = "stream" in request.tags and response.status == 200
        return Outcome(response.status, kind, parsed(body, kind, stream=stream), rpc, message)
