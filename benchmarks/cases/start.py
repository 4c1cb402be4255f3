"""How long the start takes, and what an idle process holds."""

import time

from benchmarks import processes
from benchmarks.compare import Bar, Result
from benchmarks.lab import Lab
from benchmarks.measure import median
from benchmarks.registry import case

_IDLE_S = 3.0


@case("start", is_quick=True)
def start(lab: Lab) -> list[Result]:
    """Time from `python -m service` to SERVING with SQLite, and memory when idle."""
    times_s, memory_mib = [], []
    for number in range(max(2, lab.size.rounds)):
        folder = lab.folder / f"start-{number}"
        folder.mkdir()
        began = time.perf_counter()
        server = processes.start_service(folder)
        times_s.append(time.perf_counter() - began)
        try:
            # Whatever is loaded behind the start belongs to it.
            time.sleep(_IDLE_S)
            memory_mib.append(server.rss_mib())
        finally:
            server.stop()
    told = ", ".join(f"{seconds:.2f}" for seconds in times_s)
    return [
        Result(
            "python -m service, SQLite, built-in demo model",
            [],
            [
                Bar("start to SERVING", median(times_s), 0.8, unit="s"),
                Bar(f"memory, {_IDLE_S:.0f} s after", median(memory_mib), 120.0, unit="MiB"),
            ],
            [f"Starts: {told} s."],
        )
    ]
