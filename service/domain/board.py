"""The turns that this process knows of: those it runs, and those of other processes that somebody here watches."""

import asyncio
from collections.abc import Collection
from functools import partial

from service.domain import deadline
from service.domain.entities import Active, Session, SessionKey, Turn
from service.domain.errors import NotFound, SessionNotFound, ShuttingDown, StoreUnavailable, TurnNotFound
from service.domain.keeper import LeaseKeeper
from service.domain.live import LiveTurn, Seat, cancels_when_deserted
from service.domain.ports import TurnKey, TurnStore
from service.domain.runner import Stop, TurnLimits, TurnRunner
from service.domain.settle import settle
from service.domain.tasks import TaskOwner


class TurnBoard:
    """One LiveTurn for each turn that is run or watched here, fed by its runner, or by reading the store.

    tasks: owner of all that goes on behind the callers. is_draining: this process is stopping.
    """

    def __init__(self, store: TurnStore, *, limits: TurnLimits) -> None:
        self.tasks = TaskOwner()
        self.is_draining = False
        self._is_handing_over = False
        self._store = store
        self._limits = limits
        self._live: dict[tuple[str, str], LiveTurn] = {}
        self._runners: dict[tuple[str, str], TurnRunner] = {}
        self._keeper = LeaseKeeper(self.tasks, limits=limits)

    # Runners

    def add_runner(self, runner: TurnRunner) -> None:
        """A turn runs here from now on, under this lease; one that runs here under an older lease stops."""
        key = runner.lease.key.uid, runner.lease.turn_id
        if (older := self._runners.get(key)) is not None:
            older.stop(Stop.LEASE_LOST)
        self._runners[key] = runner
        self._keeper.add(runner)
        if self._is_handing_over:
            runner.stop(Stop.HAND_OVER)
        if cancels_when_deserted(runner.live):
            runner.stop(Stop.CANCEL)

    def runner_of(self, uid: str, turn_id: str) -> TurnRunner | None:
        """The runner of a turn that runs here."""
        return self._runners.get((uid, turn_id))

    def runners(self) -> list[TurnRunner]:
        """All runners."""
        return list(self._runners.values())

    def run_here(self) -> Collection[TurnKey]:
        """The turns that run here, as they are now."""
        return frozenset(self._runners)

    @property
    def running(self) -> int:
        """How many turns run here."""
        return len(self._runners)

    def remove_runner(self, runner: TurnRunner) -> None:
        """A turn runs here no more; if it did not end here it goes on elsewhere, and so do those who watch it."""
        live, key = runner.live, (runner.lease.key.uid, runner.lease.turn_id)
        runner.done()
        self._keeper.remove(runner)
        if self._runners.get(key) is not runner:
            return  # this process has taken its own turn over meanwhile
        del self._runners[key]
        if live.ending is None and self.is_draining:
            live.fail(ShuttingDown)
        if live.ending is None and live.is_watched and not self.is_draining:
            self._follow(runner.lease.key, live)
        else:
            self._live.pop((live.uid, live.turn_id), None)

    def runs_here(self, session: Session) -> bool:
        """Whether this process runs the session's turn."""
        return session.active is not None and self.runs(session.uid, session.active)

    def runs(self, uid: str, active: Active) -> bool:
        """Whether this process runs a turn."""
        return (uid, active.turn.turn_id) in self._runners

    # Watching

    def live_turn(self, uid: str, active: Active) -> LiveTurn:
        key = uid, active.turn.turn_id
        live = self._live.get(key)
        if live is None:
            live = LiveTurn(uid, active, self._deserted)
            if active.is_running:
                self._live[key] = live
        return live

    def ended(self, uid: str, turn: Turn) -> LiveTurn:
        """Return a turn that was found in the archive."""
        live = self._live.get((uid, turn.turn_id))
        if live is None:
            return LiveTurn.of_ended(uid, turn)
        live.finish(turn)
        return live

    def seat(self, session: Session, active: Active, *, is_caller: bool = True) -> Seat:
        """Watch the session's newest turn, whoever runs it."""
        live = self.live_turn(session.uid, active)
        if active.is_running:
            live.show(active)
        else:
            live.finish(active.turn)
        seat = live.seat(is_caller=is_caller)
        if live.ending is None and not self.runs_here(session):
            self._follow(session.key, live)
        return seat

    def _deserted(self, live: LiveTurn) -> None:
        runner = self._runners.get((live.uid, live.turn_id))
        if runner is not None and cancels_when_deserted(live):
            runner.stop(Stop.CANCEL)

    def _follow(self, session: SessionKey, live: LiveTurn) -> None:
        if not live.is_followed:
            live.is_followed = True
            self.tasks.start(self._follow_until_ended(session, live))

    async def _follow_until_ended(self, session: SessionKey, live: LiveTurn) -> None:
        """Read a turn that another process runs, for as long as somebody here watches it."""
        key = live.uid, live.turn_id
        try:
            with deadline.scope(None):
                while live.is_watched and live.ending is None and key not in self._runners and not self.is_draining:
                    await asyncio.sleep(self._limits.poll_s)
                    try:
                        await self._refresh(session, live)
                    except StoreUnavailable:
                        continue
                    except NotFound as exc:
                        live.fail(partial(type(exc), exc.resource_name))
                        return
        finally:
            live.is_followed = False
            if key not in self._runners:
                self._live.pop(key, None)
                if live.ending is None and self.is_draining:
                    live.fail(ShuttingDown)

    async def _refresh(self, session: SessionKey, live: LiveTurn) -> None:
        found = await self.find(session, live.turn_id)
        if isinstance(found, Turn):
            live.finish(found)
        elif found.is_running:
            live.show(found)
        else:
            live.finish(found.turn)

    async def find(self, key: SessionKey, turn_id: str) -> Active | Turn:
        """Return a turn from the session or the archive, reading the session first (step 15).

        Raises SessionNotFound if the session has gone meanwhile, and TurnNotFound.
        """
        for archived in (False, True):
            session = await self._store.session(key.owner, key.session_id)
            if session is None or session.uid != key.uid or session.purging:
                raise SessionNotFound(key.session_id)
            if session.active and session.active.turn.turn_id == turn_id:
                return session.active
            if not archived and (turn := await self._store.turn_by_id(key, turn_id)) is not None:
                return turn
        raise TurnNotFound(turn_id)

    async def request_cancel(self, session: Session, running: Active) -> None:
        """Ask the owner, here or elsewhere, to end the turn (step 12)."""
        turn_id = running.turn.turn_id
        runner = self._runners.get((session.uid, turn_id))
        if runner is None or not runner.stop(Stop.CANCEL):
            # Elsewhere, or on its way there: who has the turn next sees the request in the document.
            await settle(
                lambda: self._store.request_cancel(session.key, turn_id),
                patience_s=deadline.remaining_s(self._limits.lease_s),
            )

    def hand_over(self) -> None:
        """Give every turn that still runs here up to the other processes, and those that are accepted late."""
        self._is_handing_over = True
        for runner in self.runners():
            runner.stop(Stop.HAND_OVER)

    def drain(self) -> None:
        """Let everybody who waits see that this process is stopping."""
        self.is_draining = True
        for live in list(self._live.values()):
            live.wake()
