"""Thousands of open streams, held by the load generator."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc

from benchmarks.plans import OpenCrowd, Outcome

_OPEN_TIMEOUT_S = 30.0


class Crowd:
    """The streams; each is read as it comes."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._channels = channels
        self._tasks: list[asyncio.Task[None]] = []
        self._outcome = Outcome()

    async def open(self, plan: OpenCrowd) -> Outcome:
        """Open them as fast as they are accepted; return when all are, or have failed."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        opening: set[asyncio.Future[None]] = set()
        for number, (path, body) in enumerate(plan.calls):
            begun: asyncio.Future[None] = loop.create_future()
            stream = self._channels[number % len(self._channels)].unary_stream(path)
            self._tasks.append(loop.create_task(self._read(stream(body), begun)))
            opening.add(begun)
            if len(opening) == plan.at_once:
                opening = await _first(opening)
        while opening:
            opening = await _first(opening)
        self._outcome.wall_s = loop.time() - began_s
        return self._outcome

    async def end(self) -> Outcome:
        """Leave, and return what came."""
        self._outcome.cpu_s = time.process_time()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        return self._outcome

    async def _read(self, stream: Any, begun: "asyncio.Future[None]") -> None:
        try:
            async for _ in stream:
                self._outcome.messages += 1
                if not begun.done():
                    begun.set_result(None)
            self._outcome.errors.append("ended")
        except grpc.aio.AioRpcError as exc:
            self._outcome.errors.append(repr(exc)[:500])
        finally:
            if not begun.done():
                begun.set_result(None)
            stream.cancel()


async def _first(opening: set["asyncio.Future[None]"]) -> set["asyncio.Future[None]"]:
    """Wait until one is accepted, and return the others."""
    done, rest = await asyncio.wait(opening, timeout=_OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        raise TimeoutError(f"none of {len(rest)} streams was accepted within {_OPEN_TIMEOUT_S:.0f} s")
    return rest
