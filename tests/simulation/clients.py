"""Clients of a run: small scripts that talk to processes, do as the errors say, and check what they hear."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from service.domain.cursor import Cursor
from service.domain.entities import Message, Role, Turn
from service.domain.errors import ChatError
from service.domain.history import HistoryPage, HistoryQuery
from service.domain.live import Accepted, Delta, Ended, Event, Snapshot
from service.domain.sending import SendCommand
from tests.simulation.clock import Clock, SimLoop
from tests.simulation.ledger import Ledger, Record
from tests.simulation.network import ConnectionLost, Rpc, Work
from tests.simulation.process import Emit, SimProcess

_MOST_TRIES = 12


@dataclass(frozen=True, slots=True)
class Habits:
    """How a client sends. leave_s: when it gives a call up; None = never. cap_s: the deadline of each call."""

    stream: bool
    cap_s: float
    leave_s: float | None
    stays_away: bool


class Clients:
    """What all clients of a run share."""

    def __init__(
        self, clock: Clock, loop: SimLoop, rng: Random, ledger: Ledger, processes: Callable[[], Sequence[SimProcess]]
    ) -> None:
        self.rng = rng
        self.ledger = ledger
        self._clock = clock
        self._loop = loop
        self._processes = processes

    def call(self, work: Work, process: SimProcess | None = None) -> Rpc:
        """Call a process, any one if it does not matter which."""
        process = process or self.rng.choice(self._processes())
        rpc = Rpc(self._clock, self._loop, self.rng, self.ledger, process)
        rpc.start(work)
        return rpc

    def any_process(self) -> SimProcess:
        """Return a process, which may be about to die."""
        return self.rng.choice(self._processes())

    # Sends

    async def send(self, command: SendCommand, habits: Habits) -> None:
        """Send a message, and again as the errors say, until it is answered or cannot be."""
        for number in range(_MOST_TRIES):
            if not command.request_id:
                command = replace(command, message=f"{command.message}.{number}")
            view = View(self, command.session_id)
            try:
                if await self._try(command, habits, view):
                    return
            except ConnectionLost:
                if not command.request_id:
                    return
            except ChatError as error:
                if view.turn_id and error.reason in ("CALLER_DEADLINE_EXCEEDED", "SHUTTING_DOWN"):
                    await view.follow()
                    return
                retry = error.metadata.get("retry")
                if retry != "SAME_REQUEST":
                    return
                await asyncio.sleep(min(error.retry_delay_s or 0.0, 1.0) * self.rng.random())
            if view.turn_id and self.rng.random() < 0.6:
                await view.follow()
                return
            await asyncio.sleep(self.rng.random() * 0.5)

    async def _try(self, command: SendCommand, habits: Habits, view: "View") -> bool:
        rpc = self.call(lambda process, emit: process.send(command, habits.cap_s, emit, stream=habits.stream))
        leave_s = habits.leave_s
        try:
            async with asyncio.timeout(leave_s):
                await view.take(rpc)
        except TimeoutError:
            rpc.leave()
            return habits.stays_away
        if not habits.stream:
            turn: Turn = rpc.answer.result()
            self.ledger.check(turn.turn_id == view.turn_id, "a send answered with another turn than it had named")
            return True
        return view.has_ended

    # Others

    async def watch(self, record: Record, from_start: bool) -> None:
        """Attach to a turn, and again whenever the stream ends early, now and then leaving by itself."""
        view = View(self, record.session_id)
        view.turn_id = record.turn_id
        if not from_start:
            await asyncio.sleep(self.rng.random() * 2)
        await view.follow()

    async def cancel(self, record: Record) -> None:
        """Cancel a turn, and again if that is not answered."""
        for _ in range(_MOST_TRIES):
            rpc = self.call(lambda process, _: process.cancel(record.session_id, record.turn_id, 20.0))
            try:
                await rpc.answer
                return
            except ConnectionLost:
                pass
            except ChatError as error:
                self.check_gone(record, error)
                if error.reason.startswith("SESSION"):
                    return
            await asyncio.sleep(self.rng.random())

    async def get(self, record: Record) -> None:
        """Look at a turn that was acknowledged."""
        begin = self._clock.tick
        rpc = self.call(lambda process, _: process.get(record.session_id, record.turn_id, 5.0))
        try:
            live = await rpc.answer
        except ConnectionLost:
            return
        except ChatError as error:
            self.check_gone(record, error)
            return
        if record.ending is not None and record.ended_tick < begin:
            self.ledger.check(live.ending is not None, f"{record.turn_id} has ended and was read as running")

    async def manage(self, work: Work) -> bool:
        """Do something with a session, and again if that is not answered; False if it is not there, or cannot be."""
        for _ in range(_MOST_TRIES):
            try:
                await self.call(work).answer
                return True
            except ConnectionLost:
                pass
            except ChatError as error:
                if not error.is_transient and error.reason != "CALLER_DEADLINE_EXCEEDED":
                    return False
            await asyncio.sleep(self.rng.random() * 0.5)
        return False

    def check_gone(self, record: Record, error: ChatError) -> None:
        """A turn that was accepted is found, as long as its session is there."""
        if error.reason == "SESSION_EXPIRED":
            is_expired = self.ledger.may_be_expired(record.session_id, 0)
            self.ledger.check(is_expired, f"{record.turn_id} is saved and its session was called expired")
        if error.reason in ("TURN_NOT_FOUND", "SESSION_NOT_FOUND"):
            states = self.ledger.states_between(record.session_id, 0)
            is_gone = any(not state.is_there for state in states)
            self.ledger.check(is_gone, f"{record.turn_id} is saved and was not found: {error.reason}")

    async def read_history(self, session_id: str, uid: str) -> None:
        """Read the history, whole or in pages, and compare it with what must be there."""
        begin = self._clock.tick
        newest_first = self.rng.random() < 0.3
        query = HistoryQuery(page_size=self.rng.choice((0, 0, 1, 2, 3)), order_by="seq desc" if newest_first else "")
        messages: list[Message] = []
        while True:
            rpc = self.call(partial(_page, session_id, query))
            try:
                page: HistoryPage = await rpc.answer
            except (ConnectionLost, ChatError):
                return
            if page.session.uid != uid:
                return
            messages.extend(page.messages)
            if page.next_page_token is None:
                break
            query = replace(query, page_token=page.next_page_token)
        check_history(self.ledger, uid, list(reversed(messages)) if newest_first else messages, begin)


def check_history(ledger: Ledger, uid: str, messages: Sequence[Message], begin: int) -> None:
    """A history has all that was there when its reading began, in order, without holes and doubles."""
    truth: dict[int, tuple[Role, str]] = {}
    must: set[int] = set()
    for record in ledger.in_order[uid]:
        truth[record.turn.first_seq] = (Role.USER, record.turn.user_text)
        if record.tick < begin:
            must.add(record.turn.first_seq)
        if record.ending is not None and record.ending.message_count == 2:
            truth[record.ending.last_seq] = (Role.ASSISTANT, record.ending.text)
            if record.ended_tick < begin:
                must.add(record.ending.last_seq)
    seqs = [message.seq for message in messages]
    ledger.check(seqs == list(range(1, len(seqs) + 1)), f"a history has the seqs {seqs}")
    ledger.check(must <= set(seqs), f"a history lacks {sorted(must - set(seqs))}")
    for message in messages:
        is_true = truth.get(message.seq) == (message.role, message.content)
        ledger.check(is_true, f"a history has {message.content} at {message.seq}, not {truth.get(message.seq)}")


class View:
    """What one viewer has seen of a turn."""

    def __init__(self, clients: Clients, session_id: str) -> None:
        self.turn_id = ""
        self.has_ended = False
        self._clients = clients
        self._session_id = session_id
        self._text = ""
        self._cursor: Cursor | None = None

    async def take(self, rpc: Rpc) -> None:
        """Take what a call sends until it is over; raises its error."""
        while True:
            kind, item = await rpc.items.get()
            if kind == "over":
                rpc.answer.result()
                return
            if kind == "turn":
                self.turn_id = item
            else:
                self._see(item)

    def _see(self, event: Event) -> None:
        what, ledger = event.what, self._clients.ledger
        cursor = Cursor.decode(event.cursor.encode(), turn_id=self.turn_id, field="cursor")
        ledger.check(not self.has_ended, f"{self.turn_id}: an event after the end")
        if isinstance(what, Accepted):
            ledger.check(what.turn.turn_id == self.turn_id, "accepted names another turn")
        elif isinstance(what, Delta):
            self._text += what.text
        elif isinstance(what, Snapshot):
            self._text = what.text
        elif isinstance(what, Ended):
            self.has_ended = True
            whole = what.turn.ending.text if what.turn.ending else None
            ledger.check(self._text == whole, f"{self.turn_id}: a viewer saw {self._text}, and the end is {whole}")
        ledger.check(cursor.offset == len(self._text), f"{self.turn_id}: a viewer has {self._text}, at {cursor}")
        self._cursor = cursor

    async def follow(self) -> None:
        """Attach until the end is seen."""
        clients, rng = self._clients, self._clients.rng
        for _ in range(_MOST_TRIES):
            after = self._cursor.encode() if self._cursor else ""
            leave_s = rng.choice((None, None, None, rng.random() * 3))
            rpc = clients.call(partial(_attach, self._session_id, self.turn_id, after))
            try:
                async with asyncio.timeout(leave_s):
                    await self.take(rpc)
            except TimeoutError:
                rpc.leave()
            except ConnectionLost:
                pass
            except ChatError as error:
                if self.has_ended:
                    return
                clients.check_gone(clients.ledger.records[self.turn_id], error)
                if error.reason.startswith("SESSION"):
                    return
            if self.has_ended:
                return
            await asyncio.sleep(rng.random() * 0.5)


async def _page(session_id: str, query: HistoryQuery, process: SimProcess, _emit: Emit) -> HistoryPage:
    return await process.history(session_id, query, 5.0)


async def _attach(session_id: str, turn_id: str, after: str, process: SimProcess, emit: Emit) -> None:
    await process.attach(session_id, turn_id, after, 20.0, emit)
