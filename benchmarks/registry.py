"""The comparisons by name, in the order of the table."""

from collections.abc import Callable

from benchmarks.compare import Result
from benchmarks.lab import Lab

Case = Callable[[Lab], list[Result]]
CASES: dict[str, Case] = {}
QUICK: list[str] = []
"""Those of a quick run."""


def case(name: str, *, is_quick: bool = False) -> Callable[[Case], Case]:
    """Enter a comparison under a name; its docstring says what is compared."""

    def enter(function: Case) -> Case:
        CASES[name] = function
        if is_quick:
            QUICK.append(name)
        return function

    return enter
