"""From a google.rpc.Status, or what gRPC raises, to a ChatSessionError."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from chatsession import errors
from chatsession.errors import ChatSessionError

_DETAILS_KEY = "grpc-status-details-bin"
_TURN_KEY = "turn-id"
_DOMAIN = "chatsession"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_BY_REASON: dict[str, type[ChatSessionError]] = {
    "INVALID_FIELD": errors.InvalidField,
    "MESSAGE_TOO_LARGE": errors.MessageTooLarge,
    "SESSION_NOT_FOUND": errors.SessionNotFound,
    "SESSION_EXPIRED": errors.SessionExpired,
    "TURN_NOT_FOUND": errors.TurnNotFound,
    "INVALID_IMPORT": errors.InvalidImport,
    "ERASURE_NOT_FOUND": errors.ErasureNotFound,
    "SESSION_BUSY": errors.SessionBusy,
    "STALE_HISTORY": errors.StaleHistory,
    "STALE_ETAG": errors.StaleEtag,
    "TURN_CANCELLED": errors.TurnCancelled,
    "REQUEST_ID_REUSED": errors.RequestIdReused,
    "SESSION_EXISTS": errors.SessionExists,
    "OVERLOADED": errors.Overloaded,
    "STORE_UNAVAILABLE": errors.Unavailable,
    "SHUTTING_DOWN": errors.Unavailable,
    "TURN_LOST": errors.TurnLost,
    "CALLER_DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CONTEXT_TOO_LONG": errors.ContextTooLong,
    "INTERNAL_ERROR": errors.ServerFault,
    "NOT_IMPLEMENTED": errors.Unsupported,
}

_BY_CODE: dict[grpc.StatusCode, type[ChatSessionError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidField,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.INTERNAL: errors.ServerFault,
}


def from_status(
    status: status_pb2.Status, *, turn_id: str | None = None, request_id: str | None = None
) -> ChatSessionError:
    """Build the error of a status, for instance of `Turn.error`.

    turn_id, request_id: what the caller knows; the status wins over turn_id.
    """
    info, bad_request, retry_info = _details(status)
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _class_of(info.reason, code)(
        status.message,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        field_violations={v.field: v.description for v in bad_request.field_violations},
        retry_delay_s=None if retry_info is None else retry_info.retry_delay.ToTimedelta().total_seconds(),
        turn_id=info.metadata.get("turnId") or turn_id,
        request_id=request_id,
    )


def from_rpc_error(
    error: grpc.RpcError, *, turn_id: str | None = None, request_id: str | None = None
) -> ChatSessionError:
    """Build the error of what a stub raised, of grpc.aio or of grpc; use it with the raw `stub`.

    Details that do not fit the call's own code, or are not readable, are ignored.
    """
    call: Any = error
    code: grpc.StatusCode = call.code()
    status = status_pb2.Status()
    try:
        status.ParseFromString(_value(call.trailing_metadata(), _DETAILS_KEY) or b"")
    except DecodeError:
        status.Clear()
    if status.code != code.value[0]:
        status = status_pb2.Status(code=code.value[0])
    status.message = status.message or call.details() or ""
    return from_status(status, turn_id=turn_id or _value(call.initial_metadata(), _TURN_KEY), request_id=request_id)


def _class_of(reason: str, code: grpc.StatusCode) -> type[ChatSessionError]:
    """The closest class; a reason that this release does not know goes by its code."""
    if reason.startswith("MODEL_"):
        return errors.ModelFailed
    return _BY_REASON.get(reason) or _BY_CODE.get(code, ChatSessionError)


def _details(
    status: status_pb2.Status,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo | None]:
    info, bad_request, retry_info = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), None
    for detail in status.details:
        try:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                found = error_details_pb2.ErrorInfo.FromString(detail.value)
                info = found if found.domain == _DOMAIN else info
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad_request.MergeFromString(detail.value)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry_info = error_details_pb2.RetryInfo.FromString(detail.value)
        except DecodeError:
            continue
    return info, bad_request, retry_info


def _value(metadata: Any, key: str) -> Any:
    """The first value of a metadata key; None if there is none."""
    return next((value for name, value in metadata or () if name == key), None)
