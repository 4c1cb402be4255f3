"""The asynchronous client."""

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from chatsession.answer import Answer
from chatsession.channel import Option, open_channel
from chatsession.deadline import Deadline
from chatsession.retry import Repeats, RetryPolicy, repeat
from chatsession.rpcs import Metadata, Rpcs
from chatsession.stream import AnswerStream
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub

OnBusy = Literal["QUEUE", "REJECT", "INTERRUPT"]
OnDisconnect = Literal["CONTINUE", "CANCEL"]

DEFAULT_POLICY = RetryPolicy()

_FILE_TYPE = "application/x-ndjson"
_PIECE_BYTES = 256 * 1024


class AsyncChatClient:
    """Talks to a chat session service.

    Answers are the protobuf messages of the contract (`Session`, `Turn`, `Message`), plus `Answer` and `AnswerStream`
    for sends. Every method raises ChatSessionError or a subclass; see `errors.py`.

    Sends always carry a request id, so they are repeated safely after broken connections, and for as long as the
    server asks for it, within the timeout. Methods that only read are retried by gRPC (`service_config.py`).

    Use it in `async with`, or call `close`. One client serves any number of tasks of one event loop; it may be made
    before the loop runs, and connects with the first call.
    """

    def __init__(
        self,
        target: str,
        *,
        secure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        timeout_s: float = 60.0,
        stream_timeout_s: float = 600.0,
        retry: RetryPolicy = DEFAULT_POLICY,
        options: Sequence[Option] = (),
        interceptors: Sequence[Any] = (),
    ) -> None:
        """
        target: `host:port`, or any gRPC name such as `dns:///chat:50051`.
        secure: TLS with the roots that gRPC ships. credentials: TLS with these; implies `secure`.
        metadata: sent with every call.
        timeout_s, stream_timeout_s: for one call, or one stream, with all its repeats; `math.inf` means no limit.
        options: channel options that win over `channel.OPTIONS`. interceptors: of grpc.aio, e.g. for tracing.
        """
        if secure and credentials is None:
            credentials = grpc.ssl_channel_credentials()
        opener = partial(open_channel, target, credentials=credentials, options=options, interceptors=interceptors)
        self._rpcs = Rpcs(opener, metadata)
        self._timeout_s = timeout_s
        self._stream_timeout_s = stream_timeout_s
        self._policy = retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls that still run are cancelled; turns go on."""
        await self._rpcs.close()

    @property
    def stub(self) -> ChatSessionServiceStub:
        """The generated stub, for whatever this class does not do. It raises `grpc.aio.AioRpcError`;
        `from_rpc_error` makes a ChatSessionError of it. Needs the running event loop."""
        return self._rpcs.stub

    async def create_session(
        self,
        session_id: str = "",
        *,
        title: str = "",
        labels: Mapping[str, str] | None = None,
        instructions: str = "",
        settings: pb.ModelSettings | None = None,
        expire_time: datetime | None = None,
        ttl: timedelta | None = None,
        idle_ttl: timedelta | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> pb.Session:
        """Create a session and return it.

        session_id: chosen by the caller; empty lets the server choose. A repeat with the same id and fields answers
        the same session; without an id, a request id (made here if None) does that for the client's own repeats.
        instructions: the system prompt. settings: of the model, for every turn.
        expire_time or ttl: when the session ends by itself. idle_ttl: ends it when no turn has run for this long.
        Raises InvalidField, SessionExists.
        """
        session = pb.Session(
            title=title,
            labels=labels or {},
            instructions=instructions,
            settings=settings,
            expire_time=expire_time,
            ttl=ttl,
            idle_ttl=idle_ttl,
        )
        request = pb.CreateSessionRequest(
            session_id=session_id,
            session=session if session.ByteSize() else None,
            request_id=request_id or ("" if session_id else _new_id()),
            view=pb.FULL,
        )
        response: pb.CreateSessionResponse = await self._repeated("CreateSession", request, timeout_s)
        return response.session if response.HasField("session") else pb.Session(session_id=response.session_id)

    async def get_session(self, session_id: str, *, timeout_s: float | None = None) -> pb.Session:
        """Return a session. Raises SessionNotFound, SessionExpired."""
        request = pb.GetSessionRequest(session_id=session_id)
        session: pb.Session = await self._rpcs.unary("GetSession", request, self._deadline(timeout_s))
        return session

    async def list_sessions(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        page_size: int = 0,
        show_deleted: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.Session]:
        """Yield the caller's sessions, most recently updated first unless `order_by` says otherwise.

        filter: in AIP-160 syntax. page_size: of the calls behind it; 0 means 50. timeout_s: for each page.
        """
        request = pb.ListSessionsRequest(
            filter=filter, order_by=order_by, page_size=page_size, show_deleted=show_deleted
        )
        while True:
            page: pb.ListSessionsResponse = await self._rpcs.unary("ListSessions", request, self._deadline(timeout_s))
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def search_messages(
        self, query: str, *, session_id: str = "", page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[pb.MessageMatch]:
        """Yield the messages that have all words of `query`, newest first; `"words in quotes"` stand together.

        session_id: searches only this session. page_size: of the calls behind it; 0 means 20. timeout_s: for each page.
        """
        request = pb.SearchMessagesRequest(query=query, session_id=session_id, page_size=page_size)
        while True:
            page: pb.SearchMessagesResponse = await self._rpcs.unary(
                "SearchMessages", request, self._deadline(timeout_s)
            )
            for match in page.matches:
                yield match
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_session(
        self,
        session: pb.Session,
        *,
        update_mask: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> pb.Session:
        """Change the settings of the session that `session.session_id` names, and return it.

        session: new values; with its `etag` set, only that version is changed.
        update_mask: paths such as `title` or `settings.model`; None means all fields that are set, `["*"]` all.
        Raises InvalidField, SessionNotFound, StaleEtag.
        """
        mask = None if update_mask is None else FieldMask(paths=update_mask)
        request = pb.UpdateSessionRequest(session_id=session.session_id, session=session, update_mask=mask)
        updated: pb.Session = await self._rpcs.unary("UpdateSession", request, self._deadline(timeout_s))
        return updated

    async def delete_session(self, session_id: str, *, etag: str = "", timeout_s: float | None = None) -> pb.Session:
        """Delete a session and return it as it was last; a running turn is cancelled.

        etag: deletes only this version; empty deletes any. Raises SessionNotFound, StaleEtag.
        """
        request = pb.DeleteSessionRequest(session_id=session_id, etag=etag)
        deleted: pb.Session = await self._rpcs.unary("DeleteSession", request, self._deadline(timeout_s))
        return deleted

    async def undelete_session(self, session_id: str, *, timeout_s: float | None = None) -> pb.Session:
        """Bring a deleted session back, until its `purge_time`, and return it; one that is not deleted stays as it is.

        Raises SessionNotFound, SessionExpired.
        """
        request = pb.UndeleteSessionRequest(session_id=session_id)
        session: pb.Session = await self._repeated("UndeleteSession", request, timeout_s)
        return session

    async def export_session(self, session_id: str, *, timeout_s: float | None = None) -> AsyncIterator[bytes]:
        """Yield a session as a file, in pieces: JSON lines with all that `import_session` needs.

        timeout_s: for the whole file; `stream_timeout_s` if None. Raises SessionNotFound, SessionExpired.
        """
        deadline = Deadline(self._stream_timeout_s if timeout_s is None else timeout_s)
        request = pb.ExportSessionRequest(session_id=session_id)
        async for body in self._rpcs.messages("ExportSession", request, deadline):
            yield body.data

    async def import_session(
        self,
        file: Iterable[bytes] | AsyncIterable[bytes],
        session_id: str = "",
        *,
        timeout_s: float | None = None,
    ) -> pb.Session:
        """Make a session of a file that `export_session` gave, and return it: whole or not at all.

        file: open for reading bytes, or pieces of any size. session_id: for the session; empty takes the one in the
        file. timeout_s: for the whole file; `stream_timeout_s` if None.
        Never repeated here: after a broken connection the session may be there, and a repeat is then SessionExists.
        Raises InvalidImport, whose `line` says where; SessionExists, InvalidField.
        """
        deadline = Deadline(self._stream_timeout_s if timeout_s is None else timeout_s)
        session: pb.Session = await self._rpcs.unary("ImportSession", _import_requests(file, session_id), deadline)
        return session

    async def erase_owner(self, *, timeout_s: float | None = None) -> pb.Erasure:
        """Begin to erase all sessions that the caller has now, for good, or return the erasure that is under way.

        Ask `get_erasure` how far it has come.
        """
        erasure: pb.Erasure = await self._repeated("EraseOwner", pb.EraseOwnerRequest(), timeout_s)
        return erasure

    async def get_erasure(self, erasure_id: str, *, timeout_s: float | None = None) -> pb.Erasure:
        """Return how far an erasure has come; it is over when its state is DONE. Raises ErasureNotFound."""
        request = pb.GetErasureRequest(erasure_id=erasure_id)
        erasure: pb.Erasure = await self._rpcs.unary("GetErasure", request, self._deadline(timeout_s))
        return erasure

    async def send(
        self,
        session_id: str,
        message: str,
        *,
        request_id: str | None = None,
        on_busy: OnBusy | None = None,
        on_disconnect: OnDisconnect | None = None,
        expected_last_seq: int | None = None,
        settings: pb.ModelSettings | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a message and return the whole answer.

        request_id: makes the send happen once; made here if None. When an error says that a repeat may help, send
            again with `error.request_id`: that joins the running turn, or gets its result again.
        on_busy: what to do when another turn runs; None means QUEUE, which waits within the timeout.
        on_disconnect: what becomes of the turn when its callers leave; None means CONTINUE.
        expected_last_seq: refuse with StaleHistory unless this is the session's newest message; 0 = empty history.
        settings: for this turn only.
        Raises SessionNotFound, SessionBusy, StaleHistory, RequestIdReused, TurnCancelled, TurnLost, ModelFailed;
        DeadlineExceeded, whose `turn_id` can be attached to: a saved turn goes on.
        """
        request = _send_request(
            session_id, message, request_id, on_busy, on_disconnect, expected_last_seq, settings, pb.FULL
        )
        response: pb.SendMessageResponse = await self._repeated("SendMessage", request, timeout_s)
        return Answer(response.response, response.turn)

    def stream(
        self,
        session_id: str,
        message: str,
        *,
        request_id: str | None = None,
        on_busy: OnBusy | None = None,
        on_disconnect: OnDisconnect | None = None,
        expected_last_seq: int | None = None,
        settings: pb.ModelSettings | None = None,
        timeout_s: float | None = None,
    ) -> AnswerStream:
        """Send a message and stream the answer. Arguments and errors as in `send`.

        Nothing is sent before the stream is iterated.
        """
        request = _send_request(
            session_id, message, request_id, on_busy, on_disconnect, expected_last_seq, settings, None
        )
        return AnswerStream(
            self._rpcs,
            session_id=session_id,
            send=request,
            timeout_s=self._stream_timeout_s if timeout_s is None else timeout_s,
            cancel_timeout_s=self._timeout_s,
            policy=self._policy,
        )

    def attach(
        self,
        session_id: str,
        turn_id: str,
        after_cursor: str = "",
        *,
        text: str | None = None,
        timeout_s: float | None = None,
    ) -> AnswerStream:
        """Stream a turn that was sent before, running or over.

        after_cursor: cursor of the last event that the caller has; empty starts at the first.
        text: all the text up to that cursor. If it is not given, text that the server repeats in full comes as
            Replaced, because nobody can tell what of it is new.
        Raises, when iterated, SessionNotFound, TurnNotFound, and the error of a turn that FAILED.
        """
        return AnswerStream(
            self._rpcs,
            session_id=session_id,
            turn_id=turn_id,
            after_cursor=after_cursor,
            text="" if text is None and not after_cursor else text,
            timeout_s=self._stream_timeout_s if timeout_s is None else timeout_s,
            cancel_timeout_s=self._timeout_s,
            policy=self._policy,
        )

    async def get_turn(self, session_id: str, turn_id: str, *, timeout_s: float | None = None) -> pb.Turn:
        """Return a turn as it stands; it is over when `turn.HasField("end_time")`. Raises TurnNotFound."""
        request = pb.GetTurnRequest(session_id=session_id, turn_id=turn_id)
        turn: pb.Turn = await self._rpcs.unary("GetTurn", request, self._deadline(timeout_s))
        return turn

    async def cancel_turn(self, session_id: str, turn_id: str, *, timeout_s: float | None = None) -> pb.Turn:
        """Cancel a turn and return it when it has ended, which may be as COMPLETED. Raises TurnNotFound."""
        request = pb.CancelTurnRequest(session_id=session_id, turn_id=turn_id)
        turn: pb.Turn = await self._rpcs.unary("CancelTurn", request, self._deadline(timeout_s))
        return turn

    async def history(
        self,
        session_id: str,
        *,
        after_seq: int = 0,
        newest_first: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.Message]:
        """Yield the messages of a session, oldest first unless `newest_first`. Arguments as in `history_pages`."""
        pages = self.history_pages(
            session_id, after_seq=after_seq, newest_first=newest_first, page_size=page_size, timeout_s=timeout_s
        )
        async for page in pages:
            for message in page.history:
                yield message

    async def history_pages(
        self,
        session_id: str,
        *,
        after_seq: int = 0,
        newest_first: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.GetHistoryResponse]:
        """Yield the history page by page, at least one; each says `last_seq` and the running turn, if one runs.

        after_seq: only messages with a higher number. page_size: at most this many messages a page, 1 to 1000;
        0 means as many as fit in 1 MiB. timeout_s: for each page.
        Raises SessionNotFound, SessionExpired.
        """
        request = pb.GetHistoryRequest(
            session_id=session_id,
            view=pb.FULL,
            after_seq=after_seq,
            page_size=page_size,
            order_by="seq desc" if newest_first else "",
        )
        while True:
            page: pb.GetHistoryResponse = await self._rpcs.unary("GetHistory", request, self._deadline(timeout_s))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    async def _repeated(self, method: str, request: Any, timeout_s: float | None) -> Any:
        deadline = self._deadline(timeout_s)
        return await repeat(partial(self._rpcs.unary, method, request, deadline), Repeats(self._policy, deadline))


def _new_id() -> str:
    return str(uuid.uuid4())


async def _import_requests(
    file: Iterable[bytes] | AsyncIterable[bytes], session_id: str
) -> AsyncIterator[pb.ImportSessionRequest]:
    yield pb.ImportSessionRequest(session_id=session_id, file=HttpBody(content_type=_FILE_TYPE))
    async for piece in _pieces(file):
        for start in range(0, len(piece), _PIECE_BYTES):
            yield pb.ImportSessionRequest(file=HttpBody(data=piece[start : start + _PIECE_BYTES]))


async def _pieces(file: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(file, AsyncIterable):
        async for piece in file:
            yield piece
        return
    read = getattr(file, "read", None)
    pieces: Iterator[bytes] = iter(partial(read, _PIECE_BYTES), b"") if read else iter(file)
    # In a thread: they may have to be waited for.
    while piece := await asyncio.to_thread(_next_piece, pieces):
        yield piece


def _next_piece(pieces: Iterator[bytes]) -> bytes:
    """Return the next piece that is not empty; an empty one at the end."""
    return next((piece for piece in pieces if piece), b"")


def _send_request(
    session_id: str,
    message: str,
    request_id: str | None,
    on_busy: OnBusy | None,
    on_disconnect: OnDisconnect | None,
    expected_last_seq: int | None,
    settings: pb.ModelSettings | None,
    view: pb.View | None,
) -> pb.SendMessageRequest:
    return pb.SendMessageRequest(
        session_id=session_id,
        message=message,
        request_id=request_id or _new_id(),
        on_busy=on_busy,
        on_disconnect=on_disconnect,
        expected_last_seq=expected_last_seq,
        settings=settings,
        view=view,
    )
