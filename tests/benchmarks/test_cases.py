"""All comparisons of the table are there."""

from benchmarks import cases
from benchmarks.registry import CASES, QUICK

# In the order of the table.
_NAMES = [
    "parts",
    "turn10",
    "turn50",
    "long",
    "throughput",
    "workers",
    "stream",
    "first-delta",
    "rest",
    "gateways",
    "history",
    "indexes",
    "open-streams",
    "start",
    "overload",
    "rivals",
]


def test_every_comparison_is_registered_in_the_order_of_the_table() -> None:
    assert cases
    assert list(CASES) == _NAMES


def test_a_quick_run_takes_some_of_them() -> None:
    assert set(QUICK) < set(CASES)
    assert "turn10" in QUICK


def test_every_comparison_says_what_it_compares() -> None:
    assert all(case.__doc__ for case in CASES.values())
