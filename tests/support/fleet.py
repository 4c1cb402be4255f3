"""Several servers on one store that come and go, and connections to whichever are there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.door import Door
from tests.support.server import ServerProcess, start_server


class Fleet:
    """One server for each of the settings. An async context manager; ends what it started."""

    def __init__(self, cwd: Path, settings: Sequence[dict[str, str]]) -> None:
        self._cwd = cwd
        self._settings = settings
        self._retired: list[Door] = []
        self._dismissed: set[ServerProcess] = set()
        self.doors: list[Door] = []

    async def __aenter__(self) -> Self:
        servers = await asyncio.gather(*(self._start(number) for number in range(len(self._settings))))
        self.doors = [Door(server) for server in servers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for door in (*self.doors, *self._retired):
            await door.close()
        for door in self.doors:
            door.server.resume()
            await door.server.kill()

    async def _start(self, number: int) -> ServerProcess:
        return await start_server(self._cwd, **self._settings[number])

    def server(self, number: int) -> ServerProcess:
        """The process that is number `number` now."""
        return self.doors[number].server

    async def kill(self, number: int) -> None:
        """End a server as a crash does."""
        self._dismissed.add(self.server(number))
        await self.server(number).kill()

    async def stop(self, number: int) -> int:
        """End a server in good order, and return its exit code."""
        self._dismissed.add(self.server(number))
        return await self.server(number).stop()

    async def restart(self, number: int) -> Door:
        """Start a server anew, with new ports, in the place of one that has ended."""
        self._retired.append(self.doors[number])
        self.doors[number] = Door(await self._start(number))
        return self.doors[number]

    async def heal(self) -> None:
        """Let all servers run and be ready: start anew what has ended."""
        for door in self.doors:
            door.server.resume()
            if door.server in self._dismissed:
                await door.server.kill()  # a test that failed may have left it in the middle of stopping
        ended = [number for number, door in enumerate(self.doors) if _exit_code(door.server) is not None]
        await asyncio.gather(*(self.restart(number) for number in ended))
        await asyncio.gather(*(door.wait_until_ready() for door in self.doors))

    def assert_none_fell(self) -> None:
        """Fail if a server has ended that nobody has ended."""
        for door in (*self._retired, *self.doors):
            if door.server not in self._dismissed and (code := _exit_code(door.server)) is not None:
                self._dismissed.add(door.server)
                raise AssertionError(f"a server fell with exit code {code}: {list(door.server.log)[-20:]}")

    def log_of(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of this name, of all servers that run or ran."""
        return [entry for door in (*self._retired, *self.doors) for entry in door.server.log if entry["event"] == event]


def _exit_code(server: ServerProcess) -> int | None:
    return server._process.returncode
