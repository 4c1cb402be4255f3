"""When a failed call is repeated, and after how long. Every repeat is logged, as INFO of the logger `chatsession`."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from chatsession.deadline import Deadline
from chatsession.errors import ChatSessionError, DeadlineExceeded, Overloaded, Retry, SessionBusy, Unavailable

T = TypeVar("T")

_log = logging.getLogger("chatsession")

# What gRPC and proxies make of a broken connection. The requests carry ids, so a repeat of any of them is safe.
_BREAKS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how fast failures in a row are repeated, within the deadline of the call.

    max_attempts: calls in a row without progress, the first included; 1 means no repeat.
    initial_backoff_s, max_backoff_s: the wait doubles from one to the other; 50 to 100 % of it are taken by chance.
        A wait that the server asks for is waited in any case, plus up to a quarter.
    """

    max_attempts: int = 10
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 10.0

    def delay_s(self, failures: int, asked_s: float | None) -> float:
        """How long to wait after this many failures in a row (from 1)."""
        backoff_s = min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** (failures - 1))
        return max(backoff_s * random.uniform(0.5, 1.0), (asked_s or 0.0) * random.uniform(1.0, 1.25))


class Repeats:
    """Counts the failures of one operation."""

    def __init__(self, policy: RetryPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._failures = 0

    def progressed(self) -> None:
        """Forget earlier failures."""
        self._failures = 0

    async def wait_or_raise(self, error: ChatSessionError) -> None:
        """Wait until the call may be repeated; raise the error if it must not, or there is no time for it."""
        self._failures += 1
        if not may_repeat(error) or self._failures >= self._policy.max_attempts:
            raise error
        delay_s = self._policy.delay_s(self._failures, error.retry_delay_s)
        if delay_s >= self._deadline.remaining_s:
            raise error
        _log.info("%s; trying again in %.1f s", error, delay_s)
        await asyncio.sleep(delay_s)


async def repeat(attempt: Callable[[], Awaitable[T]], repeats: Repeats) -> T:
    """Return what an attempt returns, repeating those that fail."""
    while True:
        try:
            return await attempt()
        except ChatSessionError as error:
            await repeats.wait_or_raise(error)


def may_repeat(error: ChatSessionError) -> bool:
    """Whether the same request, with the same id, may do better.

    Not when the session is busy, which the caller asked to hear of, nor when the time was over: the error of the
    repeat would say less.
    """
    if isinstance(error, SessionBusy | DeadlineExceeded):
        return False
    if error.retry is not None:
        return error.retry is Retry.SAME_REQUEST
    if error.reason:
        return isinstance(error, Unavailable | Overloaded)
    return error.code in _BREAKS
