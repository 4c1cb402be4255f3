"""Use cases of the session itself: create, get, update, delete, undelete (docs/sessions.md)."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from service.domain import deadline
from service.domain.access import is_expired, look
from service.domain.checks import check_id, check_request_id
from service.domain.entities import Principal, Session
from service.domain.errors import InternalError, Overloaded, SessionExists, SessionExpired, SessionNotFound, StaleEtag
from service.domain.fields import SessionFields
from service.domain.lifetime import Lifetimes
from service.domain.ports import SessionStore
from service.domain.settle import Settled, T, settle
from service.domain.updates import SessionUpdate

_CREATE_TRIES = 3
# Each further one means that somebody else changed the same session between a read and a write.
_TRIES = 20
_PATIENCE_S = 5.0
_SETTINGS = ("settings_version", "title", "labels", "instructions", "settings", "expire_time", "idle_ttl")


class Sessions:
    """Manages sessions for their owners. lifetimes: the server's own limits."""

    def __init__(
        self,
        store: SessionStore,
        *,
        lifetimes: Lifetimes,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        on_delete: Callable[[Session], None],
    ) -> None:
        """on_delete: told of each session that was deleted here, so that a turn that runs here ends at once."""
        self.lifetimes = lifetimes
        self._store = store
        self._now = now
        self._new_id = new_id
        self._on_delete = on_delete

    async def create(
        self, principal: Principal, fields: SessionFields, *, session_id: str = "", request_id: str = ""
    ) -> Session:
        """Create a session, or return the one that the same request has created.

        A chosen `session_id`, or a `request_id`, of which the id is made, makes a repeat safe.
        Raises InvalidField, SessionExists, or StoreUnavailable: the session may then be there, and stays empty.
        """
        if session_id:
            check_id("session_id", session_id)
        if request_id:
            check_request_id("request_id", request_id)
        fields.check()
        chosen = session_id or (_id_of(principal, request_id) if request_id else "")
        new = self._new(principal, fields, fields.fingerprint(request_id) if chosen else "")
        for _ in range(_CREATE_TRIES):
            session = replace(new, session_id=chosen or self._new_id())
            inserted = await _settled(partial(self._store.insert_session, session))
            if inserted.answer:
                return session
            found = await self._store.session(principal, session.session_id)
            if found is not None and found.uid == session.uid:
                return found  # our own, whose answer was lost
            if chosen and found is not None:
                if found.fingerprint == new.fingerprint and self._is_there(found):
                    return found
                break
        if chosen:
            raise SessionExists(f"the session id {chosen!r} is taken")
        raise InternalError

    def _new(self, principal: Principal, fields: SessionFields, fingerprint: str) -> Session:
        now = self._now()
        session = Session(
            session_id="",
            uid=self._new_id(),
            owner=principal,
            create_time=now,
            update_time=now,
            title=fields.title,
            labels=fields.labels,
            instructions=fields.instructions,
            settings=fields.settings,
            expire_time=self.lifetimes.end(fields.expire_time, fields.ttl, now),
            idle_ttl=self.lifetimes.idle(fields.idle_ttl),
            fingerprint=fingerprint,
        )
        return replace(session, look_at=self.lifetimes.look_at(session, now))

    def _is_there(self, session: Session) -> bool:
        return session.deleted_at is None and not session.purging and not is_expired(session, self._now())

    async def get(self, principal: Principal, session_id: str) -> Session:
        """Return a session; raises InvalidField, SessionNotFound, SessionExpired."""
        return await look(self._store, principal, session_id, self._now())

    async def update(self, principal: Principal, session_id: str, update: SessionUpdate) -> Session:
        """Change a session's settings, and return it; without a change it stays as it is, its etag too.

        Raises InvalidField, SessionNotFound, SessionExpired, StaleEtag.
        """
        for _ in range(_TRIES):
            session = await look(self._store, principal, session_id, self._now())
            _check_etag(session, update.etag)
            now = self._now()
            changed = update.apply(session, self.lifetimes, now)
            if changed == session:
                return session
            changed = replace(changed, settings_version=session.settings_version + 1, update_time=now)
            changed = replace(changed, look_at=self.lifetimes.look_at(changed, now))
            updated = await _settled(partial(self._store.update_session, session, changed))
            if updated.answer is not None:
                return updated.answer
            if updated.was_uncertain:
                found = await self._store.session(principal, session_id)
                if found is not None and found.key == session.key and _same_settings(found, changed):
                    return found  # our own, whose answer was lost
        raise _busy()

    async def delete(self, principal: Principal, session_id: str, etag: str = "") -> Session:
        """Delete a session, cancel its running turn, and return it.

        Raises InvalidField, SessionNotFound, SessionExpired, StaleEtag.
        """
        for _ in range(_TRIES):
            session = await look(self._store, principal, session_id, self._now())
            _check_etag(session, etag)
            now = self._now()
            written = await _settled(partial(self._store.delete, session, now, now + self.lifetimes.grace))
            deleted = written.answer
            if deleted is None and written.was_uncertain:
                found = await self._store.session(principal, session_id)
                deleted = found if found and found.key == session.key and found.deleted_at == now else None
            if deleted is not None:
                self._on_delete(deleted)
                return deleted
        raise _busy()

    async def undelete(self, principal: Principal, session_id: str) -> Session:
        """Bring a deleted session back within the grace, and return it; one that is not deleted comes as it is.

        Raises InvalidField, SessionNotFound, SessionExpired.
        """
        check_id("session_id", session_id)
        for _ in range(_TRIES):
            session = await self._store.session(principal, session_id)
            now = self._now()
            if session is None or session.purging or self._is_due(session, now):
                raise SessionNotFound(session_id)
            # Idle time counts anew; what was deleted has not passed its limit.
            alive = replace(session, deleted_at=None, idle_since=now) if session.deleted_at else session
            if is_expired(alive, now):
                raise SessionExpired(session_id)
            if session.deleted_at is None:
                return session
            look_at = self.lifetimes.look_at(alive, now)
            undeleted = await _settled(partial(self._store.undelete, session, now, look_at))
            if undeleted.answer is not None:
                return undeleted.answer
        raise _busy()

    def _is_due(self, session: Session, now: datetime) -> bool:
        return session.deleted_at is not None and session.deleted_at + self.lifetimes.grace <= now


async def _settled(write: Callable[[], Awaitable[T]]) -> Settled[T]:
    return await settle(write, patience_s=deadline.remaining_s(_PATIENCE_S), uncertain_only=True)


def _id_of(principal: Principal, request_id: str) -> str:
    """Return the id of the session that a request id stands for."""
    text = json.dumps([principal.tenant, principal.subject, request_id])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_etag(session: Session, etag: str) -> None:
    if etag and etag != session.etag:
        raise StaleEtag("the session's settings have changed since this etag")


def _same_settings(one: Session, other: Session) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _SETTINGS)


def _busy() -> Overloaded:
    return Overloaded("the session is being changed by too many at once")
