"""The servicer: reads requests, calls use cases, writes answers. It catches nothing."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing

from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc
from google.api.httpbody_pb2 import HttpBody

from service.domain.cursor import Cursor
from service.domain.entities import ANONYMOUS, Principal, Session
from service.domain.erasing import Eraser
from service.domain.errors import InvalidField, Retry
from service.domain.exported import CONTENT_TYPE
from service.domain.exporting import Exporter
from service.domain.history import History
from service.domain.importing import Importer
from service.domain.listing import SessionLister
from service.domain.live import Seat
from service.domain.searching import MessageSearch
from service.domain.sending import SendCommand, TurnSender
from service.domain.sessions import Sessions
from service.domain.watching import TurnWatcher
from service.rpc import convert, lists, sessions, transfers
from service.rpc.context import CallContext

_LAST_EVENT_ID = "last-event-id"


class ChatSessionServicer(pb_grpc.ChatSessionServiceServicer):
    """Serves `chatsession.v1.ChatSessionService` from the use cases."""

    def __init__(
        self,
        sessions: Sessions,
        sender: TurnSender,
        watcher: TurnWatcher,
        history: History,
        *,
        exporter: Exporter,
        importer: Importer,
        eraser: Eraser,
        lister: SessionLister,
        search: MessageSearch,
    ) -> None:
        self._sessions = sessions
        self._sender = sender
        self._watcher = watcher
        self._history = history
        self._exporter = exporter
        self._importer = importer
        self._eraser = eraser
        self._lister = lister
        self._search = search

    async def CreateSession(self, request: pb.CreateSessionRequest, context: CallContext) -> pb.CreateSessionResponse:
        is_full = convert.wants_full(request.view)
        sessions.check_session_id(request.session, request.session_id)
        if request.session.etag:
            raise InvalidField("session.etag", "is made by the server")
        session = await self._sessions.create(
            _principal(context),
            sessions.fields_from(request.session),
            session_id=request.session_id,
            request_id=convert.request_id_from(request.request_id, context.invocation_metadata() or ()),
        )
        return pb.CreateSessionResponse(
            session_id=session.session_id, session=self._session_to(session) if is_full else None
        )

    async def GetSession(self, request: pb.GetSessionRequest, context: CallContext) -> pb.Session:
        return self._session_to(await self._sessions.get(_principal(context), request.session_id))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: CallContext) -> pb.ListSessionsResponse:
        page = await self._lister.page(_principal(context), lists.list_query_from(request))
        return pb.ListSessionsResponse(
            sessions=map(self._session_to, page.sessions), next_page_token=page.next_page_token
        )

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: CallContext) -> pb.Session:
        update = sessions.update_from(request)
        return self._session_to(await self._sessions.update(_principal(context), request.session_id, update))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: CallContext) -> pb.Session:
        deleted = await self._sessions.delete(_principal(context), request.session_id, request.etag)
        return self._session_to(deleted)

    async def SendMessage(self, request: pb.SendMessageRequest, context: CallContext) -> pb.SendMessageResponse:
        command = convert.command_from(request, context.invocation_metadata() or (), _principal(context))
        with await self._sender.send(command) as live:
            await context.send_initial_metadata((("turn-id", live.turn_id),))
            turn = await self._watcher.result(live, command.retry_when_sent)
        response = pb.SendMessageResponse(response=turn.ending.text if turn.ending else "")
        if convert.wants_full(request.view):
            response.turn.CopyFrom(convert.turn_to(request.session_id, turn, response.response))
        return response

    def StreamMessage(self, request: pb.SendMessageRequest, context: CallContext) -> AsyncGenerator[pb.TurnEvent, None]:
        command = convert.command_from(request, context.invocation_metadata() or (), _principal(context))
        return self._events(request.session_id, self._begin(command), context, command.retry_when_sent)

    async def GetTurn(self, request: pb.GetTurnRequest, context: CallContext) -> pb.Turn:
        live = await self._watcher.get(_principal(context), request.session_id, request.turn_id)
        return convert.live_to(request.session_id, live)

    def AttachTurn(self, request: pb.AttachTurnRequest, context: CallContext) -> AsyncGenerator[pb.TurnEvent, None]:
        after_cursor = _last_event_id(context) or request.after_cursor
        attached = self._watcher.attach(_principal(context), request.session_id, request.turn_id, after_cursor)
        return self._events(request.session_id, attached, context, Retry.SAME_REQUEST)

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: CallContext) -> pb.Turn:
        live = await self._watcher.cancel(_principal(context), request.session_id, request.turn_id)
        return convert.live_to(request.session_id, live)

    async def GetHistory(self, request: pb.GetHistoryRequest, context: CallContext) -> pb.GetHistoryResponse:
        is_full = convert.wants_full(request.view)
        page = await self._history.page(_principal(context), request.session_id, convert.history_query_from(request))
        return convert.history_to(page, is_full=is_full)

    async def UndeleteSession(self, request: pb.UndeleteSessionRequest, context: CallContext) -> pb.Session:
        return self._session_to(await self._sessions.undelete(_principal(context), request.session_id))

    async def SearchMessages(
        self, request: pb.SearchMessagesRequest, context: CallContext
    ) -> pb.SearchMessagesResponse:
        page = await self._search.page(_principal(context), lists.search_query_from(request))
        return lists.matches_to(page)

    async def ExportSession(
        self, request: pb.ExportSessionRequest, context: CallContext
    ) -> AsyncGenerator[HttpBody, None]:
        pieces = self._exporter.export(_principal(context), request.session_id)
        async with aclosing(pieces):
            async for piece in pieces:
                yield HttpBody(content_type=CONTENT_TYPE, data=piece)

    async def ImportSession(self, requests: AsyncIterator[pb.ImportSessionRequest], context: CallContext) -> pb.Session:
        file = transfers.UploadedFile(requests)
        session = await self._importer.receive(_principal(context), await file.session_id(), file.pieces())
        return self._session_to(session)

    async def EraseOwner(self, request: pb.EraseOwnerRequest, context: CallContext) -> pb.Erasure:
        return transfers.erasure_to(await self._eraser.begin(_principal(context)))

    async def GetErasure(self, request: pb.GetErasureRequest, context: CallContext) -> pb.Erasure:
        return transfers.erasure_to(await self._eraser.get(_principal(context), request.erasure_id))

    def _session_to(self, session: Session) -> pb.Session:
        return sessions.session_to(session, self._sessions.lifetimes.purge_time(session))

    async def _begin(self, command: SendCommand) -> tuple[Seat, Cursor]:
        seat = await self._sender.send(command)
        return seat, Cursor(seat.live.turn_id)

    async def _events(
        self, session_id: str, joining: Awaitable[tuple[Seat, Cursor]], context: CallContext, retry: Retry
    ) -> AsyncGenerator[pb.TurnEvent, None]:
        seat, after = await joining
        with seat as live:
            await context.send_initial_metadata((("turn-id", live.turn_id),))
            events = self._watcher.events(live, after, retry=retry)
            try:
                async for event in events:
                    yield convert.event_to(session_id, event)
            finally:
                await events.aclose()


def _principal(context: CallContext) -> Principal:
    """Who calls; everybody is the same until authentication is built."""
    return ANONYMOUS


def _last_event_id(context: CallContext) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == _LAST_EVENT_ID), "")
