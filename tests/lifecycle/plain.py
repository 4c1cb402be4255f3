"""Sessions as the plainest code: what a caller may expect of them, without a store, fences or hints."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

GRACE = timedelta(seconds=100)


class Refused(Exception):
    """A call is answered with this reason."""


@dataclass(slots=True)
class Plain:
    """A session. turns: what was said and answered; None = no answer. running: the message of the running turn."""

    owner: str
    asked: tuple[object, ...]
    title: str
    expire_time: datetime | None
    idle_ttl: timedelta | None
    create_time: datetime
    version: int = 1
    idle_since: datetime | None = None
    deleted_at: datetime | None = None
    running: str = ""
    turns: list[tuple[str, str | None]] = field(default_factory=list)

    def end(self) -> datetime | None:
        """When it expires as things stand."""
        ends = [self.expire_time] if self.expire_time else []
        if self.idle_ttl and not self.running:
            ends.append((self.idle_since or self.create_time) + self.idle_ttl)
        return min(ends, default=None)

    def is_expired(self, now: datetime) -> bool:
        end = self.end()
        return end is not None and end <= now

    def purge_time(self) -> datetime | None:
        """When it may be removed for good."""
        end = self.deleted_at or self.end()
        return end and end + GRACE

    def is_due(self, now: datetime) -> bool:
        due = self.purge_time()
        return due is not None and due <= now

    def messages(self) -> list[str]:
        """Its history."""
        said = [text for turn in self.turns for text in turn if text is not None]
        return [*said, self.running] if self.running else said

    def finish(self, answer: str | None, now: datetime) -> None:
        """The running turn ends."""
        self.turns.append((self.running, answer))
        self.running, self.idle_since = "", now


class PlainSessions:
    """All sessions that are there, by their ids."""

    def __init__(self) -> None:
        self.there: dict[str, Plain] = {}

    def look(self, owner: str, session_id: str, now: datetime) -> Plain:
        """Return what a caller may see."""
        session = self.there.get(session_id)
        if session is None or session.owner != owner or session.deleted_at:
            raise Refused("SESSION_NOT_FOUND")
        if session.is_expired(now):
            raise Refused("SESSION_EXPIRED")
        return session

    def create(self, new: Plain, session_id: str, now: datetime) -> Plain | None:
        """Create a session; None if the same request has created it already."""
        old = self.there.get(session_id)
        if old is None:
            self.there[session_id] = new
            return new
        if (old.owner, old.asked) != (new.owner, new.asked) or old.deleted_at or old.is_expired(now):
            raise Refused("SESSION_EXISTS")
        return None

    def update(self, session: Plain, changes: dict[str, object]) -> None:
        """Change a session's settings; the version grows if that changes anything."""
        if any(getattr(session, name) != value for name, value in changes.items()):
            session.version += 1
        for name, value in changes.items():
            setattr(session, name, value)

    def undelete(self, owner: str, session_id: str, now: datetime) -> Plain:
        """Bring a session back."""
        session = self.there.get(session_id)
        if session is None or session.owner != owner or (session.deleted_at and session.is_due(now)):
            raise Refused("SESSION_NOT_FOUND")
        if session.deleted_at is None:
            return self.look(owner, session_id, now)
        if session.expire_time and session.expire_time <= now:
            raise Refused("SESSION_EXPIRED")
        session.deleted_at, session.idle_since = None, now
        return session

    def purge(self, now: datetime) -> list[str]:
        """Remove what is due, and return the ids."""
        gone = [session_id for session_id, session in self.there.items() if session.is_due(now)]
        for session_id in gone:
            del self.there[session_id]
        return gone
