"""Calls to a running service over gRPC and over REST, with the same arguments, answers and errors."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import aiohttp
import grpc
from chatsession.errors import ChatSessionError
from chatsession.status import from_rpc_error, from_status
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from tests.support.server import ServerProcess

CALL_TIMEOUT_S = 60.0
# Details of a status are read from JSON by name, which needs their types to be loaded.
assert error_details_pb2.DESCRIPTOR is not None

Events = AsyncGenerator[pb.TurnEvent, None]


def send_request(session_id: str, message: str, *, model: str = "", **fields: Any) -> pb.SendMessageRequest:
    """Return a send with these fields of SendMessageRequest; `model` is the demo script that answers."""
    settings = pb.ModelSettings(model=model) if model else None
    return pb.SendMessageRequest(session_id=session_id, message=message, settings=settings, view=pb.FULL, **fields)


class Caller(Protocol):
    """One way to call one server. `timeout_s` of gRPC is the call's deadline."""

    async def create_session(self, **fields: Any) -> str:
        """Create a session with these fields of Session and return its id."""

    async def send(
        self, request: pb.SendMessageRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> pb.SendMessageResponse:
        """SendMessage."""

    def stream(self, request: pb.SendMessageRequest) -> Events:
        """StreamMessage; closing the generator breaks the connection of the call."""

    def attach(self, session_id: str, turn_id: str, after_cursor: str = "") -> Events:
        """AttachTurn; over REST the cursor goes as `Last-Event-ID`."""

    async def get_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        """GetTurn."""

    async def cancel_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        """CancelTurn."""

    async def history(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:
        """GetHistory."""


class GrpcCaller:
    """Calls over gRPC, on one connection of its own."""

    def __init__(self, server: ServerProcess) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channel = grpc.aio.insecure_channel(server.grpc_target, options=options)
        self.stub = ChatSessionServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def create_session(self, **fields: Any) -> str:
        response = await _unary(self.stub.CreateSession(pb.CreateSessionRequest(session=pb.Session(**fields))))
        session_id: str = response.session_id
        return session_id

    async def send(
        self, request: pb.SendMessageRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> pb.SendMessageResponse:
        response: pb.SendMessageResponse = await _unary(self.stub.SendMessage(request, timeout=timeout_s))
        return response

    def stream(self, request: pb.SendMessageRequest) -> Events:
        return _stream(self.stub.StreamMessage, request)

    def attach(self, session_id: str, turn_id: str, after_cursor: str = "") -> Events:
        request = pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id, after_cursor=after_cursor)
        return _stream(self.stub.AttachTurn, request)

    async def get_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        request = pb.GetTurnRequest(session_id=session_id, turn_id=turn_id)
        turn: pb.Turn = await _unary(self.stub.GetTurn(request, timeout=CALL_TIMEOUT_S))
        return turn

    async def cancel_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        request = pb.CancelTurnRequest(session_id=session_id, turn_id=turn_id)
        turn: pb.Turn = await _unary(self.stub.CancelTurn(request, timeout=CALL_TIMEOUT_S))
        return turn

    async def history(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:
        page: pb.GetHistoryResponse = await _unary(self.stub.GetHistory(request, timeout=CALL_TIMEOUT_S))
        return page


async def _unary(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def _stream(method: Any, request: Any) -> Events:
    call = method(request, timeout=CALL_TIMEOUT_S)
    try:
        async for event in call:
            yield event
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    finally:
        call.cancel()


class RestCaller:
    """Calls over HTTP; streams as Server-Sent Events. A send's request id goes as `Idempotency-Key`."""

    def __init__(self, server: ServerProcess) -> None:
        self._http = aiohttp.ClientSession(
            server.http_url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            read_bufsize=2**20,
        )

    async def close(self) -> None:
        await self._http.close()

    async def create_session(self, **fields: Any) -> str:
        body = _json(pb.Session(**fields))
        answer = await self._call("POST", "/v1/sessions", pb.CreateSessionResponse(), json=body)
        session_id: str = answer.session_id
        return session_id

    async def send(
        self, request: pb.SendMessageRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> pb.SendMessageResponse:
        timeout = {"timeout": aiohttp.ClientTimeout(total=timeout_s)} if timeout_s != CALL_TIMEOUT_S else {}
        path, sent = f"/v1/sessions/{request.session_id}/messages", _as_body(request)
        answer: pb.SendMessageResponse = await self._call("POST", path, pb.SendMessageResponse(), **sent, **timeout)
        return answer

    def stream(self, request: pb.SendMessageRequest) -> Events:
        return self._events("POST", f"/v1/sessions/{request.session_id}/messages:stream", **_as_body(request))

    def attach(self, session_id: str, turn_id: str, after_cursor: str = "") -> Events:
        headers = {"Last-Event-ID": after_cursor} if after_cursor else {}
        return self._events("GET", f"/v1/sessions/{session_id}/turns/{turn_id}:attach", headers=headers)

    async def get_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        turn: pb.Turn = await self._call("GET", f"/v1/sessions/{session_id}/turns/{turn_id}", pb.Turn())
        return turn

    async def cancel_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        path = f"/v1/sessions/{session_id}/turns/{turn_id}:cancel"
        turn: pb.Turn = await self._call("POST", path, pb.Turn(), json={})
        return turn

    async def history(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:
        query = {name: str(value) for name, value in _json(request).items() if name != "sessionId"}
        path = f"/v1/sessions/{request.session_id}/messages"
        page: pb.GetHistoryResponse = await self._call("GET", path, pb.GetHistoryResponse(), params=query)
        return page

    async def _call(self, method: str, path: str, answer: Any, **options: Any) -> Any:
        try:
            async with self._http.request(method, path, **options) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken(error) from None
        if response.status >= 300:
            raise _failure(body)
        return json_format.Parse(body, answer)

    async def _events(self, method: str, path: str, *, headers: Any = None, **options: Any) -> Events:
        headers = {"Accept": "text/event-stream", **(headers or {})}
        try:
            async with self._http.request(method, path, headers=headers, **options) as response:
                try:
                    if response.status == 204:
                        return
                    if response.status >= 300:
                        raise _failure(await response.read())
                    async for event in _sse(response):
                        yield event
                finally:
                    response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken(error) from None


async def _sse(response: aiohttp.ClientResponse) -> Events:
    """Yield the events of an event stream; raises the failure in it, and ConnectionError if it is cut."""
    fields: dict[str, bytes] = {}
    async for line in response.content:
        name, _, value = line.rstrip(b"\n").partition(b": ")
        if name:
            fields[name.decode()] = value
            continue
        kind = fields.get("event", b"message")
        if kind == b"done":
            return
        if kind == b"status":
            raise _failure(fields["data"])
        if "data" in fields:
            event = json_format.Parse(fields["data"], pb.TurnEvent())
            assert fields["id"].decode() == event.cursor
            yield event
        fields = {}
    raise aiohttp.ClientConnectionError("the stream was cut")


def _json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message)


def _as_body(request: pb.SendMessageRequest) -> dict[str, Any]:
    body = _json(request)
    del body["sessionId"]
    key = body.pop("requestId", "")
    return {"json": body, "headers": {"Idempotency-Key": key} if key else {}}


def _failure(body: bytes) -> ChatSessionError:
    return from_status(json_format.Parse(body, status_pb2.Status()))


def _broken(error: Exception) -> ChatSessionError:
    return ChatSessionError(repr(error), code=grpc.StatusCode.UNAVAILABLE)


class Door:
    """Both ways to call one server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.grpc = GrpcCaller(server)
        self.rest = RestCaller(server)

    def by(self, transport: str) -> Caller:
        """Return the caller for `grpc` or `rest`."""
        caller: Caller = getattr(self, transport)
        return caller

    async def close(self) -> None:
        await self.grpc.close()
        await self.rest.close()


@asynccontextmanager
async def doors(*servers: ServerProcess) -> AsyncIterator[list[Door]]:
    """Connections to these servers for the length of a block."""
    opened = [Door(server) for server in servers]
    try:
        yield opened
    finally:
        for door in opened:
            await door.close()


@dataclass
class Seen:
    """What a viewer has of a turn: the text joined of its events, where it stands, how it ended."""

    turn_id: str = ""
    text: str = ""
    cursor: str = ""
    snapshots: int = 0
    ended: pb.Turn | None = None
    kinds: list[str] = field(default_factory=list)

    def take(self, event: pb.TurnEvent) -> Self:
        """Take an event in as a client does."""
        assert event.cursor, "an event without a cursor"
        self.cursor = event.cursor
        self.kinds.append(event.WhichOneof("event"))
        match self.kinds[-1]:
            case "accepted":
                self.turn_id = event.accepted.turn.turn_id
            case "delta":
                self.text += event.delta.text
            case "snapshot":
                self.text = event.snapshot.text
                self.snapshots += 1
            case "ended":
                self.ended = event.ended.turn
        return self

    async def read(self, events: Events) -> Self:
        """Take in all events to the end of the call."""
        async for event in events:
            self.take(event)
        return self

    def copy(self) -> "Seen":
        """Return the same, to go on separately."""
        return Seen(self.turn_id, self.text, self.cursor, self.snapshots, self.ended, list(self.kinds))


async def whole_history(caller: Caller, session_id: str) -> list[pb.Message]:
    """Return all messages of a session, in full."""
    messages: list[pb.Message] = []
    token = ""
    while True:
        page = await caller.history(pb.GetHistoryRequest(session_id=session_id, view=pb.FULL, page_token=token))
        messages += page.history
        token = page.next_page_token
        if not token:
            return messages
