"""Use cases on a turn that is there: wait for it, stream it, look at it, cancel it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from service.domain import checks, deadline
from service.domain.access import look
from service.domain.board import TurnBoard
from service.domain.cursor import Cursor
from service.domain.entities import Active, Principal, Session, Turn, TurnState
from service.domain.errors import (
    CallerDeadlineExceeded,
    ChatError,
    Committed,
    InternalError,
    Retry,
    TurnCancelled,
    turn_failure,
)
from service.domain.live import Ended, Event, LiveTurn, Seat, View
from service.domain.ports import TurnStore
from service.domain.runner import TurnLimits


class TurnWatcher:
    """Watches turns for callers, whichever process runs them."""

    def __init__(self, store: TurnStore, board: TurnBoard, *, limits: TurnLimits, now: Callable[[], datetime]) -> None:
        self._store = store
        self._board = board
        self._limits = limits
        self._now = now

    async def result(self, live: LiveTurn, retry: Retry) -> Turn:
        """Wait for the ending of a sent turn within the caller's deadline, and return it COMPLETED or INCOMPLETE.

        Raises the turn's own error if it FAILED, TurnCancelled, or CallerDeadlineExceeded while the turn goes on.
        """
        try:
            async with asyncio.timeout_at(deadline.current()):
                turn = await live.wait_for_ending()
        except TimeoutError:
            raise _late(live, retry) from None
        except ChatError as exc:
            raise exc.of_send(Committed.TRUE, retry, turn_id=live.turn_id) from exc
        if (error := error_of(turn)) is not None:
            raise error
        return turn

    async def events(self, live: LiveTurn, after: Cursor, *, retry: Retry) -> AsyncGenerator[Event, None]:
        """Yield the events of a turn after a place, within the caller's deadline.

        retry: what the caller's own request may do if the stream breaks off while the turn goes on.
        Ends after `Ended`; then raises the turn's error if it FAILED. Raises ShuttingDown or CallerDeadlineExceeded
        where the turn goes on and the caller should attach again.
        """
        view = View(live, after, heartbeat_s=self._limits.heartbeat_s, until=deadline.current())
        event = None
        try:
            while events := await view.news():
                for event in events:
                    yield event
        except TimeoutError:
            raise _late(live, retry) from None
        except ChatError as exc:
            raise exc.of_send(Committed.TRUE, retry, turn_id=live.turn_id) from exc
        finally:
            view.close()
        if event and isinstance(event.what, Ended) and event.what.turn.ending and event.what.turn.ending.failure:
            raise error_of(live.turn) or InternalError()

    async def attach(
        self, principal: Principal, session_id: str, turn_id: str, after_cursor: str
    ) -> tuple[Seat, Cursor]:
        """Take part in a turn, running or over; the seat is the caller's to close.

        Raises InvalidField, SessionNotFound, SessionExpired, TurnNotFound.
        """
        checks.check_id("turn_id", turn_id)
        after = Cursor.decode(after_cursor, turn_id=turn_id, field="after_cursor") if after_cursor else Cursor(turn_id)
        session, found = await self._look_at(principal, session_id, turn_id)
        if isinstance(found, Turn):
            return self._board.ended(session.uid, found).seat(), after
        return self._board.seat(session, found), after

    async def get(self, principal: Principal, session_id: str, turn_id: str) -> LiveTurn:
        """Return a turn as it stands; raises as `attach`."""
        checks.check_id("turn_id", turn_id)
        session, found = await self._look_at(principal, session_id, turn_id)
        if isinstance(found, Turn):
            return self._board.ended(session.uid, found)
        with self._board.seat(session, found, is_caller=False) as live:
            return live

    async def cancel(self, principal: Principal, session_id: str, turn_id: str) -> LiveTurn:
        """End a running turn, keeping what it said, and return it when it is over; one that is over comes as it is.

        Raises as `attach`, and CallerDeadlineExceeded: the request to cancel stays.
        """
        checks.check_id("turn_id", turn_id)
        session, found = await self._look_at(principal, session_id, turn_id)
        if isinstance(found, Turn):
            return self._board.ended(session.uid, found)
        with self._board.seat(session, found, is_caller=False) as live:
            if live.ending is None:
                await self._board.request_cancel(session, found)
            await live.wait_for_ending()
            return live

    async def _look_at(self, principal: Principal, session_id: str, turn_id: str) -> tuple[Session, Active | Turn]:
        session = await look(self._store, principal, session_id, self._now())
        if session.active and session.active.turn.turn_id == turn_id:
            return session, session.active
        return session, await self._board.find(session.key, turn_id)


def error_of(turn: Turn) -> ChatError | None:
    """Return the error that a caller gets for a turn without an answer, or None."""
    ending = turn.ending
    if ending is None:
        return None
    if ending.state is TurnState.CANCELLED:
        return TurnCancelled("the turn was cancelled").of_send(
            Committed.TRUE, Retry.NEW_REQUEST_ID, turn_id=turn.turn_id
        )
    if ending.failure is None:
        return None
    error = turn_failure(ending.failure.reason, ending.failure.message)
    return error.of_send(Committed.TRUE, Retry.NEW_REQUEST_ID if error.is_transient else Retry.NO, turn_id=turn.turn_id)


def _late(live: LiveTurn, retry: Retry) -> ChatError:
    error = CallerDeadlineExceeded("the deadline ended before the turn did; the turn goes on")
    return error.of_send(Committed.TRUE, retry, turn_id=live.turn_id)
