"""The one table from errors to gRPC codes, and the `google.rpc.Status` that every transport sends."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.domain import errors

DOMAIN = "chatsession"

_CODES: dict[type[errors.ChatError], int] = {
    errors.ChatError: code_pb2.INTERNAL,  # whatever has no closer row
    errors.InvalidField: code_pb2.INVALID_ARGUMENT,
    errors.InvalidImport: code_pb2.INVALID_ARGUMENT,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.Conflict: code_pb2.ABORTED,
    errors.AlreadyExists: code_pb2.ALREADY_EXISTS,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.Unavailable: code_pb2.UNAVAILABLE,
    errors.CallerDeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    errors.AnswerTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.ModelError: code_pb2.UNAVAILABLE,
    errors.ModelRateLimited: code_pb2.RESOURCE_EXHAUSTED,
    errors.ModelQuotaExhausted: code_pb2.RESOURCE_EXHAUSTED,
    errors.ModelUnavailable: code_pb2.UNAVAILABLE,
    errors.ModelTimeout: code_pb2.DEADLINE_EXCEEDED,
    errors.ModelRefusedRequest: code_pb2.FAILED_PRECONDITION,
    errors.ContextTooLong: code_pb2.FAILED_PRECONDITION,
    errors.ModelAuthenticationFailed: code_pb2.INTERNAL,
    errors.ModelInvalidResponse: code_pb2.INTERNAL,
    errors.InternalError: code_pb2.INTERNAL,
}


def code_of(error: errors.ChatError) -> int:
    """Return the gRPC code for an error; the most specific class in the table wins."""
    return next(_CODES[cls] for cls in type(error).__mro__ if cls in _CODES)


def to_status(error: errors.ChatError, request_id: str = "") -> status_pb2.Status:
    """Build the status for an error: ErrorInfo always, then BadRequest, ResourceInfo and RetryInfo where they apply."""
    status = status_pb2.Status(code=code_of(error), message=str(error))
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    return status


def _details(error: errors.ChatError, request_id: str) -> list[Message]:
    metadata = dict(error.metadata)
    if request_id:
        metadata["requestId"] = request_id
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if isinstance(error, errors.InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.description, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource_type, resource_name=error.resource_name, description=str(error)
            )
        )
    if error.retry_delay_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_delay_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details
