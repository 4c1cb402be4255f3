"""The comparisons, in the order of the table; importing this enters all of them in the registry."""

# ruff: noqa: I001
from benchmarks.cases import parts, turn, stream, rest, history, indexes, open_streams, start, overload, rivals

__all__ = ["history", "indexes", "open_streams", "overload", "parts", "rest", "rivals", "start", "stream", "turn"]
