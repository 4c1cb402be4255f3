"""Calls to a running service, the same over gRPC and over REST: see grpc_calls.py, rest_calls.py and door.py."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from chatsession.v1 import chat_session_pb2 as pb
from google.api.httpbody_pb2 import HttpBody
from google.rpc import status_pb2

CALL_TIMEOUT_S = 60.0
FILE_TYPE = "application/x-ndjson"

Events = AsyncGenerator[pb.TurnEvent, None]
Metadata = tuple[tuple[str, str], ...]


def send_request(session_id: str, message: str, *, model: str = "", **fields: Any) -> pb.SendMessageRequest:
    """Return a send with these fields of SendMessageRequest; `model` is the demo script that answers."""
    settings = pb.ModelSettings(model=model) if model else None
    return pb.SendMessageRequest(
        **{"session_id": session_id, "message": message, "settings": settings, "view": pb.FULL, **fields}
    )


@dataclass
class Reply:
    """What a call was told beside its messages; complete when it is over.

    metadata: initial and trailing, in one. status: as it came, of a call that failed. http_status: 0 over gRPC.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    status: status_pb2.Status | None = None
    http_status: int = 0


class Caller(ABC):
    """One way to call one server, on connections of its own. An async context manager.

    Every method raises ChatSessionError; UNAVAILABLE without a reason if the connection broke.
    """

    @abstractmethod
    async def unary(
        self,
        method: str,
        request: Any,
        *,
        metadata: Metadata = (),
        timeout_s: float = CALL_TIMEOUT_S,
        reply: Reply | None = None,
    ) -> Any:
        """Call a unary method. `timeout_s` of gRPC is the call's deadline."""

    @abstractmethod
    def events(
        self, method: str, request: Any, *, metadata: Metadata = (), reply: Reply | None = None
    ) -> AsyncGenerator[Any, None]:
        """Call a streaming method; closing the generator breaks the connection of the call."""

    @abstractmethod
    async def upload(
        self, method: str, requests: Sequence[Any], *, metadata: Metadata = (), reply: Reply | None = None
    ) -> Any:
        """Call a method that takes a file in pieces, at least one. All but the first are of the file alone."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def create_session(self, **fields: Any) -> str:
        """Create a session with these fields of Session and return its id."""
        answer = await self.unary("CreateSession", pb.CreateSessionRequest(session=pb.Session(**fields)))
        session_id: str = answer.session_id
        return session_id

    async def send(
        self, request: pb.SendMessageRequest, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> pb.SendMessageResponse:
        """SendMessage."""
        answer: pb.SendMessageResponse = await self.unary("SendMessage", request, timeout_s=timeout_s)
        return answer

    async def ask(self, session_id: str, message: str, model: str = "", **fields: Any) -> str:
        """Send a message and return the model's answer."""
        return (await self.send(send_request(session_id, message, model=model, **fields))).response

    def stream(self, request: pb.SendMessageRequest) -> Events:
        """StreamMessage."""
        return self.events("StreamMessage", request)

    def attach(self, session_id: str, turn_id: str, after_cursor: str = "") -> Events:
        """AttachTurn."""
        request = pb.AttachTurnRequest(session_id=session_id, turn_id=turn_id, after_cursor=after_cursor)
        return self.events("AttachTurn", request)

    async def get_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        """GetTurn."""
        turn: pb.Turn = await self.unary("GetTurn", pb.GetTurnRequest(session_id=session_id, turn_id=turn_id))
        return turn

    async def cancel_turn(self, session_id: str, turn_id: str) -> pb.Turn:
        """CancelTurn."""
        turn: pb.Turn = await self.unary("CancelTurn", pb.CancelTurnRequest(session_id=session_id, turn_id=turn_id))
        return turn

    async def history(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:
        """GetHistory."""
        page: pb.GetHistoryResponse = await self.unary("GetHistory", request)
        return page

    async def export_session(self, session_id: str) -> bytes:
        """ExportSession, the whole file."""
        pieces = self.events("ExportSession", pb.ExportSessionRequest(session_id=session_id))
        return b"".join([piece.data async for piece in pieces])

    async def import_session(self, file: bytes, session_id: str = "", *, piece_bytes: int = 100_000) -> pb.Session:
        """ImportSession, in pieces of this size."""
        first = pb.ImportSessionRequest(session_id=session_id, file=HttpBody(content_type=FILE_TYPE))
        pieces = [HttpBody(data=file[start : start + piece_bytes]) for start in range(0, len(file), piece_bytes)]
        requests = [first, *(pb.ImportSessionRequest(file=piece) for piece in pieces)]
        session: pb.Session = await self.upload("ImportSession", requests)
        return session

    async def said(self, session_id: str) -> list[tuple[str, str]]:
        """Return role and content of the messages of a session, as far as one page holds them."""
        page = await self.history(pb.GetHistoryRequest(session_id=session_id))
        return [(message.role, message.content) for message in page.history]


@dataclass
class Seen:
    """What a viewer has of a turn: the text joined of its events, where it stands, how it ended."""

    turn_id: str = ""
    text: str = ""
    cursor: str = ""
    snapshots: int = 0
    ended: pb.Turn | None = None
    kinds: list[str] = field(default_factory=list)

    def take(self, event: pb.TurnEvent) -> Self:
        """Take an event in as a client does."""
        assert event.cursor, "an event without a cursor"
        self.cursor = event.cursor
        self.kinds.append(event.WhichOneof("event"))
        match self.kinds[-1]:
            case "accepted":
                self.turn_id = event.accepted.turn.turn_id
            case "delta":
                self.text += event.delta.text
            case "snapshot":
                self.text = event.snapshot.text
                self.snapshots += 1
            case "ended":
                self.ended = event.ended.turn
        return self

    async def read(self, events: Events) -> Self:
        """Take in all events to the end of the call."""
        async for event in events:
            self.take(event)
        return self

    def copy(self) -> "Seen":
        """Return the same, to go on separately."""
        return Seen(self.turn_id, self.text, self.cursor, self.snapshots, self.ended, list(self.kinds))


async def whole_history(caller: Caller, session_id: str) -> list[pb.Message]:
    """Return all messages of a session, in full."""
    messages: list[pb.Message] = []
    token = ""
    while True:
        page = await caller.history(pb.GetHistoryRequest(session_id=session_id, view=pb.FULL, page_token=token))
        messages += page.history
        token = page.next_page_token
        if not token:
            return messages
