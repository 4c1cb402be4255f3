"""The real grpcurl, built with Go into `.cache/bin`, once."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ROOT

_VERSION = "v1.9.3"
_BIN = ROOT / ".cache" / "bin"
_BUILD_LIMIT_S = 240
_CALL_LIMIT_S = 20


class NoGrpcurlError(Exception):
    """There is no grpcurl, and none can be built; the message says why."""


@dataclass(frozen=True)
class Ended:
    """How a call of it ended."""

    code: int
    stdout: str
    stderr: str


def find_grpcurl() -> Path:
    """Return the program, built if it is not there yet; raises NoGrpcurlError."""
    _BIN.mkdir(parents=True, exist_ok=True)
    program = _BIN / f"grpcurl-{_VERSION}"
    with (_BIN / "grpcurl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build().rename(program)
    return program


def _build() -> Path:
    go = shutil.which("go")
    if go is None:
        raise NoGrpcurlError("no grpcurl for the tests: put `go` on PATH")
    command = [go, "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{_VERSION}"]
    environ = {**os.environ, "GOBIN": str(_BIN)}
    built = subprocess.run(
        command, cwd="/", env=environ, capture_output=True, text=True, timeout=_BUILD_LIMIT_S, check=False
    )
    if built.returncode:
        raise NoGrpcurlError(f"grpcurl cannot be built: {built.stderr[-500:]}")
    return _BIN / "grpcurl"


async def run_grpcurl(program: Path, target: str, *arguments: str, data: str = "") -> Ended:
    """Run it against a server without TLS."""
    options = ["-plaintext", *(["-d", data] if data else [])]
    process = await asyncio.create_subprocess_exec(
        program, *options, target, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_CALL_LIMIT_S):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())
