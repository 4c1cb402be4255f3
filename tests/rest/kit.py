"""What the tests of the shim share: test services, an invoker that echoes, and a client without a socket."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc_tools
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_tools import protoc
from hypothesis import settings

from service.rest import Call, CallFailed, Limits, RestApp
from service.rest.refusal import Refusal
from service.rest.template import TemplateError

PROTOS = Path(__file__).parent / "protos"
_GOOGLE = Path(annotations_pb2.__file__).parents[2]
_WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


@cache
def compiled(name: str) -> descriptor_pb2.FileDescriptorSet:
    """Compile one of the test protos, comments and imports included."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
        paths = [f"-I{PROTOS}", f"-I{_GOOGLE}", f"-I{_WELL_KNOWN}"]
        assert protoc.main(["protoc", *paths, *flags, name]) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def pool_of(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """Load files into a pool of their own."""
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def gallery() -> ServiceDescriptor:
    """Return the service of gallery.proto."""
    return pool_of(compiled("gallery.proto").file).FindServiceByName("gallery.v1.Gallery")


def gallery_class(name: str) -> Any:
    """Return the class of one of its messages."""
    return GetMessageClass(gallery().file.pool.FindMessageTypeByName(f"gallery.v1.{name}"))


def service_with(*http_rules: http_pb2.HttpRule, takes: str = "Thing", **streaming: bool) -> ServiceDescriptor:
    """Build a service over a message of the gallery with a method for each rule, called M0, M1, and so on."""
    source = compiled("gallery.proto")
    file = descriptor_pb2.FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.append("gallery.proto")
    service = file.service.add(name="Made")
    for number, http_rule in enumerate(http_rules):
        method = service.method.add(
            name=f"M{number}", input_type=f".gallery.v1.{takes}", output_type=".gallery.v1.Thing", **streaming
        )
        method.options.Extensions[annotations_pb2.http].CopyFrom(http_rule)
    return pool_of([*source.file, file]).FindServiceByName("made.Made")


@dataclass
class FakeInvoker:
    """Answers unary calls with their request where the types allow, and streams with `events`.

    reply: a message, an error, or a function of the call.
    wait: awaited before each answer and before each event, and behind each piece of an upload.
    requests: those of the last upload.
    """

    reply: Any = None
    events: Sequence[Any] = ()
    wait: Callable[[], Awaitable[object]] | None = None
    initial_metadata: Sequence[tuple[str, str | bytes]] = ()
    trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    calls: list[Call] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def call(self) -> Call:
        """The last call."""
        return self.calls[-1]

    async def unary(self, call: Call) -> Message:
        self._begin(call)
        try:
            if self.wait is not None:
                await self.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        reply = self.reply(call) if callable(self.reply) else self.reply
        if isinstance(reply, Exception):
            raise reply
        return reply if reply is not None else _echo(call)

    async def upload(self, call: Call, requests: AsyncGenerator[Message, None]) -> Message:
        try:
            self.requests = [call.request]
            assert await anext(requests) is call.request
            self.started.set()
            async for request in requests:
                self.requests.append(request)
                if self.wait is not None:
                    await self.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await self.unary(call)

    async def stream(self, call: Call) -> AsyncGenerator[Message, None]:
        self._begin(call)
        try:
            for event in self.events:
                if self.wait is not None:
                    await self.wait()
                if isinstance(event, Exception):
                    raise event
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    def _begin(self, call: Call) -> None:
        self.calls.append(call)
        call.initial_metadata = self.initial_metadata
        call.trailing_metadata = self.trailing_metadata
        self.started.set()


def _echo(call: Call) -> Message:
    reply = GetMessageClass(call.method.output_type)()
    if call.method.output_type is call.method.input_type:
        reply.CopyFrom(call.request)
    return reply


def failed(code: int, message: str = "no", *details: Message) -> CallFailed:
    """Return the failure that an invoker raises."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return CallFailed(status)


def gallery_app(invoker: FakeInvoker | None = None, **options: Any) -> RestApp:
    """Return the shim over the gallery."""
    return RestApp([gallery()], invoker or FakeInvoker(), domain="gallery.test", **options)


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def violation(self) -> str:
        """The field of the first BadRequest violation."""
        return self.detail("BadRequest")["fieldViolations"][0]["field"]

    def detail(self, kind: str) -> Any:
        """Return the error detail of a google.rpc type."""
        found = [detail for detail in self.json["details"] if detail["@type"].endswith(f"google.rpc.{kind}")]
        assert found, self.json
        return found[0]


def scope_of(method: str, target: str, headers: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """Return an ASGI scope, with the target as it would stand in a request line."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.1", 5000),
        "http_version": "1.1",
    }


async def ask(
    app: RestApp,
    method: str,
    target: str,
    body: bytes | str | dict[str, Any] | list[Any] | None = None,
    headers: dict[str, str] | Sequence[tuple[str, str]] = (),
) -> Answer:
    """Send one request through ASGI. A body that is not bytes goes as JSON."""
    sent = list(headers.items()) if isinstance(headers, dict) else list(headers)
    names = {name.lower() for name, _ in sent}
    if body is not None and not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        if "content-type" not in names:
            sent.append(("content-type", "application/json"))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        sent.append(("content-length", str(len(body))))
    incoming = [{"type": "http.request", "body": body or b"", "more_body": False}]
    outgoing: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(event: Any) -> None:
        outgoing.append(dict(event))

    async with asyncio.timeout(10):
        await app(scope_of(method, target, sent), receive, send)
    assert outgoing[0]["type"] == "http.response.start"
    assert not outgoing[-1].get("more_body", False)
    return Answer(
        outgoing[0]["status"],
        {name.decode(): value.decode("latin-1") for name, value in outgoing[0]["headers"]},
        b"".join(event.get("body", b"") for event in outgoing[1:]),
    )


def attempt(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or the error of the shim's that it raises."""
    try:
        return function()
    except (Refusal, TemplateError) as error:
        return error


unhurried = settings(deadline=None)
"""For properties: how long one example takes says more of the machine than of the code."""

FAST = Limits(deadline_slack_s=0.05, heartbeat_s=0.05, write_timeout_s=0.3, body_timeout_s=0.2, drain_timeout_s=0.2)
