"""All that concerns turns, put together for one process."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from service.domain.admission import Admission
from service.domain.board import TurnBoard
from service.domain.context import ContextBuilder
from service.domain.entities import Session
from service.domain.log import Log
from service.domain.ports import ChatModel, TurnStore
from service.domain.reaper import Reaper
from service.domain.recent import RecentSessions
from service.domain.runner import Stop, TurnLimits
from service.domain.running import TurnRunners
from service.domain.sending import TurnSender
from service.domain.watching import TurnWatcher


class Turns:
    """The turn engine of one process: `sender` and `watcher` for callers, `reaper` to be run beside them.

    admission: to be told how long callers wait before they are read.
    """

    def __init__(
        self,
        store: TurnStore,
        model: ChatModel,
        *,
        context_tokens: int,
        recent_tokens: int,
        limits: TurnLimits,
        max_turns: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        """context_tokens: budget of the context; recent_tokens: of all sessions kept in memory; estimated tokens.

        max_turns: that run here at once. clock: seconds, to measure spans with.
        """
        context = ContextBuilder(store, budget_tokens=context_tokens)
        recent = RecentSessions(budget_tokens=recent_tokens)
        board = TurnBoard(store, limits=limits)
        self._board = board
        self._runners = TurnRunners(
            store, model, context, recent, board, limits=limits, now=now, new_id=new_id, log=log
        )
        self.admission = Admission(max_turns=max_turns, running=lambda: board.running, clock=clock, log=log)
        self.sender = TurnSender(
            store, context, recent, board, self._runners, self.admission, limits=limits, now=now, new_id=new_id
        )
        self.watcher = TurnWatcher(store, board, limits=limits, now=now)
        self.reaper = Reaper(store, self._runners, board, lease_s=limits.lease_s, log=log)

    def stop_deleted(self, session: Session) -> None:
        """End the turn of a session that was deleted, if it runs here; elsewhere its owner sees it in the document."""
        runner = self._board.runner_of(session.uid, session.running.turn.turn_id) if session.running else None
        if runner is not None:
            runner.stop(Stop.CANCEL)

    async def drain(self, grace_s: float, hurried: asyncio.Event) -> None:
        """Accept no turn any more, give the running ones `grace_s` to end, hand the rest over, send watchers away.

        `hurried` ends the grace.
        """
        self.sender.close()
        await self._runners.drain(grace_s, hurried)
