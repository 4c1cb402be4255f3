"""REST against gRPC."""

from typing import Any

from benchmarks import turns
from benchmarks.compare import Bar, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.load import Kind
from benchmarks.registry import case
from benchmarks.rounds import Turns


@case("rest")
def rest(lab: Lab) -> list[Result]:
    """POST /chat against gRPC's SendMessage, at one server."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    how: dict[str, Any] = {"context_turns": 10, "ops": 320}
    samples = interleave(
        {
            "POST /chat": Turns(lab, ours, database, call=turns.post, kind=Kind.POST, **how),
            "SendMessage": Turns(lab, ours, database, **how),
        },
        lab.size.rounds,
    )
    bars = [Bar("CPU of POST /chat against SendMessage", cpu_ratio(samples, "POST /chat", "SendMessage"), 0.85)]
    return [Result("REST against gRPC, 10 turns of context, MongoDB", figures_of(samples), bars)]
