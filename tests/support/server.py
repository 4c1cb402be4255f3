"""Starts the real service as a process, with ports chosen by the system, and stops what it started."""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 45.0
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT", "VIRTUAL_ENV")
_LOG_LINES_KEPT = 20_000


class ServerProcess:
    """One running service. `log` holds its log lines, parsed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: deque[dict[str, Any]] = deque(maxlen=_LOG_LINES_KEPT)
        self.grpc_target = ""
        self.http_url = ""
        self.health = ""
        self._serving: asyncio.Event = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read_log())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.decode(errors="replace").rstrip()}
            self.log.append(entry)
            if entry.get("event") == "serving":
                self.grpc_target, self.http_url, self.health = entry["grpc"], entry["http"], entry["health"]
                self._serving.set()

    async def wait_until_serving(self) -> None:
        """Wait for the log line that tells the ports; raises with the log if the process ends first."""
        serving = asyncio.ensure_future(self._serving.wait())
        ended = asyncio.ensure_future(self._process.wait())
        await asyncio.wait((serving, ended), timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        ended.cancel()
        if not self._serving.is_set():
            raise RuntimeError(f"the service did not start: {list(self.log)[-20:]}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def stop_reading_log(self) -> None:
        """Close our end of what it logs to, as a log collector does that has died."""
        self._reading.cancel()
        # asyncio gives no other way to the pipe.
        self._process._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined]

    def pause(self) -> None:
        """Stop it from running, as a long pause of the machine would."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        self.send_signal(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        """End it in good order; returns its exit code."""
        self.send_signal(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        """Wait for its end, kill it after a bound, and return the exit code."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            code = await self._process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)
        return code


async def start_server(cwd: Path, **settings: str) -> ServerProcess:
    """Start the service in the folder `cwd` with these settings and no others, and wait until it serves.

    Ports are free ones unless given; without MONGO_URI and SQLITE_PATH the store is `chatsession.db` in `cwd`.
    """
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environ |= {
        "GRPC_ADDRESS": "127.0.0.1:0",
        "HTTP_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        cwd=cwd,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    server = ServerProcess(process)
    try:
        await server.wait_until_serving()
    except BaseException:
        await server.kill()
        raise
    return server


@asynccontextmanager
async def running_server(cwd: Path, **settings: str) -> AsyncIterator[ServerProcess]:
    """A service for the length of a block."""
    server = await start_server(cwd, **settings)
    try:
        yield server
    finally:
        server.resume()
        await server.stop()
