"""The comparisons; importing this enters all of them in the registry."""

from benchmarks.cases import parts, turn

__all__ = ["parts", "turn"]
