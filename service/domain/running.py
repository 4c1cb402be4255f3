"""Runs turns: those accepted here, and those taken over from processes that are gone; hands them over at the end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from service.domain import deadline
from service.domain.access import is_expired
from service.domain.board import TurnBoard
from service.domain.context import ContextBuilder, Past, build_context
from service.domain.entities import Active, Session, SessionKey, Turn
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.live import LiveTurn, Seat
from service.domain.log import Log
from service.domain.ports import ChatModel, TurnStore
from service.domain.recent import RecentSessions
from service.domain.runner import TurnLimits, TurnRunner, archive
from service.domain.settle import settle

_ARCHIVED_KEPT = 10_000


def _ignore(_ended: Active) -> None:
    """Nobody needs to know."""


class TurnRunners:
    """Gives each turn that this process has a lease for its runner, and remembers what was archived."""

    def __init__(
        self,
        store: TurnStore,
        model: ChatModel,
        context: ContextBuilder,
        recent: RecentSessions,
        board: TurnBoard,
        *,
        limits: TurnLimits,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        log: Log,
    ) -> None:
        self._store = store
        self._model = model
        self._context = context
        self._recent = recent
        self._board = board
        self._limits = limits
        self._now = now
        self._new_id = new_id
        self._log = log
        self._archived: dict[str, str] = {}

    async def accept_and_run(
        self,
        session: Session,
        active: Active,
        past: Past,
        accepted: "asyncio.Future[Seat | None]",
        on_accepted: Callable[[], None],
    ) -> None:
        """The turn's own task: ACCEPT, then everything until it is archived.

        on_accepted: called as the turn begins to run, so that it is not counted among those to come any more.
        """
        granted_at = asyncio.get_running_loop().time()
        try:
            with deadline.scope(None):
                own = await self._write_accept(session, active)
        except BaseException as exc:
            accepted.set_exception(exc if isinstance(exc, Exception) else StoreUncertain())
            accepted.exception()  # whoever waited may have left
            if isinstance(exc, Exception):
                return
            raise
        if own is None:
            accepted.set_result(None)
        elif isinstance(own, Turn):
            accepted.set_result(self._board.ended(session.uid, own).seat())
        elif own.lease_id != active.lease_id or not own.is_running or self._board.runs(session.uid, own):
            # Over, or taken over meanwhile, perhaps by this very process.
            accepted.set_result(self._board.seat(session, own))
        else:
            live = self._board.live_turn(session.uid, active)
            accepted.set_result(live.seat())
            on_accepted()
            runner = self._new_runner(session, active, live, granted_at, partial(self._leave, session, past))
            await self._keep(runner, runner.run(build_context(session, past, active.turn.user_text)))

    def _leave(self, session: Session, past: Past, ended: Active) -> None:
        """Remember the session as END has left it, for the next send. `session` as it was before ACCEPT."""
        turn, ending = ended.turn, ended.turn.ending
        assert ending is not None
        left = replace(
            session,
            fence=ended.fence,
            last_seq=turn.last_seq,
            active=ended,
            update_time=ending.end_time,
            idle_since=ending.end_time,
        )
        self._recent.leave(left, past.after([turn.texts], turn.last_seq))

    async def _write_accept(self, session: Session, active: Active) -> Active | Turn | None:
        """ACCEPT, settled. Returns our turn as it stands now, or None if it was surely not accepted."""
        now = self._now()
        if is_expired(session, now):
            return None  # since it was read; whoever reads it again is told so
        settled = await settle(
            lambda: self._store.accept(session, now, active),
            patience_s=self._limits.turn_timeout_s,
            uncertain_only=True,
        )
        if settled.answer:
            return active
        if not settled.was_uncertain:
            return None
        try:
            return await self._find_own(session, active.turn.turn_id)
        except StoreUnavailable as exc:
            raise StoreUncertain from exc  # the reads failed: it is still not known

    async def _find_own(self, session: Session, turn_id: str) -> Active | Turn | None:
        """Look, after a lost answer and a refusal, whether our ACCEPT came through after all (step 5).

        Raises StoreUncertain if the session is gone: then that cannot be known any more.
        """
        patience_s = self._limits.turn_timeout_s
        for archived in (False, True):
            found = (
                await settle(lambda: self._store.session(session.owner, session.session_id), patience_s=patience_s)
            ).answer
            if found is None or found.key != session.key:
                raise StoreUncertain
            if found.active and found.active.turn.turn_id == turn_id:
                return found.active
            if archived and (found.deleted_at is not None or found.purging):
                raise StoreUncertain
            if not archived:
                turn = (
                    await settle(lambda: self._store.turn_by_id(session.key, turn_id), patience_s=patience_s)
                ).answer
                if turn is not None:
                    return turn
        return None

    def _new_runner(
        self,
        session: Session,
        active: Active,
        live: LiveTurn,
        granted_at: float,
        on_end: Callable[[Active], None] = _ignore,
    ) -> TurnRunner:
        runner = TurnRunner(
            session,
            active,
            live,
            store=self._store,
            model=self._model,
            limits=self._limits,
            now=self._now,
            log=self._log,
            granted_at=granted_at,
            on_end=on_end,
        )
        self._board.add_runner(runner)
        return runner

    async def _keep(self, runner: TurnRunner, work: Awaitable[bool]) -> None:
        """Have a runner on the board for as long as it works; what it answers is whether the turn is archived."""
        try:
            if await work:
                self._remember_archived(runner.lease.key.uid, runner.lease.turn_id)
        except StoreUnavailable as exc:
            self._log.warning("turn given up", turn_id=runner.lease.turn_id, error=str(exc))
        finally:
            self._board.remove_runner(runner)

    async def take_over(self, session: Session) -> None:
        """Give a turn whose owner is gone a new owner: this process (steps 10 and 11). `session` as it was seen."""
        if self._board.is_draining or session.running is None or self._board.runs_here(session):
            return
        lease_id, granted_at = self._new_id(), asyncio.get_running_loop().time()
        settled = await settle(lambda: self._store.take_over(session, lease_id), patience_s=self._limits.lease_s)
        after = settled.answer
        if after is None and settled.was_uncertain:
            after = await self._store.session(session.owner, session.session_id)
        active = after.running if after and after.uid == session.uid else None
        if after is None or active is None or active.lease_id != lease_id:
            return
        self._log.warning(
            "turn taken over",
            turn_id=active.turn.turn_id,
            attempt=active.turn.attempt,
            released=session.running.released,
        )
        live = self._board.live_turn(after.uid, active)
        live.show(active)
        runner = self._new_runner(after, active, live, granted_at)
        self._board.tasks.start(self._keep(runner, self._go_on(runner, after, active)))

    async def _go_on(self, runner: TurnRunner, session: Session, active: Active) -> bool:
        """Step 11: end a turn that was taken over, or ask the model again."""
        ending = runner.taken_over_ending()
        if ending is not None:
            return await runner.end(ending)
        past = await settle(lambda: self._context.past_of(session), patience_s=self._limits.lease_s)
        return await runner.run(build_context(session, past.answer, active.turn.user_text))

    async def make_sure_archived(self, key: SessionKey, active: Active) -> None:
        """Step 9's insert, before ACCEPT replaces an ended turn; raises StoreUnavailable if it cannot be confirmed."""
        turn_id = active.turn.turn_id
        runner = self._board.runner_of(key.uid, turn_id)
        if runner is not None:
            await runner.wait_until_done(self._limits.lease_s)
        if self._archived.get(key.uid) == turn_id:
            return
        if not await archive(self._store, key, active.turn, patience_s=0.0, log=self._log):
            raise StoreUnavailable
        self._remember_archived(key.uid, turn_id)

    async def wait_for_archive(self, key: SessionKey, active: Active, timeout_s: float) -> bool:
        """Wait until a turn that ended here is archived; False if it is not within the time."""
        runner = self._board.runner_of(key.uid, active.turn.turn_id)
        if runner is not None:
            await runner.wait_until_done(timeout_s)
        return self._board.runner_of(key.uid, active.turn.turn_id) is None

    def _remember_archived(self, uid: str, turn_id: str) -> None:
        self._archived.pop(uid, None)
        self._archived[uid] = turn_id
        if len(self._archived) > _ARCHIVED_KEPT:
            del self._archived[next(iter(self._archived))]

    async def drain(self, grace_s: float, hurried: asyncio.Event) -> None:
        """Accept no turn any more, give the running ones `grace_s` to end, hand the rest over, send watchers away.

        `hurried` ends the grace.
        """
        self._board.drain()
        await self._board.tasks.wait(grace_s, hurried)
        self._board.hand_over()
        if not await self._board.tasks.wait(self._limits.lease_s):
            self._log.warning("turns left to their leases", count=len(self._board.runners()))
        await self._board.tasks.cancel()
