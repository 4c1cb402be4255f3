"""What has happened, written down apart from the code under test, and what must hold of it at every moment.

The ledger is told of every change in the world, every answer of the model, and everything that a caller hears. It
judges at once; a broken promise goes into `violations`.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.domain.access import expiry, is_expired
from service.domain.entities import (
    Active,
    Ending,
    FinishReason,
    OnBusy,
    OnDisconnect,
    Role,
    Session,
    SessionKey,
    Turn,
    TurnState,
)
from service.domain.errors import ChatError
from service.domain.lifetime import Lifetimes
from service.domain.ports import ContextMessage, Lease, ModelRequest
from service.domain.sending import SendCommand
from tests.simulation.clock import Clock, ticks

START = datetime(2026, 1, 1, tzinfo=UTC)
# Of the machines' wall clocks.
MOST_SKEW = timedelta(milliseconds=400)
# How long purgers leave a session to the one that has begun with it.
CLAIM = timedelta(seconds=1)


@dataclass(slots=True)
class Grant:
    """A lease as it was given out. process: number of its owner, which its id begins with."""

    tick: int
    fence: int
    lease_id: str
    runs: bool

    @property
    def process(self) -> int:
        return process_of(self.lease_id)


@dataclass(slots=True, eq=False)
class Call:
    """One send, as one process got it. is_over: its caller has heard, or left. memory: for mutations."""

    number: int
    process: int
    command: SendCommand
    begin: int
    is_over: bool = False
    is_refused: bool = False
    has_seat: bool = False
    memory: Any = None


@dataclass(slots=True, eq=False)
class Record:
    """All that is known of one accepted turn. beat_tick: when {lease, beat} last changed."""

    session_id: str
    uid: str
    active: Active
    tick: int
    call: Call | None
    grants: list[Grant]
    beat_tick: int
    ending: Ending | None = None
    ended_tick: int = 0
    is_acked: bool = False
    cancel_asked: bool = False
    calls: list["ModelCall"] = field(default_factory=list)
    shown: dict[int, str] = field(default_factory=dict)
    seats: dict[int, int] = field(default_factory=dict)
    deserted_at: set[int] = field(default_factory=set)

    @property
    def turn(self) -> Turn:
        return self.active.turn

    @property
    def turn_id(self) -> str:
        return self.active.turn.turn_id


@dataclass(slots=True, eq=False)
class ModelCall:
    """One answer of the model, as far as it went."""

    number: int
    record: Record | None
    grant: Grant | None
    ledger: "Ledger"
    text: str = ""
    said_tick: int = 0
    finish: FinishReason | None = None

    def says(self, piece: str) -> None:
        """The model gives a piece away."""
        self.text += piece
        self.said_tick = self.ledger.clock.tick

    def was_taken(self, piece: str) -> None:
        """The runner asks for more, so it has shown the piece."""
        if self.record is None or self.grant is None:
            return
        for grant in self.record.grants:
            if grant.fence > self.grant.fence and grant.tick < self.said_tick:
                self.ledger.fail(f"{piece} of {self.record.turn_id} was shown by an owner whose lease was taken over")

    def finishes(self, reason: FinishReason) -> None:
        """The model says that the answer is whole."""
        self.finish = reason


@dataclass(frozen=True, slots=True)
class State:
    """A session as it stood from a tick on."""

    tick: int
    last_seq: int
    running: int | None
    is_there: bool
    end: datetime | None


def process_of(own_id: str) -> int:
    """Return the number of the process that made an id."""
    return int(own_id[1 : own_id.index("x")])


class Ledger:
    """The record of one run."""

    def __init__(self, clock: Clock, *, lease_s: float, lifetimes: Lifetimes) -> None:
        self.clock = clock
        self.violations: list[str] = []
        self.records: dict[str, Record] = {}
        self.in_order: dict[str, list[Record]] = {}
        self.states: dict[str, list[State]] = {}
        self.is_closed = False
        self.calls: list[Call] = []
        self.model_calls = 0
        self.take_overs = 0
        self.pauses: dict[int, int] = {}
        self._lease = ticks(lease_s)
        self._lifetimes = lifetimes
        self._purged: set[str] = set()
        self._by_key: dict[tuple[str, str], Record] = {}
        self._by_text: dict[str, Record] = {}
        self._archived: dict[tuple[str, int], Turn] = {}
        self._callers: dict[str, tuple[str, Call | None, datetime]] = {}

    def fail(self, what: str) -> None:
        """A promise is broken."""
        if not self.is_closed:
            self.violations.append(f"{self.clock.now_s:.3f} s: {what}")

    def check(self, holds: bool, what: str) -> None:
        """A promise has to hold."""
        if not holds:
            self.fail(what)

    # The world

    def accept_sent(self, turn_id: str, uid: str, call: Call | None, now: datetime) -> None:
        """A process sends an ACCEPT on its way, for a call; `now` by its own clock."""
        self._callers[turn_id] = uid, call, now

    def writes_under(self, process: int, lease: Lease) -> None:
        """A process writes as the holder of a lease."""
        owner = process_of(lease.lease_id)
        self.check(owner == process, f"{lease.turn_id} has two owners: {process} writes under the lease of {owner}")

    def session_made(self, session: Session) -> None:
        """A session was created."""
        self.in_order[session.uid] = []
        self.states.setdefault(session.session_id, [])
        self._note(session)

    def session_changed(self, before: Session, after: Session) -> None:
        self._note(after)
        self.check(after.uid == before.uid, "a write changed the uid")
        self.check(after.last_seq >= before.last_seq, f"last_seq went back from {before.last_seq} to {after.last_seq}")
        self.check(after.fence >= before.fence, f"the fence went back from {before.fence} to {after.fence}")
        if after.purging and not before.purging:
            self._purge_begun(before, after)
        old, new = before.active, after.active
        if new is None and not after.purging:
            self.check(old is None, "the active turn vanished")
        elif new is None:
            self._purged.add(after.uid)
        elif old is None or old.turn.turn_id != new.turn.turn_id:
            self._accepted(before, new)
        elif old.turn.ending is not None:
            self.check(new == old, f"{new.turn.turn_id} was changed after its end")
        else:
            self._moved_on(self.records[new.turn.turn_id], old, new, after)

    def _purge_begun(self, before: Session, after: Session) -> None:
        due, now = self._lifetimes.purge_time(before), after.look_at - CLAIM if after.look_at else None
        is_due = due is not None and now is not None and due <= now
        self.check(is_due, f"{before.uid} is removed before its time: due {due}, now {now}")

    def turns_deleted(self, session: Session | None) -> None:
        self.check(session is None or session.purging, "turns were deleted of a session that is alive")

    def session_removed(self, session: Session) -> None:
        self._note(replace(session, purging=True))

    def _note(self, session: Session) -> None:
        running = session.running
        is_there = session.deleted_at is None and not session.purging
        first_seq = running.turn.first_seq if running else None
        state = State(self.clock.tick, session.last_seq, first_seq, is_there, expiry(session))
        states = self.states[session.session_id]
        if not states or states[-1] != state:
            states.append(state)

    def _accepted(self, before: Session, new: Active) -> None:
        turn, old = new.turn, before.active
        uid, call, now = self._callers[turn.turn_id]
        self.check(not is_expired(before, now), f"{turn.turn_id} was accepted into an expired session")
        is_in_force = turn.settings_version == before.settings_version
        is_in_force = is_in_force and turn.settings == turn.sent_settings.over(before.settings)
        self.check(is_in_force, f"{turn.turn_id} runs with settings that were not in force when it was accepted")
        self.check(uid == before.uid, f"{turn.turn_id} was meant for the session {uid} and went into {before.uid}")
        if old is not None:
            self.check(old.turn.ending is not None, f"{turn.turn_id} was accepted while {old.turn.turn_id} runs")
            kept = self._archived.get((before.uid, old.turn.first_seq))
            is_kept = kept is not None and kept.turn_id == old.turn.turn_id
            self.check(is_kept, f"{turn.turn_id} replaced {old.turn.turn_id}, which is not archived: lost")
        self.check(
            before.deleted_at is None and not before.purging, f"{turn.turn_id} was accepted into a deleted session"
        )
        earlier = self.in_order[before.uid]
        newest = earlier[-1] if earlier else None
        last_seq = (newest.ending.last_seq if newest.ending else newest.turn.first_seq) if newest else 0
        self.check(turn.first_seq == last_seq + 1, f"{turn.turn_id} has seq {turn.first_seq} after {last_seq}")
        self.check(turn.turn_id not in self.records, f"{turn.turn_id} was accepted twice")
        twin = self._by_key.get((before.uid, turn.request_key))
        if twin is not None:
            self.fail(f"request {turn.request_key} was accepted twice: {twin.turn_id} and {turn.turn_id}")
        record = Record(
            before.session_id,
            before.uid,
            new,
            self.clock.tick,
            call,
            [Grant(self.clock.tick, new.fence, new.lease_id, True)],
            self.clock.tick,
        )
        self._check_call(record, call, newest)
        self.records[turn.turn_id] = record
        self._by_key[before.uid, turn.request_key] = record
        self._by_text[turn.user_text] = record
        earlier.append(record)

    def _check_call(self, record: Record, call: Call | None, newest: Record | None) -> None:
        if call is None:
            return
        command, turn_id = call.command, record.turn_id
        twins = [other.turn_id for other in self.in_order[record.uid] if other.call is call]
        self.check(not twins, f"one call was accepted twice: {twins} and {turn_id}")
        self.check(not call.is_refused, f"{turn_id} was reported as not committed, and is accepted now")
        self.check(command.session_id == record.session_id, f"{turn_id} went into a session that nobody named")
        if command.expected_last_seq is not None:
            fits = command.expected_last_seq == record.turn.first_seq - 1
            if command.on_busy is OnBusy.INTERRUPT and newest is not None:
                fits = fits or command.expected_last_seq == newest.turn.first_seq
            self.check(fits, f"{turn_id} was accepted although the history had moved on from what was expected")
        if command.on_busy is not OnBusy.QUEUE:
            return
        for other in self.in_order[record.uid]:
            late = other.call
            if late is not None and late.command.on_busy is OnBusy.QUEUE and late.process == call.process:
                self.check(
                    late.number < call.number, f"{turn_id} stood in line before {other.turn_id}, and came after it"
                )

    def _moved_on(self, record: Record, old: Active, new: Active, after: Session) -> None:
        turn_id, stored = record.turn_id, "".join(new.parts)
        if new.cancel and after.deleted_at is not None:
            record.cancel_asked = True
        if new.lease_id != old.lease_id:
            self._taken_over(record, old, new)
        elif new.fence != old.fence:
            self.fail(f"the fence of {turn_id} moved without a new lease")
        if (new.lease_id, new.beat) != (old.lease_id, old.beat):
            record.beat_tick = self.clock.tick
        if new.turn.ending is not None:
            self._ended(record, old, new.turn.ending, after)
            return
        self.check(new.parts[: len(old.parts)] == old.parts, f"{turn_id} lost text that was saved")
        if new.parts != old.parts:
            is_one = any(call.text.startswith(stored) for call in record.calls)
            self.check(is_one, f"what is saved of {turn_id} is not the text of one answer: {stored}")
        if new.released and not old.released:
            shown = record.shown.get(new.fence, "")
            self.check(stored.startswith(shown), f"{turn_id} was handed over without text that was shown: {shown}")

    def _taken_over(self, record: Record, old: Active, new: Active) -> None:
        self.take_overs += 1
        self.check(new.fence > old.fence, f"{record.turn_id} was taken over without a new fence")
        is_due = old.released or self.clock.tick - record.beat_tick >= self._lease
        self.check(is_due, f"{record.turn_id} was taken from an owner whose lease is good")
        stays = old.cancel or old.on_disconnect is OnDisconnect.CANCEL or bool("".join(old.parts))
        record.grants.append(Grant(self.clock.tick, new.fence, new.lease_id, not stays))

    def _ended(self, record: Record, old: Active, ending: Ending, after: Session) -> None:
        turn_id, first_seq = record.turn_id, record.turn.first_seq
        self.check(record.ending is None, f"{turn_id} has two endings")
        record.ending, record.ended_tick = ending, self.clock.tick
        has_answer = bool(ending.text) or ending.state is TurnState.COMPLETED
        self.check(ending.message_count == 1 + has_answer, f"{turn_id} ended with a wrong count of messages")
        self.check(ending.last_seq == first_seq + ending.message_count - 1, f"{turn_id} ended with a wrong last_seq")
        self.check(after.last_seq == ending.last_seq, f"the session does not count the messages of {turn_id}")
        self.check(ending.fence == old.fence, f"{turn_id} was ended by a lease that is not the newest")
        saved, shown = "".join(old.parts), record.shown.get(old.fence, "")
        self.check(ending.text.startswith(saved), f"the end of {turn_id} drops saved text: {saved} / {ending.text}")
        self.check(ending.text.startswith(shown), f"the end of {turn_id} drops shown text: {shown} / {ending.text}")
        if ending.text:
            sources = [call for call in record.calls if call.text.startswith(ending.text)]
            self.check(bool(sources), f"the text of {turn_id} is not that of one answer: {ending.text}")
        if ending.finish_reason in (FinishReason.STOP, FinishReason.MAX_OUTPUT_TOKENS, FinishReason.CONTENT_FILTER):
            whole = [call for call in record.calls if call.finish is ending.finish_reason and call.text == ending.text]
            self.check(bool(whole), f"{turn_id} is called whole and is not: {ending.text}")
        elif ending.state is TurnState.COMPLETED:
            self.fail(f"{turn_id} is COMPLETED without a reason")
        if ending.state is TurnState.CANCELLED:
            self.check(self._may_cancel(record), f"{turn_id} was cancelled by nobody")

    def _may_cancel(self, record: Record) -> bool:
        if record.cancel_asked:
            return True
        if record.active.on_disconnect is not OnDisconnect.CANCEL:
            return False
        owner, call = record.grants[-1].process, record.call
        is_left = call is not None and call.is_over and not call.has_seat
        return len(record.grants) > 1 or owner in record.deserted_at or is_left

    def turn_archived(self, key: SessionKey, turn: Turn) -> None:
        record = self.records.get(turn.turn_id)
        if record is None:
            self.fail(f"{turn.turn_id} was archived and never accepted")
            return
        self._archived[key.uid, turn.first_seq] = turn
        self.check(turn.ending is not None and turn.ending == record.ending, f"{turn.turn_id} was archived unended")
        self.check(turn.user_text == record.turn.user_text, f"{turn.turn_id} was archived with another message")

    # The model

    def model_called(self, process: int, request: ModelRequest) -> ModelCall:
        """A process asks the model."""
        self.model_calls += 1
        record = self._by_text.get(request.messages[-1].content)
        if record is None:
            self.fail(f"the model is asked what nobody saved: {request.messages[-1].content}")
            return ModelCall(self.model_calls, None, None, self)
        grants = [grant for grant in record.grants if grant.process == process]
        call = ModelCall(self.model_calls, record, grants[-1] if grants else None, self)
        record.calls.append(call)
        turn_id, count = record.turn_id, len(record.calls)
        self.check(count <= len(record.grants), f"{turn_id}: {count} model calls for {len(record.grants)} leases")
        if call.grant is not None:
            self.check(
                call.grant.runs or len(grants) > 1, f"{turn_id} was to be ended by who took it over, and is asked again"
            )
        else:
            self.fail(f"{turn_id} is run by a process that never had a lease")
        self._check_context(record, list(request.messages))
        return call

    def _check_context(self, record: Record, messages: list[ContextMessage]) -> None:
        if record.uid in self._purged:
            return
        expected = []
        for earlier in self.in_order[record.uid]:
            if earlier is record:
                break
            if earlier.ending is not None and earlier.ending.text:
                expected.append(ContextMessage(Role.USER, earlier.turn.user_text))
                expected.append(ContextMessage(Role.ASSISTANT, earlier.ending.text))
        expected.append(ContextMessage(Role.USER, record.turn.user_text))
        self.check(messages == expected, f"{record.turn_id} was asked with a context that is not the history")

    # Callers

    def call_begins(self, process: int, command: SendCommand) -> Call:
        """A send arrives at a process."""
        call = Call(len(self.calls), process, command, self.clock.tick)
        self.calls.append(call)
        return call

    def call_refused(self, call: Call, error: ChatError) -> None:
        """A send heard an error before it had a turn."""
        call.is_over = True
        committed = error.metadata.get("committed")
        if (
            self.pauses.get(call.process, -1) < call.begin
        ):  # woken late, two deadlines end at once and the outer one wins
            self.check(committed in ("true", "false", "unknown"), f"{error.reason} says not whether it was committed")
            self.check("retry" in error.metadata, f"{error.reason} does not say how to repeat")
        if committed == "false":
            call.is_refused = True
            mine = [record.turn_id for record in self.records.values() if record.call is call]
            self.check(not mine, f"{error.reason} says not committed, and {mine} is there")
        self._check_reason(call, error)

    def _check_reason(self, call: Call, error: ChatError) -> None:
        command, reason = call.command, error.reason
        states = self.states_between(command.session_id, call.begin)
        if reason == "SESSION_NOT_FOUND":
            self.check(any(not state.is_there for state in states), "a session that is there was not found")
        elif reason == "SESSION_EXPIRED":
            self.check(self.may_be_expired(command.session_id, call.begin), "a session that goes on was called expired")
        elif reason == "SESSION_BUSY":
            rivals = any(other is not call and other.process == call.process for other in self.calls)
            is_busy = rivals or any(state.running is not None for state in states)
            self.check(is_busy, "refused as busy, and nothing ran")
        elif reason == "REQUEST_ID_REUSED":
            keys = [record for (_, key), record in self._by_key.items() if key == f"c:{command.request_id}"]
            is_reused = any(not record.turn.same_request(command.message, command.settings) for record in keys)
            self.check(is_reused, "refused as reused, and it was not")
        elif reason == "STALE_HISTORY":
            self.check(any(_is_stale(command, state) for state in states), "refused as stale, and it was not")

    def states_between(self, session_id: str, begin: int) -> list[State]:
        """Return how a session stood at some time since a tick."""
        states = self.states[session_id]
        first = max((i for i, state in enumerate(states) if state.tick < begin), default=0)
        return states[first:]

    def may_be_expired(self, session_id: str, begin: int) -> bool:
        """Whether a session may have been seen as expired since a tick, by clocks as wrong as they are."""
        latest = START + timedelta(seconds=self.clock.now_s) + MOST_SKEW
        return any(state.end is not None and state.end <= latest for state in self.states_between(session_id, begin))

    def paused(self, process: int) -> None:
        """A process is paused, or goes on."""
        self.pauses[process] = self.clock.tick

    def told_accepted(self, call: Call, turn_id: str) -> None:
        """A caller hears that its message is saved."""
        call.is_over = call.has_seat = True
        record = self.records.get(turn_id)
        if record is None:
            self.fail(f"{turn_id} was acknowledged and is not saved")
            return
        record.is_acked = True
        command = call.command
        self.check(record.turn.user_text == command.message, f"a caller got {turn_id}, which is another's message")
        key = f"c:{command.request_id}" if command.request_id else record.turn.request_key
        self.check(record.turn.request_key == key, f"a caller got {turn_id}, which is another's request")

    def took_seat(self, process: int, turn_id: str) -> None:
        """A caller takes part in a turn at a process."""
        record = self.records[turn_id]
        record.seats[process] = record.seats.get(process, 0) + 1

    def left_seat(self, process: int, turn_id: str) -> None:
        """A caller leaves."""
        record = self.records[turn_id]
        record.seats[process] -= 1
        if record.seats[process] == 0:
            record.deserted_at.add(process)

    def told_ended(self, turn: Turn) -> None:
        """Somebody hears how a turn ended."""
        record = self.records.get(turn.turn_id)
        if record is None or record.ending is None:
            self.fail(f"the end of {turn.turn_id} was told and is not saved")
        else:
            self.check(turn.ending == record.ending, f"another end of {turn.turn_id} was told than the one saved")
            self.check(turn.first_seq == record.turn.first_seq, f"{turn.turn_id} was told with another seq")

    def told_failure(self, turn_id: str, error: ChatError) -> None:
        """Whoever watches a turn hears an error."""
        if error.reason in ("CALLER_DEADLINE_EXCEEDED", "SHUTTING_DOWN", "SESSION_NOT_FOUND"):
            return
        ending = self.records[turn_id].ending
        if ending is None:
            self.fail(f"{error.reason} was told of {turn_id}, which has not ended")
            return
        reason = "TURN_CANCELLED" if ending.state is TurnState.CANCELLED else ending.failure and ending.failure.reason
        self.check(reason == error.reason, f"{error.reason} was told of {turn_id}, which ended {ending.state} {reason}")

    def showed(self, turn_id: str, fence: int, text: str) -> None:
        """A process shows the text of a turn under a fence, from its begin to some place."""
        record = self.records.get(turn_id)
        if record is None:
            self.fail(f"{turn_id} is shown and not saved")
            return
        known = record.shown.get(fence, "")
        if text.startswith(known):
            record.shown[fence] = text
        else:
            self.check(known.startswith(text), f"a cursor of {turn_id} names two texts: {known} / {text}")
        if record.ending is not None and record.ending.fence == fence:
            whole = record.ending.text
            self.check(whole.startswith(text), f"{turn_id} shows what its end does not have: {text} / {whole}")


def _is_stale(command: SendCommand, state: State) -> bool:
    expected = command.expected_last_seq or 0
    if state.running is None:
        return expected != state.last_seq
    return expected != state.running if command.on_busy is OnBusy.INTERRUPT else expected < state.running
