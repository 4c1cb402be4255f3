"""The comparisons by name, in the order of the table."""

from collections.abc import Callable

from benchmarks.compare import Result
from benchmarks.lab import Lab

Case = Callable[[Lab], list[Result]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Enter a comparison under a name; its docstring says what is compared."""

    def enter(function: Case) -> Case:
        CASES[name] = function
        return function

    return enter
