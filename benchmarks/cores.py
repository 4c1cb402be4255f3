"""Which cores of the machine processes run on."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from benchmarks import measure
from benchmarks.processes import Server


@contextmanager
def apart(server: Server) -> Iterator[None]:
    """Give a server one core, and all else that was started here the others: as if it had a machine of its own.

    Otherwise callers who offer more take from the server what it could carry it with. With one core only, nothing.
    """
    cores = os.sched_getaffinity(0)
    own = {min(cores)}
    if cores > own:
        _bind(measure.tree(os.getpid()), cores - own)
        _bind(measure.tree(server.pid), own)
    try:
        yield
    finally:
        _bind(measure.tree(os.getpid()), cores)


def _bind(pids: Iterable[int], cores: set[int]) -> None:
    for pid in pids:
        with suppress(OSError):  # it, or one of its threads, has ended meanwhile
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cores)
