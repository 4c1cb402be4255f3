"""The floor: what the bare parts of a turn cost, each alone."""

from dataclasses import replace

from benchmarks import preload, store_calls, turns
from benchmarks.compare import Bar, Contender, Result, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.measure import Sample, median
from benchmarks.peers.parts import SERVICE
from benchmarks.plans import Kind, Plan
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.rounds import Turns

_CALL, _POST = "no-op gRPC call", "post_streamed"


@case("parts")
def parts(lab: Lab) -> list[Result]:
    """The bare parts of a turn, each alone: their sum is the floor."""
    calls = store_calls.count(lab)
    database = lab.new_database()
    preload.sessions(database, 100, 10)
    ours = lab.start_service(database.name)
    bare = lab.start_peer("bare", database.name)
    server = lab.start_peer("parts", database.name)
    contenders: dict[str, Contender] = {
        "ours, a whole turn": Turns(lab, ours, database, context_turns=10, ops=160),
        _CALL: lambda _: lab.sample(turns.no_op(bare.grpc, lab.size.ops(2000)), bare),
        _POST: _part(lab, server, _POST, 1000),
        "post_whole": _part(lab, server, "post_whole", 1000),
        "find": _part(lab, server, "find", 1000),
        "update": _part(lab, server, "update", 1000),
        "insert": _part(lab, server, "insert", 1000),
    }
    samples = interleave(contenders, lab.size.rounds)
    # As many reads as ours makes in a warm turn.
    in_a_turn = {_CALL: 1, _POST: 1, "find": sum(n for name, n in calls.items() if name.startswith("find"))}
    in_a_turn |= {"update": 2, "insert": 1}
    floors = [
        sum(times * samples[name][number].cpu_ms for name, times in in_a_turn.items())
        for number in range(lab.size.rounds)
    ]
    ratio = median(sample.cpu_ms / floor for sample, floor in zip(samples["ours, a whole turn"], floors, strict=True))
    said = ", ".join(f"{times} {name}" for name, times in in_a_turn.items() if times)
    return [
        Result(
            "the bare parts of a turn, each alone",
            figures_of(samples),
            [
                Bar("sum of the parts", median(floors), unit="ms CPU"),
                Bar("CPU a turn, 10 turns of context, against the sum of the parts", ratio),
            ],
            [f"The sum is of: {said}."],
        )
    ]


def _part(lab: Lab, server: Server, name: str, count: int) -> Contender:
    count = lab.size.ops(count)
    plan = Plan(Kind.UNARY, server.grpc, [[(f"/{SERVICE}/{name}", str(count).encode())]], connections=1)

    def measure(_round: int) -> Sample:
        return replace(lab.sample(plan, server), ops=count, latencies_ms=())

    return measure
