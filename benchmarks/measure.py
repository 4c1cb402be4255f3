"""Arithmetic: CPU of processes, percentiles, medians of paired ratios."""

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# How Linux makes a clock's number of a process id (man 3 clock_getcpuclockid).
_PROCESS_CLOCK = 2
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """One measured run of one contender: how much was done, in which time, and what it cost its server.

    busy: CPU of the load generator and of the provider, as shares of one core, by name.
    """

    ops: int
    wall_s: float
    cpu_s: float
    latencies_ms: Sequence[float] = ()
    first_ms: Sequence[float] = ()
    errors: int = 0
    busy: dict[str, float] = field(default_factory=dict)
    cpu_by_pid_s: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_ms(self) -> float:
        """Server CPU for one operation."""
        return self.cpu_s * 1000 / self.ops

    @property
    def per_s(self) -> float:
        """Operations in a second."""
        return self.ops / self.wall_s


def cpu_s(pid: int) -> float:
    """Return the user and system time that a process has used, all its threads; of its children nothing.

    It is the sum that /proc/PID/stat tells in hundredths of a second, by the clock that Linux keeps for each process.
    """
    return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)


def rss_mib(pid: int) -> float:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / _MIB


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which this share (0 to 1) of the values lies, interpolated; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of values taken in the same round: slow moments of the machine cancel out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)
