"""Starts of the service that are meant to fail, and ports to start it on."""

import asyncio
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ROOT

_END_LIMIT_S = 20.0


@dataclass(frozen=True)
class EndedProcess:
    """How a process ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


async def run_to_end(cwd: Path, *arguments: str, stdin: bytes | None = None, **settings: str) -> EndedProcess:
    """Run this Python with these arguments and settings, and no others, until it ends; raises TimeoutError."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=cwd,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_END_LIMIT_S):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return EndedProcess(process.returncode, stdout.decode(), stderr.decode())


async def refused_start(cwd: Path, **settings: str) -> EndedProcess:
    """Start the service with settings with which it does not start."""
    ports = {"GRPC_ADDRESS": "127.0.0.1:0", "HTTP_ADDRESS": "127.0.0.1:0"}
    return await run_to_end(cwd, "-m", "service", **{**ports, "LOG_FORMAT": "json", **settings})


def free_port() -> int:
    """A port that nobody listens on, for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
