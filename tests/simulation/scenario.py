"""What happens in a run besides faults of the store: who calls what and when, and what befalls the processes."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random

from service.domain.entities import ANONYMOUS, ModelSettings, OnBusy, OnDisconnect
from service.domain.lifetime import Lifetimes
from service.domain.runner import TurnLimits
from service.domain.sending import SendCommand
from tests.simulation.clients import Habits
from tests.simulation.clock import ticks

_BUSY = (OnBusy.QUEUE,) * 6 + (OnBusy.INTERRUPT,) * 3 + (OnBusy.REJECT,)


@dataclass(frozen=True, slots=True)
class Send:
    """A client that sends. expects: what it takes for the newest seq: `now`, `zero`, or nothing."""

    tick: int
    command: SendCommand
    habits: Habits
    expects: str


@dataclass(frozen=True, slots=True)
class Other:
    """A client that does something with a session: update, delete, undelete; or with a turn in it: watch, cancel, get,
    history. Or a purger that sweeps, and maybe a session that is created anew then: purge.
    """

    tick: int
    kind: str
    session: str


@dataclass(frozen=True, slots=True)
class Blow:
    """What befalls a process: crash, pause (for some ticks), stop (with some grace). Then another may start.

    process: its number; None = the one that runs a turn then.
    """

    tick: int
    kind: str
    process: int | None
    ticks: int
    successor: int | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run, but for what is drawn on the way. is_purge_slow: much may happen while a purger writes."""

    processes: int
    quiet: int
    limits: TurnLimits
    lifetimes: Lifetimes
    sessions: tuple[str, ...]
    sends: tuple[Send, ...]
    others: tuple[Other, ...]
    is_purge_slow: bool


def draw(rng: Random, of_life: Random) -> Scenario:
    """Draw a scenario. of_life: draws what befalls sessions, so that the rest of a seed is the same without it."""
    quiet = ticks(rng.choice((3, 5, 8)))
    limits = TurnLimits(
        lease_s=rng.choice((1.5, 2.0, 3.0)),
        beat_s=0.5,
        poll_s=0.25,
        turn_timeout_s=rng.choice((5.0, 10.0)),
        ending_patience_s=30.0,
        heartbeat_s=2.0,
        max_attempts=rng.choice((1, 2, 3)),
        max_waiting=rng.choice((2, 8, 8)),
    )
    sessions = ("s1", "s2") if rng.random() < 0.12 else ("s1",)
    sends = _draw_sends(rng, sessions, quiet)
    others = [
        Other(
            rng.randrange(quiet), rng.choice(("watch", "watch", "cancel", "cancel", "get", "history", "history")), "s1"
        )
        for _ in range(rng.randrange(5))
    ]
    lifetimes = _draw_lifetimes(of_life)
    if rng.random() < 0.1:
        tick = rng.randrange(rng.choice((quiet, ticks(0.5))))
        others.append(Other(tick, "delete", "s1"))
        others += _draw_undelete(of_life, tick, ticks(lifetimes.grace.total_seconds()))
        if rng.random() < 0.4:
            others.append(Other(tick + rng.randrange(rng.choice((ticks(3), 20))), "purge", "s1"))
    if of_life.random() < 0.15:
        spread = of_life.choice((10, ticks(1), quiet))
        others += [Other(of_life.randrange(spread), "update", "s1") for _ in range(of_life.randrange(1, 4))]
    if lifetimes.ttl or lifetimes.idle_ttl:
        others += [Other(of_life.randrange(quiet), "purge", "s1") for _ in range(8)]
    return Scenario(
        rng.choice((2, 2, 3)), quiet, limits, lifetimes, sessions, sends, tuple(others), of_life.random() < 0.5
    )


def _draw_lifetimes(rng: Random) -> Lifetimes:
    grace = timedelta(seconds=rng.choice((0.1, 0.5)))
    if rng.random() > 0.1:
        return Lifetimes(grace=grace)
    life = timedelta(seconds=rng.choice((0.5, 1, 2, 4)))
    return Lifetimes(ttl=life, grace=grace) if rng.random() < 0.4 else Lifetimes(idle_ttl=life, grace=grace)


def _draw_undelete(rng: Random, tick: int, grace: int) -> list[Other]:
    """Draw whether a deleted session is brought back, now and then just when purgers look at it."""
    dice = rng.random()
    if dice < 0.5:
        return []
    if dice < 0.75:
        return [Other(tick + rng.randrange(20), "undelete", "s1")]
    return [Other(tick + grace + rng.randrange(10), kind, "s1") for kind in ("undelete", "undelete", "purge", "purge")]


def _draw_sends(rng: Random, sessions: tuple[str, ...], quiet: int) -> tuple[Send, ...]:
    spread = rng.choice((8, 40, quiet // 2, quiet))
    sends: list[Send] = []
    for number in range(rng.randrange(2, 5)):
        dice = rng.random()
        request_id = "" if dice < 0.2 else f"r{number}"
        if dice > 0.93 and number:
            request_id = "r0"
        command = SendCommand(
            ANONYMOUS,
            rng.choice(sessions),
            f"m{number}",
            request_id,
            ModelSettings(seed=1) if rng.random() < 0.05 else ModelSettings(),
            None,
            rng.choice(_BUSY),
            OnDisconnect.CANCEL if rng.random() < 0.15 else OnDisconnect.CONTINUE,
        )
        expects = rng.choice(("", "", "", "", "", "now", "zero"))
        send = Send(rng.randrange(spread), command, _draw_habits(rng), expects)
        sends.append(send)
        if request_id and rng.random() < 0.4:
            delay = rng.choice((0, rng.randrange(8), rng.randrange(ticks(1)), rng.randrange(ticks(6))))
            sends.append(Send(send.tick + delay, command, _draw_habits(rng), expects))
    return tuple(sends)


def _draw_habits(rng: Random) -> Habits:
    return Habits(
        stream=rng.random() < 0.6,
        cap_s=rng.choice((30.0, 30.0, 30.0, 2.0, 0.5)),
        leave_s=rng.random() * rng.choice((3.0, 0.3)) if rng.random() < 0.3 else None,
        stays_away=rng.random() < 0.5,
    )


def draw_blows(rng: Random, scenario: Scenario, level: int, focus: str) -> list[Blow]:
    """Draw what befalls the processes; nothing but an orderly stop at level 0.

    focus: the operation that goes wrong most; what makes a process do it befalls it as well.
    """
    lease_s = scenario.limits.lease_s
    kinds = ("stop",) if level == 0 else ("crash", "crash", "pause", "pause", "stop")
    count = int(rng.random() < 0.25) if level == 0 else rng.choice((0, 1, 1, 2, 2, 3))
    blows = []
    if focus in ("take_over", "release"):
        kind = "stop" if focus == "release" else rng.choice(("crash", "pause"))
        span = 0 if focus == "release" else ticks(lease_s * 2)
        blows.append(Blow(rng.randrange(scenario.quiet // 2), kind, None, span, scenario.processes))
    for number in range(count):
        kind = rng.choice(kinds)
        spans = (0.0, 0.3, 2.0) if kind == "stop" else (0.3, lease_s * 0.7, lease_s * 1.3, lease_s * 2, lease_s * 3)
        successor = scenario.processes + number if rng.random() < 0.6 else None
        blows.append(
            Blow(
                rng.randrange(scenario.quiet),
                kind,
                rng.choice((None, None, rng.randrange(scenario.processes + number))),
                ticks(rng.choice(spans)),
                successor,
            )
        )
    return sorted(blows, key=lambda blow: blow.tick)
