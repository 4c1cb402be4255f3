"""A bound on waiting that costs nothing where there is nothing to wait for."""

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def within(timeout_s: float, work: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns. Raises TimeoutError, and cancels it, if it waits for longer than that.

    As `asyncio.timeout`, but without a timer for what is done at once: most bodies have come with their head, and most
    answers are taken by the kernel.
    """
    try:
        first = work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    async with asyncio.timeout(timeout_s):
        return await _resume(work, first)


@coroutine
def _resume(work: Coroutine[Any, Any, _T], waits_for: Any) -> Generator[Any, Any, _T]:
    """Go on with a coroutine that has begun, and waits."""
    while True:
        try:
            step = partial(work.send, (yield waits_for))
        except BaseException as exc:
            step = partial(work.throw, exc)
        try:
            waits_for = step()
        except StopIteration as done:
            result: _T = done.value
            return result
        finally:
            # It may hold the error that goes through here, and with that all that the work was at.
            del step
