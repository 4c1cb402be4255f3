from typing import Any

from service.domain.lag import LagWatch


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **_: Any) -> None:
        self.events.append(event)

    debug = info = error = exception = warning


def test_lag_that_lasts_is_said_once_and_its_end_too() -> None:
    log = Log()
    watch = LagWatch(log)
    for lag_s in [0.5] * 30 + [0.0] * 30:
        watch.note(lag_s)
    assert log.events == ["the event loop is late", "the event loop is in time again"]


def test_single_late_moments_are_not_said() -> None:
    log = Log()
    watch = LagWatch(log)
    for lag_s in [0.5, 0.5, 0.5, 0.0] * 20:
        watch.note(lag_s)
    assert log.events == []
