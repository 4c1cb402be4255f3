"""A transport that does not wait for ever for its peer to read."""

import asyncio
from collections.abc import Callable


class Unread:
    """What the peers of many transports leave unread, all together; beyond the limit, who has waited longest goes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting: dict[asyncio.Transport, None] = {}  # in the order in which they began to wait

    def add(self, transport: asyncio.Transport) -> None:
        """Count what is unsent on a transport, until it is discarded."""
        self._waiting[transport] = None
        total_bytes = sum(waiting.get_write_buffer_size() for waiting in self._waiting)
        while total_bytes > self._max_bytes:
            oldest = next(iter(self._waiting))
            total_bytes -= oldest.get_write_buffer_size()
            del self._waiting[oldest]
            oldest.abort()

    def discard(self, transport: asyncio.Transport) -> None:
        """Forget a transport that has sent all, or is closed."""
        self._waiting.pop(transport, None)


class PatientTransport:
    """Wraps a transport, and aborts it when the peer stops taking what is left for it, be it open or closing.

    patience_s: how long nothing at all may be taken.
    unread: counts what is left, together with that of others.
    """

    def __init__(self, transport: asyncio.Transport, patience_s: float, unread: Unread) -> None:
        self._transport = transport
        self._patience_s = patience_s
        self._unread = unread
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[bytes] = []
        self.write: Callable[[bytes], None] = transport.write
        self.write_eof = transport.write_eof
        self.can_write_eof = transport.can_write_eof
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort

    def hold(self) -> None:
        """Keep what is written until `release`, which sends it with one call of the system."""
        self.write = self._held.append

    def release(self) -> None:
        """Send what was kept."""
        self.write = self._transport.write
        if self._held and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()

    def close(self) -> None:
        """Close when all is sent."""
        self.release()
        self._transport.close()
        self.expect_progress()

    def expect_progress(self) -> None:
        """Abort unless some of what is unsent goes out in time, and again until all has gone."""
        self._stop_timer()
        self._unsent_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._check)
            self._unread.add(self._transport)
        else:
            self._unread.discard(self._transport)

    def expect_nothing(self) -> None:
        """Stop watching."""
        self._stop_timer()
        self._unread.discard(self._transport)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        if self._transport.get_write_buffer_size() >= self._unsent_bytes:
            self._transport.abort()
        else:
            self.expect_progress()
