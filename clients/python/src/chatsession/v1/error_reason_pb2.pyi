from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    INVALID_FIELD: _ClassVar[ErrorReason]
    MESSAGE_TOO_LARGE: _ClassVar[ErrorReason]
    SESSION_NOT_FOUND: _ClassVar[ErrorReason]
    SESSION_EXPIRED: _ClassVar[ErrorReason]
    TURN_NOT_FOUND: _ClassVar[ErrorReason]
    SESSION_BUSY: _ClassVar[ErrorReason]
    STALE_HISTORY: _ClassVar[ErrorReason]
    STALE_ETAG: _ClassVar[ErrorReason]
    TURN_CANCELLED: _ClassVar[ErrorReason]
    REQUEST_ID_REUSED: _ClassVar[ErrorReason]
    SESSION_EXISTS: _ClassVar[ErrorReason]
    OVERLOADED: _ClassVar[ErrorReason]
    MODEL_RATE_LIMITED: _ClassVar[ErrorReason]
    MODEL_QUOTA_EXHAUSTED: _ClassVar[ErrorReason]
    MODEL_UNAVAILABLE: _ClassVar[ErrorReason]
    STORE_UNAVAILABLE: _ClassVar[ErrorReason]
    SHUTTING_DOWN: _ClassVar[ErrorReason]
    TURN_LOST: _ClassVar[ErrorReason]
    MODEL_REFUSED_REQUEST: _ClassVar[ErrorReason]
    CONTEXT_TOO_LONG: _ClassVar[ErrorReason]
    MODEL_TIMEOUT: _ClassVar[ErrorReason]
    CALLER_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    MODEL_AUTHENTICATION_FAILED: _ClassVar[ErrorReason]
    MODEL_INVALID_RESPONSE: _ClassVar[ErrorReason]
    INTERNAL_ERROR: _ClassVar[ErrorReason]
    NOT_IMPLEMENTED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
INVALID_FIELD: ErrorReason
MESSAGE_TOO_LARGE: ErrorReason
SESSION_NOT_FOUND: ErrorReason
SESSION_EXPIRED: ErrorReason
TURN_NOT_FOUND: ErrorReason
SESSION_BUSY: ErrorReason
STALE_HISTORY: ErrorReason
STALE_ETAG: ErrorReason
TURN_CANCELLED: ErrorReason
REQUEST_ID_REUSED: ErrorReason
SESSION_EXISTS: ErrorReason
OVERLOADED: ErrorReason
MODEL_RATE_LIMITED: ErrorReason
MODEL_QUOTA_EXHAUSTED: ErrorReason
MODEL_UNAVAILABLE: ErrorReason
STORE_UNAVAILABLE: ErrorReason
SHUTTING_DOWN: ErrorReason
TURN_LOST: ErrorReason
MODEL_REFUSED_REQUEST: ErrorReason
CONTEXT_TOO_LONG: ErrorReason
MODEL_TIMEOUT: ErrorReason
CALLER_DEADLINE_EXCEEDED: ErrorReason
MODEL_AUTHENTICATION_FAILED: ErrorReason
MODEL_INVALID_RESPONSE: ErrorReason
INTERNAL_ERROR: ErrorReason
NOT_IMPLEMENTED: ErrorReason
