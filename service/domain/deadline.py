"""The deadline of the work at hand, on the event loop's clock, seen by whatever waits for something outside."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)


def current() -> float | None:
    """Return the deadline in seconds of loop time, or None."""
    return _DEADLINE.get()


def remaining_s(limit_s: float) -> float:
    """Return the seconds left, at most `limit_s`, never negative."""
    deadline = _DEADLINE.get()
    if deadline is None:
        return limit_s
    return max(0.0, min(limit_s, deadline - asyncio.get_running_loop().time()))


@contextmanager
def scope(deadline: float | None) -> Iterator[None]:
    """Set the deadline for this task, and for tasks started inside; None = no deadline but each part's own limit."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def start(deadline: float) -> None:
    """Set the deadline for the rest of this task."""
    _DEADLINE.set(deadline)
