"""The ASGI application: HTTP/JSON in front of RPCs, from descriptors alone.

Knows the services' descriptors, their `google.api.http` options and a way to call a method; nothing of what they do.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import code_pb2

from service.rest import openapi, pages, rules
from service.rest.answers import Answers
from service.rest.bindings import Binding, Codec
from service.rest.calls import Calls
from service.rest.cors import Cors
from service.rest.exchange import Exchange, Finished, Scope, Send
from service.rest.guard import Cut, Interrupted, Receive
from service.rest.headers import HeaderPolicy
from service.rest.invoke import Invoker
from service.rest.limits import Limits
from service.rest.reader import Reader
from service.rest.refusal import Refusal, internal_error, url_too_long
from service.rest.routes import Match, Routes
from service.rest.rules import ANY_METHOD
from service.rest.status import CLIENT_GONE
from service.rest.writer import Writer

_log = logging.getLogger(__name__)


class RestApp:
    """An ASGI application that serves the methods of some services by their HTTP rules.

    services: whose methods to serve; all from one descriptor pool. A method without an HTTP rule has no path.
    invoker: calls the methods.
    title, version, description: of the OpenAPI document at `/openapi.json`, which `/docs` shows.
    source_info: the services' files with comments (`protoc --include_source_info`), for descriptions in that document.
    examples: request bodies to try in that document, by the full name of their method.
    constraints: what fields may hold, as JSON Schema keywords for that document, by the full name of the field.
    unserved: full names of methods and fields that the service refuses yet: that document then says so of a method, and
        leaves a field out of what may be sent.
    openapi_version: 3.2.0 describes streams exactly, but few tools read it yet.
    domain: `ErrorInfo.domain` of the shim's own errors, and the realm of WWW-Authenticate.
    event_id: gives the `id:` of a Server-Sent Event from a streamed message, for `Last-Event-ID`; empty for none.
    ready: tells how a service is, by its full name, empty for all: SERVING, NOT_SERVING or SERVICE_UNKNOWN.
    limits: every bound; see Limits.
    cors_origins: origins whose scripts may call; none by default.
    reserved_metadata: keys that no header may set, because the service trusts them.
    trust_forwarded: a trusted proxy in front sets X-Forwarded-For and X-Forwarded-Host.
    lenient: skip unknown fields and parameters instead of refusing them.
    ignored_parameters: query parameters that are skipped everywhere.
    uploads: serve methods that take a stream of requests if their body is a file (HttpBody): the first request has
        what path and query say, each one behind it a piece of the body as it comes.
    skip_client_streaming: give methods that take a stream no path, instead of refusing to start.
    drain_retry_s: after how long a caller that is turned away by a drain should come again.
    on_finish: called once with each finished exchange, for logs and metrics.

    Raises RuleError or RouteConflict, which name the method, if the rules cannot be served.
    """

    def __init__(
        self,
        services: Sequence[ServiceDescriptor],
        invoker: Invoker,
        *,
        title: str = "API",
        version: str = "",
        description: str = "",
        source_info: FileDescriptorSet | None = None,
        examples: Mapping[str, Any] | None = None,
        constraints: Mapping[str, Any] | None = None,
        unserved: Collection[str] = (),
        openapi_version: openapi.Version = "3.1.0",
        domain: str = "",
        event_id: Callable[[Any], str] | None = None,
        ready: pages.Ready | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        cors_origins: Collection[str] = (),
        reserved_metadata: Collection[str] = (),
        trust_forwarded: bool = False,
        lenient: bool = False,
        ignored_parameters: Collection[str] = (),
        uploads: bool = False,
        skip_client_streaming: bool = False,
        drain_retry_s: float = 1.0,
        on_finish: Finished | None = None,
    ) -> None:
        self._limits = limits
        self._ready = ready or (lambda _: "SERVING")
        self._cors = Cors(cors_origins)
        self._on_finish = on_finish
        pool = services[0].file.pool
        reader = Reader(pool, lenient=lenient, max_depth=limits.max_json_depth)
        writer = Writer(pool)
        self._answers = Answers(writer, domain)
        policy = HeaderPolicy(frozenset(reserved_metadata), trust_forwarded, limits.max_metadata_bytes)
        self._calls = Calls(invoker, self._answers, policy, limits, event_id=event_id, drain_retry_s=drain_retry_s)
        all_rules = rules.rules_of(services, skip_client_streaming=skip_client_streaming, uploads=uploads)
        codec = Codec(reader, writer, limits, lenient, ignored_parameters)
        bindings = [Binding(rule, codec) for rule in all_rules]
        self._routes = Routes((binding.rule.http_method, binding.rule.template, binding) for binding in bindings)

        def document() -> bytes:
            return openapi.Document(
                all_rules,
                title=title,
                version=version,
                description=description,
                source_info=source_info,
                examples=examples,
                constraints=constraints,
                unserved=unserved,
                openapi_version=openapi_version,
                lenient=lenient,
            ).json()

        self._pages: dict[str, pages.Page] = {
            **pages.health_pages(self._readiness),
            **pages.docs_pages(),
            "/openapi.json": pages.document_page(document),
        }

    def drain(self) -> None:
        """Turn new requests away with UNAVAILABLE, and end open streams with that status. Health says NOT_SERVING."""
        self._calls.drain()

    def _readiness(self, service: str) -> str:
        health = self._ready(service)
        return "NOT_SERVING" if self._calls.draining and health == "SERVING" else health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(Exchange(scope, receive, send, self._limits))
        else:
            raise NotImplementedError(f"{scope['type']} is not served")

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._serve_or_refuse(exchange)
        except Interrupted as interrupted:
            if interrupted.cut is not Cut.UNSPOKEN:
                exchange.http_status, exchange.code = CLIENT_GONE, code_pb2.CANCELLED
        finally:
            if self._on_finish is not None:
                self._on_finish(exchange)

    async def _serve_or_refuse(self, exchange: Exchange) -> None:
        try:
            exchange.extra_headers.extend(self._cors.headers(exchange))
            await self._dispatch(exchange)
        except Refusal as refusal:
            await self._answers.refuse(exchange, refusal)
        except Interrupted:
            raise
        except Exception:
            _log.exception("unexpected error in %s", exchange.template)
            if exchange.http_status:
                raise
            await self._answers.refuse(exchange, internal_error())

    async def _dispatch(self, exchange: Exchange) -> None:
        page = self._pages.get(exchange.path)
        if page is not None:
            exchange.template = exchange.path
            await page(exchange)
            return
        if self._calls.draining:
            exchange.close_connection()
            raise self._calls.turned_away()
        match = await self._match(exchange)
        if match is not None:
            await self._calls.serve(exchange, match)

    async def _match(self, exchange: Exchange) -> Match[Binding] | None:
        """Find the binding of a request; None if it was OPTIONS and is answered. Raises Refusal."""
        if len(exchange.path) + len(exchange.query) > self._limits.max_url_bytes:
            raise url_too_long(self._limits.max_url_bytes)
        if exchange.method == "OPTIONS":
            methods = self._routes.methods(exchange.path)
            preflight = self._cors.preflight(exchange, methods)
            if preflight is not None or (methods and not {"OPTIONS", ANY_METHOD} & set(methods)):
                await exchange.respond(204, [(b"allow", ", ".join(methods).encode()), *(preflight or ())])
                return None
        match = self._routes.match(exchange.method, exchange.path)
        exchange.template = match.target.template
        exchange.rpc = match.target.method.full_name
        return match


async def _lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
