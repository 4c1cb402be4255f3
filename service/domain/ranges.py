"""Stretches of an owner's sessions in order of time, as stores read them from an index."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, Self

from service.domain.entities import Session

TimeField = Literal["update_time", "create_time"]


class Place(NamedTuple):
    """A place in an order by time and id. With an empty id it is just before all sessions of that time."""

    time: datetime
    session_id: str


class Unlisted(NamedTuple):
    """What a list passes over: sessions that are over at `now`, and deleted ones too if it says so."""

    now: datetime
    deleted: bool


START: Final = Place(datetime(1, 1, 1, tzinfo=UTC), "")
END: Final = Place(datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), "")


@dataclass(frozen=True, slots=True)
class SessionRange:
    """Sessions strictly between two places in the order by `time_field`, newest or oldest first.

    label: only those with this label: its key, or key and value.
    """

    time_field: TimeField
    newest_first: bool
    low: Place = START
    high: Place = END
    label: tuple[str, ...] = ()

    def place_of(self, session: Session) -> Place:
        """Return where a session stands."""
        return Place(getattr(session, self.time_field), session.session_id)

    def has(self, session: Session) -> bool:
        """Whether a session is between the two places; its labels are not looked at."""
        return self.low < self.place_of(session) < self.high

    def after(self, place: Place) -> Self:
        """Return what is left of it after a place."""
        if self.newest_first:
            return replace(self, high=min(self.high, place))
        return replace(self, low=max(self.low, place))
