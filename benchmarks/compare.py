"""Contenders measured in turn, round by round, so that slow moments of the machine meet all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Sample, median, paired_ratio, percentile

Contender = Callable[[int], Sample]
"""Measures in the round of this number."""
Samples = dict[str, list[Sample]]
_SATURATED = 0.9


@dataclass(frozen=True)
class Bar:
    """One demand on the result. at_least: the value must not be below the limit, instead of not above.

    limit None: no demand, the figure is told.
    """

    what: str
    value: float
    limit: float | None = None
    at_least: bool = False
    unit: str = "x"

    @property
    def is_met(self) -> bool | None:
        """Whether the value is good enough; None without a limit."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Figures:
    """One contender's row."""

    name: str
    cpu_ms: float | None = None
    per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    note: str = ""


@dataclass
class Result:
    """What a comparison found."""

    title: str
    figures: list[Figures] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def in_turn(*processes: Contender) -> Contender:
    """Return a contender that measures two rounds at each of these processes in turn, as those of the same code differ.

    Two, so that of two contenders each is the first at each process. With four rounds, or eight, all count the same.
    """

    def measure(number: int) -> Sample:
        if number < 0:  # thrown away, but none may be cold afterwards
            return [process(number) for process in processes][-1]
        return processes[number // 2 % len(processes)](number)

    return measure


def interleave(contenders: Mapping[str, Contender], rounds: int) -> Samples:
    """Measure each contender once in each round, each time another first. A contender is given the round's number.

    A round before, numbered -1, is thrown away.
    """
    names = list(contenders)
    for measure in contenders.values():
        measure(-1)
    found: Samples = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(contenders[name](number))
    return found


def cpu_ratio(samples: Samples, ours: str, theirs: str) -> float:
    """Return the median of the paired ratios of CPU per operation."""
    return paired_ratio([s.cpu_ms for s in samples[ours]], [s.cpu_ms for s in samples[theirs]])


def rate_ratio(samples: Samples, ours: str, theirs: str) -> float:
    """Return the median of the paired ratios of operations per second."""
    return paired_ratio([s.per_s for s in samples[ours]], [s.per_s for s in samples[theirs]])


def figures_of(samples: Samples) -> list[Figures]:
    """Return a row for each contender: medians over the rounds, percentiles over all calls."""
    return [_figures(name, runs) for name, runs in samples.items()]


def _figures(name: str, runs: Sequence[Sample]) -> Figures:
    latencies = [ms for run in runs for ms in run.latencies_ms]
    return Figures(
        name,
        cpu_ms=median(run.cpu_ms for run in runs),
        per_s=median(run.per_s for run in runs),
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        errors=sum(run.errors for run in runs),
        note=", ".join(_saturated(runs)),
    )


def _saturated(runs: Sequence[Sample]) -> list[str]:
    """Say which of our own parts was busy all the time: then throughput and latency are its own."""
    shares = {name: median(run.busy[name] for run in runs) for name in runs[0].busy}
    return [f"{name} saturated ({share:.0%} of a core)" for name, share in shares.items() if share > _SATURATED]
