"""Ten thousand open streams at one process."""

from benchmarks import preload, turns
from benchmarks.compare import Bar, Figures, Result
from benchmarks.lab import Lab
from benchmarks.load import Load
from benchmarks.measure import percentile
from benchmarks.plans import EndCrowd, Kind, OpenCrowd, Outcome
from benchmarks.processes import Server
from benchmarks.registry import case

_STREAMS = 10_000
_AT_ONCE = 50
_SLOW = "bench:chunks=60,delay_ms=10000"
_MEANWHILE_PER_S = 20.0
_MEANWHILE = 200


@case("open-streams")
def open_streams(lab: Lab) -> list[Result]:
    """10,000 open streams with slow tokens at one process; reads and sends meanwhile."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    count = lab.size.ops(_STREAMS)
    busy = preload.sessions(database, count, 1)
    others = preload.sessions(database, lab.size.ops(_MEANWHILE), 5)
    lab.warm(turns.plan(Kind.UNARY, ours.grpc, turns.send, others))
    stream = turns.stream(_SLOW)
    calls = [stream(session, f"Tell me about {number}.") for number, session in enumerate(busy)]
    with Load() as holder:
        opened: Outcome = holder.run(OpenCrowd(ours.grpc, calls, _AT_ONCE, 20))
        reads = _meanwhile(lab, ours, turns.read, others)
        sends = _meanwhile(lab, ours, turns.send, others)
        memory_mib = ours.rss_mib()
        ended: Outcome = holder.run(EndCrowd())
    # What is left would take minutes.
    ours.kill()
    errors = len(ended.errors) + len(reads.errors) + len(sends.errors)
    bars = [
        Bar("errors", errors, 0, unit=""),
        Bar("memory", memory_mib, 600.0, unit="MiB"),
        Bar("reads meanwhile, p99", percentile(reads.latencies_ms, 0.99), 50.0, unit="ms"),
        Bar("sends meanwhile, p99", percentile(sends.latencies_ms, 0.99), 100.0, unit="ms"),
    ]
    figures = [
        Figures(name, p50_ms=percentile(run.latencies_ms, 0.5), p99_ms=percentile(run.latencies_ms, 0.99))
        for name, run in (("reads", reads), ("sends", sends))
    ]
    notes = [
        f"{count} streams on 20 connections, opened in {opened.wall_s:.0f} s, {_AT_ONCE} at once; a token every 10 s.",
        f"{_MEANWHILE_PER_S:.0f} reads, then as many sends, in a second; the provider answers sends at once.",
        *sorted(set(ended.errors + reads.errors + sends.errors))[:3],
    ]
    return [Result(f"{count} open streams, MongoDB", figures, bars, notes)]


def _meanwhile(lab: Lab, ours: Server, call: turns.MakeCall, sessions: list[str]) -> Outcome:
    settings = {"lanes": len(sessions), "per_s": _MEANWHILE_PER_S}
    outcome: Outcome = lab.load.run(turns.plan(Kind.UNARY, ours.grpc, call, sessions, start=1, **settings))
    return outcome
