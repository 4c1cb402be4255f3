"""Whether a caller may see a session, now."""

from datetime import datetime

from service.domain.checks import check_id
from service.domain.entities import Principal, Session
from service.domain.errors import SessionExpired, SessionNotFound
from service.domain.ports import SessionStore


async def look(store: SessionStore, principal: Principal, session_id: str, now: datetime) -> Session:
    """Read a session for its owner; raises SessionNotFound (also for somebody else's) or SessionExpired."""
    check_id("session_id", session_id)
    session = await store.session(session_id)
    if session is None or session.owner != principal or session.deleted_at is not None or session.purging:
        raise SessionNotFound(session_id)
    if is_expired(session, now):
        raise SessionExpired(session_id)
    return session


def is_expired(session: Session, now: datetime) -> bool:
    """Whether a session has come to its end by itself."""
    return session.expire_time is not None and session.expire_time <= now
