"""A streamed answer that survives broken connections."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # not in grpc-stubs

from chatsession.answer import Answer
from chatsession.deadline import Deadline
from chatsession.errors import ChatSessionError, TextReplaced, TurnCancelled, Unavailable
from chatsession.events import Accepted, Ended, Event, Replaced, Text
from chatsession.retry import Repeats, RetryPolicy
from chatsession.rpcs import Rpcs
from chatsession.status import from_rpc_error, from_status
from chatsession.v1 import chat_session_pb2 as pb

# How long the status of a turn that has ended is waited for.
_CLOSE_S = 2.0


class AnswerStream:
    """The answer of one turn, as it is written.

    `async for text in stream` yields its text; `stream.events()` says more. Both end only with the turn, and both go
    on where the other, or an earlier one, stopped. A broken call is mended behind them: before the message was
    accepted by sending it again with the same request id, later by attaching after the last cursor.
    A turn that FAILED raises its error after the text; one that is CANCELLED or INCOMPLETE just ends, see `turn`.

    Use it in `async with`: leaving the block early cancels the call. The turn goes on, unless it was sent with
    `on_disconnect="CANCEL"`. Nothing is sent before the first event is asked for, and the timeout counts from then.
    For one reader; only `cancel` may be called from another task.
    """

    def __init__(
        self,
        rpcs: Rpcs,
        *,
        session_id: str,
        send: pb.SendMessageRequest | None = None,
        turn_id: str | None = None,
        after_cursor: str = "",
        text: str | None = "",
        timeout_s: float,
        cancel_timeout_s: float,
        policy: RetryPolicy,
    ) -> None:
        """Either `send` or `turn_id` is given. text: what the caller has up to the cursor; None if that is unknown."""
        self._rpcs = rpcs
        self._session_id = session_id
        self._send = send
        self._turn_id = turn_id
        self._cursor = after_cursor
        self._text = text or ""
        self._is_text_known = text is not None
        self._timeout_s = timeout_s
        self._cancel_timeout_s = cancel_timeout_s
        self._policy = policy
        self._deadline: Deadline | None = None
        self._repeats: Repeats | None = None
        self._turn: pb.Turn | None = None
        self._pending: deque[Event] = deque()
        self._call: Any = None
        self._reader: object = None
        self._is_call_empty = True
        self._is_accepted = False
        self._is_over = False
        self._is_stopped = False

    @property
    def session_id(self) -> str:
        """The session of the turn."""
        return self._session_id

    @property
    def request_id(self) -> str | None:
        """The request id that the message is sent with; None for an attached turn."""
        return self._send.request_id if self._send else None

    @property
    def turn_id(self) -> str | None:
        """The turn; None until the message is accepted."""
        return self._turn_id

    @property
    def turn(self) -> pb.Turn | None:
        """The turn as it was told last; final when `turn.HasField("end_time")`. None until accepted."""
        return self._turn

    @property
    def text(self) -> str:
        """All the text that has come and holds."""
        return self._text

    @property
    def cursor(self) -> str:
        """Where the stream stands, for `attach`."""
        return self._cursor

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the text piece by piece.

        Raises the error of a turn that FAILED, TextReplaced, or what broke the stream for good: Unavailable,
        DeadlineExceeded and others, with `turn_id` and `request_id` to go on with.
        """
        reader = self._reader = object()
        try:
            while (event := await self._next()) is not None:
                if isinstance(event, Replaced):
                    raise TextReplaced(event.text, turn_id=self._turn_id)
                if isinstance(event, Text):
                    yield event.text
        except TextReplaced:
            raise
        except BaseException:
            self._leave(reader)
            raise

    async def events(self) -> AsyncIterator[Event]:
        """Yield Accepted first, then Text and Replaced, Ended last. Raises as the text iterator, but TextReplaced."""
        reader = self._reader = object()
        try:
            while (event := await self._next()) is not None:
                yield event
        except BaseException:
            self._leave(reader)
            raise

    async def answer(self) -> Answer:
        """Wait for the end of the turn and return all of it. Raises as `events`."""
        async for _ in self.events():
            pass
        if self._turn is None:
            raise RuntimeError("the stream ended without a turn")
        return Answer(self._turn.response or self._text, self._turn)

    async def cancel(self) -> pb.Turn | None:
        """Cancel the turn and return it as it ended; the stream then yields what is left of it.

        Before the message is accepted there is no turn: the call is given up, the stream raises TurnCancelled with
        `committed` None, and None is returned. In rare cases the message was being saved at that moment, and the
        turn goes on.
        """
        if self._turn_id is None:
            self._is_stopped = True
            self._drop()
            return None
        request = pb.CancelTurnRequest(session_id=self._session_id, turn_id=self._turn_id)
        turn: pb.Turn = await self._rpcs.unary("CancelTurn", request, Deadline(self._cancel_timeout_s))
        return turn

    async def aclose(self) -> None:
        """Cancel the call. Iterating again attaches anew."""
        self._drop()

    async def _next(self) -> Event | None:
        while not self._pending:
            if self._is_over:
                await self._finish()
                return None
            await self._advance()
        return self._pending.popleft()

    async def _advance(self) -> None:
        """Take one event from the call, or mend the call."""
        if self._deadline is None or self._repeats is None:
            self._deadline = Deadline(self._timeout_s)
            self._repeats = Repeats(self._policy, self._deadline)
        try:
            if self._is_stopped:
                raise self._stopped()
            if self._call is None:
                self._call = self._open(self._deadline)
            event_pb = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._drop()
            await self._repeats.wait_or_raise(from_rpc_error(error, turn_id=self._turn_id, request_id=self.request_id))
        except asyncio.CancelledError:
            self._drop()
            task = asyncio.current_task()
            if self._is_stopped and task is not None and not task.cancelling():
                raise self._stopped() from None
            raise
        else:
            if event_pb is EOF:
                await self._end_of_call(self._deadline, self._repeats)
            elif self._take(event_pb):
                self._repeats.progressed()

    def _open(self, deadline: Deadline) -> Any:
        self._is_call_empty = True
        if self._turn_id is None:
            return self._rpcs.stream("StreamMessage", self._send, deadline)
        request = pb.AttachTurnRequest(session_id=self._session_id, turn_id=self._turn_id, after_cursor=self._cursor)
        return self._rpcs.stream("AttachTurn", request, deadline)

    async def _end_of_call(self, deadline: Deadline, repeats: Repeats) -> None:
        """A call that finished without `ended` means only: attach again. One without any event may be at the end."""
        self._drop()
        if self._is_call_empty and self._turn_id is not None:
            request = pb.GetTurnRequest(session_id=self._session_id, turn_id=self._turn_id)
            turn: pb.Turn = await self._rpcs.unary("GetTurn", request, deadline)
            if turn.HasField("end_time"):
                self._end(turn)
                return
        await repeats.wait_or_raise(
            Unavailable(
                "the server keeps closing the stream before the turn has ended",
                code=grpc.StatusCode.UNAVAILABLE,
                turn_id=self._turn_id,
                request_id=self.request_id,
            )
        )

    def _take(self, event_pb: pb.TurnEvent) -> bool:
        """Take an event in; return whether it is progress. Unknown kinds move the cursor only."""
        self._is_call_empty = False
        self._cursor = event_pb.cursor or self._cursor
        match event_pb.WhichOneof("event"):
            case "accepted":
                self._accept(event_pb.accepted.turn)
                return False
            case "delta":
                self._append(event_pb.delta.text)
            case "snapshot":
                self._replace(event_pb.snapshot.text)
            case "ended":
                self._end(event_pb.ended.turn)
        return True

    def _accept(self, turn: pb.Turn) -> None:
        self._turn_id = turn.turn_id
        self._turn = turn
        if not self._is_accepted:
            self._is_accepted = True
            self._pending.append(Accepted(turn, self._cursor))

    def _append(self, text: str) -> None:
        if text:
            self._text += text
            self._pending.append(Text(text, self._cursor))

    def _replace(self, text: str) -> None:
        """Take all the text so far: where it goes on from what was yielded, only the rest is new."""
        if self._is_text_known and text.startswith(self._text):
            self._append(text[len(self._text) :])
        else:
            self._text = text
            self._is_text_known = True
            self._pending.append(Replaced(text, self._cursor))

    def _end(self, turn: pb.Turn) -> None:
        self._turn_id = turn.turn_id
        self._turn = turn
        if self._is_text_known and turn.state != pb.Turn.FAILED:
            self._replace(turn.response)
        self._pending.append(Ended(turn, self._cursor))
        self._is_over = True

    async def _finish(self) -> None:
        """Let the call of an ended turn close by itself, and raise the turn's error if it FAILED."""
        status_error: ChatSessionError | None = None
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._call is not None and await self._call.read() is not EOF:
                    pass
        except TimeoutError:
            pass
        except grpc.aio.AioRpcError as error:
            status_error = from_rpc_error(error, turn_id=self._turn_id, request_id=self.request_id)
        finally:
            self._drop()
        if self._turn is not None and self._turn.state == pb.Turn.FAILED:
            if status_error is not None and status_error.reason:
                raise status_error
            raise from_status(self._turn.error, turn_id=self._turn_id, request_id=self.request_id)

    def _leave(self, reader: object) -> None:
        """Drop the call, unless an iterator that began later reads it: abandoned ones are closed at any time."""
        if self._reader is reader:
            self._drop()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _stopped(self) -> TurnCancelled:
        return TurnCancelled(
            "cancelled before the message was accepted",
            code=grpc.StatusCode.CANCELLED,
            request_id=self.request_id,
        )
