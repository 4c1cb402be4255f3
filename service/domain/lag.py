"""Watches how late the event loop is: everything that this process does waits as long."""

import asyncio

from service.domain.log import Log

_EVERY_S = 0.25
_HIGH_S = 0.1
_TIMES = 8


class LagWatch:
    """Says so in the log when the loop stays late, and when that is over."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._is_high = False
        self._alike = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.note(loop.time() - due)

    def note(self, lag_s: float) -> None:
        """Take a measurement in. What several in a row agree on is said, once."""
        self._alike = self._alike + 1 if (lag_s >= _HIGH_S) is not self._is_high else 0
        if self._alike < _TIMES:
            return
        self._is_high, self._alike = not self._is_high, 0
        self._log.warning("the event loop is late" if self._is_high else "the event loop is in time again")
