"""Starts servers as real processes, waits until they serve, and ends them; their logs go to files."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import measure

ROOT = Path(__file__).parents[1]
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.005
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG")


class NotStartedError(Exception):
    """A server did not come up; the message ends with its log."""


class Server:
    """A running server with all its processes."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.grpc = ""
        self.http = ""

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._process.pid

    def cpu_by_pid_s(self) -> dict[int, float]:
        """Return the CPU time of each of its processes."""
        return {pid: measure.cpu_s(pid) for pid in measure.tree(self.pid)}

    def rss_mib(self) -> float:
        """Return the memory of all its processes."""
        return sum(map(measure.rss_mib, measure.tree(self.pid)))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match in what it has printed; raises NotStartedError."""
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            if found := re.search(pattern, self._log.read_text(errors="replace")):
                return found
            if self._process.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise NotStartedError(self._log.read_text(errors="replace")[-2000:])

    def wait_for_port(self, port: int) -> None:
        """Return when something listens there; raises NotStartedError."""
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(_POLL_S)
        raise NotStartedError(self._log.read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """End it at once."""
        for pid in measure.tree(self.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it in good order, or at once if that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()


def start(command: Sequence[str], folder: Path, *, name: str, settings: Mapping[str, str] | None = None) -> Server:
    """Start a command in a folder with these settings and no others of ours."""
    environ = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    environ |= {"PYTHONPATH": str(ROOT), **(settings or {})}
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    return Server(process, log)


def start_module(module: str, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> Server:
    """Start a module of ours that prints its port when it serves; two ports are of gRPC and of HTTP."""
    server = start([sys.executable, "-m", module, *arguments], folder, name=module, settings=settings)
    try:
        ports = server.wait_for(r"(?m)^(\d+)( \d+)?\n").group().split()
    except BaseException:
        server.stop()
        raise
    server.grpc = f"127.0.0.1:{ports[0]}"
    server.http = f"http://127.0.0.1:{ports[-1]}"
    return server


def start_service(folder: Path, **settings: str) -> Server:
    """Start the service with these settings, all others at their defaults."""
    workers = settings.get("WORKERS", "1") != "1"
    addresses = {name: f"127.0.0.1:{free_port() if workers else 0}" for name in ("GRPC_ADDRESS", "HTTP_ADDRESS")}
    server = start([sys.executable, "-m", "service"], folder, name="service", settings={**addresses, **settings})
    try:
        line = server.wait_for(r"\{.*\"event\":\"serving\".*\}\n").group()
        if workers:
            server.wait_for(rf"(?s)(\"event\":\"serving\".*){{{settings['WORKERS']}}}")
    except BaseException:
        server.stop()
        raise
    entry = json.loads(line)
    server.grpc, server.http = entry["grpc"], entry["http"]
    return server


def free_port() -> int:
    """Return a port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def allow_many_files() -> int:
    """Raise this process's limit of open files, which those that it starts inherit; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
