"""What a SendMessage turn costs, by the length of its context."""

from collections.abc import Callable
from typing import Any

from pymongo.database import Database

from benchmarks import preload, store_calls, turns
from benchmarks.compare import Bar, Contender, Result, cpu_ratio, figures_of, in_turn, interleave, rate_ratio
from benchmarks.lab import Lab
from benchmarks.measure import Sample
from benchmarks.plans import Kind, Plan
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.rounds import Turns

# More than 50 turns take with MT-Bench's questions, so that the service gives the model as much as the others do.
_ROOMY = {"CONTEXT_TOKENS": "24000"}
_ROOMY_NOTE = "CONTEXT_TOKENS=24000, so that all turns are given to the model, as by the peers."
_LONG_TURNS = 5000
_LONG_SESSIONS = 8


@case("turn10", is_quick=True)
def turn10(lab: Lab) -> list[Result]:
    """SendMessage with 10 turns of context, warm, MongoDB."""
    calls = store_calls.count(lab)
    options = [] if calls["find sessions"] else ["--remember"]
    database = lab.new_database()
    how: dict[str, Any] = {"context_turns": 10, "ops": 160}

    def twice(start: Callable[[], Server]) -> Contender:
        return in_turn(*(Turns(lab, start(), database, **how) for _ in range(2)))

    samples = interleave(
        {
            "ours": twice(lambda: lab.start_service(database.name)),
            "bare handler": twice(lambda: lab.start_peer("bare", database.name, *options)),
            "bare handler, whole answers": twice(lambda: lab.start_peer("bare", database.name, "--whole", *options)),
            "seed-style": _seed_style(lab, database, **how),
        },
        lab.size.rounds,
    )
    bars = [
        Bar("CPU a turn against the bare handler", cpu_ratio(samples, "ours", "bare handler"), 1.3),
        Bar("the same, if that asks for whole answers", cpu_ratio(samples, "ours", "bare handler, whole answers")),
        Bar("CPU a turn against seed-style", cpu_ratio(samples, "ours", "seed-style"), 1 / 4),
    ]
    notes = [
        f"Store calls of a turn of ours that is alone, counted on the wire: {store_calls.told(calls)}. The bare "
        f"handler {'reads' if calls['find sessions'] else 'does not read'} the session before each turn, makes two "
        "updates and one insert, each a call of its own."
    ]
    return [Result("SendMessage, 10 turns of context, warm, MongoDB", figures_of(samples), bars, notes)]


@case("turn50", is_quick=True)
def turn50(lab: Lab) -> list[Result]:
    """SendMessage with 50 turns of context, warm and cold, MongoDB."""
    database = lab.new_database()
    ours = lab.start_service(database.name, **_ROOMY)
    samples = interleave(
        {
            "ours, 50 turns": Turns(lab, ours, database, context_turns=50, ops=120),
            "ours, 50 turns, cold": Turns(lab, ours, database, context_turns=50, ops=120, warm=False, each=1),
            "ours, 10 turns": Turns(lab, ours, database, context_turns=10, ops=120),
            "seed-style, 50 turns": _seed_style(lab, database, context_turns=50, ops=120),
        },
        lab.size.rounds,
    )
    bars = [
        Bar("CPU a turn against seed-style", cpu_ratio(samples, "ours, 50 turns", "seed-style, 50 turns"), 1 / 10),
        Bar("CPU a turn, 50 turns against 10", cpu_ratio(samples, "ours, 50 turns", "ours, 10 turns"), 1.1),
        Bar("CPU a turn, cold against warm", cpu_ratio(samples, "ours, 50 turns, cold", "ours, 50 turns"), 1.5),
    ]
    notes = [_ROOMY_NOTE, "Cold: a session that this process has not seen, with 50 turns."]
    return [Result("SendMessage, 50 turns of context, MongoDB", figures_of(samples), bars, notes)]


@case("long")
def long(lab: Lab) -> list[Result]:
    """SendMessage in sessions of 10,000 messages, warm, MongoDB."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    sessions = preload.sessions(database, _LONG_SESSIONS, _LONG_TURNS)
    each = max(1, lab.size.ops(160) // _LONG_SESSIONS)

    def at_long(number: int) -> Sample:
        settings: Any = {"each": each, "start": number * each, "lanes": _LONG_SESSIONS}
        plan: Plan = turns.plan(Kind.UNARY, ours.grpc, turns.send, sessions, **settings)
        return lab.sample(plan, ours)

    lab.warm(turns.plan(Kind.UNARY, ours.grpc, turns.send, sessions, lanes=_LONG_SESSIONS))
    samples = interleave(
        {
            "ours, 10,000 messages": at_long,
            "ours, 10 turns": Turns(lab, ours, database, context_turns=10, ops=160, lanes=_LONG_SESSIONS),
        },
        lab.size.rounds,
    )
    ratio = cpu_ratio(samples, "ours, 10,000 messages", "ours, 10 turns")
    bars = [Bar("CPU a turn, 10,000 messages against 10 turns", ratio, 1.15)]
    notes = ["Of the long session the newest messages that fit CONTEXT_TOKENS are given to the model: about 48 turns."]
    return [Result("SendMessage in a session of 10,000 messages, warm, MongoDB", figures_of(samples), bars, notes)]


@case("throughput")
def throughput(lab: Lab) -> list[Result]:
    """Turns in a second with one process and 50 sessions at once."""
    database = lab.new_database()
    how: dict[str, Any] = {"context_turns": 10, "ops": 400, "each": 8, "lanes": 50, "connections": 8}
    samples = interleave(
        {
            "ours": Turns(lab, lab.start_service(database.name), database, **how),
            "seed-style": _seed_style(lab, database, **how),
        },
        lab.size.rounds,
    )
    ratio = rate_ratio(samples, "ours", "seed-style")
    notes = [f"Server, provider, load and database share {lab.cores} cores, so this says more where there are more."]
    bars = [Bar("turns in a second against seed-style", ratio, 3.5, at_least=True)]
    return [Result("one process, 50 sessions at once, 10 turns of context", figures_of(samples), bars, notes)]


@case("workers")
def workers(lab: Lab) -> list[Result]:
    """Two workers, against one with as much to do as each of them, and against one with as much to do as both."""
    database = lab.new_database()
    one = lab.start_service(database.name)
    two = lab.start_service(database.name, WORKERS="2")
    how: dict[str, Any] = {"context_turns": 10, "ops": 256, "fresh": True}
    samples = interleave(
        {
            "two workers": Turns(lab, two, database, lanes=64, connections=64, **how),
            "one worker, half the load": Turns(lab, one, database, lanes=32, connections=32, **how),
            "one worker, the whole load": Turns(lab, one, database, lanes=64, connections=64, **how),
        },
        lab.size.rounds,
    )
    shares = [_lesser_share(sample, two) for sample in samples["two workers"]]
    bars = [
        Bar(
            "CPU a turn, two workers against one with the load of each",
            cpu_ratio(samples, "two workers", "one worker, half the load"),
            1.1,
        ),
        Bar("against one with the load of both", cpu_ratio(samples, "two workers", "one worker, the whole load")),
        Bar("share of the worker with less to do, worst round", min(shares), 0.35, at_least=True, unit="of the CPU"),
    ]
    told = ", ".join(f"{share:.0%}" for share in shares)
    notes = [
        f"64 new connections in each round; shares of the worker with less to do: {told}. The kernel deals connections "
        "by chance: of 8 a worker gets fewer than 35 % in 29 % of all cases, of 64 in 2 %.",
        "Turns that are under way together share commands of the database, so a turn costs more where fewer are.",
    ]
    return [Result("two workers, 64 connections, 10 turns of context", figures_of(samples), bars, notes)]


def _seed_style(lab: Lab, database: Database[dict[str, Any]], **how: Any) -> Contender:
    server: Server = lab.start_seed_style(database.name)
    return Turns(lab, server, database, insert=preload.seed_style, call=turns.post, kind=Kind.POST, **how)


def _lesser_share(sample: Sample, supervisor: Server) -> float:
    workers = [used for pid, used in sample.cpu_by_pid_s.items() if pid != supervisor.pid]
    return min(workers) / sum(workers)
