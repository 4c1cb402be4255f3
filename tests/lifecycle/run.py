"""One run: calls drawn from a seed, made of the service and of the plain model, whose answers have to agree."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from service.domain.entities import FinishReason, Principal, Session, TurnState
from service.domain.errors import ChatError
from service.domain.exporting import Exporter
from service.domain.fields import SessionFields
from service.domain.history import History, HistoryQuery
from service.domain.lifetime import Lifetimes
from service.domain.live import Seat
from service.domain.ports import Finish, ModelRequest
from service.domain.purger import RECORD_KEPT, Purger
from service.domain.runner import TurnLimits
from service.domain.sending import OnBusy, SendCommand
from service.domain.sessions import Sessions
from service.domain.turns import Turns
from service.domain.updates import SessionUpdate
from tests.contract.model import ModelStore
from tests.domain.builders import NOW
from tests.domain.life import Killed, Mortal, NoLog
from tests.lifecycle.plain import GRACE, Plain, PlainSessions, Refused

_OWNERS = ("anna", "bert")
_IDS = ("a", "b", "c")
_MILLISECOND = timedelta(milliseconds=1)
# How long other purgers leave a session to one that was killed.
_CLAIM = timedelta(minutes=1)
_FOREVER = timedelta(days=400)
_PATIENCE_S = 20.0


class Disagreement(AssertionError):
    """The service does not do what the plain model says."""


class Model:
    """Answers at once, or, to a message that begins with `slow`, when it is told to."""

    def __init__(self) -> None:
        self.told: dict[str, asyncio.Event] = {}

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        text = request.messages[-1].content
        if text.startswith("slow"):
            await self.told.setdefault(text, asyncio.Event()).wait()
        yield f"re {text}"
        yield Finish(FinishReason.STOP, "m")


@dataclass(slots=True)
class Running:
    """A turn that was begun."""

    session: Session
    message: str
    seat: Seat


class Run:
    """The parts of one run. store: what the service keeps its sessions in."""

    def __init__(self, seed: int, store: Any, trace: Callable[[str], None] | None = None) -> None:
        self.now = NOW
        self._rng = Random(seed)
        self._store = store
        self._trace = trace
        self._plain = PlainSessions()
        self._model = Model()
        self._running: dict[str, Running] = {}
        self._numbers = count()
        # Ids of one run are its own, as runs may share a store.
        self._name = f"r{seed}"
        self._owners = {owner: Principal(self._name, owner) for owner in _OWNERS}
        self._keys: dict[str, Any] = {}
        self._ever: list[Any] = []
        new_id = self._new_id
        self._turns = Turns(
            store,
            self._model,
            context_tokens=100_000,
            recent_tokens=100_000,
            max_turns=1000,
            limits=TurnLimits(poll_s=0.001),
            now=self._time,
            clock=time.monotonic,
            new_id=new_id,
            log=NoLog(),
        )
        lifetimes = Lifetimes(grace=GRACE)
        self._lifetimes = lifetimes
        self._sessions = Sessions(
            store, lifetimes=lifetimes, now=self._time, new_id=new_id, on_delete=self._turns.stop_deleted
        )
        self._history = History(store, now=self._time)
        self._exporter = Exporter(store, now=self._time)

    def _time(self) -> datetime:
        return self.now

    def _new_id(self) -> str:
        return f"{self._name}x{next(self._numbers)}"

    # Its course

    async def happen(self, steps: int) -> None:
        """Make `steps` calls, then let all end that ever will; raises Disagreement."""
        calls: dict[Callable[[], Awaitable[None]], int] = {
            self._create: 5, self._send: 6, self._begin: 3, self._finish: 3, self._get: 2, self._update: 4,
            self._delete: 3, self._undelete: 3, self._read: 3, self._export: 3, self._pass_time: 8, self._purge: 3,
            self._kill_purger: 2,
        }  # fmt: skip
        try:
            for _ in range(steps):
                [call] = self._rng.choices(list(calls), list(calls.values()))
                await (call() if self._plain.there else self._create())
            await self._end()
        finally:
            for running in self._running.values():
                running.seat.close()
            await self._turns.drain(0, asyncio.Event())

    async def _agree(self, what: str, real: Awaitable[Any], plain: Callable[[], Any]) -> tuple[Any, Any]:
        """Make one call of both; both answer, or are refused for the same reason."""
        try:
            expected, refusal = plain(), ""
        except Refused as exc:
            expected, refusal = None, str(exc)
        try:
            answer, reason = await real, ""
        except ChatError as exc:
            answer, reason = None, exc.reason
        if self._trace:
            self._trace(f"{self.now:%d %H:%M:%S.%f} {what}: {reason or 'OK'}")
        self._check(reason == refusal, f"{what}: {reason or 'OK'}, expected {refusal or 'OK'}")
        return answer, None if refusal else expected

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            raise Disagreement(what)

    def _owner_and_id(self) -> tuple[str, str]:
        """Some session, and its owner most often."""
        known = list(self._plain.there)
        session_id = self._rng.choice(known) if known and self._rng.random() < 0.9 else f"{self._name}-none"
        session = self._plain.there.get(session_id)
        owner = session.owner if session and self._rng.random() < 0.9 else self._rng.choice(_OWNERS)
        return owner, session_id

    def _compare(self, found: Session, plain: Plain) -> None:
        real = (
            found.owner.subject, found.title, found.expire_time, found.idle_ttl, found.settings_version,
            found.deleted_at, found.running is not None,
        )  # fmt: skip
        expected = (
            plain.owner, plain.title, plain.expire_time, plain.idle_ttl, plain.version, plain.deleted_at,
            bool(plain.running),
        )  # fmt: skip
        self._check(real == expected, f"a session is {real}, expected {expected}")

    # Calls

    async def _create(self) -> None:
        rng, owner = self._rng, self._rng.choice(_OWNERS)
        session_id = f"{self._name}-{rng.choice(_IDS)}" if rng.random() < 0.6 else ""
        request_id = rng.choice(("", "q"))
        title = rng.choice(("one", "two"))
        ttl = timedelta(seconds=rng.choice((20, 300))) if rng.random() < 0.4 else None
        idle_ttl = timedelta(seconds=rng.choice((10, 150))) if rng.random() < 0.4 else None
        asked = (title, ttl, idle_ttl, request_id) if session_id or request_id else ()
        plain = Plain(owner, asked, title, ttl and self.now + ttl, idle_ttl, self.now)
        real = self._sessions.create(
            self._owners[owner],
            SessionFields(title=title, ttl=ttl, idle_ttl=idle_ttl),
            session_id=session_id,
            request_id=request_id,
        )
        # What the service makes of a request id is its own matter; the model only needs a name for it.
        named = session_id or (request_id and self._keys.get(f"{owner} {request_id}", ""))
        created: list[Plain | None] = []

        def create() -> Plain | None:
            if named:
                created.append(self._plain.create(plain, named, self.now))
                return created[0]
            return plain

        what = f"{owner} creates {session_id or '-'} {request_id or '-'} {title} {ttl} {idle_ttl}"
        found, _ = await self._agree(what, real, create)
        if found is None:
            return
        if not named:
            self._plain.there[found.session_id] = plain
            if request_id:
                self._keys[f"{owner} {request_id}"] = found.session_id
        if not created or created[0] is not None:
            self._ever.append(found.key)
        self._compare(found, self._plain.there[found.session_id])

    async def _send(self) -> None:
        owner, session_id = self._owner_and_id()
        message = f"m{next(self._numbers)}"

        def send() -> Plain:
            session = self._plain.look(owner, session_id, self.now)
            if session.running:
                raise Refused("SESSION_BUSY")
            session.turns.append((message, f"re {message}"))
            session.idle_since = self.now
            return session

        async def real() -> Any:
            with await self._turns.sender.send(self._command(owner, session_id, message)) as live:
                return await live.wait_for_ending()

        await self._agree(f"{owner} sends {message} to {session_id}", real(), send)
        await self._settle()

    def _command(self, owner: str, session_id: str, message: str) -> SendCommand:
        return SendCommand(self._owners[owner], session_id, message, on_busy=OnBusy.REJECT)

    async def _begin(self) -> None:
        owner, session_id = self._owner_and_id()
        message = f"slow {next(self._numbers)}"

        def begin() -> Plain:
            session = self._plain.look(owner, session_id, self.now)
            if session.running:
                raise Refused("SESSION_BUSY")
            session.running = message
            return session

        send = self._turns.sender.send(self._command(owner, session_id, message))
        seat, _ = await self._agree(f"{owner} begins {message} in {session_id}", send, begin)
        if seat is not None:
            found = await self._store.session(self._owners[owner], session_id)
            self._running[message] = Running(found, message, seat)

    async def _finish(self) -> None:
        if self._running:
            await self._finish_one(self._running.pop(self._rng.choice(list(self._running))))

    async def _finish_one(self, running: Running) -> None:
        plain = self._plain_of(running)
        self._model.told.setdefault(running.message, asyncio.Event()).set()
        if self._trace:
            self._trace(f"{self.now:%d %H:%M:%S.%f} {running.message} is answered")
        with running.seat as live:
            if plain is None:
                await self._settle()
                return
            turn = await live.wait_for_ending()
        self._check(turn.ending is not None and turn.ending.text == f"re {running.message}", "another answer")
        plain.finish(f"re {running.message}", self.now)
        await self._settle()

    def _plain_of(self, running: Running) -> Plain | None:
        """The session in which a turn runs, if it is still there."""
        plain = self._plain.there.get(running.session.session_id)
        return plain if plain and plain.running == running.message else None

    async def _settle(self) -> None:
        """Wait until turns that have ended are archived, too."""
        waiting = set(self._running)
        for runner in self._turns._board.runners():
            if runner._active.turn.user_text not in waiting:
                await runner.wait_until_done(_PATIENCE_S)

    async def _get(self) -> None:
        owner, session_id = self._owner_and_id()
        found, plain = await self._agree(
            f"{owner} gets {session_id}",
            self._sessions.get(self._owners[owner], session_id),
            lambda: self._plain.look(owner, session_id, self.now),
        )
        if found is not None:
            self._compare(found, plain)

    async def _update(self) -> None:
        owner, session_id = self._owner_and_id()
        rng, seconds = self._rng, timedelta(seconds=self._rng.choice((10, 150, 1000)))
        fields, paths, changes = rng.choice(
            (
                (SessionFields(title=rng.choice(("one", "two"))), ("title",), {}),
                (SessionFields(ttl=seconds), ("ttl",), {"expire_time": self.now + seconds}),
                (SessionFields(), ("expire_time",), {"expire_time": None}),
                (SessionFields(idle_ttl=seconds), ("idle_ttl",), {"idle_ttl": seconds, "idle_since": self.now}),
                (SessionFields(), ("idle_ttl",), {"idle_ttl": None, "idle_since": self.now}),
                (SessionFields(), (), {}),
            )
        )
        changes = {"title": fields.title} if paths == ("title",) else changes
        etag = await self._etag(owner, session_id)

        def update() -> Plain:
            session = self._plain.look(owner, session_id, self.now)
            if etag.startswith("stale"):
                raise Refused("STALE_ETAG")
            self._plain.update(session, changes)
            return session

        found, plain = await self._agree(
            f"{owner} updates {paths} {seconds} of {session_id}",
            self._sessions.update(self._owners[owner], session_id, SessionUpdate(fields, paths, etag)),
            update,
        )
        if found is not None:
            self._compare(found, plain)

    async def _etag(self, owner: str, session_id: str) -> str:
        """None, the current one, or one of the past."""
        kind = self._rng.choice(("", "", "current", "stale"))
        if kind != "current":
            return kind
        found = await self._store.session(self._owners[owner], session_id)
        return found.etag if found else ""

    async def _delete(self) -> None:
        owner, session_id = self._owner_and_id()
        etag = await self._etag(owner, session_id)

        def delete() -> Plain:
            session = self._plain.look(owner, session_id, self.now)
            if etag.startswith("stale"):
                raise Refused("STALE_ETAG")
            session.deleted_at = self.now
            return session

        _, plain = await self._agree(
            f"{owner} deletes {session_id}", self._sessions.delete(self._owners[owner], session_id, etag), delete
        )
        if plain is not None and plain.running:
            running = self._running.pop(plain.running)
            with running.seat as live:
                turn = await live.wait_for_ending()
            is_cancelled = turn.ending is not None and turn.ending.state is TurnState.CANCELLED
            self._check(is_cancelled, "the turn of a deleted session goes on")
            plain.finish(None, self.now)
            await self._settle()

    async def _undelete(self) -> None:
        owner, session_id = self._owner_and_id()
        found, plain = await self._agree(
            f"{owner} undeletes {session_id}",
            self._sessions.undelete(self._owners[owner], session_id),
            lambda: self._plain.undelete(owner, session_id, self.now),
        )
        if found is not None:
            self._compare(found, plain)

    async def _read(self) -> None:
        owner, session_id = self._owner_and_id()
        page, plain = await self._agree(
            f"{owner} reads {session_id}",
            self._history.page(self._owners[owner], session_id, HistoryQuery()),
            lambda: self._plain.look(owner, session_id, self.now),
        )
        if page is not None:
            said = [message.content for message in page.messages]
            self._check(said == plain.messages(), f"the history of {session_id} is {said}, not {plain.messages()}")

    async def _export(self) -> None:
        owner, session_id = self._owner_and_id()

        async def export() -> list[Any]:
            pieces = [piece async for piece in self._exporter.export(self._owners[owner], session_id)]
            return [json.loads(line) for line in b"".join(pieces).splitlines()]

        lines, plain = await self._agree(
            f"{owner} exports {session_id}", export(), lambda: self._plain.look(owner, session_id, self.now)
        )
        if lines is None:
            return
        session, *turns, end = lines
        self._check((session["kind"], session["title"], end["turns"]) == ("session", plain.title, len(turns)), "lines")
        said = [(turn["message"], turn.get("response")) for turn in turns]
        self._check(said == plain.turns, f"the file of {session_id} has {said}, not {plain.turns}")

    # Time, and what comes with it

    async def _pass_time(self) -> None:
        """Move the clock: a little, or to just before, at, or after an instant that matters."""
        rng = self._rng
        moments = [m for session in self._plain.there.values() for m in (session.end(), session.purge_time()) if m]
        later = [moment for moment in moments if moment > self.now]
        if later and rng.random() < 0.5:
            to = rng.choice(later) + rng.choice((-1, 0, 1)) * _MILLISECOND
            self.now = max(self.now, to)
        else:
            self.now += rng.choice((_MILLISECOND, timedelta(seconds=rng.randrange(1, 60))))

    def _purger(self, store: Any = None) -> Purger:
        return Purger(
            store or self._store,
            lifetimes=self._lifetimes,
            interval_s=60,
            rate=100_000,
            now=self._time,
            log=NoLog(),
        )

    async def _purge(self) -> None:
        """Some purgers sweep, at the same time."""
        await asyncio.gather(*(_sweep(self._purger()) for _ in range(self._rng.randrange(1, 3))))
        await self._purged()

    async def _kill_purger(self) -> None:
        """A purger is killed somewhere; a minute later another one sweeps."""
        mortal = Mortal(self._store, self._rng.randrange(12), is_applied=self._rng.random() < 0.5)
        try:
            await _sweep(self._purger(mortal))
        except Killed:
            await self._look_at_all_that_live()
        self.now += _CLAIM
        await _sweep(self._purger())
        await self._purged()

    async def _purged(self) -> None:
        gone = self._plain.purge(self.now)
        self._keys = {key: session_id for key, session_id in self._keys.items() if session_id not in gone}
        if self._trace:
            self._trace(f"{self.now:%d %H:%M:%S.%f} purged {gone}")
        await self._look_at_all_that_live()
        there = {key for key in self._ever if (await self._found(key)) is not None}
        self._check(len(there) == len(self._plain.there), f"{there} are there, expected {list(self._plain.there)}")
        for key in set(self._ever) - there:
            self._check(await self._count(key) == 0, f"turns of {key} are left")

    async def _look_at_all_that_live(self) -> None:
        """Nothing alive is lost: not a session, nor a turn."""
        for session_id, plain in self._plain.there.items():
            if plain.is_due(self.now):
                continue
            found = await self._store.session(self._owners[plain.owner], session_id)
            self._check(found is not None and not found.purging, f"{session_id} is alive and was removed")
            self._compare(found, plain)
            archived = await self._count(found.key)
            self._check(archived == len(plain.turns), f"{session_id} has {archived} turns, not {len(plain.turns)}")

    async def _found(self, key: Any) -> Session | None:
        found = await self._store.session(key.owner, key.session_id)
        return found if found and found.key == key else None

    async def _count(self, key: Any) -> int:
        return len(await self._store.turns(key, first_seq_from=0, first_seq_to=10_000, limit=10_000))

    async def _end(self) -> None:
        """All turns end, all that ends by itself does, and nothing is left of it."""
        for message in list(self._running):
            await self._finish_one(self._running.pop(message))
        for _ in range(2):
            self.now += _FOREVER
            await self._purge()
        self.now += RECORD_KEPT
        await _sweep(self._purger())
        mine = {key.uid for key in self._ever}
        left = [record for record in await self._store.due_purge_records(self.now, 10_000) if record.key.uid in mine]
        self._check(not left, f"records are left: {left}")


async def _sweep(purger: Purger) -> None:
    while await purger.sweep():
        pass


def run(seed: int, *, steps: int = 40, trace: Callable[[str], None] | None = None) -> str:
    """Run one seed over a store in memory, and return what it disagreed on, or nothing."""
    try:
        asyncio.run(Run(seed, ModelStore(), trace).happen(steps))
    except Disagreement as exc:
        return str(exc)
    return ""


def first_broken(begin: int, end: int) -> tuple[int, str] | None:
    """Return the first seed of a range that disagrees, and on what."""
    outcomes = ((seed, run(seed)) for seed in range(begin, end))
    return next(((seed, what) for seed, what in outcomes if what), None)
