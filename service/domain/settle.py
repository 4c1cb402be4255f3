"""Writes whose answer may be lost: repeat the identical write until matched or refused (docs/turns.md, rule 0)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.domain.errors import StoreUnavailable, StoreUncertain

T = TypeVar("T")

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Settled(Generic[T]):
    """The store's answer. was_uncertain: an earlier try may have been applied; a refusal may be of our own repeat."""

    answer: T
    was_uncertain: bool


async def settle(write: Callable[[], Awaitable[T]], *, patience_s: float, uncertain_only: bool = False) -> Settled[T]:
    """Repeat `write` until the store answers, for at most about `patience_s` seconds, then raise its last error.

    uncertain_only: a first try that surely was not applied raises at once.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience_s
    delay_s = _FIRST_DELAY_S
    was_uncertain = False
    while True:
        try:
            return Settled(await write(), was_uncertain)
        except StoreUnavailable as exc:
            was_uncertain = was_uncertain or isinstance(exc, StoreUncertain)
            if loop.time() + delay_s > give_up or (uncertain_only and not was_uncertain):
                if was_uncertain and not isinstance(exc, StoreUncertain):
                    raise StoreUncertain from exc
                raise
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
