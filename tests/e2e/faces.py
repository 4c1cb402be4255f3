"""The two faces of the service, gRPC and REST, in one shape, so that one test asks both.

Events are dicts as proto3 JSON has them. Every refusal is a `Refused`, whichever way it came.
"""

import io
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, Protocol
from urllib.parse import urlencode

import aiohttp
import grpc
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.support.server import ServerProcess

CALL_LIMIT_S = 30.0
_METHODS = pb.DESCRIPTOR.services_by_name["ChatSessionService"].methods_by_name
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""What REST says for a code, written down here once more, not taken from the service."""

_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.ResourceInfo,
)

History = list[tuple[str, str]]
Event = dict[str, Any]


class Refused(Exception):
    """A `google.rpc.Status` that a call ended with.

    code: name of the code. fields: descriptions of the BadRequest by field. http_status: None over gRPC, and for a
    status inside a stream. retry_delay_s: None without RetryInfo.
    """

    def __init__(self, status: status_pb2.Status, http_status: int | None = None) -> None:
        super().__init__(f"{code_pb2.Code.Name(status.code)} {http_status or ''}: {status}")
        self.code = code_pb2.Code.Name(status.code)
        self.message = status.message
        self.http_status = http_status
        self.text = str(status)
        details: dict[str, Any] = {}
        for packed in status.details:
            kind = next(kind for kind in _DETAILS if packed.Is(kind.DESCRIPTOR))
            detail = kind()
            packed.Unpack(detail)
            details[kind.__name__] = detail
        info = details.get("ErrorInfo", error_details_pb2.ErrorInfo())
        self.reason: str = info.reason
        self.domain: str = info.domain
        self.metadata: dict[str, str] = dict(info.metadata)
        violations = details["BadRequest"].field_violations if "BadRequest" in details else ()
        self.fields: dict[str, str] = {violation.field: violation.description for violation in violations}
        retry = details.get("RetryInfo")
        self.retry_delay_s: float | None = retry.retry_delay.ToNanoseconds() / 1e9 if retry else None


class StreamCutError(Exception):
    """A stream over REST that ended without its terminal record."""


class Face(Protocol):
    """What a test asks of the service. Every method raises Refused."""

    async def create(self) -> str:
        """Create a session and return its id."""
        ...

    async def send(self, session_id: str, message: str, model: str = "", **fields: Any) -> str:
        """Send a message and return the whole answer. fields: more of SendMessageRequest, by proto name."""
        ...

    def stream(self, session_id: str, message: str, model: str = "", **fields: Any) -> AsyncGenerator[Event, None]:
        """Send a message and yield the events; ends when the stream has said that it is whole."""
        ...

    async def history(self, session_id: str) -> History:
        """Return role and content of all messages."""
        ...

    async def turns(self, session_id: str) -> list[Event]:
        """Return all messages with everything about them (view FULL)."""
        ...

    async def unary(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Call any unary method."""
        ...


class GrpcFace:
    """The service through its stubs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.stub = ChatSessionServiceStub(channel)

    async def create(self) -> str:
        response = await self.unary("CreateSession", pb.CreateSessionRequest())
        return response.session_id

    async def send(self, session_id: str, message: str, model: str = "", **fields: Any) -> str:
        response = await self.unary("SendMessage", _send_request(session_id, message, model, fields))
        return response.response

    async def stream(
        self, session_id: str, message: str, model: str = "", **fields: Any
    ) -> AsyncGenerator[Event, None]:
        call = self.stub.StreamMessage(_send_request(session_id, message, model, fields), timeout=CALL_LIMIT_S)
        try:
            async for event in call:
                yield json_format.MessageToDict(event)
        except grpc.aio.AioRpcError as error:
            refuse_rpc(error)
        finally:
            call.cancel()

    async def history(self, session_id: str) -> History:
        response = await self.unary("GetHistory", pb.GetHistoryRequest(session_id=session_id))
        return [(message.role, message.content) for message in response.history]

    async def turns(self, session_id: str) -> list[Event]:
        response = await self.unary("GetHistory", pb.GetHistoryRequest(session_id=session_id, view=pb.FULL))
        return [json_format.MessageToDict(message) for message in response.history]

    async def unary(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Call any unary method."""
        try:
            return await getattr(self.stub, method)(request, timeout=CALL_LIMIT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            refuse_rpc(error)

    async def raw(self, method: str, wire: bytes) -> bytes:
        """Call a unary method with these bytes as the request, whatever they are."""
        call = self.channel.unary_unary(f"/chatsession.v1.ChatSessionService/{method}")
        try:
            answer: bytes = await call(wire, timeout=CALL_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            refuse_rpc(error)
        return answer


class RestFace:
    """The service through HTTP and JSON; streams as Server-Sent Events."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def create(self) -> str:
        return (await self.json("POST", "/session"))["sessionId"]

    async def send(self, session_id: str, message: str, model: str = "", **fields: Any) -> str:
        request = _send_request(session_id, message, model, fields)
        return (await self.json("POST", "/chat", json_format.MessageToDict(request)))["response"]

    async def stream(
        self, session_id: str, message: str, model: str = "", **fields: Any
    ) -> AsyncGenerator[Event, None]:
        body = json_format.MessageToDict(_send_request(session_id, message, model, fields))
        async with self.http.post("/chat:stream", json=body, headers={"Accept": "text/event-stream"}) as response:
            if response.status != 200:
                refuse_json(await response.read(), response.status)
            async for name, data in _sse(response):
                if name == "done":
                    return
                if name == "status":
                    refuse_json(data)
                yield json.loads(data)
        raise StreamCutError

    async def history(self, session_id: str) -> History:
        answer = await self.json("GET", f"/session/{session_id}/history")
        return [(message["role"], message["content"]) for message in answer["history"]]

    async def turns(self, session_id: str) -> list[Event]:
        return (await self.json("GET", f"/session/{session_id}/history?view=FULL"))["history"]

    async def unary(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Call any unary method by the last of its HTTP rules."""
        descriptor = _METHODS[method]
        rule = descriptor.GetOptions().Extensions[annotations_pb2.http]
        rule = rule.additional_bindings[-1] if rule.additional_bindings else rule
        fields = json_format.MessageToDict(request)
        verb = rule.WhichOneof("pattern")
        path = re.sub(r"\{(\w+)\}", lambda name: fields.pop(json_name(name[1]), ""), getattr(rule, verb))
        body = fields if rule.body == "*" else fields.pop(rule.body, {}) if rule.body else None
        texts = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in fields.items()}
        query = urlencode({} if rule.body == "*" else texts)
        answer = await self.json(verb.upper(), f"{path}?{query}" if query else path, body, dict(metadata))
        return json_format.ParseDict(answer, GetMessageClass(descriptor.output_type)())

    async def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Make any call that answers JSON."""
        text = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        status, _, answer = await self.call(method, path, text, headers)
        if status != 200:
            refuse_json(answer, status)
        return json.loads(answer)

    async def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Make any call; a body is said to be JSON. Return status, headers (names in lower case) and body."""
        asked = ({} if body is None else {"Content-Type": "application/json"}) | (headers or {})
        data = None if body is None else io.BytesIO(body)
        async with self.http.request(method, path, data=data, headers=asked) as response:
            got = {name.lower(): value for name, value in response.headers.items()}
            return response.status, got, await response.read()


def json_name(name: str) -> str:
    """Return the JSON name of a field."""
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


FACES = ("grpc", "rest")


def connect(name: str, server: ServerProcess) -> AbstractAsyncContextManager[GrpcFace | RestFace]:
    """One of FACES, on a connection of its own."""
    return grpc_face(server) if name == "grpc" else rest_face(server)


@asynccontextmanager
async def grpc_face(server: ServerProcess) -> AsyncIterator[GrpcFace]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    async with grpc.aio.insecure_channel(server.grpc_target, options=options) as channel:
        yield GrpcFace(channel)


@asynccontextmanager
async def rest_face(server: ServerProcess) -> AsyncIterator[RestFace]:
    limit = aiohttp.ClientTimeout(total=CALL_LIMIT_S)
    async with aiohttp.ClientSession(server.http_url, timeout=limit, read_bufsize=2**22) as http:
        yield RestFace(http)


def refuse_json(body: bytes, http_status: int | None = None) -> NoReturn:
    """Raise the Status in a body; fails with another error if there is something else in it."""
    raise Refused(json_format.Parse(body, status_pb2.Status()), http_status)


def check_refused(refused: Refused, code: str, reason: str) -> None:
    """Check code and reason, and over REST the HTTP status for the code."""
    assert (refused.code, refused.reason, refused.domain) == (code, reason, "chatsession"), refused.text
    assert refused.http_status in (None, HTTP_STATUS[code])


def refuse_rpc(error: grpc.aio.AioRpcError) -> NoReturn:
    status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
    raise Refused(status) from None


def _send_request(session_id: str, message: str, model: str, fields: dict[str, Any]) -> pb.SendMessageRequest:
    request = pb.SendMessageRequest(session_id=session_id, message=message, **fields)
    if model:
        request.settings.model = model
    return request


async def _sse(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    """Yield name (empty for most) and data of each event."""
    name, data = "", b""
    async for line in response.content:
        field, _, value = line.rstrip(b"\n").partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data = value
        elif not field:
            if data:
                yield name, data
            name, data = "", b""
