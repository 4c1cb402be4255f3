"""A turn as this process sees it: its text so far, then its ending. Any number of tasks watch, each at its own pace."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Self

from service.domain.cursor import Cursor
from service.domain.entities import Active, Ending, OnDisconnect, Turn
from service.domain.errors import ChatError


@dataclass(frozen=True, slots=True)
class Accepted:
    """The user message is saved."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Delta:
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


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, and the place after it."""

    cursor: Cursor
    what: Accepted | Delta | Snapshot | Ended | Heartbeat


class LiveTurn:
    """The newest that this process knows of a turn. Fed by the runner here, or by a follower of another process's.

    on_deserted: called when the last caller leaves. is_followed: a task reads it from the store.
    """

    __slots__ = (
        "_callers",
        "_changed",
        "_error",
        "_on_deserted",
        "_pieces",
        "_text",
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
        self._changed = asyncio.Event()
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
        self._changed.set()
        self._changed = asyncio.Event()

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
            if self._error is not None:
                raise self._error()
            await self._changed.wait()

    async def events(self, after: Cursor, *, heartbeat_s: float) -> AsyncGenerator[Event, None]:
        """Yield what comes after a place: text at once and as it comes, `Ended` last.

        Takes all text that has come since the last event as one delta, so that a slow reader costs less, not more.
        """
        place = after
        if place.has_ended:
            if self.turn.ending is not None and place.fence == self.fence:
                return
            place = replace(place, has_ended=False)
        if place.fence == 0:
            place = replace(place, fence=self.fence)
            yield Event(place, Accepted(self.turn))
        while True:
            changed = self._changed
            news = self._news(place)
            for event in news:
                place = event.cursor
                yield event
            if place.has_ended:
                return
            if news:
                continue
            if self._error is not None:
                raise self._error()
            if not await _set_within(changed, heartbeat_s):
                yield Event(place, Heartbeat())

    def _news(self, place: Cursor) -> list[Event]:
        text, fence = self.text, self.fence
        news = []
        if self.turn.ending is None and place.fence == fence and place.offset > len(text):
            return []  # the owner has shown more than it has saved yet: what comes after that is still to come
        if place.offset > 0 and (place.fence != fence or place.offset > len(text)):
            place = replace(place, fence=fence, offset=len(text))
            news.append(Event(place, Snapshot(text, self.turn.attempt)))
        elif len(text) > place.offset:
            delta = Delta(text[place.offset :])
            place = replace(place, fence=fence, offset=len(text))
            news.append(Event(place, delta))
        if self.turn.ending is not None:
            news.append(Event(replace(place, fence=fence, has_ended=True), Ended(self.turn)))
        return news


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False


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
