"""What hostile callers cost everybody else: `python -m benchmarks.attacks`.

Starts one real server with its default limits, the demo model and SQLite. A healthy caller sends a message every 50 ms
and reads a short history every 20 ms, each on a kept connection and timed from when it was due. Each attack is measured
in turns of calm and attack, the latter from when all attackers are there; memory is watched from the start. The
attackers run in a process of their own with a lower priority, so that what is measured is what the server does with
them, not who gets this machine's processors. `--real-time` puts all of them before what else the machine does.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from tests.support.attacks import ATTACKS, Attack, Tally, Target, besiege
from tests.support.server import ServerProcess, running_server

_SEND_EVERY_S = 0.05
_READ_EVERY_S = 0.02
_SESSION_SENDS = 20
_WATCH_S = 0.05
_GATHERING_S = 4.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024


class Caller:
    """A kept connection that sends JSON and reads JSON."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call, and return the answer; raises RuntimeError if it is not 200."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._target.host, self._target.port, limit=8 * _MIB)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer_head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer_head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if not answer_head.startswith(b"http/1.1 200 "):
            raise RuntimeError(f"{method} {path}: {answer}")
        return answer

    def close(self) -> None:
        """Leave."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Calls:
    """Latencies of a healthy caller, in seconds, and how often it was not answered."""

    sends_s: list[float] = field(default_factory=list)
    reads_s: list[float] = field(default_factory=list)
    failures: int = 0


async def _sends(target: Target, calls: Calls) -> None:
    caller = Caller(target)
    session_id = ""

    async def send(number: int) -> None:
        nonlocal session_id
        if number % _SESSION_SENDS == 0:
            session_id = (await caller.call("POST", "/session"))["sessionId"]
        text = f"message {number}"
        body = {"sessionId": session_id, "message": text, "settings": {"model": "demo/echo"}}
        if (await caller.call("POST", "/chat", body))["response"] != text:
            raise RuntimeError("another answer")

    await _paced(caller, send, _SEND_EVERY_S, calls.sends_s, calls)


async def _reads(target: Target, calls: Calls) -> None:
    caller = Caller(target)
    session_id = (await caller.call("POST", "/session"))["sessionId"]
    await caller.call("POST", "/chat", {"sessionId": session_id, "message": "hello"})

    async def read(_: int) -> None:
        if len((await caller.call("GET", f"/session/{session_id}/history"))["history"]) != 2:
            raise RuntimeError("another history")

    await _paced(caller, read, _READ_EVERY_S, calls.reads_s, calls)


async def _paced(caller: Caller, call: Any, every_s: float, latencies_s: list[float], calls: Calls) -> None:
    due = time.monotonic()
    try:
        for number in range(sys.maxsize):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                await call(number)
            except (OSError, EOFError, RuntimeError):
                calls.failures += 1
                caller.close()
            latencies_s.append(time.monotonic() - due)
            due = max(due + every_s, time.monotonic() - 1.0)
    finally:
        caller.close()


@dataclass
class Usage:
    """What a process used while it was watched."""

    rss_start_mib: float = 0.0
    rss_peak_mib: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / _MIB


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.asynccontextmanager
async def _watched(pid: int) -> AsyncIterator[Usage]:
    usage = Usage(rss_start_mib=_rss_mib(pid), rss_peak_mib=_rss_mib(pid), cpu_s=-_cpu_s(pid), wall_s=-time.monotonic())

    async def watch() -> None:
        while True:
            usage.rss_peak_mib = max(usage.rss_peak_mib, _rss_mib(pid))
            await asyncio.sleep(_WATCH_S)

    watching = asyncio.ensure_future(watch())
    try:
        yield usage
    finally:
        watching.cancel()
        usage.cpu_s += _cpu_s(pid)
        usage.wall_s += time.monotonic()


class Attackers:
    """A process that attacks when told."""

    def __init__(self, target: Target) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_attack_on_demand, args=(theirs, target), daemon=True)
        self._process.start()

    def start(self, name: str) -> None:
        """Begin an attack."""
        self._pipe.send(name)

    async def stop(self) -> Tally:
        """End it, and return what the attackers got."""
        self._pipe.send("")
        tally: Tally = await asyncio.to_thread(self._pipe.recv)
        return tally

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)


def _attack_on_demand(pipe: Connection, target: Target) -> None:
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    else:
        os.nice(10)
    asyncio.run(_attack(pipe, {attack.name: attack for attack in ATTACKS}, target))


async def _attack(pipe: Connection, attacks: dict[str, Attack], target: Target) -> None:
    while True:
        try:
            name = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        tally = Tally()
        besieging = asyncio.ensure_future(besiege(attacks[name], target, tally))
        await asyncio.to_thread(pipe.recv)
        besieging.cancel()
        await asyncio.wait([besieging])
        pipe.send(tally)


@dataclass
class Phase:
    """What all turns of one kind came to."""

    send_p50_ms: float
    send_p99_ms: float
    read_p50_ms: float
    read_p99_ms: float
    calls: int
    failures: int
    cpu_percent: float
    rss_growth_mib: float


def _phase(calls: Calls, usages: Sequence[Usage]) -> Phase:
    send, read = (quantiles(values, n=100, method="inclusive") for values in (calls.sends_s, calls.reads_s))
    return Phase(
        send_p50_ms=send[49] * 1000,
        send_p99_ms=send[98] * 1000,
        read_p50_ms=read[49] * 1000,
        read_p99_ms=read[98] * 1000,
        calls=len(calls.sends_s) + len(calls.reads_s),
        failures=calls.failures,
        cpu_percent=100 * sum(usage.cpu_s for usage in usages) / sum(usage.wall_s for usage in usages),
        rss_growth_mib=max(usage.rss_peak_mib - usage.rss_start_mib for usage in usages),
    )


@dataclass
class Result:
    """One attack."""

    attack: str
    attackers: int
    pause_s: float
    outcomes: dict[str, int]
    longest_s: dict[str, float]
    before: Phase
    during: Phase


async def measure(attack: Attack, attackers: Attackers, target: Target, pid: int, seconds: float, turns: int) -> Result:
    """Measure one attack in turns of calm and attack."""
    phases: dict[bool, tuple[Calls, list[Usage]]] = {False: (Calls(), []), True: (Calls(), [])}
    outcomes: Counter[str] = Counter()
    longest_s: dict[str, float] = {}
    for attacked in (False, True) * turns:
        calls, usages = phases[attacked]
        async with _watched(pid) as usage:
            if attacked:
                attackers.start(attack.name)
                await asyncio.sleep(_GATHERING_S)
            healthy = [asyncio.ensure_future(_sends(target, calls)), asyncio.ensure_future(_reads(target, calls))]
            await asyncio.sleep(seconds)
            for task in healthy:
                task.cancel()
            await asyncio.wait(healthy)
        usages.append(usage)
        if attacked:
            tally = await attackers.stop()
            outcomes += tally.outcomes
            longest_s |= {name: max(s, longest_s.get(name, 0.0)) for name, s in tally.longest_s.items()}
            await asyncio.sleep(1.0)
    before, during = (_phase(*phases[attacked]) for attacked in (False, True))
    return Result(attack.name, attack.attackers, attack.pause_s, dict(outcomes), longest_s, before, during)


async def _prepare(server: ServerProcess) -> Target:
    """Make the long history and the long answer that some attackers ask for."""
    parts = urlsplit(server.http_url)
    target = Target(parts.hostname or "", parts.port or 0)
    caller = Caller(target)
    session_id = (await caller.call("POST", "/session"))["sessionId"]
    turn_ids = []
    for kib in (250, 250, 250, 250, 1000):
        body = {"message": "long", "settings": {"model": f"demo/big:kib={kib}"}, "view": "FULL"}
        answer = await caller.call("POST", f"/v1/sessions/{session_id}/messages", body)
        turn_ids.append(answer["turn"]["turnId"])
    caller.close()
    return Target(target.host, target.port, session_id, turn_ids[-1])


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    lines = [
        "| attack | attackers | they got | p99 of a send, ms | p99 of a read, ms | memory, MiB | CPU, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        before, during = result.before, result.during
        got = ", ".join(
            f"{count:,} {name}" + (f" ({result.longest_s[name]:.0f} s)" if result.longest_s[name] > 1 else "")
            for name, count in sorted(result.outcomes.items(), key=lambda item: -item[1])
        )
        cells = (
            result.attack,
            f"{result.attackers:,}",
            got,
            f"{before.send_p99_ms:.1f} → {during.send_p99_ms:.1f} ({during.send_p99_ms / before.send_p99_ms:.2f}x)",
            f"{before.read_p99_ms:.1f} → {during.read_p99_ms:.1f} ({during.read_p99_ms / before.read_p99_ms:.2f}x)",
            f"+{during.rss_growth_mib:.0f}",
            f"{before.cpu_percent:.0f} → {during.cpu_percent:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


async def _run(options: argparse.Namespace) -> list[Result]:
    chosen = [attack for attack in ATTACKS if not options.only or any(part in attack.name for part in options.only)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            target = await _prepare(server)
            attackers = Attackers(target)
            try:
                for attack in chosen:
                    print(f"{attack} ...", file=sys.stderr, flush=True)
                    results.append(await measure(attack, attackers, target, server.pid, options.seconds, options.turns))
            finally:
                attackers.close()
    return results


def main() -> int:
    """Print the table; return 1 if a healthy caller was not answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a turn")
    parser.add_argument("--turns", type=int, default=2, help="turns of calm, and as many of attack")
    parser.add_argument("--only", action="append", default=[], help="attacks with this in their name")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--real-time", action="store_true", help="run before all else on this machine; needs the right")
    options = parser.parse_args()
    if options.real_time:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    load = os.getloadavg()[0]
    results = asyncio.run(_run(options))
    print(table(results))
    if options.json:
        about = {"python": platform.python_version(), "cpus": os.cpu_count(), "load_before": load}
        options.json.write_text(json.dumps({**about, "results": [asdict(result) for result in results]}, indent=1))
    failures = sum(phase.failures for result in results for phase in (result.before, result.during))
    print(f"{failures} calls of the healthy caller failed", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
