"""The use case of a send: bring a message into a session, or join the turn that its request id has already.

Whatever must not be lost when a caller leaves runs in a task of its own: from ACCEPT on a turn belongs to its task,
and callers only watch it. docs/turns.md tells the steps.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from service.domain import checks, deadline
from service.domain.access import is_expired, look
from service.domain.admission import Admission
from service.domain.board import TurnBoard
from service.domain.context import ContextBuilder, Past
from service.domain.entities import (
    Active,
    ModelSettings,
    OnBusy,
    OnDisconnect,
    Principal,
    Session,
    Turn,
)
from service.domain.errors import (
    CallerDeadlineExceeded,
    ChatError,
    Committed,
    InvalidField,
    RequestIdReused,
    Retry,
    SessionBusy,
    ShuttingDown,
    StaleHistory,
    StoreUncertain,
)
from service.domain.line import Lines, Ticket
from service.domain.live import Seat
from service.domain.ports import TurnStore
from service.domain.recent import RecentSessions
from service.domain.runner import TurnLimits
from service.domain.running import TurnRunners

_ARCHIVE_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class SendCommand:
    """One send, as the caller asked for it. request_id empty = the caller has none."""

    principal: Principal
    session_id: str
    message: str
    request_id: str = ""
    settings: ModelSettings = field(default_factory=ModelSettings)
    expected_last_seq: int | None = None
    on_busy: OnBusy = OnBusy.QUEUE
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE

    def check(self) -> None:
        """Raise InvalidField for the first field that cannot be right."""
        checks.check_id("session_id", self.session_id)
        checks.check_message("message", self.message)
        if self.request_id:
            checks.check_request_id("request_id", self.request_id)
        if self.expected_last_seq is not None and self.expected_last_seq < 0:
            raise InvalidField("expected_last_seq", "must not be negative")
        checks.check_settings("settings", self.settings)

    @property
    def retry_when_sent(self) -> Retry:
        """What a caller may do who does not know the outcome of a send that may have been accepted."""
        return Retry.SAME_REQUEST if self.request_id else Retry.NO


class TurnSender:
    """Accepts messages: one at a time in a session, each request id once."""

    def __init__(
        self,
        store: TurnStore,
        context: ContextBuilder,
        recent: RecentSessions,
        board: TurnBoard,
        runners: TurnRunners,
        admission: Admission,
        *,
        limits: TurnLimits,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._context = context
        self._recent = recent
        self._board = board
        self._runners = runners
        self._admission = admission
        self._limits = limits
        self._now = now
        self._new_id = new_id
        self._lines = Lines(max_waiting=limits.max_waiting)

    async def send(self, command: SendCommand) -> Seat:
        """Bring a message in, or join the turn that its request id has already; the seat is the caller's to close.

        Every ChatError raised here says whether the message was committed and what a repeat has to look like.
        """
        progress = _Progress()
        until = deadline.current()
        try:
            command.check()
            async with asyncio.timeout_at(until):
                await self._admission.enter()
                try:
                    return await self._send(command, progress)
                finally:
                    self._leave(progress)
        except TimeoutError:
            raise progress.expired(command) from None
        except StoreUncertain as exc:
            raise exc.of_send(Committed.UNKNOWN, command.retry_when_sent, turn_id=progress.turn_id) from exc
        except RequestIdReused as exc:
            raise exc.of_send(Committed.FALSE, Retry.NEW_REQUEST_ID) from exc
        except ChatError as exc:
            raise exc.of_send(Committed.FALSE, Retry.SAME_REQUEST if exc.is_transient else Retry.NO) from exc

    async def _send(self, command: SendCommand, progress: "_Progress") -> Seat:
        if command.on_busy is OnBusy.REJECT:
            return await self._compete(command, None, progress)
        with self._lines.place(command.session_id, at_front=command.on_busy is OnBusy.INTERRUPT) as ticket:
            return await self._compete(command, ticket, progress)

    async def _compete(self, command: SendCommand, ticket: Ticket | None, progress: "_Progress") -> Seat:
        """Steps 1 to 5, from the start again after every wait."""
        if (seat := await self._accept_as_left(command, ticket, progress)) is not None:
            return seat
        interrupted: Turn | None = None
        while True:
            if self._board.is_draining:
                raise ShuttingDown
            session = await look(self._store, command.principal, command.session_id, self._now())
            may_accept = session.running is None and (ticket is None or ticket.is_front)
            known, past = await self._look_up(command, session, with_past=may_accept)
            if known is not None:
                return known
            _check_expected(command, session, interrupted)
            running = session.running
            progress.active_turn_id = running.turn.turn_id if running else ""
            if ticket is None and (running or not self._lines.is_empty(command.session_id)):
                busy_with = {"activeTurnId": running.turn.turn_id} if running else {}
                raise SessionBusy("another turn runs in this session", busy_with)
            if ticket is not None and not ticket.is_front:
                with self._admission.aside():
                    await ticket.wait_for_front()
            elif running:
                if command.on_busy is OnBusy.INTERRUPT:
                    interrupted = running.turn
                    await self._board.request_cancel(session, running)
                await self._wait_for_ending(session, running)
            elif past is not None and (seat := await self._accept(command, session, past, progress)) is not None:
                return seat

    async def _accept_as_left(self, command: SendCommand, ticket: Ticket | None, progress: "_Progress") -> Seat | None:
        """Steps 2 to 5 without a LOOK, where this process ran the session's turn last.

        ACCEPT checks that the session is as it was left. Whatever else there is to say needs a LOOK: None then.
        """
        if self._board.is_draining or not (ticket.is_front if ticket else self._lines.is_empty(command.session_id)):
            return None
        guess = self._recent.guess(command.session_id)
        if guess is None:
            return None
        session, past = guess
        if session.owner != command.principal or is_expired(session, self._now()):
            return None
        if command.expected_last_seq not in (None, session.last_seq):
            return None
        if command.request_id and await self._was_used(session, past, f"c:{command.request_id}"):
            return None
        if session.active and not await self._runners.wait_for_archive(
            session.key, session.active, _ARCHIVE_PATIENCE_S
        ):
            return None  # the store is away, or slow: LOOK finds out which
        seat = await self._accept(command, session, past, progress)
        self._recent.learn(seat is not None)
        return seat

    async def _was_used(self, session: Session, past: Past, key: str) -> bool:
        """Whether a turn has this request key, if the session is as it was left."""
        if session.active and session.active.turn.request_key == key:
            return True
        if past.request_keys is not None:
            return key in past.request_keys
        return await self._store.turn_by_request(session.key, key) is not None

    async def _look_up(
        self, command: SendCommand, session: Session, *, with_past: bool
    ) -> tuple[Seat | None, Past | None]:
        """Find the turn of this request id; and at the same time read the context, if it will be of use."""
        key = f"c:{command.request_id}"
        if session.active and session.active.turn.request_key == key:
            _check_same(command, session.active.turn)
            return self._board.seat(session, session.active), None
        past_read = self._context.past_of(session, self._recent.past_of(session)) if with_past else _nothing()
        if not command.request_id:
            return None, await past_read
        turn, past = await asyncio.gather(self._store.turn_by_request(session.key, key), past_read)
        if turn is None:
            return None, past
        _check_same(command, turn)
        return self._board.ended(session.uid, turn).seat(), None

    async def _accept(self, command: SendCommand, session: Session, past: Past, progress: "_Progress") -> Seat | None:
        """Start the turn's own task and wait until it is accepted; None if the session has moved on meanwhile."""
        if session.active is not None and session.active.turn.turn_id != past.archived_turn_id:
            await self._runners.make_sure_archived(session.key, session.active)
        if self._board.is_draining:
            raise ShuttingDown
        active = self._new_active(command, session)
        accepted: asyncio.Future[Seat | None] = asyncio.get_running_loop().create_future()
        progress.turn_id = active.turn.turn_id
        on_accepted = partial(self._leave, progress)
        self._board.tasks.start(self._runners.accept_and_run(session, active, past, accepted, on_accepted))
        try:
            seat = await asyncio.shield(accepted)
        except asyncio.CancelledError:
            accepted.add_done_callback(_close_seat)
            raise
        if seat is None:
            progress.turn_id = ""
        return seat

    def _leave(self, progress: "_Progress") -> None:
        """Give a send's place up, once: when its turn begins to run, which counts from then on, or without one."""
        if not progress.has_left:
            progress.has_left = True
            self._admission.leave()

    def _new_active(self, command: SendCommand, session: Session) -> Active:
        turn_id, now = self._new_id(), self._now()
        turn = Turn(
            turn_id=turn_id,
            request_key=f"c:{command.request_id}" if command.request_id else f"s:{turn_id}",
            user_text=command.message,
            sent_settings=command.settings,
            settings=command.settings.over(session.settings),
            first_seq=session.last_seq + 1,
            attempt=1,
            create_time=now,
            settings_version=session.settings_version,
        )
        return Active(
            turn=turn,
            on_disconnect=command.on_disconnect,
            deadline=now + timedelta(seconds=self._limits.turn_timeout_s),
            lease_id=self._new_id(),
            fence=session.fence + 1,
        )

    async def _wait_for_ending(self, session: Session, running: Active) -> None:
        """Wait, as one who wants the session and not the turn, until the turn is over, or this process stops."""
        with self._board.seat(session, running, is_caller=False) as live, self._admission.aside():
            await live.wait_until(lambda: live.ending is not None or self._board.is_draining)

    def close(self) -> None:
        """Send everybody who waits in line away."""
        self._lines.close()


class _Progress:
    """How far a send has come, for the error of one that ends early."""

    __slots__ = ("active_turn_id", "has_left", "turn_id")

    def __init__(self) -> None:
        self.turn_id = ""
        self.active_turn_id = ""
        self.has_left = False

    def expired(self, command: SendCommand) -> ChatError:
        """The error for a caller whose deadline ended while the message was on its way."""
        metadata = {"activeTurnId": self.active_turn_id} if self.active_turn_id else {}
        error = CallerDeadlineExceeded("the deadline ended before the message was accepted", metadata)
        if self.turn_id:
            return error.of_send(Committed.UNKNOWN, command.retry_when_sent, turn_id=self.turn_id)
        return error.of_send(Committed.FALSE, Retry.SAME_REQUEST)


def _check_same(command: SendCommand, turn: Turn) -> None:
    if not turn.same_request(command.message, command.settings):
        raise RequestIdReused("the request id was used for another message or other settings", {"turnId": turn.turn_id})


def _check_expected(command: SendCommand, session: Session, interrupted: Turn | None) -> None:
    """Step 3: whether the history is where the caller thinks it is."""
    expected, running = command.expected_last_seq, session.running
    if expected is None:
        return
    if running is None:
        newest = session.active.turn if session.active else None
        last_seq = session.last_seq
        # The caller saw the turn that this send interrupted as running: its user message was the newest then.
        was_interrupted = newest and interrupted and newest.turn_id == interrupted.turn_id
        is_stale = expected != (interrupted.first_seq if interrupted and was_interrupted else last_seq)
    else:
        last_seq = running.turn.first_seq
        is_stale = expected != last_seq if command.on_busy is OnBusy.INTERRUPT else expected < last_seq
    if is_stale:
        raise StaleHistory("the history has moved on", {"lastSeq": str(last_seq)})


def _close_seat(accepted: "asyncio.Future[Seat | None]") -> None:
    if not accepted.cancelled() and accepted.exception() is None and (seat := accepted.result()) is not None:
        seat.close()


async def _nothing() -> None:
    return None
