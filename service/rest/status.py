"""Statuses: the code tables, the status of a refusal, and what a status adds to the headers of its answer."""

import math
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from service.rest.refusal import Headers, Refusal

HTTP_STATUS: Final[dict[int, int]] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}

CLIENT_GONE: Final = 499
"""What logs and metrics call a request whose client left."""

LAST_RESORT: Final = b'{"code":13,"message":"internal error","details":[]}'
"""The answer when even an error cannot be written."""


def http_status(code: int) -> int:
    """Return the HTTP status for a gRPC code; 500 for one that is not known."""
    return HTTP_STATUS.get(code, 500)


def status_of(refusal: Refusal, *, domain: str, request_id: str = "") -> Status:
    """Build the status of a refusal: always ErrorInfo, then BadRequest or RetryInfo where they apply."""
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=domain)
    if request_id:
        info.metadata["requestId"] = request_id
    details: list[Message] = [info]
    if refusal.violation is not None:
        info.metadata["field"] = refusal.violation.field
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=refusal.violation.field, description=refusal.violation.description, reason=refusal.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if refusal.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(refusal.retry_after_s * 1000))
        details.append(retry)
    status = Status(code=refusal.code, message=refusal.message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def retry_after_s(status: Status) -> float | None:
    """Return the delay of a status's RetryInfo, or None if it has none."""
    for detail in status.details:
        delay = _retry_delay(detail)
        if delay is not None:
            return delay
    return None


def _retry_delay(detail: AnyMessage) -> float | None:
    retry = error_details_pb2.RetryInfo()
    try:
        if not detail.Unpack(retry):
            return None
    except DecodeError:
        return None
    seconds: float = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return max(0.0, seconds)


def status_headers(http: int, status: Status, *, realm: str) -> Headers:
    """Return the headers that a status calls for: Retry-After in whole seconds, rounded up, or WWW-Authenticate."""
    if http == 401:
        return [(b"www-authenticate", f'Bearer realm="{realm}"'.encode("latin-1", "replace"))]
    delay = retry_after_s(status) if http in (429, 503) else None
    return [] if delay is None else [(b"retry-after", str(math.ceil(delay)).encode())]
