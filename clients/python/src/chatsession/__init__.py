"""Client of the chat session service: `AsyncChatClient`, and `ChatClient` for programs without an event loop."""

from chatsession.answer import Answer
from chatsession.blocking import BlockingAnswerStream, ChatClient
from chatsession.client import AsyncChatClient
from chatsession.errors import (
    AlreadyExists,
    ChatSessionError,
    Conflict,
    ContextTooLong,
    DeadlineExceeded,
    InvalidField,
    MessageTooLarge,
    ModelFailed,
    NotFound,
    Overloaded,
    RequestIdReused,
    Retry,
    ServerFault,
    SessionBusy,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    StaleEtag,
    StaleHistory,
    TextReplaced,
    TurnCancelled,
    TurnLost,
    TurnNotFound,
    Unavailable,
    Unsupported,
)
from chatsession.events import Accepted, Ended, Event, Replaced, Text
from chatsession.retry import RetryPolicy
from chatsession.service_config import SERVICE_CONFIG
from chatsession.status import from_rpc_error, from_status
from chatsession.stream import AnswerStream
from chatsession.v1.chat_session_pb2 import Message, ModelSettings, Session, Turn
from chatsession.version import __version__

__all__ = [
    "SERVICE_CONFIG",
    "Accepted",
    "AlreadyExists",
    "Answer",
    "AnswerStream",
    "AsyncChatClient",
    "BlockingAnswerStream",
    "ChatClient",
    "ChatSessionError",
    "Conflict",
    "ContextTooLong",
    "DeadlineExceeded",
    "Ended",
    "Event",
    "InvalidField",
    "Message",
    "MessageTooLarge",
    "ModelFailed",
    "ModelSettings",
    "NotFound",
    "Overloaded",
    "Replaced",
    "RequestIdReused",
    "Retry",
    "RetryPolicy",
    "ServerFault",
    "Session",
    "SessionBusy",
    "SessionExists",
    "SessionExpired",
    "SessionNotFound",
    "StaleEtag",
    "StaleHistory",
    "Text",
    "TextReplaced",
    "Turn",
    "TurnCancelled",
    "TurnLost",
    "TurnNotFound",
    "Unavailable",
    "Unsupported",
    "__version__",
    "from_rpc_error",
    "from_status",
]
