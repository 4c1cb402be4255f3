"""More than one process can carry."""

from typing import Any

from pymongo.database import Database

from benchmarks import cores, preload, turns
from benchmarks.compare import Bar, Figures, Result
from benchmarks.lab import Lab
from benchmarks.measure import percentile
from benchmarks.plans import Rush, RushOutcome
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.rounds import Turns

_FOR_S = 8.0
_THINK_S = 2.0
_TIMEOUT_S = 5.0


@case("overload")
def overload(lab: Lab) -> list[Result]:
    """Twice what the server can carry, open loop; ten times, with clients that honour RetryInfo."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    with cores.apart(ours):
        return [_measured(lab, ours, database)]


def _measured(lab: Lab, ours: Server, database: Database[dict[str, Any]]) -> Result:
    # Of the same sends: each to a session that the server does not know yet.
    peak_of = Turns(lab, ours, database, context_turns=1, ops=1200, each=1, warm=False, lanes=50, connections=16)
    peak_of(-1)
    peaks = [peak_of(number) for number in range(2)]
    peak = max(peaks, key=lambda sample: sample.per_s)
    for_s = max(2.0, _FOR_S * lab.size.scale)
    offered = {
        "2 x, open loop": Rush(
            ours.grpc,
            _calls(preload.sessions(database, int(2.5 * peak.per_s * for_s), 1)),
            for_s,
            per_s=2 * peak.per_s,
            timeout_s=_TIMEOUT_S,
        ),
        "10 x, clients that honour RetryInfo": Rush(
            ours.grpc,
            _calls(preload.sessions(database, int(10 * peak.per_s * _THINK_S), 1)),
            for_s,
            think_s=_THINK_S,
            timeout_s=_TIMEOUT_S,
        ),
    }
    result = Result("overload, MongoDB", [Figures("peak, closed loop", peak.cpu_ms, peak.per_s)])
    for name, rush in offered.items():
        before_s = sum(ours.cpu_by_pid_s().values())
        outcome: RushOutcome = lab.load.run(rush)
        used_s = sum(ours.cpu_by_pid_s().values()) - before_s
        _tell(result, name, outcome, used_s, peak.per_s, peak.cpu_ms)
    result.notes.append(f"An answer counts if it came within {_TIMEOUT_S:.0f} s. The server has a core of its own.")
    return result


def _calls(sessions: list[str]) -> list[tuple[str, bytes]]:
    return [turns.send(session, f"What about {number}?") for number, session in enumerate(sessions)]


def _tell(result: Result, name: str, outcome: RushOutcome, used_s: float, peak_per_s: float, turn_ms: float) -> None:
    answered, refused = len(outcome.answered_ms), len(outcome.refused_ms)
    result.figures.append(
        Figures(
            name,
            per_s=answered / outcome.wall_s,
            p50_ms=percentile(outcome.answered_ms, 0.5),
            p99_ms=percentile(outcome.answered_ms, 0.99),
            errors=len(outcome.errors),
            note=f"{refused} refused, half of them within {percentile(outcome.refused_ms, 0.5):.0f} ms, "
            f"{outcome.timed_out} timed out in {outcome.wall_s:.1f} s; load generator: "
            f"{outcome.cpu_s / outcome.wall_s:.0%} of a core, late by {percentile(outcome.lags_ms, 0.5):.0f} ms "
            f"(p99 {percentile(outcome.lags_ms, 0.99):.0f})",
        )
    )
    result.notes += sorted(set(outcome.errors))[:2]
    result.bars += [
        Bar(f"{name}: goodput against peak", answered / outcome.wall_s / peak_per_s, 0.8, at_least=True),
        Bar(f"{name}: refusals, p99", percentile(outcome.refused_ms, 0.99), 50.0, unit="ms"),
        Bar(f"{name}: refusals without a retry delay", outcome.refusals_without_delay, 0, unit=""),
    ]
    if refused:
        # What the turns took at the peak is taken off.
        spent_ms = max(0.0, used_s * 1000 - (answered + outcome.timed_out) * turn_ms) / refused
        result.bars.append(Bar(f"{name}: CPU of a refusal", spent_ms, 0.4, unit="ms"))
