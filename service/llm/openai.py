"""Answers from OpenAI, or from any server that speaks its chat completions.

The SDK says where to and with which headers; the call itself is a bare aiohttp POST whose `data:` lines are read raw,
which costs a third of the SDK's cheapest call and a tenth of its stream objects (docs: design, section 7).
"""

import asyncio
import io
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from service.domain.checks import MAX_ANSWER_BYTES
from service.domain.errors import ModelError, ModelUnavailable
from service.domain.ports import Finish, ModelRequest
from service.llm.answer import Answer
from service.llm.faults import connection_fault, cut, invalid, log_text, silence, status_fault

_MAX_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_WAIT_S = 5.0
# How long a connection may take to end after the last thing of use, to be kept for the next call.
_DRAIN_S = 0.1
_KEEP_ALIVE_S = 15.0
_DNS_CACHE_S = 30
# aiohttp warns of larger bodies given as bytes; as a file they are written in pieces.
_LARGE_BODY_BYTES = 2**20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how large things may be; all positive.

    connect_s: to get a connection, waiting for a free one and TLS included.
    first_token_s: from the start of the call to the first text or reasoning; with streaming off, to the whole answer.
    silence_s: between two such pieces. Comments and empty deltas do not count as pieces.
    usage_wait_s: for the token counts, once the answer is finished; without them the answer is given all the same.
    """

    connect_s: float = 5.0
    first_token_s: float = 60.0
    silence_s: float = 30.0
    usage_wait_s: float = 2.0
    max_connections: int = 20_000
    max_event_bytes: int = 1024 * 1024
    max_answer_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name} must be positive")


@dataclass(frozen=True, slots=True, repr=False)
class _Endpoint:
    url: URL
    proxy: URL | None
    session: aiohttp.ClientSession


class OpenAIModel:
    """A ChatModel over HTTP.

    api_key: None sends no Authorization header. model: for requests that name none. base_url: None takes the SDK's:
    OPENAI_BASE_URL, else api.openai.com. organization, project: None takes the SDK's environment variables.
    streaming: False asks for whole answers, for servers that cannot stream; the text then comes as one piece.
    max_tokens_field: OpenAI has deprecated `max_tokens`, and its reasoning models refuse it; servers that know
    only the old name (Ollama, older llama.cpp) pass over the new one, so give `max_tokens` for them.
    """

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        streaming: bool = True,
        max_tokens_field: str = "max_completion_tokens",
        limits: Limits | None = None,
    ) -> None:
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the API key has characters that a header cannot carry")
        if base_url is not None:
            _check_url(base_url)
        self._model = model
        self._api_key = api_key or ""
        self._base_url = base_url
        self._organization = organization
        self._project = project
        self._streaming = streaming
        self._max_tokens_field = max_tokens_field
        self._limits = limits or Limits()
        self._endpoint: _Endpoint | None = None

    def __repr__(self) -> str:
        return f"OpenAIModel(model={self._model!r})"

    async def open(self) -> None:
        """Load the SDK, in a thread: it takes about a second. To be called once, before the first stream."""
        self._endpoint = await self._make_endpoint()

    async def close(self) -> None:
        """Close all connections; streams that are open, or begin later, end with ModelUnavailable."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.session.close()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        """Yield pieces of text, none of them empty, and one Finish last.

        All text of one network read is one piece. A provider that breaks off raises ModelUnavailable, whether or not
        it closed the stream in good order: without a finish reason an answer is not whole.
        """
        endpoint = self._endpoint
        if endpoint is None:
            raise ModelUnavailable("the connection to the model provider is closed")
        limits = self._limits
        patience = _Patience(limits)
        model = request.settings.model or self._model
        answer = Answer(
            model,
            max_event_bytes=limits.max_event_bytes,
            max_answer_bytes=limits.max_answer_bytes,
            secret=self._api_key,
        )
        response = await self._post(endpoint, self._body(model, request), patience)
        try:
            if not 200 <= response.status < 300:
                raise await self._refusal(response)
            while not answer.is_over:
                if text := await self._more(response, answer, patience):
                    yield text
                patience.renew(answer)
            yield answer.finish()
        finally:
            patience.end()
            response.close()

    async def _post(self, endpoint: _Endpoint, body: bytes, patience: "_Patience") -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout_at(patience.deadline):
                return await endpoint.session.post(
                    endpoint.url,
                    data=body if len(body) < _LARGE_BODY_BYTES else io.BytesIO(body),
                    proxy=endpoint.proxy,
                    max_redirects=3,
                )
        except aiohttp.ClientResponseError as exc:
            # Not as its cause: it carries the request's headers.
            raise connection_fault(exc) from None
        except aiohttp.ClientError as exc:
            raise connection_fault(exc) from exc
        except TimeoutError:
            raise silence(patience.limit_s) from None
        except OSError as exc:
            raise connection_fault(exc) from exc

    async def _more(self, response: aiohttp.ClientResponse, answer: Answer, patience: "_Patience") -> str:
        """Wait for more of the answer, and return the text that it brings."""
        patience.begin(response.content)
        try:
            data = await response.content.readany()
            is_whole = not (self._streaming and (answer.has_begun or _may_be_events(data)))
            if is_whole:
                data = await _rest(response, data, 2 * self._limits.max_answer_bytes)  # JSON has more than its text
        except TimeoutError:
            answer.fail(silence(patience.limit_s))
            return ""
        except (aiohttp.ClientError, OSError) as exc:
            log_text("connection", repr(exc).encode(), self._api_key)
            answer.fail(cut())
            return ""
        finally:
            patience.pause()
        text = answer.feed_whole(data) if is_whole else answer.feed(data)
        if answer.fault is not None:
            log_text("answer", data, self._api_key)
        return text

    async def _refusal(self, response: aiohttp.ClientResponse) -> ModelError:
        body = b""
        try:
            async with asyncio.timeout(_ERROR_BODY_WAIT_S):
                body = await _rest(response, b"", _MAX_ERROR_BODY_BYTES)
        except (aiohttp.ClientError, OSError, ModelError):
            pass  # The status alone says enough.
        return status_fault(response.status, response.headers, body, self._api_key)

    def _body(self, model: str, request: ModelRequest) -> bytes:
        settings = request.settings
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": m.role.value, "content": m.content} for m in request.messages],
            "stream": self._streaming,
        }
        if self._streaming:
            body["stream_options"] = {"include_usage": True}
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.top_p is not None:
            body["top_p"] = settings.top_p
        if settings.max_output_tokens is not None:
            body[self._max_tokens_field] = settings.max_output_tokens
        if settings.seed is not None:
            body["seed"] = settings.seed
        if settings.stop_sequences:
            body["stop"] = settings.stop_sequences
        return orjson.dumps(body)

    async def _make_endpoint(self) -> _Endpoint:
        client, tls = await asyncio.to_thread(self._configure)
        base_url = URL(str(client.base_url))
        query = {**base_url.query, **{name: str(value) for name, value in client.default_query.items()}}
        url = base_url.joinpath("chat", "completions").with_query(query or None)
        headers = {name: value for name, value in client.default_headers.items() if isinstance(value, str)}
        if self._api_key:
            headers.update(client.auth_headers)
        headers["Accept-Encoding"] = "identity"
        await client.close()
        limits = self._limits
        session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(
                limit=limits.max_connections, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=_DNS_CACHE_S, ssl=tls
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s),
        )
        return _Endpoint(url, _proxy(url), session)

    def _configure(self) -> tuple[Any, ssl.SSLContext]:
        """Return the SDK's client, and the trust store it would take. Runs in a thread: both read files."""
        import httpx2
        from openai import AsyncOpenAI

        client = AsyncOpenAI(
            api_key=self._api_key or "unused",
            base_url=self._base_url,
            organization=self._organization,
            project=self._project,
            max_retries=0,
        )
        return client, httpx2.create_ssl_context()


class _Patience:
    """Until when to wait for a provider.

    The clock of silence runs only while we wait: what the consumer of a piece takes is not the provider's.
    One timer at a time, which is made anew when it has run out, and not for each read.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._progress = 0
        self._awaited: aiohttp.StreamReader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self.limit_s = limits.first_token_s
        self.deadline = self._loop.time() + self.limit_s

    def begin(self, content: aiohttp.StreamReader) -> None:
        """Wait for this content from now on; reading it raises TimeoutError after the deadline."""
        self._awaited = content
        if self._timer is None or self.deadline < self._rings_at:
            self.end()
            self._set()

    def pause(self) -> None:
        """Wait no more, for now."""
        self._awaited = None

    def end(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        self._rings_at = self.deadline
        self._timer = self._loop.call_at(self.deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._awaited is None:
            return
        if self._loop.time() < self.deadline:
            self._set()
        else:
            self._awaited.set_exception(TimeoutError())

    def renew(self, answer: Answer) -> None:
        """Set the deadline for what may come next."""
        if answer.progress != self._progress:
            self._progress = answer.progress
            self.limit_s = self._limits.silence_s if answer.finish_reason is None else self._limits.usage_wait_s
            self.deadline = self._loop.time() + self.limit_s
        if answer.done or (answer.usage and answer.finish_reason):
            self.deadline = min(self.deadline, self._loop.time() + _DRAIN_S)


def _may_be_events(start: bytes) -> bool:
    """Whether a body that begins so may be an event stream: no page of HTML, no JSON of a server that cannot stream."""
    return start.lstrip()[:1] not in (b"{", b"[", b"<")


async def _rest(response: aiohttp.ClientResponse, start: bytes, max_bytes: int) -> bytes:
    """Return `start` and all that follows."""
    parts = [start]
    size_bytes = len(start)
    while data := await response.content.readany():
        parts.append(data)
        size_bytes += len(data)
        if size_bytes > max_bytes:
            raise invalid("answer too large")
    return b"".join(parts)


def _check_url(url: str) -> None:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("base_url must be an http or https URL")
    if parsed.user or parsed.password:
        raise ValueError("base_url must not hold a user or password")


def _proxy(url: URL) -> URL | None:
    """Return the proxy that the environment names for this address, as the SDK would take it; none for loopback."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return URL(proxy) if proxy else None
