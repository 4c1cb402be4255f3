"""What the kernel knows of processes on this machine, from /proc."""

import os
from contextlib import suppress
from pathlib import Path

_ESTABLISHED = "01"


def children(pid: int) -> set[int]:
    """Processes that a process has started and that still run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def connections_of(pids: set[int], port: int) -> dict[int, int]:
    """How many connections to a port of this machine each process holds."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    return {pid: len(wanted & _open_files(pid)) for pid in pids}


def _inodes(port: int) -> set[str]:
    """Inodes of the sockets that are connected from `port` as their own, over IPv4 or as IPv4 in IPv6."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == _ESTABLISHED and int(row[1].rpartition(":")[2], 16) == port}


def _open_files(pid: int) -> set[str]:
    files = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            files.add(os.readlink(path))
    return files
