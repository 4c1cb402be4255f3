"""A model that is asked again when it fails before it has said anything."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from service.domain.deadline import remaining_s
from service.domain.errors import ModelError, ModelInvalidResponse, ModelRateLimited, ModelUnavailable
from service.domain.ports import ChatModel, Finish, ModelRequest

_log = logging.getLogger(__name__)


class RetryingModel:
    """A ChatModel over another one.

    Repeats ModelUnavailable and ModelRateLimited, and only as long as no text was given out. Not ModelTimeout: its
    limit is long, and the next try would wait as long again. Not what stays as it is: quota, key, refused request,
    too long a context, an answer in a form that we do not know.

    max_attempts: calls in all. Waits: half to all of base_delay_s, doubled each time, at most max_delay_s; but never
    less than the provider asks for. If it asks for more than max_retry_after_s, or the wait would last to the deadline
    of the work (`deadline.py`), the error is raised at once, with the provider's delay in it.
    """

    def __init__(
        self,
        inner: ChatModel,
        *,
        max_attempts: int = 3,
        base_delay_s: float = 0.5,
        max_delay_s: float = 8.0,
        max_retry_after_s: float = 10.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if max_attempts < 1:
            raise ValueError("max_attempts must be positive")
        self._inner = inner
        self._max_attempts = max_attempts
        self._base_delay_s = base_delay_s
        self._max_delay_s = max_delay_s
        self._max_retry_after_s = max_retry_after_s
        self._chance = chance

    async def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        """Yield what the first attempt that says something yields; later errors are not repeated."""
        attempt = 1
        while True:
            async with aclosing(self._inner.stream(request)) as pieces:
                try:
                    piece = await anext(pieces, None)
                except (ModelUnavailable, ModelRateLimited) as error:
                    delay_s = self._delay_s(attempt, error)
                    if delay_s is None:
                        raise
                    _log.info("model call %d failed (%s); again in %.2f s", attempt, error.reason, delay_s)
                else:
                    if piece is None:
                        raise ModelInvalidResponse("the model ended without an answer")
                    yield piece
                    async for piece in pieces:
                        yield piece
                    return
            await asyncio.sleep(delay_s)
            attempt += 1

    def _delay_s(self, attempt: int, error: ModelError) -> float | None:
        """Return how long to wait before the next attempt; None = give up."""
        if attempt >= self._max_attempts:
            return None
        asked_s = _asked_delay_s(error)
        if asked_s > self._max_retry_after_s:
            return None
        backoff_s = min(self._base_delay_s * 2 ** (attempt - 1), self._max_delay_s)
        delay_s = max(backoff_s * (0.5 + 0.5 * self._chance()), asked_s)
        return delay_s if delay_s < remaining_s(float("inf")) else None


def _asked_delay_s(error: ModelError) -> float:
    """Return the wait that the provider asks for; 0 = none.

    A rate limit always asks for one, its default where no header said how long. Other errors carry a default that is
    meant for our callers; only another value came from the provider.
    """
    delay_s = error.retry_delay_s or 0.0
    return delay_s if isinstance(error, ModelRateLimited) or delay_s != error.default_retry_delay_s else 0.0
