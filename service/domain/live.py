"""A turn as this process sees it: its text so far, then its ending. Any number of tasks watch, each at its own pace."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from service.domain.cursor import Cursor
from service.domain.entities import Active, Ending, OnDisconnect, Turn
from service.domain.errors import ChatError


@dataclass(frozen=True, slots=True)
class Accepted:
    """The user message is saved."""

    turn: Turn


class Delta(NamedTuple):
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All text so far, from another attempt than what was sent before."""

    text: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing new."""


class Event(NamedTuple):
    """One event of a stream, and the place after it."""

    cursor: Cursor
    what: Accepted | Delta | Snapshot | Ended | Heartbeat


class LiveTurn:
    """The newest that this process knows of a turn. Fed by the runner here, or by a follower of another process's.

    on_deserted: called when the last caller leaves. is_followed: a task reads it from the store.
    """

    __slots__ = (
        "_callers",
        "_error",
        "_on_deserted",
        "_pieces",
        "_text",
        "_waiting",
        "_watchers",
        "fence",
        "is_followed",
        "on_disconnect",
        "turn",
        "uid",
    )

    def __init__(self, uid: str, active: Active, on_deserted: Callable[["LiveTurn"], None]) -> None:
        self._set(uid, active.turn, active.fence, "".join(active.parts))
        self.on_disconnect = active.on_disconnect
        self._on_deserted = on_deserted

    @classmethod
    def of_ended(cls, uid: str, turn: Turn) -> Self:
        """Return a turn that is over and needs no feeding."""
        live = cls.__new__(cls)
        live._set(uid, turn, 0, "")
        live.on_disconnect = OnDisconnect.CONTINUE
        live._on_deserted = _ignore
        return live

    def _set(self, uid: str, turn: Turn, fence: int, text: str) -> None:
        self.uid = uid
        self.turn = turn
        self.fence = turn.ending.fence if turn.ending else fence
        self.is_followed = False
        self._text = turn.ending.text if turn.ending else text
        self._pieces: list[str] = []
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self._error: Callable[[], ChatError] | None = None
        self._callers = 0
        self._watchers = 0

    @property
    def turn_id(self) -> str:
        """Id of the turn."""
        return self.turn.turn_id

    @property
    def text(self) -> str:
        """The answer so far, or the whole of it."""
        if self._pieces:
            self._text += "".join(self._pieces)
            self._pieces.clear()
        return self._text

    def has_more_than(self, chars: int) -> bool:
        """Whether the text is longer."""
        return bool(self._pieces) or len(self._text) > chars

    @property
    def ending(self) -> Ending | None:
        """How the turn is over, if it is."""
        return self.turn.ending

    @property
    def is_deserted(self) -> bool:
        """Whether no caller takes part."""
        return self._callers == 0

    @property
    def is_watched(self) -> bool:
        """Whether anybody waits for news of it."""
        return self._watchers > 0

    # Feeding

    def append(self, piece: str) -> None:
        """More text of the same attempt."""
        self._pieces.append(piece)
        self.wake()

    def show(self, active: Active) -> None:
        """Take over what the session document says of the running turn."""
        text = "".join(active.parts)
        is_older = active.fence < self.fence or (active.fence == self.fence and len(text) <= len(self.text))
        if self.turn.ending is not None or is_older:
            return
        self.turn, self.fence, self._text = active.turn, active.fence, text
        self._pieces.clear()
        self.wake()

    def finish(self, turn: Turn) -> None:
        """The turn has ended; the first ending stays."""
        if self.turn.ending is None and turn.ending is not None:
            self.turn, self.fence, self._text = turn, turn.ending.fence, turn.ending.text
            self._pieces.clear()
            self.wake()

    def fail(self, error: Callable[[], ChatError]) -> None:
        """Nothing more will be known here; each who watches gets an error of its own."""
        if self.turn.ending is None:
            self._error = error
            self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for future in waiting:
                if not future.done():
                    future.set_result(True)

    # Watching

    def seat(self, *, is_caller: bool = True) -> "Seat":
        """Take part until the seat is closed. is_caller False: only waits for news, as one who does not count."""
        self._watchers += 1
        self._callers += is_caller
        return Seat(self, is_caller)

    def leave(self, is_caller: bool) -> None:
        """One seat less."""
        self._watchers -= 1
        if is_caller:
            self._callers -= 1
            if self._callers == 0:
                self._on_deserted(self)

    async def wait_for_ending(self) -> Turn:
        """Return the turn when it is over; raises what `fail` was given."""
        await self.wait_until(lambda: self.turn.ending is not None)
        return self.turn

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, looked at again whenever something changes; raises what `fail` was given."""
        while not condition():
            self.raise_error()
            await self.change(asyncio.get_running_loop().create_future())

    async def change(self, future: "asyncio.Future[bool]") -> bool:
        """Wait for a future that becomes True at the next change, unless it is given another result before."""
        self._waiting[future] = None
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    def raise_error(self) -> None:
        """Raise what `fail` was given."""
        if self._error is not None:
            raise self._error()

    def news(self, place: Cursor) -> list[Event]:
        """Return what has come after a place: all text as one delta, or a snapshot, and the ending."""
        text, fence = self.text, self.fence
        news = []
        if self.turn.ending is None and place.fence == fence and place.offset > len(text):
            return []  # the owner has shown more than it has saved yet: what comes after that is still to come
        if place.offset > 0 and (place.fence != fence or place.offset > len(text)):
            place = Cursor(place.turn_id, fence, len(text))
            news.append(Event(place, Snapshot(text, self.turn.attempt)))
        elif len(text) > place.offset:
            delta = Delta(text[place.offset :])
            place = Cursor(place.turn_id, fence, len(text))
            news.append(Event(place, delta))
        if self.turn.ending is not None:
            news.append(Event(place._replace(fence=fence, has_ended=True), Ended(self.turn)))
        return news


class View:
    """What one viewer sees of a turn, at its own pace. Close it at the end.

    One timer at a time, made anew when it has run out, as a viewer waits far more often than it has waited too long.
    """

    __slots__ = ("_change", "_due", "_has_begun", "_heartbeat_s", "_live", "_loop", "_place", "_timer", "_until")

    def __init__(self, live: LiveTurn, after: Cursor, *, heartbeat_s: float, until: float | None) -> None:
        self._live = live
        self._place = after
        self._heartbeat_s = heartbeat_s
        self._until = until
        self._has_begun = False
        self._loop = asyncio.get_running_loop()
        self._change: asyncio.Future[bool] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def news(self) -> list[Event]:
        """Return what comes next, `Ended` last: text at once and as it comes; nothing when all was told.

        Takes all text that has come since as one delta, so that a slow reader costs less, not more.
        Raises TimeoutError where it would have to wait after `until` (loop time), and what `LiveTurn.fail` was given.
        """
        if not self._has_begun:
            self._has_begun = True
            if (first := self._first()) is not None:
                return first
        if self._place.has_ended:
            return []
        while not (news := self._live.news(self._place)):
            self._live.raise_error()
            if not await self._wait():
                return [Event(self._place, Heartbeat())]
        self._place = news[-1].cursor
        return news

    def _first(self) -> list[Event] | None:
        live, place = self._live, self._place
        if place.has_ended and live.ending is not None and place.fence == live.fence:
            return []
        if place.has_ended:
            place = place._replace(has_ended=False)
        if place.fence != 0:
            self._place = place
            return None
        self._place = place = place._replace(fence=live.fence)
        return [Event(place, Accepted(live.turn))]

    async def _wait(self) -> bool:
        """Wait for a change; False if there is none for long. Raises TimeoutError."""
        due = self._loop.time() + self._heartbeat_s
        self._due = due if self._until is None else min(due, self._until)
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._ring)
        self._change = self._loop.create_future()
        if await self._live.change(self._change):
            return True
        if self._until is not None and self._loop.time() >= self._until:
            raise TimeoutError
        return False

    def _ring(self) -> None:
        self._timer = None
        if self._change is None or self._change.done():
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._ring)
        else:
            self._change.set_result(False)

    def close(self) -> None:
        """See no more."""
        if self._timer is not None:
            self._timer.cancel()


class Seat:
    """One caller's part in a turn. Close it when the caller leaves."""

    __slots__ = ("_is_caller", "_is_open", "live")

    def __init__(self, live: LiveTurn, is_caller: bool) -> None:
        self.live = live
        self._is_caller = is_caller
        self._is_open = True

    def close(self) -> None:
        """Leave."""
        if self._is_open:
            self._is_open = False
            self.live.leave(self._is_caller)

    def __enter__(self) -> LiveTurn:
        return self.live

    def __exit__(self, *exc: object) -> None:
        self.close()


def _ignore(_live: LiveTurn) -> None:
    """Nobody needs to know."""


def cancels_when_deserted(live: LiveTurn) -> bool:
    """Whether a turn that nobody watches any more has to be cancelled."""
    return live.on_disconnect is OnDisconnect.CANCEL and live.ending is None and live.is_deserted
