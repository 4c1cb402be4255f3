"""The newest page of a history, by the session's length."""

from benchmarks import preload, turns
from benchmarks.compare import Bar, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.measure import Sample
from benchmarks.plans import Kind, Plan
from benchmarks.registry import case

_LANES = 16
_SESSIONS = 4


@case("history")
def history(lab: Lab) -> list[Result]:
    """GetHistory of the newest 10 messages, in sessions of 10,000 messages and of 10."""
    database = lab.new_database()
    ours = lab.start_service(database.name)
    long, short = (preload.sessions(database, _SESSIONS, length) for length in (5000, 5))
    count = lab.size.ops(320)

    def at(sessions: list[str]) -> Sample:
        calls = [turns.read(session, "") for session in sessions]
        lanes = [[calls[number % len(calls)]] * (count // _LANES) for number in range(_LANES)]
        return lab.sample(Plan(Kind.UNARY, ours.grpc, lanes), ours)

    samples = interleave({"10,000 messages": lambda _: at(long), "10 messages": lambda _: at(short)}, lab.size.rounds)
    bars = [Bar("CPU of a page, 10,000 messages against 10", cpu_ratio(samples, "10,000 messages", "10 messages"), 1.1)]
    return [Result("GetHistory, newest page of 10, MongoDB", figures_of(samples), bars)]
