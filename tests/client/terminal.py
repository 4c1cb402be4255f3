"""The command line, run as a user would: through pipes, or in a terminal."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import chatsession

_LIMIT_S = 30.0
# Takes the terminal as its own, in a session of its own: then Ctrl-C there makes a signal here.
_IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_COMMAND = (sys.executable, "-W", "error", "-m", "chatsession")


@dataclass(frozen=True)
class Ran:
    """How a command ended. `err` has no colour, because it went into a pipe."""

    code: int
    out: str
    err: str


def environment(target: str) -> dict[str, str]:
    source = str(Path(chatsession.__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "LC_ALL")}
    return kept | {"CHATSESSION_SERVER": target, "PYTHONPATH": source, "TERM": "xterm"}


async def run(target: str, *arguments: str, stdin: str = "") -> Ran:
    """Run `chatsession` with pipes."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(target),
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ran(process.returncode or 0, out.decode(), err.decode())


class Terminal:
    """A terminal with `chatsession` in it. screen: everything that was shown, escape sequences included."""

    def __init__(self, process: asyncio.subprocess.Process, fd: int) -> None:
        self._process = process
        self._fd = fd
        self._arrived = asyncio.Event()
        self._seen = 0
        self.screen = ""

    def read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux says EIO when the other side is closed.
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._fd)
        self.screen += data.decode(errors="replace")
        self._arrived.set()

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    async def press_until(self, key: str, text: str) -> None:
        """Press a key, and again while the text does not come: Python's prompt sleeps through a signal that comes
        while it works on what was typed before, as a busy machine makes happen."""
        for _ in range(3):
            self.type(key)
            with suppress(AssertionError):
                return await self.expect(text, _LIMIT_S / 4)
        return await self.expect(text)

    async def expect(self, text: str, limit_s: float = _LIMIT_S) -> None:
        """Wait until the text is shown after what was expected before."""
        try:
            async with asyncio.timeout(limit_s):
                while text not in self.screen[self._seen :]:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} did not come; the screen: {self.screen!r}") from None
        self._seen = self.screen.index(text, self._seen) + len(text)

    async def exit_code(self) -> int:
        async with asyncio.timeout(_LIMIT_S):
            return await self._process.wait()


@asynccontextmanager
async def terminal(target: str, *arguments: str) -> AsyncIterator[Terminal]:
    """Run `chatsession` in a terminal of its own, so that Ctrl-C reaches it."""
    controller, terminal_fd = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _IN_TERMINAL,
        *_COMMAND,
        *arguments,
        stdin=terminal_fd,
        stdout=terminal_fd,
        stderr=terminal_fd,
        env=environment(target),
    )
    os.close(terminal_fd)
    shown = Terminal(process, controller)
    loop = asyncio.get_running_loop()
    loop.add_reader(controller, shown.read)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(controller)
        os.close(controller)
