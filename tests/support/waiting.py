"""Waits for a condition that nobody announces, with a bound."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_S = 0.02


async def until(look: Callable[[], Awaitable[T]], *, timeout_s: float = 20.0) -> T:
    """Look until what is seen is true, and return it; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not (seen := await look()):  # noqa: ASYNC110  # nobody here could set an event
            await asyncio.sleep(_STEP_S)
        return seen
