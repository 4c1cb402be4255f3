"""Errors as answers: the status of whatever went wrong, its JSON, and the response that carries it."""

import logging

from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from service.rest import headers, status
from service.rest.bindings import JSON_TYPE
from service.rest.exchange import Exchange
from service.rest.guard import Cut
from service.rest.invoke import Call
from service.rest.limits import Limits
from service.rest.refusal import Headers, Reason, Refusal, body_too_large, body_too_slow
from service.rest.writer import Writer

_log = logging.getLogger(__name__)


def cut_short(cut: Cut, limits: Limits, *, retry_after_s: float) -> Refusal:
    """Return what a caller is told whose call was ended by its deadline, its body or the server."""
    if cut is Cut.TOO_LARGE:
        return body_too_large(limits.max_upload_bytes)
    if cut is Cut.SLOW:
        return body_too_slow()
    if cut is Cut.DEADLINE:
        return Refusal(
            504, code_pb2.DEADLINE_EXCEEDED, Reason.CALLER_DEADLINE_EXCEEDED, "the deadline passed before the answer"
        )
    return Refusal(
        503, code_pb2.UNAVAILABLE, Reason.SHUTTING_DOWN, "the server is stopping", retry_after_s=retry_after_s
    )


class Answers:
    """Writes errors in the one shape that all of them have.

    domain: of the ErrorInfo of the shim's own errors, and the realm of WWW-Authenticate.
    """

    def __init__(self, writer: Writer, domain: str) -> None:
        self._writer = writer
        self._domain = domain

    def status_of(self, refusal: Refusal, exchange: Exchange) -> Status:
        """Return the status of a refusal, with the id of the request."""
        return status.status_of(refusal, domain=self._domain, request_id=_request_id(exchange))

    def body(self, failure: Status) -> bytes:
        """Return a status as JSON, or a constant if that cannot be done."""
        try:
            return self._writer.text(failure).encode()
        except Exception:  # whatever it is, the caller gets an answer
            _log.exception("a status could not be written")
            return status.LAST_RESORT

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer with a refusal."""
        request_id = [(b"x-request-id", _request_id(exchange).encode())]
        await self._respond(
            exchange, refusal.http_status, self.status_of(refusal, exchange), [*refusal.headers, *request_id]
        )

    async def fail(self, exchange: Exchange, failure: Status, call: Call) -> None:
        """Answer with the status of a call."""
        await self._respond(exchange, status.http_status(failure.code), failure, call_headers(exchange, call))

    async def _respond(self, exchange: Exchange, http_status: int, failure: Status, extra: Headers) -> None:
        body = self.body(failure)
        if body is status.LAST_RESORT:
            http_status, failure = 500, Status(code=code_pb2.INTERNAL)
        exchange.code = failure.code
        known = {name for name, _ in extra}
        needed = [
            (name, value)
            for name, value in status.status_headers(http_status, failure, realm=self._domain)
            if name not in known
        ]
        await exchange.respond(http_status, [(b"content-type", JSON_TYPE), *needed, *extra], body)


def call_headers(exchange: Exchange, call: Call) -> Headers:
    """Return the headers that a call's metadata makes; trailers only for a client that asked for them."""
    sent = headers.from_metadata(call.initial_metadata)
    if call.trailing_metadata and b"trailers" in exchange.headers.get(b"te", b"").lower():
        return [*sent, *headers.from_metadata(call.trailing_metadata, prefix=b"grpc-trailer-")]
    return sent


def _request_id(exchange: Exchange) -> str:
    if not exchange.request_id:
        exchange.request_id = headers.request_id(exchange.headers)
    return exchange.request_id
