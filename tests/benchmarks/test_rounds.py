"""How many rounds a full run takes of each comparison."""

import pytest

from benchmarks.__main__ import _rounds


@pytest.mark.parametrize(
    ("now", "passed_s", "done", "left", "expected"),
    [(4, 100, 2, 14, 4), (4, 200, 2, 14, 3), (3, 300, 4, 12, 2), (2, 800, 8, 8, 2), (4, 900, 15, 1, 3)],
)
def test_a_slow_machine_takes_fewer_but_two_at_least(
    now: int, passed_s: float, done: int, left: int, expected: int
) -> None:
    assert _rounds(now, passed_s, done, left) == expected
