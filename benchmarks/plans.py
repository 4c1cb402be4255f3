"""What the load generator is asked to do, and what it tells of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

Call = tuple[str, bytes]
"""A path and a body."""


class Kind(Enum):
    """How calls are made."""

    UNARY = "gRPC"
    STREAM = "gRPC server stream"
    POST = "HTTP POST of JSON"
    SSE = "HTTP POST answered by a provider's events"


@dataclass(frozen=True)
class Plan:
    """What to send: to `target` (host:port, or a URL), each call a path and a body.

    connections: of gRPC; lanes take them in turn. HTTP has one for each lane.
    fresh: make new connections, instead of taking those of plans before.
    per_s: calls begin at this rate on average, at random moments, whether or not those before are over; a call goes to
    the next lane whose turn it is. 0 = each lane makes its next call when the one before is over.
    """

    kind: Kind
    target: str
    lanes: Sequence[Sequence[Call]]
    connections: int = 4
    fresh: bool = False
    per_s: float = 0.0


@dataclass(frozen=True)
class OpenCrowd:
    """Open streams and keep them, `at_once` at the same time; all are accepted when the outcome comes."""

    target: str
    calls: Sequence[Call]
    at_once: int
    connections: int


@dataclass(frozen=True)
class EndCrowd:
    """Leave all those streams. The outcome tells each that had ended by itself."""


@dataclass(frozen=True)
class Rush:
    """More calls than the server can carry, for `for_s`.

    per_s: open loop: calls begin at this rate whatever becomes of those before. 0: each call of `calls` is a client
    that goes on calling, `think_s` after each answer; if refused, after the delay that RetryInfo asks for.
    timeout_s: how long a caller waits; an answer after that is of no use to anybody.
    """

    target: str
    calls: Sequence[Call]
    for_s: float
    per_s: float = 0.0
    think_s: float = 0.0
    timeout_s: float = 5.0
    connections: int = 16


@dataclass
class RushOutcome:
    """What came of a rush.

    refusals without a delay: those that RetryInfo did not come with. lags: how late the load generator itself was.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    refusals_without_delay: int = 0
    lags_ms: list[float] = field(default_factory=list)
    timed_out: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of a plan. first_ms: time to the first text of each stream."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
