"""What streamed answers cost, and how soon their first text comes."""

from typing import Any

from benchmarks import preload, turns
from benchmarks.compare import Bar, Figures, Result, cpu_ratio, figures_of, in_turn, interleave
from benchmarks.lab import Lab
from benchmarks.measure import Sample, median, percentile
from benchmarks.plans import Kind
from benchmarks.registry import case
from benchmarks.rounds import Turns

_PACED = "bench:chunks=100,delay_ms=20"
_BURST = "bench:chunks=100"
_TALK = "bench:chunks=60,delay_ms=10,first_ms=200"
_LOAD_SHARE = 0.4


@case("stream", is_quick=True)
def stream(lab: Lab) -> list[Result]:
    """StreamMessage with 100 chunks, paced and in bursts, against a bare gRPC stream that passes the events on."""
    database = lab.new_database()
    servers = {
        "ours": [lab.start_service(database.name) for _ in range(2)],
        "bare stream": [lab.start_peer("bare", database.name) for _ in range(2)],
    }
    paced: dict[str, Any] = {"ops": 50, "each": 1, "lanes": 50, "call": turns.stream(_PACED)}
    burst: dict[str, Any] = {"ops": 160, "each": 4, "call": turns.stream(_BURST)}
    common: dict[str, Any] = {"context_turns": 3, "kind": Kind.STREAM}
    samples = interleave(
        {
            f"{who}, {how}": in_turn(*(Turns(lab, server, database, **common, **settings) for server in processes))
            for how, settings in (("paced", paced), ("in bursts", burst))
            for who, processes in servers.items()
        },
        lab.size.rounds,
    )
    bars = [
        Bar("CPU of a paced stream against the bare one", cpu_ratio(samples, "ours, paced", "bare stream, paced"), 1.2),
        Bar(
            "CPU of a stream in bursts against the bare one",
            cpu_ratio(samples, "ours, in bursts", "bare stream, in bursts"),
            0.8,
        ),
    ]
    notes = ["Paced: a chunk every 20 ms, 50 streams at once. The bare stream does without a store."]
    return [Result("StreamMessage, 100 chunks, MongoDB", figures_of(samples), bars, notes)]


@case("first-delta")
def first_delta(lab: Lab) -> list[Result]:
    """Time to the first delta at 40 % load, added over the provider's own."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    count = lab.size.ops(150)
    settings: dict[str, Any] = {"lanes": count, "each": 1}

    def at_ours(per_s: float) -> Sample:
        sessions = preload.sessions(database, count, 9)
        lab.warm(turns.plan(Kind.UNARY, ours.grpc, turns.send, sessions))
        call = turns.stream(_TALK)
        return lab.sample(turns.plan(Kind.STREAM, ours.grpc, call, sessions, start=1, per_s=per_s, **settings), ours)

    # So many in a second that the server uses this share of its core.
    costs_s = [at_ours(30.0).cpu_ms / 1000 for _ in range(2)]
    per_s = _LOAD_SHARE / costs_s[-1]

    def at_provider(_round: int) -> Sample:
        plan = turns.plan(Kind.SSE, lab.provider.http, turns.ask(_TALK), [""] * count, per_s=per_s, **settings)
        return lab.sample(plan, lab.provider)

    samples = interleave({"ours": lambda _: at_ours(per_s), "provider": at_provider}, lab.size.rounds)
    added = [
        [
            percentile(run.first_ms, share) - percentile(own.first_ms, share)
            for run, own in zip(*samples.values(), strict=True)
        ]
        for share in (0.5, 0.99)
    ]
    every = {name: [ms for run in runs for ms in run.first_ms] for name, runs in samples.items()}
    figures = [
        Figures(f"{name}: first text", p50_ms=percentile(firsts, 0.5), p99_ms=percentile(firsts, 0.99))
        for name, firsts in every.items()
    ]
    load = median(run.cpu_s / run.wall_s for run in samples["ours"])
    bars = [
        Bar("time to first delta added, p50", median(added[0]), 5.0, unit="ms"),
        Bar("time to first delta added, p99", median(added[1]), 20.0, unit="ms"),
    ]
    notes = [f"Random arrivals, {per_s:.0f} in a second; the server used {load:.0%} of a core.", f"Model: `{_TALK}`."]
    return [Result("StreamMessage, 10 turns of context, open loop", figures_of(samples) + figures, bars, notes)]
