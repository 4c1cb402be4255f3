"""What the shim itself refuses, before or instead of a call."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from google.rpc import code_pb2


class Reason(StrEnum):
    """`ErrorInfo.reason` of the shim's own errors."""

    INVALID_FIELD = "INVALID_FIELD"
    INVALID_BODY = "INVALID_BODY"
    INVALID_URL = "INVALID_URL"
    INVALID_HEADER = "INVALID_HEADER"
    INVALID_REQUEST = "INVALID_REQUEST"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    URL_TOO_LONG = "URL_TOO_LONG"
    RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    CALLER_DEADLINE_EXCEEDED = "CALLER_DEADLINE_EXCEEDED"
    OVERLOADED = "OVERLOADED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Violation(NamedTuple):
    """A field, by its path of proto names, and what is wrong with it."""

    field: str
    description: str


Headers = Sequence[tuple[bytes, bytes]]


class Refusal(Exception):
    """A request that gets an error of the shim's own.

    retry_after_s: when trying again may help; None if waiting does not.
    headers: what the answer carries besides its body.
    """

    def __init__(
        self,
        http_status: int,
        code: int,
        reason: Reason,
        message: str,
        *,
        violation: Violation | None = None,
        retry_after_s: float | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.reason = reason
        self.message = message
        self.violation = violation
        self.retry_after_s = retry_after_s
        self.headers = headers


def bad_request(reason: Reason, message: str) -> Refusal:
    """400 that is about no field in particular."""
    return Refusal(400, code_pb2.INVALID_ARGUMENT, reason, message)


def invalid_field(field: str, description: str) -> Refusal:
    """400 about one field or parameter."""
    field = shortened(field)
    return Refusal(
        400,
        code_pb2.INVALID_ARGUMENT,
        Reason.INVALID_FIELD,
        f"{field}: {description}",
        violation=Violation(field, description),
    )


def route_not_found() -> Refusal:
    """404: no rule has such a path."""
    return Refusal(404, code_pb2.NOT_FOUND, Reason.ROUTE_NOT_FOUND, "no such path")


def method_not_allowed(allowed: Sequence[str]) -> Refusal:
    """405: rules have this path, for other methods."""
    allow = ", ".join(sorted(allowed))
    return Refusal(
        405,
        code_pb2.UNIMPLEMENTED,
        Reason.METHOD_NOT_ALLOWED,
        f"this path allows {allow}",
        headers=[(b"allow", allow.encode("latin-1"))],
    )


def body_too_large(max_bytes: int) -> Refusal:
    """413, with the code that gRPC has for a message that is too large."""
    return Refusal(
        413, code_pb2.RESOURCE_EXHAUSTED, Reason.BODY_TOO_LARGE, f"the body may have at most {max_bytes} bytes"
    )


def body_too_slow() -> Refusal:
    """408."""
    return Refusal(408, code_pb2.DEADLINE_EXCEEDED, Reason.REQUEST_TIMEOUT, "the body did not arrive in time")


def unsupported_media_type(message: str) -> Refusal:
    """415, saying what would be accepted."""
    return Refusal(
        415,
        code_pb2.INVALID_ARGUMENT,
        Reason.UNSUPPORTED_MEDIA_TYPE,
        message,
        headers=[(b"accept-post", b"application/json"), (b"accept-patch", b"application/json")],
    )


def url_too_long(max_bytes: int) -> Refusal:
    """414."""
    return Refusal(
        414, code_pb2.INVALID_ARGUMENT, Reason.URL_TOO_LONG, f"path and query may have at most {max_bytes} bytes"
    )


def response_too_large() -> Refusal:
    """500: the answer has more JSON than the shim sends."""
    return Refusal(500, code_pb2.RESOURCE_EXHAUSTED, Reason.RESPONSE_TOO_LARGE, "the answer is too large to send")


def internal_error() -> Refusal:
    """500 with constant text."""
    return Refusal(500, code_pb2.INTERNAL, Reason.INTERNAL_ERROR, "internal error")


def shortened(text: str, length: int = 128) -> str:
    """Make a caller's text fit to be quoted in an answer: not too long, and without lone surrogates."""
    text = text if len(text) <= length else text[:length] + "…"
    return text.encode(errors="replace").decode()
