"""One simulated server process: the real use cases on a store port and a model port of its own, and its RPCs.

The RPCs do what `service/rpc` does around the use cases: deadlines, seats that are closed, streams that are closed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from service.domain import deadline
from service.domain.cursor import Cursor
from service.domain.entities import ANONYMOUS, Active, Ending, Session, Turn
from service.domain.errors import CallerDeadlineExceeded, ChatError, Retry
from service.domain.history import History, HistoryPage, HistoryQuery
from service.domain.lifetime import Lifetimes
from service.domain.live import Delta, Ended, Event, LiveTurn, Seat, Snapshot
from service.domain.ports import Lease
from service.domain.purger import Purger
from service.domain.runner import TurnLimits
from service.domain.sending import SendCommand
from service.domain.sessions import Sessions
from service.domain.turns import Turns
from service.domain.updates import SessionUpdate
from tests.simulation.clock import Clock, SimLoop
from tests.simulation.faults import Faults
from tests.simulation.ledger import MOST_SKEW, START, Call, Ledger
from tests.simulation.model import SimModel
from tests.simulation.port import StorePort
from tests.simulation.world import World

_SLACK_S = 0.25
_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The send that this task works for."""
    return _CALL.get()


Emit = Callable[[str, Any], None]
"""Sends something to the caller: `turn` an id, `event` an Event."""


@dataclass(slots=True)
class Kit:
    """What all processes of a run share."""

    clock: Clock
    world: World
    ledger: Ledger
    faults: Faults
    rng: Random
    limits: TurnLimits
    lifetimes: Lifetimes
    trace: Callable[..., None] | None
    port: type[StorePort]


class AccountingPort(StorePort):
    """Notes for which call each ACCEPT is, and that nobody writes under a lease that was granted to another."""

    ledger: Ledger

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        self.ledger.writes_under(self.process, lease)
        return await super().checkpoint(lease, beat, part)

    async def end(self, lease: Lease, ending: Ending) -> bool:
        self.ledger.writes_under(self.process, lease)
        return await super().end(lease, ending)

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        self.ledger.accept_sent(active.turn.turn_id, session.uid, _CALL.get(), now)
        return await super().accept(session, now, active)


class SimLog:
    """Takes what the service logs; an error is a broken promise."""

    def __init__(self, process: int, kit: Kit) -> None:
        self._process = process
        self._kit = kit

    def debug(self, event: str, **fields: Any) -> None:
        """Nothing."""

    def info(self, event: str, **fields: Any) -> None:
        if self._kit.trace:
            self._kit.trace(self._process, "log", event, fields)

    warning = info

    def error(self, event: str, **fields: Any) -> None:
        self.info(event, **fields)
        is_purged = "uid" in fields and fields["uid"] not in {s.uid for s in self._kit.world.sessions.values()}
        if event != "ending could not be written" and not is_purged:
            self._kit.ledger.fail(f"alarm: {event} {fields}")

    def exception(self, event: str, **fields: Any) -> None:
        self._kit.ledger.fail(f"unexpected: {event} {fields}")


class SimProcess:
    """A server process, from its start until it is killed or has stopped."""

    def __init__(self, number: int, kit: Kit) -> None:
        self.number = number
        self.is_stopping = False
        self.on_death: list[Callable[[], None]] = []
        self._kit = kit
        self._ids = 0
        rng = kit.rng
        most = MOST_SKEW // timedelta(milliseconds=1)
        self._skew = timedelta(milliseconds=rng.randrange(-most, most))
        self.loop = SimLoop(kit.clock, offset=rng.randrange(1 << 16), on_error=self._on_error)  # type: ignore[abstract]
        self.store = kit.port(
            kit.world,
            kit.faults,
            kit.clock,
            self.loop,
            rng,
            process=number,
            on_crash=lambda name: self.crash(f"at {name}"),
            trace=kit.trace,
        )
        if isinstance(self.store, AccountingPort):
            self.store.ledger = kit.ledger
        self.turns = Turns(
            self.store,
            SimModel(kit.ledger, rng, process=number),
            context_tokens=1_000_000,
            recent_tokens=1_000_000,
            limits=kit.limits,
            max_turns=10_000,
            now=self.now,
            new_id=self._new_id,
            clock=self.loop.time,
            log=SimLog(number, kit),
        )
        board = self.turns._runners._board
        self._request_cancel = board.request_cancel
        board.request_cancel = self._note_cancel  # type: ignore[method-assign]
        self._history = History(self.store, now=self.now)
        self.sessions = Sessions(
            self.store,
            lifetimes=kit.lifetimes,
            now=self.now,
            new_id=self._new_id,
            on_delete=self.turns.stop_deleted,
        )
        self._purger = Purger(
            self.store, lifetimes=kit.lifetimes, interval_s=1.0, rate=100.0, now=self.now, log=SimLog(number, kit)
        )
        self._reaper = self.loop.create_task(self.turns.reaper.run())

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or at least exists."""
        return self.loop.is_alive

    @property
    def runners(self) -> list[Any]:
        """The runners of the turns that run here."""
        return self.turns._runners._board.runners()

    def now(self) -> datetime:
        """The wall clock of this machine, which is a little wrong."""
        now_s = self._kit.clock.now_s
        return START + timedelta(milliseconds=int(now_s * 1000)) + self._skew

    async def _note_cancel(self, session: Session, running: Active) -> None:
        self._kit.ledger.records[running.turn.turn_id].cancel_asked = True
        await self._request_cancel(session, running)

    def _new_id(self) -> str:
        self._ids += 1
        return f"p{self.number}x{self._ids}"

    def _on_error(self, context: dict[str, Any]) -> None:
        self._kit.ledger.fail(f"process {self.number}: {context.get('message')}: {context.get('exception')!r}")

    # What befalls it

    def crash(self, why: str) -> None:
        """Die without another step."""
        if not self.loop.is_alive:
            return
        if self._kit.trace:
            self._kit.trace(self.number, "CRASH", why)
        self.loop.kill()
        for tell in self.on_death:
            tell()

    def shut_down(self, grace_s: float) -> None:
        """Stop in good order, as `service/wiring.py` does."""
        if not self.loop.is_alive or self.is_stopping:
            return
        self.is_stopping = True
        if self._kit.trace:
            self._kit.trace(self.number, "STOP", grace_s)
        self._kit.clock.post(0, lambda: self.loop.create_task(self._stop(grace_s)), self.loop)

    async def _stop(self, grace_s: float) -> None:
        self._reaper.cancel()
        await self.turns.drain(grace_s, asyncio.Event())
        await asyncio.sleep(0.5)
        self.crash("stopped")

    # RPCs

    async def send(self, command: SendCommand, cap_s: float, emit: Emit, *, stream: bool) -> Turn | None:
        """SendMessage, or StreamMessage: emits the turn's id, then events."""
        ledger = self._kit.ledger
        call = ledger.call_begins(self.number, command)
        _CALL.set(call)
        deadline.start(self.loop.time() + cap_s)
        try:
            seat = await (
                self.turns.sender.send(command) if stream else _within(cap_s, self.turns.sender.send(command))
            )
            live = seat.live
            ledger.told_accepted(call, live.turn_id)
        except ChatError as error:
            ledger.call_refused(call, error)
            raise
        finally:
            call.is_over = True
        emit("turn", live.turn_id)
        if stream:
            await self._events(seat, Cursor(live.turn_id), emit, command.retry_when_sent)
            return None
        with _Counted(seat, ledger, self.number):
            try:
                turn: Turn = await _within(cap_s, self.turns.watcher.result(live, command.retry_when_sent))
            except ChatError as error:
                ledger.told_failure(live.turn_id, error)
                raise
            ledger.told_ended(turn)
            return turn

    async def attach(self, session_id: str, turn_id: str, after_cursor: str, cap_s: float, emit: Emit) -> None:
        """AttachTurn."""
        deadline.start(self.loop.time() + cap_s)
        seat, after = await self.turns.watcher.attach(ANONYMOUS, session_id, turn_id, after_cursor)
        await self._events(seat, after, emit, Retry.SAME_REQUEST)

    async def get(self, session_id: str, turn_id: str, cap_s: float) -> LiveTurn:
        """GetTurn."""
        deadline.start(self.loop.time() + cap_s)
        return self._told(await _within(cap_s, self.turns.watcher.get(ANONYMOUS, session_id, turn_id)))

    async def cancel(self, session_id: str, turn_id: str, cap_s: float) -> LiveTurn:
        """CancelTurn."""
        deadline.start(self.loop.time() + cap_s)
        live = self._told(await _within(cap_s, self.turns.watcher.cancel(ANONYMOUS, session_id, turn_id)))
        self._kit.ledger.check(live.ending is not None, f"cancelling {turn_id} answered before its end")
        return live

    async def history(self, session_id: str, query: HistoryQuery, cap_s: float) -> HistoryPage:
        """GetHistory."""
        deadline.start(self.loop.time() + cap_s)
        page: HistoryPage = await _within(cap_s, self._history.page(ANONYMOUS, session_id, query))
        return page

    async def delete(self, session_id: str, cap_s: float) -> Session:
        """DeleteSession."""
        deadline.start(self.loop.time() + cap_s)
        deleted: Session = await _within(cap_s, self.sessions.delete(ANONYMOUS, session_id))
        return deleted

    async def undelete(self, session_id: str, cap_s: float) -> Session:
        """UndeleteSession."""
        deadline.start(self.loop.time() + cap_s)
        undeleted: Session = await _within(cap_s, self.sessions.undelete(ANONYMOUS, session_id))
        return undeleted

    async def update(self, session_id: str, update: SessionUpdate, cap_s: float) -> Session:
        """UpdateSession."""
        deadline.start(self.loop.time() + cap_s)
        updated: Session = await _within(cap_s, self.sessions.update(ANONYMOUS, session_id, update))
        return updated

    async def sweep(self) -> None:
        """What the purger does now and then."""
        while await self._purger.sweep():
            pass

    def _told(self, live: LiveTurn) -> LiveTurn:
        if live.ending is not None:
            self._kit.ledger.told_ended(live.turn)
        self._kit.ledger.showed(live.turn_id, live.fence, live.text)
        return live

    async def _events(self, seat: Seat, after: Cursor, emit: Emit, retry: Retry) -> None:
        ledger, rng = self._kit.ledger, self._kit.rng
        with _Counted(seat, ledger, self.number) as live:
            events = self.turns.watcher.events(live, after, retry=retry)
            is_slow = rng.random() < 0.15
            try:
                async for event in events:
                    self._note(live, event)
                    emit("event", event)
                    if is_slow:
                        await asyncio.sleep(rng.random())
            except ChatError as error:
                ledger.told_failure(live.turn_id, error)
                raise
            finally:
                await events.aclose()

    def _note(self, live: LiveTurn, event: Event) -> None:
        what, cursor, ledger = event.what, event.cursor, self._kit.ledger
        if isinstance(what, Delta | Snapshot):
            text = live.text[: cursor.offset]
            is_same = live.fence == cursor.fence and text.endswith(what.text) and len(text) == cursor.offset
            ledger.check(is_same, f"{live.turn_id}: an event does not hold what its cursor names")
            ledger.showed(live.turn_id, cursor.fence, text)
        elif isinstance(what, Ended):
            ledger.told_ended(what.turn)


class _Counted:
    """A seat, counted in the ledger as well."""

    def __init__(self, seat: Seat, ledger: Ledger, process: int) -> None:
        self._seat = seat
        self._ledger = ledger
        self._process = process
        ledger.took_seat(process, seat.live.turn_id)

    def __enter__(self) -> LiveTurn:
        return self._seat.live

    def __exit__(self, *exc: object) -> None:
        self._seat.close()
        self._ledger.left_seat(self._process, self._seat.live.turn_id)


async def _within(cap_s: float, work: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(cap_s + _SLACK_S):
            return await work
    except TimeoutError:
        raise CallerDeadlineExceeded("the deadline ended first") from None
