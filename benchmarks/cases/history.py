"""The newest page of a history, by the session's length."""

from benchmarks import preload, turns
from benchmarks.compare import Bar, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.measure import Sample
from benchmarks.plans import Kind, Plan
from benchmarks.registry import case

_SESSIONS = 4
_PER_S = 25.0


@case("history")
def history(lab: Lab) -> list[Result]:
    """GetHistory of the newest 10 messages, in sessions of 10,000 messages and of 10."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    long, short = (preload.sessions(database, _SESSIONS, length) for length in (5000, 5))
    count = lab.size.ops(100)

    def at(sessions: list[str]) -> Sample:
        lanes = [[turns.read(sessions[number % _SESSIONS], "")] for number in range(count)]
        return lab.sample(Plan(Kind.UNARY, ours.grpc, lanes, per_s=_PER_S), ours)

    samples = interleave({"10,000 messages": lambda _: at(long), "10 messages": lambda _: at(short)}, lab.size.rounds)
    bars = [Bar("CPU of a page, 10,000 messages against 10", cpu_ratio(samples, "10,000 messages", "10 messages"), 1.1)]
    notes = [
        f"Both at {_PER_S:.0f} pages in a second, which mongo-java-server can still do: it sorts the long session for "
        "each page, and a process that waits costs more for each call than one that is busy."
    ]
    return [Result("GetHistory, newest page of 10, MongoDB", figures_of(samples), bars, notes)]
