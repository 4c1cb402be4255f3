"""What befalls a run: drawn once from its seed, then asked at every operation of the store."""

from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import NamedTuple

from tests.simulation.clock import ticks

READS = ("session", "turn_by_request", "turn_by_id", "turns", "turn_texts", "running_sessions")
# Those that manage and remove sessions; never in focus, as few runs have them.
MANAGING_READS = ("due_sessions", "due_purge_records")
WRITES = ("accept", "checkpoint", "release", "end", "archive", "take_over", "request_cancel")


class Outcome(Enum):
    """What the process hears."""

    ANSWER = auto()
    UNAVAILABLE = auto()
    UNCERTAIN = auto()
    NOTHING = auto()


class Fate(NamedTuple):
    """What becomes of one operation. Delays in ticks from its start; apply None = never, again = once more then.

    crash: the process dies at the moment of the answer, without hearing it.
    """

    apply: int | None
    outcome: Outcome
    answer: int
    again: int | None = None
    crash: bool = False

    def __str__(self) -> str:
        heard = "CRASH" if self.crash else self.outcome.name
        twice = f", again +{self.again}" if self.again is not None else ""
        return f"[{'never applied' if self.apply is None else f'applied +{self.apply}'}{twice}, {heard} +{self.answer}]"


@dataclass(frozen=True, slots=True)
class Outage:
    """The store cannot be reached, by one process or by all (process None)."""

    process: int | None
    begin: int
    end: int

    def holds(self, process: int, tick: int) -> bool:
        """Whether a process cannot reach the store at a tick."""
        return self.begin <= tick < self.end and self.process in (None, process)


class Manner(Enum):
    """How the operation in focus goes wrong, far more often than others."""

    LOST = auto()
    LATE = auto()
    SLOW = auto()


@dataclass(slots=True)
class Faults:
    """How bad a run is. `level` 0 = nothing goes wrong; every number is the share of operations.

    slow: share of operations that take long. focus: an operation that goes wrong far more often, and how.
    """

    level: int
    lost: float = 0.0
    crash: float = 0.0
    slow: float = 0.0
    focus: str = ""
    manner: Manner = Manner.LOST
    outages: tuple[Outage, ...] = ()
    lease: int = 0
    is_over: bool = False

    @classmethod
    def draw(cls, rng: Random, *, processes: int, until: int, lease: int) -> "Faults":
        """Draw the faults of a run that is bad until a tick. lease: what an owner has, in ticks."""
        level = rng.choice((0, 1, 1, 2, 2, 3))
        if level == 0:
            return cls(0, slow=rng.choice((0.0, 0.1)))
        outages = []
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            begin = rng.randrange(until)
            end = begin + rng.choice((ticks(0.5), lease * 3 // 4, lease, lease * 5 // 4, ticks(5)))
            outages.append(Outage(rng.choice((None, *range(processes))), begin, min(end, until)))
        return cls(
            level,
            lost=(0.02, 0.08, 0.25)[level - 1],
            crash=rng.choice((0.0, 0.0, 0.01, 0.03)) * level / 2,
            slow=rng.choice((0.02, 0.1)),
            focus=rng.choice((*READS, *WRITES, *WRITES, "", "", "")),
            manner=rng.choice(tuple(Manner)),
            outages=tuple(outages),
            lease=lease,
        )

    def fate(self, rng: Random, name: str, process: int, tick: int, limit: int) -> Fate:
        """Draw what becomes of an operation. limit: ticks after which its caller hears no more of it."""
        is_write, is_focus = name not in (*READS, *MANAGING_READS), name == self.focus and not self.is_over
        is_slow = rng.random() < (0.5 if is_focus and self.manner is Manner.SLOW else self.slow)
        apply, answer = _slow_delays(rng, self.level) if is_slow and not self.is_over else _delays(rng)
        whole = Fate(apply, Outcome.ANSWER, answer) if answer <= limit else Fate(apply, Outcome.UNCERTAIN, limit)
        if self.is_over or self.level == 0:
            return whole
        if any(outage.holds(process, tick) for outage in self.outages):
            outcome = Outcome.UNCERTAIN if is_write and rng.random() < 0.5 else Outcome.UNAVAILABLE
            return Fate(None, outcome, min(rng.choice((1, answer, limit)), limit))
        dice = rng.random()
        if dice < self.crash * (3 if is_focus else 1):
            late = apply + rng.choice((rng.randrange(ticks(8)), self.lease + rng.randrange(self.lease)))
            return Fate(rng.choice((None, apply, late)), Outcome.NOTHING, answer, crash=True)
        lost = 0.4 if is_focus and self.manner is not Manner.SLOW else self.lost
        if dice > 1 - lost:
            is_late = is_focus and self.manner is Manner.LATE
            return (
                _lose(rng, apply, min(answer, limit), limit, is_late=is_late) if is_write else _fail(rng, answer, limit)
            )
        if is_write and rng.random() < self.lost / 2:
            return whole._replace(again=answer + rng.randrange(ticks(4)))
        return whole


def _fail(rng: Random, answer: int, limit: int) -> Fate:
    return Fate(None, Outcome.UNAVAILABLE, min(rng.choice((answer, limit)), limit))


def _lose(rng: Random, apply: int, answer: int, limit: int, *, is_late: bool) -> Fate:
    """The answer to a write is lost: it was applied, or will be, or never."""
    kind = 3 if is_late else rng.randrange(6)
    if kind == 0:
        return Fate(None, Outcome.UNAVAILABLE, answer)
    if kind == 1:
        return Fate(None, Outcome.UNCERTAIN, rng.choice((answer, limit)))
    if kind == 2:
        return Fate(apply, Outcome.UNCERTAIN, limit)
    if kind == 3:
        late = answer + rng.choice((2, 10, ticks(1), ticks(4), ticks(8)))
        return Fate(late, Outcome.UNCERTAIN, rng.choice((answer, limit)))
    return Fate(apply, Outcome.UNCERTAIN, answer)


def _delays(rng: Random) -> tuple[int, int]:
    dice = rng.random()
    apply = 1 if dice < 0.6 else rng.randrange(1, 6)
    return apply, apply + (0 if dice < 0.5 else rng.randrange(1, 5))


def _slow_delays(rng: Random, level: int) -> tuple[int, int]:
    """At level 0 no lease can run out by them."""
    longest = ticks(0.9 if level else 0.25)
    apply = rng.randrange(1, longest)
    return apply, apply + rng.randrange(longest)
