"""How long sessions live: what a caller may ask for, what it gets otherwise, and when one is removed for good.

When a session has come to its end is decided in access.py alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.access import expiry
from service.domain.entities import Session
from service.domain.errors import InvalidField

LONGEST = timedelta(days=36_525)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The server's own limits; None = none. A caller that asks for nothing gets `ttl` and `idle_ttl`, or the maximum.

    grace: how long a session is kept after it was deleted or has expired.
    """

    ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    idle_ttl: timedelta | None = None
    max_idle_ttl: timedelta | None = None
    grace: timedelta = timedelta(days=7)

    def end(self, expire_time: datetime | None, ttl: timedelta | None, now: datetime) -> datetime | None:
        """Return when a session ends for which this was asked, None = never; raises InvalidField."""
        if expire_time is not None:
            _check("session.expire_time", expire_time - now, self.max_ttl)
            return expire_time
        if ttl is not None:
            _check("session.ttl", ttl, self.max_ttl)
        given = ttl or self.ttl or self.max_ttl
        return None if given is None else now + given

    def idle(self, idle_ttl: timedelta | None) -> timedelta | None:
        """Return the idle time of a session for which this was asked, None = any; raises InvalidField."""
        if idle_ttl is not None:
            _check("session.idle_ttl", idle_ttl, self.max_idle_ttl)
        return idle_ttl or self.idle_ttl or self.max_idle_ttl

    def purge_time(self, session: Session) -> datetime | None:
        """Return when a session is removed for good as things stand, or None."""
        end = session.deleted_at or expiry(session)
        return None if end is None else end + self.grace

    def look_at(self, session: Session, now: datetime) -> datetime | None:
        """Return a time before which a session cannot be due for removal unless its settings change; None = never."""
        if session.deleted_at is None and session.running is not None and session.idle_ttl is not None:
            idle = now + session.idle_ttl  # the turn ends after now
            end = idle if session.expire_time is None else min(idle, session.expire_time)
            return end + self.grace
        return self.purge_time(session)


def _check(field: str, life: timedelta, longest: timedelta | None) -> None:
    if life <= timedelta(0):
        raise InvalidField(field, "must be in the future" if field.endswith("time") else "must be more than nothing")
    longest = LONGEST if longest is None else min(longest, LONGEST)
    if life > longest:
        raise InvalidField(field, f"must be at most {longest.total_seconds():.12g} seconds ahead")
