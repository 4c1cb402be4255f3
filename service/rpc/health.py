"""Health of the service: follows the store, with hysteresis, so that one lost ping does not move traffic."""

import asyncio
from collections.abc import Awaitable, Callable

from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2

from service.domain.errors import ChatError
from service.domain.log import Log
from service.rpc.pipeline import SERVICE_NAME

_Status = health_pb2.HealthCheckResponse
_NAMES = ("", SERVICE_NAME)


class Readiness:
    """Pings the store and tells gRPC health, and whoever asks, whether the service can serve.

    interval_s: between pings. down_after: failed pings in a row that make it NOT_SERVING; one good ping mends it.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        *,
        log: Log,
        interval_s: float = 1.0,
        down_after: int = 2,
    ) -> None:
        self.servicer = health_aio.HealthServicer()
        self._ping = ping
        self._log = log
        self._interval_s = interval_s
        self._down_after = down_after
        self._is_serving = False
        self._failures = 0

    def status(self, service: str) -> str:
        """Return SERVING, NOT_SERVING or SERVICE_UNKNOWN for a service; empty asks for the whole server."""
        if service not in _NAMES:
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._is_serving else "NOT_SERVING"

    async def check(self) -> None:
        """Ping once and draw the conclusion."""
        try:
            await self._ping()
        except ChatError as exc:
            self._failures += 1
            if self._failures == 1:
                self._log.warning("store does not answer", error=str(exc))
            if self._failures >= self._down_after or not self._is_serving:
                await self._set(False)
        else:
            self._failures = 0
            await self._set(True)

    async def run(self) -> None:
        """Check at intervals until cancelled."""
        while True:
            try:
                await self.check()
            except Exception:
                self._log.exception("health check failed unexpectedly")
            await asyncio.sleep(self._interval_s)

    async def stop(self) -> None:
        """NOT_SERVING from now on, for good."""
        self._is_serving = False
        await self.servicer.enter_graceful_shutdown()

    async def start(self) -> None:
        """Say NOT_SERVING until the first check."""
        for name in _NAMES:
            await self.servicer.set(name, _Status.NOT_SERVING)

    async def _set(self, is_serving: bool) -> None:
        if is_serving == self._is_serving:
            return
        self._is_serving = is_serving
        status = _Status.SERVING if is_serving else _Status.NOT_SERVING
        for name in _NAMES:
            await self.servicer.set(name, status)
        self._log.info("health", status="SERVING" if is_serving else "NOT_SERVING")
