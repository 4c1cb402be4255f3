"""The command line `chatsession`, run as a person or a script runs it: at a terminal, or through pipes."""

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ServerProcess

_PROGRAM = Path(sys.executable).with_name("chatsession")
_LIMIT_S = 20.0
_PRESS_AGAIN_S = 2.0
# The shell leads a session of its own, so the terminal that it opens sends it the signals of its keys.
_ON_TERMINAL = 'exec "$@" <"$TERMINAL" >"$TERMINAL" 2>&1'
CTRL_C = "\x03"
CTRL_D = "\x04"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


def _environ(server: ServerProcess | str, **more: str) -> dict[str, str]:
    target = server if isinstance(server, str) else server.grpc_target
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "CHATSESSION_SERVER": target, "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "error", **more}


async def _start(server: ServerProcess | str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        _PROGRAM, *arguments, env=_environ(server), stdin=pipe, stdout=pipe, stderr=pipe
    )


async def run(server: ServerProcess | str, *arguments: str, stdin: str = "") -> Ended:
    """Run a command to its end, with pipes."""
    process = await _start(server, *arguments)
    async with asyncio.timeout(_LIMIT_S):
        stdout, stderr = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def run_until_output_then_interrupt(server: ServerProcess, *arguments: str, stdin: str = "") -> Ended:
    """Run a command with pipes, and send it SIGINT at the first that it writes to stdout."""
    process = await _start(server, *arguments)
    assert process.stdin
    assert process.stdout
    async with asyncio.timeout(_LIMIT_S):
        process.stdin.write(stdin.encode())
        first = await process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, (first + stdout).decode(), stderr.decode())


class Terminal:
    """A command at a terminal. `screen` is all that was written, keys included, as they are echoed."""

    def __init__(self, process: asyncio.subprocess.Process, keyboard: int) -> None:
        self.screen = ""
        self._process = process
        self._keyboard = keyboard
        self._seen_chars = 0
        self._written = asyncio.Event()
        asyncio.get_running_loop().add_reader(keyboard, self._read)

    def _read(self) -> None:
        with suppress(OSError):
            self.screen += os.read(self._keyboard, 65536).decode(errors="replace")
        self._written.set()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._keyboard, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until a text is on the screen, behind the last one that was waited for."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                while (at := self.screen.find(text, self._seen_chars)) < 0:
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.screen[self._seen_chars :]!r}") from None
        self._seen_chars = at + len(text)

    async def leave_by(self, key: str) -> int:
        """Press a key at the prompt until the command ends, and return the exit code.

        A key that comes in the instant between the prompt and its reading is noticed with the next one only.
        """
        ending = asyncio.ensure_future(self._process.wait())
        async with asyncio.timeout(_LIMIT_S):
            while not ending.done():
                self.type(key)
                await asyncio.wait([ending], timeout=_PRESS_AGAIN_S)
        return ending.result()

    async def ends(self) -> int:
        """Wait for the end of the command and return its exit code."""
        async with asyncio.timeout(_LIMIT_S):
            return await self._process.wait()


@asynccontextmanager
async def at_terminal(server: ServerProcess, *arguments: str) -> AsyncIterator[Terminal]:
    """Run a command at a terminal of its own for the length of a block."""
    keyboard, screen = pty.openpty()
    try:
        environ = _environ(server, TERMINAL=os.ttyname(screen), TERM="xterm")
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", _ON_TERMINAL, "sh", _PROGRAM, *arguments, env=environ, start_new_session=True
        )
        try:
            yield Terminal(process, keyboard)
        finally:
            asyncio.get_running_loop().remove_reader(keyboard)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    finally:
        os.close(screen)
        os.close(keyboard)
