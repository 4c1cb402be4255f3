"""Every error that this client raises for a call, named by what the caller can do about it.

ChatSessionError
├── InvalidField                 mend the named fields
│   └── MessageTooLarge
├── InvalidImport                the file is cut, damaged or none of the service's
├── NotFound                     SessionNotFound (SessionExpired), TurnNotFound, ErasureNotFound
├── Conflict                     SessionBusy, StaleHistory, StaleEtag
├── TurnCancelled                what the model had said is in the history
├── AlreadyExists                RequestIdReused, SessionExists
├── Overloaded                   wait, repeat
├── Unavailable                  wait, repeat; TurnLost: send again with a new request id
├── DeadlineExceeded             a saved turn goes on: attach to `turn_id`, or repeat with `request_id`
├── ModelFailed                  what the model provider did; ContextTooLong
├── Unsupported                  in the contract, not in this server
├── ServerFault                  a fault of the service
└── TextReplaced                 no failure: text that was yielded is void (see stream.py)

What has no closer class is a plain ChatSessionError. `reason` is a name of `ErrorReason`.
"""

from enum import StrEnum

import grpc


class Retry(StrEnum):
    """What a repeat of a failed send has to look like to be of use."""

    SAME_REQUEST = "SAME_REQUEST"
    NEW_REQUEST_ID = "NEW_REQUEST_ID"
    NO = "NO"


class ChatSessionError(Exception):
    """A call, or a turn, failed.

    code: the gRPC status code.
    reason: name of `ErrorReason`; empty if the error is not the service's own, for instance a broken connection.
    message: for people; may change.
    metadata: of the `ErrorInfo`; see `error_reason.proto`.
    field_violations: path of a request field (proto names) → what is wrong with it.
    retry_delay_s: how long to wait before a repeat; None if the server did not say.
    turn_id: the turn that this error is about, if one is known.
    request_id: the request id of the send that failed; repeat with it and the message is never sent twice.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        field_violations: dict[str, str] | None = None,
        retry_delay_s: float | None = None,
        turn_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.field_violations = field_violations or {}
        self.retry_delay_s = retry_delay_s
        self.turn_id = turn_id or self.metadata.get("turnId")
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"

    @property
    def committed(self) -> bool | None:
        """Whether the user message of a send is saved; None where that is not known, or nothing was sent."""
        told = {"true": True, "false": False}.get(self.metadata.get("committed", ""))
        return True if told is None and self.turn_id and self.request_id else told

    @property
    def retry(self) -> Retry | None:
        """What a repeat of a send has to look like; None if the server did not say."""
        return next((retry for retry in Retry if retry == self.metadata.get("retry")), None)

    @property
    def active_turn_id(self) -> str | None:
        """The turn that keeps the session busy."""
        return self.metadata.get("activeTurnId")

    @property
    def last_seq(self) -> int | None:
        """Number of the newest message in the session's history."""
        value = self.metadata.get("lastSeq", "")
        return int(value) if value.isascii() and value.isdigit() else None

    @property
    def call_id(self) -> str | None:
        """Id of this call in the server's log."""
        return self.metadata.get("requestId")


class InvalidField(ChatSessionError):
    """A field is missing, malformed or out of range; `field_violations` names it. Nothing was saved."""


class MessageTooLarge(InvalidField):
    """The message has more bytes than the service takes. Nothing was saved."""


class InvalidImport(ChatSessionError):
    """A file is not one that was exported, or is cut or damaged. Nothing was saved."""

    @property
    def line(self) -> int | None:
        """Where, counted from 1."""
        value = self.metadata.get("line", "")
        return int(value) if value.isascii() and value.isdigit() else None


class NotFound(ChatSessionError):
    """Something is not there, or not for this caller."""


class SessionNotFound(NotFound):
    """There is no such session, or it is somebody else's."""


class SessionExpired(SessionNotFound):
    """The session has passed its expiry."""


class TurnNotFound(NotFound):
    """The session has no such turn."""


class ErasureNotFound(NotFound):
    """The caller has no such erasure."""


class Conflict(ChatSessionError):
    """The session is not in the state that the call needs."""


class SessionBusy(Conflict):
    """Another turn runs: `active_turn_id`. Never repeated by the client itself."""


class StaleHistory(Conflict):
    """`expected_last_seq` is not the session's newest message, `last_seq`. Nothing was saved."""


class StaleEtag(Conflict):
    """The settings have changed since they were read."""


class TurnCancelled(ChatSessionError):
    """The turn was cancelled. What the model had said is in the history."""


class AlreadyExists(ChatSessionError):
    """An id is in use for something else."""


class RequestIdReused(AlreadyExists):
    """This request id was used in this session with another message or other settings."""


class SessionExists(AlreadyExists):
    """The chosen session id belongs to a session that differs from the one asked for."""


class Overloaded(ChatSessionError):
    """The service has as much work as it can hold. Nothing was saved."""


class Unavailable(ChatSessionError):
    """The service, or a part of it, could not be reached."""


class TurnLost(Unavailable):
    """The process that ran the turn was lost, and all attempts are used up."""


class DeadlineExceeded(ChatSessionError):
    """The time of the call was over. A saved turn goes on."""


class ModelFailed(ChatSessionError):
    """The model provider did not answer as it should; `reason` says in which way. The user message is saved."""


class ContextTooLong(ModelFailed):
    """The message and the instructions do not fit into the model's context."""


class Unsupported(ChatSessionError):
    """The method is part of the contract and not of this server."""


class ServerFault(ChatSessionError):
    """A fault of the service; `call_id` finds it in its log."""


class TextReplaced(ChatSessionError):
    """Text that was yielded before is void; `text` is all the text that holds now.

    Raised by the text iterator only. Iterating the same stream again goes on after `text`.
    """

    def __init__(self, text: str, *, turn_id: str | None = None) -> None:
        super().__init__("the text was replaced, see .text", code=grpc.StatusCode.ABORTED, turn_id=turn_id)
        self.text = text
