"""Whether a caller may see a session, now."""

from datetime import datetime

from service.domain.checks import check_id
from service.domain.entities import Principal, Session
from service.domain.errors import SessionExpired, SessionNotFound
from service.domain.ports import TurnStore


async def look(store: TurnStore, principal: Principal, session_id: str, now: datetime) -> Session:
    """Read a session for its owner; raises SessionNotFound (also for somebody else's) or SessionExpired."""
    check_id("session_id", session_id)
    session = await store.session(principal, session_id)
    if session is None or session.deleted_at is not None or session.purging:
        raise SessionNotFound(session_id)
    if is_expired(session, now):
        raise SessionExpired(session_id)
    return session


def is_expired(session: Session, now: datetime) -> bool:
    """Whether a session has come to its end by itself."""
    end = expiry(session)
    return end is not None and end <= now


def expiry(session: Session) -> datetime | None:
    """Return when a session comes to its end by itself as things stand, or None. A running turn holds idleness off."""
    ends = [] if session.expire_time is None else [session.expire_time]
    if session.idle_ttl is not None and session.running is None:
        ends.append((session.idle_since or session.create_time) + session.idle_ttl)
    return min(ends, default=None)
