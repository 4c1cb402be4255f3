"""Rules of the turn protocol, each taken out on purpose: the simulation has to find every one.

A mutation is a world with a weaker condition, a port that does something else than it is asked, or a few methods of
the service replaced for the length of a run. Its `rule` is what is broken; docs/turns.md says what each is for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.domain import context, running, sending
from service.domain.board import TurnBoard
from service.domain.entities import Active, Ending, Principal, PurgeRecord, Session, SessionKey, Turn, TurnTexts
from service.domain.errors import (
    CallerDeadlineExceeded,
    Committed,
    InternalError,
    Retry,
    SessionNotFound,
    StoreUnavailable,
    StoreUncertain,
    TurnNotFound,
)
from service.domain.history import History
from service.domain.line import Lines
from service.domain.live import Delta, Ended, Event, LiveTurn
from service.domain.ports import Finish, Lease, ModelRequest
from service.domain.reaper import Reaper
from service.domain.runner import Stop, TurnRunner, archive
from service.domain.running import TurnRunners
from service.domain.sending import TurnSender
from service.domain.settle import settle
from tests.simulation.process import AccountingPort, current_call
from tests.simulation.run import Mutation
from tests.simulation.world import World

# Conditions of the store


class AcceptWithoutFence(World):
    def may_accept(self, session: Session, read: Session, now: datetime) -> bool:
        return super().may_accept(session, replace(read, fence=session.fence), now)


class AcceptIfIdle(World):
    """What one would write first: a turn may start where none runs."""

    def may_accept(self, session: Session, read: Session, now: datetime) -> bool:
        return session.running is None and super().may_accept(session, replace(read, fence=session.fence), now)


class AcceptIntoDeleted(World):
    def may_accept(self, session: Session, read: Session, now: datetime) -> bool:
        return session.fence == read.fence


class AcceptWithoutVersion(World):
    def is_same_version(self, session: Session, read: Session) -> bool:
        return True


class PurgeAsItIs(World):
    def may_purge(self, session: Session, read: Session) -> bool:
        return True


class PurgeWithoutRecord(World):
    def put_purge_record(self, record: PurgeRecord) -> None:
        pass


class CheckpointWithoutLease(World):
    def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        session = self.sessions.get(lease.key.session_id)
        active = session.running if session else None
        if session is None or active is None or active.turn.turn_id != lease.turn_id:
            return None
        return self._push(session, active, active.beat, part, released=False)


class CheckpointWithoutBeat(World):
    def is_beat(self, active: Active, beat: int) -> bool:
        return True


class EndWithoutLease(World):
    def end(self, lease: Lease, ending: Ending) -> bool:
        session = self.sessions.get(lease.key.session_id)
        running = session.running if session else None
        if running is None or running.turn.turn_id != lease.turn_id:
            return False
        return super().end(replace(lease, lease_id=running.lease_id), ending)


class EndTwice(World):
    def end(self, lease: Lease, ending: Ending) -> bool:
        session = self.sessions.get(lease.key.session_id)
        active = session.active if session else None
        if session is None or active is None or active.turn.turn_id != lease.turn_id:
            return False
        self.put_ended(session, active.ended(ending), ending)
        return True


class TakeOverWithoutBeat(World):
    def may_take(self, session: Session, read: Session) -> bool:
        now, then = session.running, read.active
        return now is not None and then is not None and now.lease_id == then.lease_id


class TakeOverWithoutLease(World):
    def may_take(self, session: Session, read: Session) -> bool:
        now, then = session.running, read.active
        return now is not None and then is not None and now.turn.turn_id == then.turn.turn_id


class CancelWithoutTurn(World):
    def is_to_cancel(self, running: Active, turn_id: str) -> bool:
        return True


class WithoutUid(World):
    def is_same(self, session: Session, key: SessionKey) -> bool:
        return True


# Order of reads


class LookUpBeforeRead(AccountingPort):
    """Looks for the request's turn in the archive first, and in the session after."""

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        call = current_call()
        there = self.world.session(owner, session_id)
        if call is not None and call.command.request_id and there is not None:
            call.memory = await super().turn_by_request(there.key, f"c:{call.command.request_id}")
        return await super().session(owner, session_id)

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        call = current_call()
        found: Turn | None = call.memory if call else None
        return found


class LookUpOnce(AccountingPort):
    """Does not look again for the request's turn after a wait."""

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        call = current_call()
        if call is None or call.memory is None:
            found = await super().turn_by_request(key, request_key)
            if call is not None:
                call.memory = (found,)
            return found
        first: Turn | None = call.memory[0]
        return first


def keys_as_they_were(keys: frozenset[str] | None, _turns: Iterable[TurnTexts]) -> frozenset[str] | None:
    return keys


class _Prefetched:
    """A store whose turns were read before its session."""

    def __init__(self, store: Any, turns: Sequence[Turn]) -> None:
        self._store = store
        self._turns = turns

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        found: Session | None = await self._store.session(owner, session_id)
        return found

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        found = [turn for turn in self._turns if first_seq_from <= turn.first_seq <= first_seq_to]
        return sorted(found, key=lambda turn: turn.first_seq, reverse=newest_first)[:limit]


_page = History.page


async def turns_before_session(self: History, principal: Any, session_id: str, query: Any) -> Any:
    session = await self._store.session(principal, session_id)
    if session is None:
        raise SessionNotFound(session_id)
    turns = await self._store.turns(session.key, first_seq_from=1, first_seq_to=10_000, limit=10_000)
    prefetched: Any = _Prefetched(self._store, turns)
    return await _page(History(prefetched, now=self._now), principal, session_id, query)


async def archive_before_session(self: TurnBoard, key: SessionKey, turn_id: str) -> Active | Turn:
    if (turn := await self._store.turn_by_id(key, turn_id)) is not None:
        return turn
    session = await self._store.session(key.owner, key.session_id)
    if session is None or session.uid != key.uid or session.purging:
        raise SessionNotFound(key.session_id)
    if session.active and session.active.turn.turn_id == turn_id:
        return session.active
    raise TurnNotFound(turn_id)


# The sender


async def nothing_is_made_sure(self: TurnRunners, key: SessionKey, active: Active) -> None:
    pass


_make_sure_archived = TurnRunners.make_sure_archived


async def archive_unconfirmed(self: TurnRunners, key: SessionKey, active: Active) -> None:
    try:
        await _make_sure_archived(self, key, active)
    except StoreUnavailable:
        return


async def unknown_taken_for_refused(self: TurnRunners, session: Session, active: Active) -> Active | Turn | None:
    try:
        answer = await self._store.accept(session, self._now(), active)
    except StoreUncertain:
        return None
    return active if answer else None


async def one_look_decides(self: TurnRunners, session: Session, active: Active) -> Active | Turn | None:
    try:
        answer = await self._store.accept(session, self._now(), active)
    except StoreUncertain:
        found = await self._store.session(session.owner, session.session_id)
        return found.active if found and found.active and found.active.turn.turn_id == active.turn.turn_id else None
    return active if answer else None


_accept = TurnSender._accept


async def accept_in_the_callers_task(self: TurnSender, *args: Any) -> Any:
    before = set(self._board.tasks._tasks)
    try:
        return await _accept(self, *args)
    except BaseException:
        for task in self._board.tasks._tasks - before:
            if "accept_and_run" in repr(task.get_coro()):
                task.cancel()
        raise


def fields_not_compared(command: Any, turn: Any) -> None:
    pass


def expectation_ignored(command: Any, session: Any, interrupted: Any) -> None:
    pass


def expired_says_not_committed(self: Any, command: Any) -> Any:
    error = CallerDeadlineExceeded("the deadline ended before the message was accepted")
    return error.of_send(Committed.FALSE, Retry.SAME_REQUEST)


_place = Lines.place


def last_come_first_served(self: Lines, session_id: str, *, at_front: bool = False) -> Any:
    return _place(self, session_id, at_front=True)


def never(session: Session, now: datetime) -> bool:
    return False


# The runner


async def decided_again_at_each_try(self: TurnRunner, ending: Ending) -> bool:
    decided = ending

    async def write() -> bool:
        nonlocal decided
        decided = replace(ending, end_time=self._now())
        return await self._store.end(self.lease, decided)

    settled = await settle(write, patience_s=self._limits.ending_patience_s)
    if not settled.answer and not (settled.was_uncertain and await self._own_ending()):
        return False
    turn = self._active.ended(decided).turn
    self.live.finish(turn)
    return await archive(self._store, self.lease.key, turn, patience_s=self._limits.ending_patience_s, log=self._log)


_end = TurnRunner.end


async def told_before_it_is_saved(self: TurnRunner, ending: Ending) -> bool:
    self.live.finish(self._active.ended(ending).turn)
    return await _end(self, ending)


async def refused_end_taken_for_own(self: TurnRunner) -> bool:
    return True


async def consume_without_own_clock(self: TurnRunner, request: ModelRequest) -> Finish:
    async with aclosing(self._model.stream(request)) as stream:
        async for item in stream:
            if isinstance(item, Finish):
                return item
            self.live.append(item)
    raise InternalError


async def part_grows_between_tries(self: TurnRunner) -> bool:
    part = ""

    async def write() -> Active | None:
        nonlocal part
        part = self.live.text[self._saved_chars :]
        return await self._store.checkpoint(self.lease, self._beat, part)

    sent_at = self._loop.time()
    left_s = self._renewed_at + self._limits.lease_s - sent_at
    if left_s <= 0:
        return False
    try:
        settled = await settle(write, patience_s=left_s)
    except StoreUnavailable:
        return False
    active = settled.answer
    if active is None and settled.was_uncertain:
        active = await self._own_checkpoint()
    if active is None:
        return False
    self._beat += 1
    self._saved_chars += len(part)
    self._renewed_at = sent_at
    if active.cancel:
        self.stop(Stop.CANCEL)
    return True


async def refused_checkpoint_taken_for_own(self: TurnRunner) -> bool:
    """A refused repeat is taken for the own first try's, whosever it was: the owner is known by nothing."""
    part = self.live.text[self._saved_chars :]
    try:
        settled = await settle(
            lambda: self._store.checkpoint(self.lease, self._beat, part), patience_s=self._limits.lease_s
        )
    except StoreUnavailable:
        return True
    if settled.answer is None and not settled.was_uncertain:
        return False
    self._beat += 1
    self._saved_chars += len(part)
    self._renewed_at = self._loop.time()
    if settled.answer and settled.answer.cancel:
        self.stop(Stop.CANCEL)
    return True


class HandOverWithoutRest(AccountingPort):
    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        return await super().release(lease, beat, "")


# Take-over

_taken_over_ending = TurnRunner.taken_over_ending


def cancel_forgotten(self: TurnRunner) -> Ending | None:
    whole, self._active = self._active, replace(self._active, cancel=False)
    try:
        return _taken_over_ending(self)
    finally:
        self._active = whole


def saved_text_asked_again(self: TurnRunner) -> Ending | None:
    whole, self._active = self._active, replace(self._active, parts=())
    try:
        return _taken_over_ending(self)
    finally:
        self._active = whole


TakeOver = Callable[[TurnRunners, Session], Awaitable[None]]


def _taking_over(
    is_mine: Callable[[Session, Active, str], bool], decided: Callable[[Session, Active], Active]
) -> TakeOver:
    """Return a take-over that knows its own in another way, or decides from something else."""

    async def take_over(self: TurnRunners, session: Session) -> None:
        if self._board.is_draining or session.running is None or self._board.runs_here(session):
            return
        lease_id, granted_at = self._new_id(), asyncio.get_running_loop().time()
        settled = await settle(lambda: self._store.take_over(session, lease_id), patience_s=self._limits.lease_s)
        after = settled.answer
        if after is None and settled.was_uncertain:
            after = await self._store.session(session.owner, session.session_id)
        active = after.running if after and after.uid == session.uid else None
        if after is None or active is None or not is_mine(session, active, lease_id):
            return
        active = decided(session, active)
        live = self._board.live_turn(after.uid, active)
        live.show(active)
        taken = self._new_runner(after, active, live, granted_at)
        self._board.tasks.start(self._keep(taken, self._go_on(taken, after, active)))

    return take_over


decided_from_what_was_read = _taking_over(
    lambda _, active, lease_id: active.lease_id == lease_id,
    lambda read, active: replace(active, cancel=bool(read.active and read.active.cancel)),
)
recognised_by_number = _taking_over(lambda read, active, _: active.fence == read.fence + 1, lambda _, active: active)


def lost_at_first_sight(self: Reaper, session: Session, now: float) -> bool:
    return session.running is not None


async def no_scan(self: Reaper) -> None:
    pass


# Watching


def news_without_fence(self: LiveTurn, place: Any) -> list[Event]:
    text, news = self.text, []
    if len(text) > place.offset:
        delta = Delta(text[place.offset :])
        place = place._replace(fence=self.fence, offset=len(text))
        news.append(Event(place, delta))
    if self.turn.ending is not None:
        news.append(Event(place._replace(fence=self.fence, has_ended=True), Ended(self.turn)))
    return news


def first_to_leave_cancels(self: LiveTurn, is_caller: bool) -> None:
    self._watchers -= 1
    if is_caller:
        left, self._callers = self._callers - 1, 0
        self._on_deserted(self)
        self._callers = left


def _patched(rule: str, *patches: tuple[object, str, Any]) -> Mutation:
    return Mutation(rule, patches=patches)


MUTATIONS = {
    "accept_without_fence": Mutation("ACCEPT asks for the fence as read", world=AcceptWithoutFence),
    "accept_if_idle": Mutation("ACCEPT asks for the fence, not for a session that is idle", world=AcceptIfIdle),
    "accept_into_deleted": Mutation("ACCEPT asks for a session that is not deleted", world=AcceptIntoDeleted),
    "accept_without_version": Mutation("ACCEPT asks for the settings as read", world=AcceptWithoutVersion),
    "expiry_not_looked_at_again": _patched(
        "ACCEPT is not sent for what has expired since it was read", (running, "is_expired", never)
    ),
    "purge_as_it_is": Mutation("PURGE asks for the session as read", world=PurgeAsItIs),
    "purge_without_record": Mutation("a record outlives the purged session", world=PurgeWithoutRecord),
    "checkpoint_without_lease": Mutation("CHECKPOINT asks for the lease", world=CheckpointWithoutLease),
    "checkpoint_without_beat": Mutation("CHECKPOINT asks for the beat", world=CheckpointWithoutBeat),
    "end_without_lease": Mutation("END asks for the lease", world=EndWithoutLease),
    "end_twice": Mutation("END asks for a RUNNING turn", world=EndTwice),
    "take_over_without_beat": Mutation("TAKE OVER asks for the beat", world=TakeOverWithoutBeat),
    "take_over_without_lease": Mutation("TAKE OVER asks for the lease", world=TakeOverWithoutLease),
    "cancel_without_turn": Mutation("CANCEL asks for the turn", world=CancelWithoutTurn),
    "without_uid": Mutation("every write asks for the uid", world=WithoutUid),
    "look_up_before_read": Mutation("LOOK UP comes after LOOK", port=LookUpBeforeRead),
    "look_up_once": Mutation("after any wait everything starts again", port=LookUpOnce),
    "keys_without_later_ones": _patched(
        "request ids known by heart are those of all turns", (context, "_with_keys", keys_as_they_were)
    ),
    "hand_over_without_rest": Mutation("HAND OVER saves the rest of the text", port=HandOverWithoutRest),
    "turns_before_session": _patched("a history reads the session first", (History, "page", turns_before_session)),
    "archive_before_session": _patched(
        "a turn is looked for in the session first", (TurnBoard, "find", archive_before_session)
    ),
    "replace_before_archive": _patched(
        "ACCEPT replaces what is archived", (TurnRunners, "make_sure_archived", nothing_is_made_sure)
    ),
    "archive_unconfirmed": _patched(
        "the archive's insert is confirmed", (TurnRunners, "make_sure_archived", archive_unconfirmed)
    ),
    "unknown_taken_for_refused": _patched(
        "an ACCEPT of unknown outcome is repeated", (TurnRunners, "_write_accept", unknown_taken_for_refused)
    ),
    "one_look_decides": _patched(
        "an ACCEPT of unknown outcome is repeated until refused", (TurnRunners, "_write_accept", one_look_decides)
    ),
    "accept_in_the_callers_task": _patched(
        "ACCEPT is not awaited in a caller's task", (TurnSender, "_accept", accept_in_the_callers_task)
    ),
    "fields_not_compared": _patched("a repeat has the same fields", (sending, "_check_same", fields_not_compared)),
    "expectation_ignored": _patched("expected_last_seq is compared", (sending, "_check_expected", expectation_ignored)),
    "expired_says_not_committed": _patched(
        "an ACCEPT on its way is of unknown outcome", (sending._Progress, "expired", expired_says_not_committed)
    ),
    "last_come_first_served": _patched("a line keeps the order of arrival", (Lines, "place", last_come_first_served)),
    "decided_again_at_each_try": _patched("END is decided once", (TurnRunner, "end", decided_again_at_each_try)),
    "told_before_it_is_saved": _patched(
        "callers hear of an end that is saved", (TurnRunner, "end", told_before_it_is_saved)
    ),
    "refused_end_taken_for_own": _patched(
        "a refused END is known by its lease", (TurnRunner, "_own_ending", refused_end_taken_for_own)
    ),
    "refused_checkpoint_taken_for_own": _patched(
        "a refused CHECKPOINT is known by its lease", (TurnRunner, "_checkpoint", refused_checkpoint_taken_for_own)
    ),
    "part_grows_between_tries": _patched(
        "a part of unknown outcome does not change", (TurnRunner, "_checkpoint", part_grows_between_tries)
    ),
    "consume_without_own_clock": _patched(
        "an owner whose lease ran out shows no more", (TurnRunner, "_consume", consume_without_own_clock)
    ),
    "cancel_forgotten": _patched(
        "a turn to be cancelled is not asked again", (TurnRunner, "taken_over_ending", cancel_forgotten)
    ),
    "saved_text_asked_again": _patched(
        "two answers are never spliced", (TurnRunner, "taken_over_ending", saved_text_asked_again)
    ),
    "decided_from_what_was_read": _patched(
        "who takes over decides from what TAKE OVER returned", (TurnRunners, "take_over", decided_from_what_was_read)
    ),
    "recognised_by_number": _patched(
        "a TAKE OVER is known by its lease, not by a number", (TurnRunners, "take_over", recognised_by_number)
    ),
    "lost_at_first_sight": _patched("an owner has the length of a lease", (Reaper, "_is_lost", lost_at_first_sight)),
    "no_scan": _patched("lost turns are looked for", (Reaper, "scan", no_scan)),
    "cursor_without_fence": _patched("a cursor names the fence", (LiveTurn, "news", news_without_fence)),
    "first_to_leave_cancels": _patched("the last one to leave cancels", (LiveTurn, "leave", first_to_leave_cancels)),
}
