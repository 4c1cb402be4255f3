"""One run: draw it from its seed, let it happen, go quiet, and judge what is left."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from random import Random
from typing import Any
from unittest.mock import patch

from service.domain import purger
from service.domain.access import is_expired
from service.domain.entities import ANONYMOUS, Active, ModelSettings, Session, Turn
from service.domain.errors import ChatError
from service.domain.fields import SessionFields
from service.domain.history import HistoryQuery
from service.domain.updates import SessionUpdate
from tests.simulation.clients import Clients, check_history
from tests.simulation.clock import Clock, SimLoop, Stuck, ticks
from tests.simulation.faults import Fate, Faults, Manner
from tests.simulation.ledger import CLAIM, START, Ledger, Record, process_of
from tests.simulation.port import StorePort
from tests.simulation.process import AccountingPort, Emit, Kit, SimProcess
from tests.simulation.scenario import Blow, Other, Send, draw, draw_blows
from tests.simulation.world import World

_STEP = ticks(0.5)
_LONGEST = ticks(200)
_TAIL = ticks(12)
_LAST_LOOK = ticks(20)


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken rule: another world, another port, or parts of the service that are replaced while the run lasts."""

    rule: str
    world: type[World] = World
    port: type[StorePort] = AccountingPort
    patches: tuple[tuple[object, str, Any], ...] = ()


NONE = Mutation("")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown. lines: its trace, if asked for."""

    seed: int
    violations: tuple[str, ...]
    seconds: float
    turns: int
    model_calls: int
    take_overs: int
    steps: int
    lines: tuple[str, ...]


def simulate(seed: int, *, mutation: Mutation = NONE, trace: bool = False) -> Outcome:
    """Run one seed from its begin to its end."""
    with ExitStack() as patches:
        patches.enter_context(patch.object(purger, "_CLAIM", CLAIM))
        for where, name, new in mutation.patches:
            patches.enter_context(patch.object(where, name, new))
        run = Run(seed, mutation, trace)
        try:
            run.happen()
        except Stuck as exc:
            run.ledger.fail(str(exc))
        finally:
            run.bury()
    ledger, clock = run.ledger, run.clock
    return Outcome(
        seed,
        tuple(ledger.violations),
        clock.now_s,
        len(ledger.records),
        ledger.model_calls,
        ledger.take_overs,
        clock.steps,
        tuple(run.lines),
    )


def first_broken(begin: int, end: int) -> tuple[int, tuple[str, ...]] | None:
    """Return the first seed of a range that breaks a promise, and which."""
    outcomes = (simulate(seed) for seed in range(begin, end))
    return next(((outcome.seed, outcome.violations) for outcome in outcomes if outcome.violations), None)


class Run:
    """The parts of one run."""

    def __init__(self, seed: int, mutation: Mutation, trace: bool) -> None:
        self.lines: list[str] = []
        rng = self._rng = Random(seed)
        scenario = self._scenario = draw(rng, Random(~seed))
        self._creations = count(1)
        clock = self.clock = Clock(rng)
        ledger = self.ledger = Ledger(clock, lease_s=scenario.limits.lease_s, lifetimes=scenario.lifetimes)
        lease = ticks(scenario.limits.lease_s)
        faults = Faults.draw(rng, processes=scenario.processes, until=scenario.quiet, lease=lease)
        if scenario.is_purge_slow and any(other.kind == "purge" for other in scenario.others):
            faults.focus, faults.manner = "start_purge", Manner.SLOW
        note = self._note if trace else None
        world = mutation.world(ledger)
        self._kit = Kit(clock, world, ledger, faults, rng, scenario.limits, scenario.lifetimes, note, mutation.port)
        self._processes = [SimProcess(number, self._kit) for number in range(scenario.processes)]
        self._blows = draw_blows(rng, scenario, faults.level, faults.focus)
        self._outside = SimLoop(clock, offset=0, on_error=self._client_failed)  # type: ignore[abstract]
        self._clients = Clients(clock, self._outside, rng, ledger, self._reachable)
        if trace:
            self._note("run", faults, scenario, self._blows)

    # Its course

    def happen(self) -> None:
        """Everything from the first call to the last check."""
        for session_id in self._scenario.sessions:
            self._make_session(session_id)
        for blow in self._blows:
            self.clock.post(blow.tick, partial(self._strike, blow))
        work = [self._send(send) for send in self._scenario.sends]
        work += [self._do(other) for other in self._scenario.others]
        main = self._outside.create_task(_all(work))
        self.clock.post(self._scenario.quiet, self._go_quiet)
        if self._run_until(main) and self._run_for(_TAIL):
            self._look_back()

    def _run_until(self, main: "asyncio.Task[None]") -> bool:
        """Let it happen until all clients are done and no turn is open; False if a promise was broken."""
        quiet, limits = self._scenario.quiet, self._scenario.limits
        settled = quiet + ticks(2 * limits.lease_s + 4)
        while self.clock.tick < quiet + _LONGEST:
            self.clock.run(self.clock.tick + _STEP)
            if self.ledger.violations:
                return False
            if self.clock.tick > settled:
                self._check_owners()
                if main.done() and not any(session.running for session in self._kit.world.sessions.values()):
                    return True
        open_turns = [record.turn_id for record in self.ledger.records.values() if record.ending is None]
        self.ledger.fail(f"stuck: open turns {open_turns}, clients are {'done' if main.done() else 'waiting'}")
        return False

    def _finish(self, looking: Coroutine[Any, Any, None]) -> None:
        """Run until this look is done; in time, as nothing goes wrong any more."""
        task, latest = self._outside.create_task(looking), self.clock.tick + _LAST_LOOK
        while not task.done() and self.clock.tick < latest:
            self.clock.run(self.clock.tick + _STEP)
        self.ledger.check(task.done() and task.exception() is None, f"what is left cannot be looked at: {task}")

    def _run_for(self, span: int) -> bool:
        self.clock.run(self.clock.tick + span)
        return not self.ledger.violations

    def _go_quiet(self) -> None:
        """Nothing goes wrong from now on, and there is a process."""
        self._kit.faults.is_over = True
        for process in self._processes:
            self._resume(process)
        if not any(process.is_alive and not process.is_stopping for process in self._processes):
            self._start()
        if self._kit.trace:
            self._note("run", "QUIET")

    def _strike(self, blow: Blow) -> None:
        process = self._target(blow.process)
        if process is None or not process.is_alive:
            return
        if blow.kind == "crash":
            process.crash("struck")
        elif blow.kind == "stop":
            process.shut_down(blow.ticks / ticks(1))
        elif not process.loop.is_paused:
            process.loop.pause()
            self.ledger.paused(process.number)
            self.clock.post(blow.ticks, lambda: self._resume(process))
            if self._kit.trace:
                self._note(process.number, "PAUSE", blow.ticks / ticks(1))
        if blow.successor is not None:
            self.clock.post(self._rng.randrange(ticks(1)), self._start)

    def _target(self, number: int | None) -> SimProcess | None:
        if number is None:
            running = [session.running for session in self._kit.world.sessions.values() if session.running]
            number = process_of(running[0].lease_id) if running else self._rng.randrange(len(self._processes))
        return self._processes[number] if number < len(self._processes) else None

    def _resume(self, process: SimProcess) -> None:
        if process.is_alive and process.loop.is_paused:
            self.ledger.paused(process.number)
            process.loop.resume()
            if self._kit.trace:
                self._note(process.number, "RESUME")

    def _start(self) -> None:
        self._processes.append(SimProcess(len(self._processes), self._kit))

    # Clients

    async def _send(self, send: Send) -> None:
        await asyncio.sleep(send.tick / ticks(1))
        command = send.command
        if send.expects:
            command = replace(command, expected_last_seq=self._expected(command.session_id, send.expects))
        await self._clients.send(command, send.habits)

    def _expected(self, session_id: str, expects: str) -> int:
        state = self.ledger.states[session_id][-1]
        return 0 if expects == "zero" else state.running or state.last_seq

    async def _do(self, other: Other) -> None:
        await asyncio.sleep(other.tick / ticks(1))
        clients, session = self._clients, self._kit.world.sessions.get(other.session)
        if session is None:
            return
        if other.kind == "delete":
            await clients.manage(lambda process, _: process.delete(other.session, 5.0))
        elif other.kind == "undelete":
            await clients.manage(lambda process, _: process.undelete(other.session, 5.0))
        elif other.kind == "update":
            settings = ModelSettings(seed=self._rng.randrange(100))
            update = SessionUpdate(SessionFields(settings=settings), ("settings.seed",))
            await clients.manage(lambda process, _: process.update(other.session, update, 5.0))
        elif other.kind == "purge":
            await self._purge(session)
        elif other.kind == "history":
            for _ in range(3):
                await clients.read_history(session.session_id, session.uid)
                await asyncio.sleep(self._rng.random())
        elif (record := await self._acknowledged(session)) is not None:
            work: dict[str, Callable[[], Any]] = {
                "watch": lambda: clients.watch(record, self._rng.random() < 0.5),
                "cancel": lambda: clients.cancel(record),
                "get": lambda: clients.get(record),
            }
            await work[other.kind]()

    async def _acknowledged(self, session: Session) -> Record | None:
        """Some turn that somebody knows of, the newest most often."""
        for _ in range(4):
            known = [record for record in self.ledger.in_order[session.uid] if record.is_acked]
            if known:
                return self._rng.choice((known[-1], known[-1], known[0]))
            await asyncio.sleep(0.5)
        return None

    async def _purge(self, session: Session) -> None:
        for _ in range(6):
            sweeps = [
                self._clients.manage(lambda process, _: process.sweep()) for _ in range(self._rng.randrange(1, 3))
            ]
            await asyncio.gather(*sweeps)
            if session.session_id not in self._kit.world.sessions:
                await asyncio.sleep(self._rng.choice((0.0, self._rng.random())))
                if self._rng.random() < 0.7:
                    self._make_session(session.session_id)
                return
            await asyncio.sleep(self._rng.random() * 0.5)

    def _make_session(self, session_id: str) -> None:
        lifetimes, now = self._scenario.lifetimes, START + timedelta(milliseconds=int(self.clock.now_s * 1000))
        session = Session(session_id, f"{session_id}u{next(self._creations)}", ANONYMOUS, now, now)
        session = replace(session, expire_time=lifetimes.end(None, None, now), idle_ttl=lifetimes.idle(None))
        session = replace(session, look_at=lifetimes.look_at(session, now))
        if self._kit.world.insert_session(session):
            self.ledger.session_made(session)

    def _reachable(self) -> list[SimProcess]:
        """The processes that a client may try: a balancer leaves out those that are known to be dead, mostly."""
        alive = [process for process in self._processes if process.is_alive]
        return alive or self._processes

    # Judgement

    def _check_owners(self) -> None:
        """No turn lacks an owner for longer than the lease and two scans."""
        limits, ledger = self._scenario.limits, self.ledger
        longest = ticks(limits.lease_s * 5 / 3 + 1)
        owned = {runner.lease.lease_id for process in self._processes if process.is_alive for runner in process.runners}
        for session in self._kit.world.sessions.values():
            active = session.running
            if active and active.lease_id not in owned:
                age = self.clock.tick - ledger.records[active.turn.turn_id].beat_tick
                ledger.check(age <= longest, f"{active.turn.turn_id} has had no owner for {age / ticks(1):.1f} s")

    def _look_back(self) -> None:
        """When all is over: every turn is there once, as it ended, and the service itself says so."""
        world, ledger = self._kit.world, self.ledger
        for session in world.sessions.values():
            if session.purging:
                continue
            archived = world.archived.get(session.uid, {})
            for record in ledger.in_order[session.uid]:
                kept = archived.get(record.turn.first_seq)
                if kept is None and session.active and session.active.turn.turn_id == record.turn_id:
                    kept = session.active.turn
                is_there = kept is not None and (kept.turn_id, kept.ending) == (record.turn_id, record.ending)
                ledger.check(is_there and record.ending is not None, f"{record.turn_id} is not there as it ended")
        if self._kit.faults.level == 0:
            self._check_calm()
        last = SimProcess(len(self._processes), self._kit)
        self._processes.append(last)
        self._finish(self._purge_all(last))
        self._finish(self._read_all(last))

    async def _purge_all(self, process: SimProcess) -> None:
        """Whatever has happened to purgers: what is dead goes, turns too, and what is alive stays."""
        world, lifetimes, ledger = self._kit.world, self._scenario.lifetimes, self.ledger
        alive = {session.uid for session in world.sessions.values() if not self._is_over(session, process)}
        await self._clients.call(lambda p, _: p.sweep(), process).answer
        for session in world.sessions.values():
            due = lifetimes.purge_time(session)
            is_due = session.purging or (due is not None and due <= process.now())
            ledger.check(not is_due, f"{session.uid} is dead and was not removed")
        there = {session.uid for session in world.sessions.values()}
        ledger.check(alive <= there, f"{alive - there} were alive and are gone")
        left = {uid for uid, turns in world.archived.items() if turns} - there - set(world.records)
        ledger.check(not left, f"turns of {left} are left, and nobody will ever remove them")

    def _is_over(self, session: Session, process: SimProcess) -> bool:
        is_gone = session.deleted_at is not None or session.purging
        return is_gone or is_expired(session, process.now() + timedelta(seconds=30))

    def _check_calm(self) -> None:
        ledger = self.ledger
        was_stopped = any(blow.kind == "stop" for blow in self._blows)
        ledger.check(was_stopped or ledger.take_overs == 0, "a turn was taken over and nothing had gone wrong")
        for record in ledger.records.values():
            calls = len(record.calls)
            ledger.check(
                calls <= 1 or was_stopped, f"{record.turn_id} was asked {calls} times and nothing had gone wrong"
            )

    async def _read_all(self, process: SimProcess) -> None:
        for session in list(self._kit.world.sessions.values()):
            if not self._is_over(session, process):
                await self._read(process, session)

    async def _read(self, process: SimProcess, session: Session) -> None:
        session_id, ledger = session.session_id, self.ledger
        rpc = self._clients.call(lambda p, _: p.history(session_id, HistoryQuery(), 5.0), process)
        page = await rpc.answer
        check_history(ledger, session.uid, page.messages, self.clock.tick)
        for record in ledger.in_order[session.uid]:
            turn_id = record.turn_id
            try:
                await self._clients.call(partial(_get, session_id, turn_id), process).answer
            except ChatError as error:
                ledger.fail(f"{turn_id} cannot be read: {error.reason}")

    # Around it

    def _client_failed(self, context: dict[str, Any]) -> None:
        self.ledger.fail(f"client: {context.get('message')}: {context.get('exception')!r}")

    def _note(self, who: object, *what: object) -> None:
        self.lines.append(f"{self.clock.now_s:9.3f}  {who!s:4} {' '.join(map(show, what))}")

    def bury(self) -> None:
        """Leave nothing behind."""
        self.ledger.is_closed = True
        for process in self._processes:
            process.loop.bury()
        self._outside.bury()


def show(value: object) -> str:
    """Write a value for the trace, in few words."""
    if isinstance(value, Session):
        flags = f"{' deleted' if value.deleted_at else ''}{' purging' if value.purging else ''}"
        return f"{value.uid}(fence {value.fence}, last_seq {value.last_seq}{flags}, {show(value.active)})"
    if isinstance(value, Active):
        flags = f"{' released' if value.released else ''}{' cancel' if value.cancel else ''}"
        lease = f"lease {value.lease_id}, fence {value.fence}, beat {value.beat}{flags}, {''.join(value.parts)}"
        return f"{show(value.turn)} {lease}"
    if isinstance(value, Turn):
        state = f"{value.ending.state} {value.ending.text}" if value.ending else "RUNNING"
        return f"{value.turn_id}(seq {value.first_seq}, {value.request_key}, {state})"
    if isinstance(value, list | tuple) and not isinstance(value, Fate):
        return "[" + ", ".join(map(show, value)) + "]"
    return str(value)


async def _get(session_id: str, turn_id: str, process: SimProcess, _emit: Emit) -> Any:
    return await process.get(session_id, turn_id, 5.0)


async def _all(work: list[Any]) -> None:
    await asyncio.gather(*work)
