"""The store as one simulated process has it: operations take time, fail, get lost, come late, come twice."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from random import Random
from typing import Any, TypeVar

from service.domain import deadline
from service.domain.entities import Active, Ending, Principal, PurgeRecord, Session, SessionKey, Turn, TurnTexts
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ports import Lease, TurnKey
from tests.simulation.clock import Clock, SimLoop, ticks
from tests.simulation.faults import MANAGING_READS, READS, Faults, Outcome
from tests.simulation.world import World

T = TypeVar("T")

OPERATION_TIMEOUT_S = 1.5


class StorePort:
    """A SessionStore. What it sends is applied in the world even if its process dies meanwhile, or may be.

    on_crash: is called where the process has to die. trace: is told of each operation.
    """

    def __init__(
        self,
        world: World,
        faults: Faults,
        clock: Clock,
        loop: SimLoop,
        rng: Random,
        *,
        process: int,
        on_crash: Callable[[str], None],
        trace: Callable[..., None] | None,
    ) -> None:
        self.world = world
        self.loop = loop
        self._faults = faults
        self._clock = clock
        self._rng = rng
        self.process = process
        self._on_crash = on_crash
        self._trace = trace

    async def ping(self) -> None:
        """Nobody asks here."""

    async def insert_session(self, session: Session) -> bool:
        raise AssertionError("sessions are made by the run")

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        return await self.do("session", lambda: self.world.session(owner, session_id))

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        return await self.do("turn_by_request", lambda: self.world.turn_by_request(key, request_key), request_key)

    async def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        return await self.do("turn_by_id", lambda: self.world.turn_by_id(key, turn_id), turn_id)

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        return await self.do(
            "turns", lambda: self.world.turns(key, first_seq_from, first_seq_to, limit, newest_first), first_seq_to
        )

    async def turn_texts(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int
    ) -> Sequence[TurnTexts]:
        return await self.do(
            "turn_texts",
            lambda: [turn.texts for turn in self.world.turns(key, first_seq_from, first_seq_to, limit, True)],
            first_seq_to,
        )

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        return await self.do(
            "accept", lambda: self.world.accept(session, now, active), active.turn.turn_id, session.fence
        )

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        return await self.do(
            "checkpoint", lambda: self.world.checkpoint(lease, beat, part), lease.turn_id, lease.lease_id, beat, part
        )

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        return await self.do(
            "release", lambda: self.world.release(lease, beat, part), lease.turn_id, lease.lease_id, beat, part
        )

    async def end(self, lease: Lease, ending: Ending) -> bool:
        return await self.do(
            "end", lambda: self.world.end(lease, ending), lease.turn_id, lease.lease_id, ending.state.value, ending.text
        )

    async def archive(self, key: SessionKey, turn: Turn) -> bool:
        return await self.do("archive", lambda: self.world.archive(key, turn), turn.turn_id)

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        return await self.do("take_over", lambda: self.world.take_over(session, lease_id), lease_id)

    async def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        return await self.do("request_cancel", lambda: self.world.request_cancel(key, turn_id), turn_id)

    async def running_sessions(self, limit: int, *, but: Collection[TurnKey] = ()) -> Sequence[Session]:
        return await self.do("running_sessions", lambda: self.world.running_sessions(limit, but))

    async def update_session(self, session: Session, changed: Session) -> Session | None:
        return await self.do("update_session", lambda: self.world.update_session(session, changed))

    async def delete(self, session: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        return await self.do("delete", lambda: self.world.delete(session, deleted_at, look_at))

    async def undelete(self, session: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        return await self.do("undelete", lambda: self.world.undelete(session, idle_since, look_at))

    async def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        return await self.do("due_sessions", lambda: self.world.due_sessions(now, limit))

    async def postpone(self, session: Session, look_at: datetime | None) -> bool:
        return await self.do("postpone", lambda: self.world.postpone(session, look_at))

    async def start_purge(self, session: Session, look_at: datetime) -> bool:
        return await self.do("start_purge", lambda: self.world.start_purge(session, look_at))

    async def delete_turns(self, key: SessionKey, limit: int) -> int:
        return await self.do("delete_turns", lambda: self.world.delete_turns(key, limit), key.uid)

    async def delete_session(self, key: SessionKey) -> bool:
        return await self.do("delete_session", lambda: self.world.delete_session(key), key.uid)

    async def put_purge_record(self, record: PurgeRecord) -> None:
        return await self.do("put_purge_record", lambda: self.world.put_purge_record(record), record.key.uid)

    async def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        return await self.do("due_purge_records", lambda: self.world.due_purge_records(now, limit))

    async def delete_purge_record(self, record: PurgeRecord) -> bool:
        return await self.do("delete_purge_record", lambda: self.world.delete_purge_record(record), record.key.uid)

    async def do(self, name: str, apply: Callable[[], T], *about: Any) -> T:
        """Send one operation on its way and wait for what is heard of it."""
        limit = ticks(deadline.remaining_s(OPERATION_TIMEOUT_S))
        if limit <= 0 or not self.loop.is_alive:
            raise StoreUnavailable("no time left")
        fate = self._faults.fate(self._rng, name, self.process, self._clock.tick, limit)
        waiter = self.loop.create_future()
        answers: list[T] = []
        if self._trace and name != "running_sessions":
            self._trace(self.process, name, *about, fate)

        def act() -> None:
            answers.append(apply())
            if self._trace and answers[-1] != []:
                self._trace(self.process, f"  {name}", *about, "=", answers[-1])
            if fate.outcome is Outcome.ANSWER and len(answers) == 1:
                self._clock.post(fate.answer - (fate.apply or 0), hear, self.loop)

        def hear() -> None:
            if waiter.done():
                return
            if fate.outcome is Outcome.ANSWER:
                waiter.set_result(answers[0])
            elif fate.outcome is not Outcome.UNAVAILABLE and name not in (*READS, *MANAGING_READS):
                waiter.set_exception(StoreUncertain())
            else:
                waiter.set_exception(StoreUnavailable())

        if fate.crash:
            self._clock.post(fate.answer, lambda: hear() if self._faults.is_over else self._on_crash(name))
        elif fate.outcome is not Outcome.ANSWER:
            self._clock.post(fate.answer, hear, self.loop)
        if fate.apply is not None:
            self._clock.post(fate.apply, act)
        if fate.again is not None:
            self._clock.post(fate.again, act)
        result: T = await waiter
        return result
