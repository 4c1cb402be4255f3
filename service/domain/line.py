"""Waiting lines: who is next in a session, in order of arrival in this process."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Overloaded, ShuttingDown


class Ticket:
    """A place in a session's line."""

    __slots__ = ("_called", "_line")

    def __init__(self, line: deque["Ticket"]) -> None:
        self._line = line
        self._called: asyncio.Future[None] | None = None

    @property
    def is_front(self) -> bool:
        """Whether nobody stands before this one."""
        return self._line[0] is self

    async def wait_for_front(self) -> None:
        """Wait until nobody stands before this one; raises ShuttingDown when the lines close."""
        if self.is_front:
            return
        self._called = asyncio.get_running_loop().create_future()
        try:
            await self._called
        finally:
            self._called = None

    def call(self, error: Exception | None = None) -> None:
        """Wake the one who waits here, if it waits."""
        if self._called is None or self._called.done():
            return
        if error is None:
            self._called.set_result(None)
        else:
            self._called.set_exception(error)


class Lines:
    """The lines of all sessions that somebody waits for."""

    def __init__(self, *, max_waiting: int) -> None:
        self._lines: dict[str, deque[Ticket]] = {}
        self._max_waiting = max_waiting

    def is_empty(self, session_id: str) -> bool:
        """Whether nobody stands in this session's line."""
        return session_id not in self._lines

    @contextmanager
    def place(self, session_id: str, *, at_front: bool = False) -> Iterator[Ticket]:
        """Take a place, behind the others or before them, and leave it at the end. Raises Overloaded if it is full."""
        line = self._lines.setdefault(session_id, deque())
        if len(line) >= self._max_waiting:
            raise Overloaded("too many callers wait for this session")
        ticket = Ticket(line)
        if at_front:
            line.appendleft(ticket)
        else:
            line.append(ticket)
        try:
            yield ticket
        finally:
            line.remove(ticket)
            if line:
                line[0].call()
            else:
                del self._lines[session_id]

    def close(self) -> None:
        """Send everybody who waits away with ShuttingDown."""
        for line in self._lines.values():
            for ticket in line:
                ticket.call(ShuttingDown())
