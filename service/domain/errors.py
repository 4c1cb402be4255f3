"""Every error of the service, named by what the caller can do about it.

ChatError
├── InvalidField                 mend the named field
│   └── MessageTooLarge
├── InvalidImport                the file is cut, damaged or not one of ours
├── NotFound                     SessionNotFound, SessionExpired, TurnNotFound, ErasureNotFound
├── Conflict                     SessionBusy, StaleHistory, StaleEtag, TurnCancelled
├── AlreadyExists                RequestIdReused, SessionExists
├── Overloaded                   wait, repeat
├── Unavailable                  StoreUnavailable (StoreUncertain), ShuttingDown, TurnLost
├── CallerDeadlineExceeded       the caller gave too little time
├── AnswerTooLarge               read it in pieces, or over REST
├── ModelError                   what the model provider did
│   └── ModelRateLimited, ModelQuotaExhausted, ModelUnavailable, ModelTimeout, ModelRefusedRequest,
│       ContextTooLong, ModelAuthenticationFailed, ModelInvalidResponse
└── InternalError                a fault of ours

`reason` is the name in `error_reason.proto`. `metadata` holds every variable part of the message.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, Self


class Committed(StrEnum):
    """Whether the user message of a send is saved."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Retry(StrEnum):
    """What a repeat of a failed send has to look like to be of use."""

    SAME_REQUEST = "SAME_REQUEST"
    NEW_REQUEST_ID = "NEW_REQUEST_ID"
    NO = "NO"


class ChatError(Exception):
    """Base of all errors that a caller may see.

    retry_delay_s: how long to wait before a repeat; None where no repeat of the same kind helps.
    """

    reason: ClassVar[str] = "INTERNAL_ERROR"
    default_retry_delay_s: ClassVar[float | None] = None

    def __init__(
        self, message: str, metadata: Mapping[str, str] | None = None, *, retry_delay_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_delay_s = retry_delay_s if retry_delay_s is not None else self.default_retry_delay_s

    @property
    def is_transient(self) -> bool:
        """Whether the same thing may go well later."""
        return self.retry_delay_s is not None

    def of_send(self, committed: Committed, retry: Retry, *, turn_id: str = "") -> Self:
        """Add what the caller of a send has to know, and return the error itself."""
        self.metadata["committed"] = committed.value
        self.metadata["retry"] = retry.value
        if turn_id:
            self.metadata["turnId"] = turn_id
        if retry is Retry.NO:
            self.retry_delay_s = None
        elif self.retry_delay_s is None:
            self.retry_delay_s = 0.0
        return self


class InvalidField(ChatError):
    """A field is missing, malformed or out of range. `field` is its path in the request, in proto names."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", {"field": field})
        self.field = field
        self.description = description


class MessageTooLarge(InvalidField):
    """The user message has more bytes than the service takes."""

    reason = "MESSAGE_TOO_LARGE"


class InvalidImport(ChatError):
    """A file is not one that was exported, or is cut or damaged. `line` is counted from 1."""

    reason = "INVALID_IMPORT"

    def __init__(self, line: int, description: str) -> None:
        super().__init__(f"line {line}: {description}", {"line": str(line)})


class NotFound(ChatError):
    """Something is not there, or not for this caller. `resource_type` and `resource_name` say what."""

    resource_type: ClassVar[str] = ""

    def __init__(self, resource_name: str, message: str = "") -> None:
        super().__init__(message or f"{self.resource_type} {resource_name!r} not found")
        self.resource_name = resource_name


class SessionNotFound(NotFound):
    """There is no such session, or it is somebody else's."""

    reason = "SESSION_NOT_FOUND"
    resource_type = "session"


class SessionExpired(NotFound):
    """The session has passed its expiry."""

    reason = "SESSION_EXPIRED"
    resource_type = "session"

    def __init__(self, resource_name: str) -> None:
        super().__init__(resource_name, f"session {resource_name!r} has expired")


class TurnNotFound(NotFound):
    """The session has no such turn."""

    reason = "TURN_NOT_FOUND"
    resource_type = "turn"


class ErasureNotFound(NotFound):
    """The caller has no such erasure."""

    reason = "ERASURE_NOT_FOUND"
    resource_type = "erasure"


class Conflict(ChatError):
    """The session is not in the state that the call needs."""


class SessionBusy(Conflict):
    """Another turn runs."""

    reason = "SESSION_BUSY"
    default_retry_delay_s = 1.0


class StaleHistory(Conflict):
    """The history is not where the caller thought."""

    reason = "STALE_HISTORY"


class StaleEtag(Conflict):
    """The settings have changed since the caller read them."""

    reason = "STALE_ETAG"


class TurnCancelled(Conflict):
    """The turn was cancelled."""

    reason = "TURN_CANCELLED"


class AlreadyExists(ChatError):
    """An id is in use for something else."""


class RequestIdReused(AlreadyExists):
    """The request id belongs to another message of this session."""

    reason = "REQUEST_ID_REUSED"


class SessionExists(AlreadyExists):
    """The chosen session id belongs to another session."""

    reason = "SESSION_EXISTS"


class Overloaded(ChatError):
    """The service holds as much work as it can."""

    reason = "OVERLOADED"
    default_retry_delay_s = 1.0


class Unavailable(ChatError):
    """A part is away for now."""


class StoreUnavailable(Unavailable):
    """The database could not be reached; a write that raises this was surely not applied."""

    reason = "STORE_UNAVAILABLE"
    default_retry_delay_s = 1.0

    def __init__(self, message: str = "the database cannot be reached") -> None:
        super().__init__(message)


class StoreUncertain(StoreUnavailable):
    """The answer to a write was lost: it was applied, or will be, or never. Repeat until it is matched or refused."""


class ShuttingDown(Unavailable):
    """This process is stopping."""

    reason = "SHUTTING_DOWN"
    default_retry_delay_s = 1.0

    def __init__(self) -> None:
        super().__init__("the server is stopping; repeat the call")


class TurnLost(Unavailable):
    """The process that ran the turn was lost, and so were all attempts."""

    reason = "TURN_LOST"
    default_retry_delay_s = 0.0


class CallerDeadlineExceeded(ChatError):
    """The caller's deadline ended first."""

    reason = "CALLER_DEADLINE_EXCEEDED"


class AnswerTooLarge(ChatError):
    """What was asked for is there, and larger than one message may be."""

    reason = "RESPONSE_TOO_LARGE"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the answer is larger than {limit_bytes} bytes: ask for BASIC, or use ExportSession or REST",
            {"limitBytes": str(limit_bytes)},
        )


class InternalError(ChatError):
    """A fault of this service; the message is constant."""

    reason = "INTERNAL_ERROR"

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


class ModelError(ChatError):
    """The model provider did not answer as it should. The message never holds the provider's own text."""


class ModelRateLimited(ModelError):
    """The provider limits our rate."""

    reason = "MODEL_RATE_LIMITED"
    default_retry_delay_s = 5.0


class ModelQuotaExhausted(ModelError):
    """Our account has no quota left."""

    reason = "MODEL_QUOTA_EXHAUSTED"


class ModelUnavailable(ModelError):
    """The provider cannot be reached, or has a fault."""

    reason = "MODEL_UNAVAILABLE"
    default_retry_delay_s = 2.0


class ModelTimeout(ModelError):
    """The provider was silent for longer than its limit."""

    reason = "MODEL_TIMEOUT"
    default_retry_delay_s = 2.0


class ModelRefusedRequest(ModelError):
    """The provider refused the request."""

    reason = "MODEL_REFUSED_REQUEST"


class ContextTooLong(ModelError):
    """Message and instructions do not fit into the model's context."""

    reason = "CONTEXT_TOO_LONG"


class ModelAuthenticationFailed(ModelError):
    """The provider did not accept our key."""

    reason = "MODEL_AUTHENTICATION_FAILED"


class ModelInvalidResponse(ModelError):
    """The provider's answer is not its documented answer."""

    reason = "MODEL_INVALID_RESPONSE"
    default_retry_delay_s = 2.0


_TURN_FAILURES: dict[str, type[ChatError]] = {
    cls.reason: cls
    for cls in (
        ModelRateLimited,
        ModelQuotaExhausted,
        ModelUnavailable,
        ModelTimeout,
        ModelRefusedRequest,
        ContextTooLong,
        ModelAuthenticationFailed,
        ModelInvalidResponse,
        TurnLost,
        TurnCancelled,
    )
}


def turn_failure(reason: str, message: str) -> ChatError:
    """Rebuild the error that a turn ended with; a reason of another release becomes InternalError."""
    cls = _TURN_FAILURES.get(reason)
    return cls(message) if cls else InternalError()
