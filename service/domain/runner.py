"""Runs one turn under one lease: asks the model, saves on the way, decides the ending, archives it.

The steps are those of docs/turns.md: RUN, CHECKPOINT, END, ARCHIVE, HAND OVER. Every write carries the lease; one that
is refused means that the turn is somebody else's now, and this runner stops without another word.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from service.domain import deadline
from service.domain.entities import (
    Active,
    Ending,
    Failure,
    FinishReason,
    OnDisconnect,
    Session,
    SessionKey,
    Turn,
    TurnState,
)
from service.domain.errors import ChatError, InternalError, ModelTimeout, StoreUnavailable, TurnLost
from service.domain.live import LiveTurn
from service.domain.log import Log
from service.domain.ports import ChatModel, ContextMessage, Finish, Lease, ModelRequest, TurnStore
from service.domain.settle import settle
from service.domain.tasks import TaskOwner


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Times, in seconds, and counts that bound a turn.

    lease_s: a lease not renewed for this long may be taken over. beat_s: how often a running turn is saved.
    poll_s: how often a turn of another process is looked at. ending_patience_s: how long an ending is tried.
    max_attempts: leases under which a turn may ask the model. max_waiting: callers in one session's line.
    """

    lease_s: float = 15.0
    beat_s: float = 0.5
    poll_s: float = 0.25
    turn_timeout_s: float = 600.0
    ending_patience_s: float = 3600.0
    heartbeat_s: float = 15.0
    max_attempts: int = 3
    max_waiting: int = 256


class Stop(Enum):
    """Why a runner was told to stop before the model was done."""

    CANCEL = auto()
    LEASE_LOST = auto()
    HAND_OVER = auto()


class TurnRunner:
    """One lease of one turn. `run` is the body of its task; `stop` may be called at any time from outside."""

    def __init__(
        self,
        session: Session,
        active: Active,
        live: LiveTurn,
        *,
        store: TurnStore,
        model: ChatModel,
        limits: TurnLimits,
        now: Callable[[], datetime],
        log: Log,
        granted_at: float,
        on_end: Callable[[Active], None],
    ) -> None:
        """granted_at: loop time before the write that granted the lease was sent.

        on_end: told of the turn once its end is saved, before anybody who watches is.
        """
        self.lease = Lease(session.key, active.turn.turn_id, active.lease_id)
        self.live = live
        self._active = active
        self._store = store
        self._model = model
        self._limits = limits
        self._now = now
        self._log = log
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._beat = active.beat
        self._saved_chars = sum(map(len, active.parts))
        self._renewed_at = granted_at
        self._stop: Stop | None = None
        self._scope: asyncio.Timeout | None = None
        self._saving: asyncio.Task[None] | None = None
        self._holds_lease = False
        self._done = asyncio.Event()
        self.is_running = True

    def stop(self, why: Stop) -> bool:
        """End the model's answer now; what follows depends on `why`. False if too late: the first reason counts."""
        if self._stop is not None or not self.is_running:
            return self._stop is why
        self._stop = why
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(self._loop.time())
        return True

    def done(self) -> None:
        """Say that the task of this runner has nothing more to do."""
        self._done.set()

    async def wait_until_done(self, timeout_s: float) -> None:
        """Wait until the turn is archived, or given up, for at most `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._done.wait()

    async def run(self, context: Sequence[ContextMessage]) -> bool:
        """Answer the turn; True if it ended here and is archived, False if it went to somebody else."""
        with deadline.scope(None):
            self._holds_lease = True
            try:
                ending = await self._answer(context)
            finally:
                self.is_running = self._holds_lease = False
                if self._saving is not None and self._stop is not Stop.HAND_OVER:
                    self._saving.cancel()
            if ending is not None:
                return await self.end(ending)
            if self._stop is Stop.HAND_OVER:
                await self._hand_over()
            return False

    # The answer

    async def _answer(self, context: Sequence[ContextMessage]) -> Ending | None:
        """Ask the model and return the ending, or None if it is not ours to decide."""
        finish: Finish | None = None
        error: ChatError | None = None
        left_s = (self._active.deadline - self._now()).total_seconds()
        try:
            async with asyncio.timeout(left_s) as self._scope:
                if self._stop is None:
                    finish = await self._consume(ModelRequest(context, self._active.turn.settings))
        except TimeoutError:
            error = ModelTimeout("the turn took longer than its limit")
        except ChatError as exc:
            error = exc
        except Exception:
            self._log.exception("turn failed unexpectedly", turn_id=self.lease.turn_id)
            error = InternalError()
        if finish is not None:
            return self._completed(finish)
        if self._stop is Stop.CANCEL:
            return self.ending(TurnState.CANCELLED, self.live.text)
        if self._stop is not None:
            return None
        return self._broken(error or InternalError())

    async def _consume(self, request: ModelRequest) -> Finish:
        async with aclosing(self._model.stream(request)) as stream:
            async for item in stream:
                if isinstance(item, Finish):
                    return item
                if self._loop.time() - self._renewed_at > self._limits.lease_s:
                    self.stop(Stop.LEASE_LOST)  # woken after a pause: the turn may be another's already
                    await asyncio.sleep(0)
                self.live.append(item)
        raise InternalError

    def _completed(self, finish: Finish) -> Ending:
        state = TurnState.COMPLETED if finish.finish_reason is FinishReason.STOP else TurnState.INCOMPLETE
        return replace(
            self.ending(state, self.live.text),
            finish_reason=finish.finish_reason,
            usage=finish.usage,
            model=finish.model,
        )

    def _broken(self, error: ChatError) -> Ending:
        """Text that was shown is kept and never spliced with another answer; without text the turn has failed."""
        self._log.warning("model failed", turn_id=self.lease.turn_id, reason=error.reason, error=str(error))
        if self.live.text:
            return replace(self.ending(TurnState.INCOMPLETE, self.live.text), finish_reason=FinishReason.PROVIDER_CUT)
        return replace(self.ending(TurnState.FAILED, ""), failure=Failure(error.reason, str(error)))

    def ending(self, state: TurnState, text: str) -> Ending:
        """Return an ending under this lease, with its numbers."""
        first_seq = self._active.turn.first_seq
        count = 2 if text or state is TurnState.COMPLETED else 1
        return Ending(state, text, count, first_seq + count - 1, self._active.fence, self._now())

    def taken_over_ending(self) -> Ending | None:
        """Decide, from the document that the take-over returned, what becomes of the turn; None = ask the model."""
        active = self._active
        text = "".join(active.parts)
        if active.cancel or active.on_disconnect is OnDisconnect.CANCEL:
            return self.ending(TurnState.CANCELLED, text)
        if text:
            return replace(self.ending(TurnState.INCOMPLETE, text), finish_reason=FinishReason.PROVIDER_CUT)
        if active.turn.attempt > self._limits.max_attempts or active.deadline <= self._now():
            lost = TurnLost("the process that ran the turn was lost")
            return replace(self.ending(TurnState.FAILED, ""), failure=Failure(lost.reason, str(lost)))
        return None

    # Writes under the lease

    def is_due(self, now: float, *, beat_s: float, idle_s: float) -> bool:
        """Whether the turn was last saved so long ago; idle_s: where there is no new text. A fast answer never is."""
        age_s = now - self._renewed_at
        return age_s >= idle_s or (age_s >= beat_s and self.live.has_more_than(self._saved_chars))

    def save(self, tasks: TaskOwner) -> None:
        """Start to save new text and to renew the lease, if need be; a cancel request is seen then."""
        if self._holds_lease and self._saving is None and self._stop is None:
            self._saving = tasks.start(self._save())

    async def _save(self) -> None:
        try:
            with deadline.scope(None):
                if not await self._checkpoint():
                    self.stop(Stop.LEASE_LOST)
        except Exception:
            self._log.exception("lease keeper failed", turn_id=self.lease.turn_id)
            self.stop(Stop.LEASE_LOST)
        finally:
            self._saving = None

    async def _checkpoint(self) -> bool:
        """Write one part, settled before the next; False if the lease is lost."""
        part = self.live.text[self._saved_chars :]
        sent_at = self._loop.time()
        left_s = self._renewed_at + self._limits.lease_s - sent_at
        if left_s <= 0:
            return False
        try:
            settled = await settle(lambda: self._store.checkpoint(self.lease, self._beat, part), patience_s=left_s)
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

    async def _own_checkpoint(self) -> Active | None:
        """After a lost answer and a refusal: the active turn, if it was our own write that came through."""
        try:
            session = await self._store.session(self.lease.key.owner, self.lease.key.session_id)
        except StoreUnavailable:
            return None
        active = session.running if session and session.key == self.lease.key else None
        is_ours = active and active.lease_id == self.lease.lease_id and active.beat == self._beat + 1
        return active if is_ours else None

    async def end(self, ending: Ending) -> bool:
        """Write the ending, decided once, until it is matched or refused; then archive the turn."""
        try:
            settled = await settle(
                lambda: self._store.end(self.lease, ending), patience_s=self._limits.ending_patience_s
            )
        except StoreUnavailable:
            self._log.error("ending could not be written", turn_id=self.lease.turn_id)
            return False
        if not settled.answer and not (settled.was_uncertain and await self._own_ending()):
            return False
        ended = self._active.ended(ending)
        turn = ended.turn
        self._on_end(ended)
        self.live.finish(turn)
        # A turn that went well is in the log as its call.
        write = self._log.debug if ending.state is TurnState.COMPLETED else self._log.info
        write("turn ended", turn_id=turn.turn_id, state=ending.state.value, attempt=turn.attempt)
        return await archive(
            self._store, self.lease.key, turn, patience_s=self._limits.ending_patience_s, log=self._log
        )

    async def _own_ending(self) -> bool:
        """After a lost answer and a refusal: whether the turn stands ended under our lease."""
        settled = await settle(
            lambda: self._store.session(self.lease.key.owner, self.lease.key.session_id),
            patience_s=self._limits.ending_patience_s,
        )
        session = settled.answer
        active = session.active if session and session.key == self.lease.key else None
        return active is not None and active.lease_id == self.lease.lease_id and not active.is_running

    async def _hand_over(self) -> None:
        """Save the rest of the text and give the lease up, so that another process goes on at once."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
        part = self.live.text[self._saved_chars :]
        try:
            await settle(lambda: self._store.release(self.lease, self._beat, part), patience_s=self._limits.lease_s)
        except StoreUnavailable:
            self._log.warning("turn could not be handed over", turn_id=self.lease.turn_id)


async def archive(store: TurnStore, key: SessionKey, turn: Turn, *, patience_s: float, log: Log) -> bool:
    """Insert the immutable copy of an ended turn until it is there. The same turn there is fine, another an alarm."""
    try:
        inserted = await settle(lambda: store.archive(key, turn), patience_s=patience_s)
        if inserted.answer:
            return True
        found = await settle(lambda: store.turn_by_id(key, turn.turn_id), patience_s=patience_s)
        if found.answer is not None:
            return True
        # A purger may have removed it meanwhile; the session is `purging` before its turns go.
        session = await settle(lambda: store.session(key.owner, key.session_id), patience_s=patience_s)
    except StoreUnavailable:
        log.warning("turn not archived yet", turn_id=turn.turn_id)
        return False
    if session.answer is not None and session.answer.key == key and not session.answer.purging:
        log.error(
            "another turn stands in this one's place", turn_id=turn.turn_id, uid=key.uid, first_seq=turn.first_seq
        )
    return False
