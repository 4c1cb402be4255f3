"""The servicer: reads requests, calls use cases, writes answers. It catches nothing."""

from collections.abc import AsyncGenerator, Awaitable

from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc

from service.domain.cursor import Cursor
from service.domain.entities import ANONYMOUS, Principal
from service.domain.errors import NotBuilt, Retry
from service.domain.history import History
from service.domain.live import Seat
from service.domain.sending import SendCommand, TurnSender
from service.domain.sessions import Sessions
from service.domain.watching import TurnWatcher
from service.rpc import convert
from service.rpc.context import CallContext

_UNBUILT_OF_CREATE = ("session_id", "request_id")
_UNBUILT_OF_SESSION = ("session_id", "expire_time", "ttl", "idle_ttl", "etag")
_PACKAGE = pb.DESCRIPTOR.package
# What the contract has and this server always refuses, by full names.
UNSERVED = frozenset(
    [
        *(f"{_PACKAGE}.CreateSessionRequest.{field}" for field in _UNBUILT_OF_CREATE),
        *(f"{_PACKAGE}.Session.{field}" for field in _UNBUILT_OF_SESSION),
        *(
            f"{_PACKAGE}.ChatSessionService.{method}"
            for method in ("GetSession", "ListSessions", "UpdateSession", "DeleteSession")
        ),
    ]
)
_LAST_EVENT_ID = "last-event-id"


class ChatSessionServicer(pb_grpc.ChatSessionServiceServicer):
    """Serves `chatsession.v1.ChatSessionService` from the use cases."""

    def __init__(self, sessions: Sessions, sender: TurnSender, watcher: TurnWatcher, history: History) -> None:
        self._sessions = sessions
        self._sender = sender
        self._watcher = watcher
        self._history = history

    async def CreateSession(self, request: pb.CreateSessionRequest, context: CallContext) -> pb.CreateSessionResponse:
        is_full = convert.wants_full(request.view)
        convert.refuse_unbuilt("", request, _UNBUILT_OF_CREATE)
        convert.refuse_unbuilt("session.", request.session, _UNBUILT_OF_SESSION)
        session = await self._sessions.create(
            _principal(context),
            title=request.session.title,
            labels=dict(request.session.labels),
            instructions=request.session.instructions,
            settings=convert.settings_from(request.session.settings),
        )
        return pb.CreateSessionResponse(
            session_id=session.session_id, session=convert.session_to(session) if is_full else None
        )

    async def GetSession(self, request: pb.GetSessionRequest, context: CallContext) -> pb.Session:
        raise NotBuilt("GetSession is not served yet")

    async def ListSessions(self, request: pb.ListSessionsRequest, context: CallContext) -> pb.ListSessionsResponse:
        raise NotBuilt("ListSessions is not served yet")

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: CallContext) -> pb.Session:
        raise NotBuilt("UpdateSession is not served yet")

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: CallContext) -> pb.Session:
        raise NotBuilt("DeleteSession is not served yet")

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
