"""The arithmetic behind the table."""

import math
import os
import time

import pytest

from benchmarks.compare import Bar, Contender, figures_of, in_turn, interleave
from benchmarks.measure import Sample, cpu_s, paired_ratio, percentile, tree


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.99, 5.0), ([1, 2, 3], 0.5, 2), ([4, 1, 3, 2], 0.5, 2.5), ([0, 10], 0.99, 9.9), ([1, 2, 3], 1.0, 3)],
)
def test_percentile_lies_between_its_neighbours(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_paired_ratio_compares_within_a_round() -> None:
    # The machine was ten times slower in the second round, for both.
    assert paired_ratio([1.0, 10.0, 1.2], [2.0, 20.0, 2.0]) == pytest.approx(0.5)


def test_paired_ratio_refuses_rounds_without_a_partner() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def _noting(order: list[tuple[str, int]], name: str) -> Contender:
    def measure(number: int) -> Sample:
        order.append((name, number))
        return Sample(ops=1, wall_s=1.0, cpu_s=1.0)

    return measure


def test_every_contender_runs_once_a_round_and_each_is_first_in_turn() -> None:
    order: list[tuple[str, int]] = []
    samples = interleave({"a": _noting(order, "a"), "b": _noting(order, "b")}, 2)
    assert order == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert {name: len(runs) for name, runs in samples.items()} == {"a": 2, "b": 2}


def test_processes_of_a_contender_take_turns_and_all_are_warm() -> None:
    order: list[tuple[str, int]] = []
    interleave({"a": in_turn(_noting(order, "first"), _noting(order, "second"))}, 5)
    assert sorted(order[:2]) == [("first", -1), ("second", -1)]
    assert [name for name, _ in order[2:]] == ["first", "first", "second", "second", "first"]


def test_figures_are_medians_of_rounds_and_percentiles_of_all_calls() -> None:
    rounds = [
        Sample(ops=100, wall_s=1.0, cpu_s=cpu, latencies_ms=[ms] * 100) for cpu, ms in ((0.1, 1), (0.9, 2), (0.2, 3))
    ]
    [figures] = figures_of({"ours": rounds})
    assert figures.cpu_ms == pytest.approx(2.0)
    assert (figures.p50_ms, figures.p99_ms) == (2, 3)


def test_a_load_generator_without_rest_is_told() -> None:
    [figures] = figures_of({"ours": [Sample(ops=1, wall_s=1.0, cpu_s=1.0, busy={"load": 0.97, "provider": 0.2})]})
    assert figures.note == "load saturated (97% of a core)"


@pytest.mark.parametrize(
    ("bar", "is_met"),
    [
        (Bar("a", 1.2, 1.3), True),
        (Bar("a", 1.4, 1.3), False),
        (Bar("a", 3.6, 3.5, at_least=True), True),
        (Bar("a", 3.4, 3.5, at_least=True), False),
        (Bar("a", math.nan, 1.3), False),
        (Bar("a", 3.4), None),
    ],
)
def test_a_bar_is_met_only_by_a_value_on_its_side(bar: Bar, is_met: bool | None) -> None:
    assert bar.is_met is is_met


def test_cpu_of_a_process_grows_with_its_work() -> None:
    before = cpu_s(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 <= cpu_s(os.getpid()) - before <= 5.0


def test_a_tree_begins_with_its_root() -> None:
    assert tree(os.getpid())[0] == os.getpid()
