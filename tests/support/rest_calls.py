"""Calls to a running service over HTTP, by the rules of the contract."""

import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Literal

import aiohttp
import grpc
from chatsession.errors import ChatSessionError
from chatsession.status import from_status
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from yarl import URL

from tests.support.calls import CALL_TIMEOUT_S, Caller, Metadata, Reply
from tests.support.http_rules import SERVICE, bindings_of, http_request
from tests.support.server import ServerProcess

# Written down here once more, not taken from the service.
_HTTP_STATUSES = {
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
_HTTP_STATUSES_BY_REASON = {
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "BODY_TOO_LARGE": 413,
    "URL_TOO_LONG": 414,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "HEADERS_TOO_LARGE": 431,
    "RESPONSE_TOO_LARGE": 500,
}
_METADATA_PREFIX = "grpc-metadata-"
_OWN_HEADERS = ("x-request-id", "idempotency-key", "last-event-id")
_FIELDS_WITH_HEADERS = {
    "CreateSessionRequest": ("request_id", "idempotency-key"),
    "SendMessageRequest": ("request_id", "idempotency-key"),
    "AttachTurnRequest": ("after_cursor", "last-event-id"),
}
_ACCEPT = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}

_Body = bytes | AsyncIterator[bytes] | None

# Details of a status are read from JSON by name, which needs their types to be loaded.
assert error_details_pb2.DESCRIPTOR is not None


class RestCaller(Caller):
    """Calls over HTTP, by the rules of the contract. JSON that is not exactly the contract's is an error.

    binding: which of a method's HTTP rules is used, where it has as many, else the last. form: of streams.
    by_header: a request id goes as `Idempotency-Key`, and a cursor as `Last-Event-ID`, not as fields.
    """

    def __init__(
        self,
        server: ServerProcess,
        *,
        binding: int = 0,
        form: Literal["sse", "ndjson"] = "sse",
        by_header: bool = True,
    ) -> None:
        self._base = URL(server.http_url)
        self._binding = binding
        self._form = form
        self._by_header = by_header
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            read_bufsize=2**22,
        )

    async def close(self) -> None:
        await self.http.close()

    async def unary(
        self,
        method: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout_s: float = CALL_TIMEOUT_S,
        reply: Reply | None = None,
    ) -> Any:
        reply = Reply() if reply is None else reply
        return await _answer(method, self._request(method, request, metadata, timeout_s=timeout_s), reply)

    async def upload(
        self, method: str, requests: Sequence[Any], *, metadata: Metadata = (), reply: Reply | None = None
    ) -> Any:
        reply = Reply() if reply is None else reply
        binding = self._binding_of(method)
        files = [getattr(request, binding.body) for request in requests]

        async def pieces() -> AsyncIterator[bytes]:
            for file in files:
                if file.data:
                    yield file.data

        sent = http_request(binding, requests[0])
        headers = _headers_of(metadata) | {"Content-Type": files[0].content_type}
        return await _answer(method, self._http(sent.method, sent.target, pieces(), headers), reply)

    async def events(
        self, method: str, request: Any, *, metadata: Metadata = (), reply: Reply | None = None
    ) -> AsyncGenerator[Any, None]:
        reply = Reply() if reply is None else reply
        is_file = SERVICE.methods_by_name[method].output_type.full_name == HttpBody.DESCRIPTOR.full_name
        read = _sse if self._form == "sse" else _ndjson
        accept = _ACCEPT[self._form]
        headers = {} if is_file else {"Accept": accept}
        try:
            async with self._request(method, request, metadata, headers) as response:
                try:
                    _take_head(reply, response)
                    if response.status == 204:
                        return
                    if response.status != 200:
                        raise _failure(await response.read(), reply)
                    if is_file:
                        async for piece in response.content.iter_any():
                            yield HttpBody(content_type=response.headers["Content-Type"], data=piece)
                        return
                    assert response.content_type == accept
                    async for data in read(response, reply):
                        yield json_format.Parse(data, _answer_of(method))
                finally:
                    response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _broken(error) from None

    async def call(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Make any call; a body is said to be JSON. Return status, headers (names in lower case) and body."""
        async with self._http(method, target, body, headers or {}) as response:
            got = {name.lower(): value for name, value in response.headers.items()}
            return response.status, got, await response.read()

    def _request(
        self,
        method: str,
        request: Any,
        metadata: Metadata,
        headers: dict[str, str] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Any:
        sent_headers = _headers_of(metadata) | (headers or {})
        field, header = _FIELDS_WITH_HEADERS.get(request.DESCRIPTOR.name, ("", ""))
        if self._by_header and field and (value := getattr(request, field)):
            sent_headers[header] = value
            plain = type(request)()
            plain.CopyFrom(request)
            plain.ClearField(field)
            request = plain
        sent = http_request(self._binding_of(method), request)
        body = None if sent.body is None else json.dumps(sent.body, ensure_ascii=False).encode()
        return self._http(sent.method, sent.target, body, sent_headers, timeout_s)

    def _binding_of(self, method: str) -> Any:
        bindings = bindings_of(method)
        return bindings[min(self._binding, len(bindings) - 1)]

    def _http(
        self, method: str, target: str, body: _Body, headers: dict[str, str], timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        asked = ({} if body is None else {"Content-Type": "application/json"}) | headers
        url = URL(f"{self._base.origin()}{target}", encoded=True)
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        return self.http.request(method, url, data=data, headers=asked, timeout=aiohttp.ClientTimeout(total=timeout_s))


def _answer_of(method: str) -> Any:
    return GetMessageClass(SERVICE.methods_by_name[method].output_type)()


async def _answer(method: str, call: Any, reply: Reply) -> Any:
    try:
        async with call as response:
            _take_head(reply, response)
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _broken(error) from None
    if response.status != 200:
        raise _failure(body, reply)
    return json_format.Parse(body, _answer_of(method))


def _headers_of(metadata: Metadata) -> dict[str, str]:
    return {key if key in _OWN_HEADERS else _METADATA_PREFIX + key: value for key, value in metadata}


def _take_head(reply: Reply, response: aiohttp.ClientResponse) -> None:
    headers = {name.lower(): value for name, value in response.headers.items()}
    reply.http_status = response.status
    reply.metadata = {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in headers.items()
        if name.startswith(_METADATA_PREFIX) or name == "x-request-id"
    }


async def _sse(response: aiohttp.ClientResponse, reply: Reply) -> AsyncIterator[bytes]:
    """Yield the data of the events; raises the failure in them, and ClientConnectionError if the stream is cut."""
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
            raise _failure(fields["data"], reply)
        if "data" in fields:
            assert fields["id"].decode() == json.loads(fields["data"])["cursor"]
            yield fields["data"]
        fields = {}
    raise aiohttp.ClientConnectionError("the stream was cut")


async def _ndjson(response: aiohttp.ClientResponse, reply: Reply) -> AsyncIterator[str]:
    """The same for lines of JSON."""
    async for line in response.content:
        record = json.loads(line)
        if "error" in record:
            raise _failure(json.dumps(record["error"]), reply)
        if "done" in record:
            return
        yield json.dumps(record["result"])
    raise aiohttp.ClientConnectionError("the stream was cut")


def _failure(body: bytes | str, reply: Reply) -> ChatSessionError:
    reply.status = json_format.Parse(body, status_pb2.Status())
    error = from_status(reply.status, turn_id=reply.metadata.get("turn-id"))
    if reply.http_status != 200:
        assert reply.http_status == _HTTP_STATUSES_BY_REASON.get(error.reason, _HTTP_STATUSES[error.code.name]), error
    return error


def failure_in(http_status: int, body: bytes) -> ChatSessionError:
    """Return the error that an answer over HTTP is; fails if it is something else."""
    return _failure(body, Reply(http_status=http_status))


def _broken(error: Exception) -> ChatSessionError:
    return ChatSessionError(repr(error), code=grpc.StatusCode.UNAVAILABLE)
