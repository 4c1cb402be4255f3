"""What a SendMessage turn costs, by the length of its context."""

from collections.abc import Callable
from typing import Any

from pymongo.database import Database

from benchmarks import preload, turns
from benchmarks.compare import Bar, Result, cpu_ratio, figures_of, interleave
from benchmarks.lab import Lab
from benchmarks.load import Plan
from benchmarks.measure import Sample
from benchmarks.processes import Server
from benchmarks.registry import case

_EACH = 4
# More than 50 turns take with MT-Bench's questions, so that the service gives the model as much as the others do.
_ROOMY = {"CONTEXT_TOKENS": "24000"}

Insert = Callable[[Database[dict[str, Any]], int, int], list[str]]
MakePlan = Callable[..., Plan]


class Turns:
    """Measures turns at one server: new sessions in each round, so that the context stays as long as it is said to be.

    warm: each session has had a turn here before, so that the server may know it.
    """

    def __init__(
        self,
        lab: Lab,
        server: Server,
        database: Database[dict[str, Any]],
        *,
        insert: Insert = preload.sessions,
        plan: MakePlan = turns.send,
        context_turns: int,
        ops: int,
        warm: bool = True,
    ) -> None:
        self._lab = lab
        self._server = server
        self._database = database
        self._insert = insert
        self._plan = plan
        self._target = server.grpc if plan is turns.send else server.http
        self._context_turns = context_turns
        self._each = _EACH if warm else 1
        self._sessions = max(1, lab.size.ops(ops) // self._each)
        self._warm = warm

    def __call__(self, _round: int) -> Sample:
        # The turn that warms counts, and so does half of those measured.
        before = max(0, self._context_turns - 1 - self._each // 2) if self._warm else self._context_turns
        sessions = self._insert(self._database, self._sessions, before)
        if self._warm:
            self._lab.warm(self._plan(self._target, sessions, each=1))
        return self._lab.sample(self._plan(self._target, sessions, each=self._each, start=1), self._server)


@case("turn10")
def turn10(lab: Lab) -> list[Result]:
    """SendMessage with 10 turns of context, warm, MongoDB."""
    return [_against_peers(lab, 10, ops=240, bars=_bars10)]


@case("turn50")
def turn50(lab: Lab) -> list[Result]:
    """SendMessage with 50 turns of context, warm, MongoDB."""
    return [_against_peers(lab, 50, ops=120, bars=_bars50)]


def _against_peers(lab: Lab, context_turns: int, *, ops: int, bars: Callable[[Any], list[Bar]]) -> Result:
    database = lab.new_database()
    ours = lab.start_service(database.name, **_ROOMY)
    seed = lab.start_seed_style(database.name)

    def at(server: Server, turns_: int = context_turns, **how: Any) -> Turns:
        return Turns(lab, server, database, context_turns=turns_, ops=ops, **how)

    contenders: dict[str, Callable[[int], Sample]] = {"ours": at(ours)}
    if context_turns == 10:
        contenders["bare handler"] = at(lab.start_bare(database.name))
        contenders["bare handler, whole answers"] = at(lab.start_bare(database.name, "--whole"))
    else:
        contenders["ours, 10 turns"] = at(ours, 10)
    contenders["seed-style"] = at(seed, insert=preload.seed_style, plan=turns.post)
    for contender in contenders.values():
        contender(-1)
    samples = interleave(contenders, lab.size.rounds)
    return Result(f"SendMessage, {context_turns} turns of context, warm, MongoDB", figures_of(samples), bars(samples))


def _bars10(samples: Any) -> list[Bar]:
    return [
        Bar("CPU a turn against the bare handler", cpu_ratio(samples, "ours", "bare handler"), 1.3),
        Bar(
            "the same, the bare handler asking for whole answers",
            cpu_ratio(samples, "ours", "bare handler, whole answers"),
        ),
        Bar("CPU a turn against seed-style", cpu_ratio(samples, "ours", "seed-style"), 1 / 4),
    ]


def _bars50(samples: Any) -> list[Bar]:
    return [
        Bar("CPU a turn against seed-style", cpu_ratio(samples, "ours", "seed-style"), 1 / 10),
        Bar("CPU a turn, 50 turns of context against 10", cpu_ratio(samples, "ours", "ours, 10 turns"), 1.1),
    ]
