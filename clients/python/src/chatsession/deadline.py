"""The time that an operation has, repeats included."""

import math
import time


class Deadline:
    """An instant on the steady clock.

    timeout_s: from now; `math.inf` means no limit.
    """

    def __init__(self, timeout_s: float) -> None:
        self._end_s = time.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left; 0 when it is over, `math.inf` without a limit."""
        return max(0.0, self._end_s - time.monotonic())

    @property
    def timeout_s(self) -> float | None:
        """What is left, as gRPC takes it."""
        return None if math.isinf(self._end_s) else self.remaining_s
