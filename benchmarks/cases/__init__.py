"""The comparisons; importing this enters all of them in the registry."""

from benchmarks.cases import turn

__all__ = ["turn"]
