"""Runs the clients of other languages by their own Makefiles. What they download stays in `.cache/`."""

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.server import ROOT

CACHE = ROOT / ".cache"
# Below the time limit of the tests, so that what was started is stopped here.
_TIMEOUT_S = 280.0
_LINES_SHOWN = 40
_MAVEN_REPOSITORY = CACHE / "m2"


def needs(client: str, *commands: str) -> list[pytest.MarkDecorator]:
    """The marks of a module that tests a client: skipped unless all its commands are there."""
    missing = [command for command in ("make", *commands) if not shutil.which(command)]
    reason = f"THE {client.upper()} CLIENT IS NOT TESTED: no {', '.join(missing)} on PATH"
    return [pytest.mark.skipif(bool(missing), reason=reason), pytest.mark.timeout(300)]


async def make(client: str, target: str, **variables: str) -> str:
    """Make a target of `clients/<client>`, with variables in its environment, and return what it prints.

    Fails the test with the end of the output; skips it if the packages that are needed cannot be downloaded.
    """
    async with asyncio.timeout(_TIMEOUT_S), _alone(client):
        command = ("make", "-C", str(ROOT / "clients" / client), f"PYTHON={sys.executable}")
        code, output = await run(*command, "deps")
        if code:
            pytest.skip(f"THE {client.upper()} CLIENT IS NOT TESTED: `make deps` failed:\n{_end(output)}")
        code, output = await run(*command, target, **variables)
    assert code == 0, f"make -C clients/{client} {target}:\n{_end(output)}"
    return output


@asynccontextmanager
async def _alone(client: str) -> AsyncIterator[None]:
    """Keep other test processes out of the client's folder."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"clients-{client}.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


async def jar(group: str, artifact: str, version: str) -> Path:
    """Return a program from Maven Central, downloaded if it is not there yet; skips the test if it cannot be."""
    path = _MAVEN_REPOSITORY.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")
    async with asyncio.timeout(_TIMEOUT_S), _alone("jars"):
        if not path.exists():
            code, output = await run(
                *("mvn", "--batch-mode", "--no-transfer-progress", f"-Dmaven.repo.local={_MAVEN_REPOSITORY}"),
                *("dependency:get", f"-Dartifact={group}:{artifact}:{version}", "-Dtransitive=false"),
            )
            if code:
                pytest.skip(f"{artifact.upper()} IS NOT TESTED: it cannot be downloaded:\n{_end(output)}")
    return path


async def run(*command: str, **variables: str) -> tuple[int, str]:
    """Run a program, with variables in its environment, and return its exit code and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        # With all that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def _end(output: str) -> str:
    return "\n".join(output.splitlines()[-_LINES_SHOWN:])
