"""Sessions as their owners manage them."""

from datetime import datetime

from service.domain.entities import Session
from service.store.documents import RUNNING, session_from_doc, session_to_doc
from service.store.mongo.connection import Doc, MongoDatabase, change_of, of_key

_SETTINGS = (
    "title", "title_index", "labels", "label_index", "instructions", "settings", "expire_time", "idle_ttl_ms",
    "idle_since", "settings_version", "update_time", "look_at",
)  # fmt: skip
_THERE: Doc = {"deleted_at": None, "purging": {"$ne": True}}


class MongoSessions(MongoDatabase):
    """What a SessionStore has for the managing of sessions."""

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken."""
        return await self._insert(self._sessions, session_to_doc(session))

    async def update_session(self, session: Session, changed: Session) -> Session | None:
        """Set the settings of `changed`: if their version is as in `session`, and it is neither deleted nor purging."""
        doc = session_to_doc(changed)
        condition = {**of_key(session.key), "settings_version": session.settings_version, **_THERE}
        return await self._change(condition, change_of({name: doc.get(name) for name in _SETTINGS}))

    async def delete(self, session: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        """Set deleted_at and the cancel flag of a running turn: if it is as in `session`."""
        as_read: Doc = {"fence": session.fence, "settings_version": session.settings_version}
        change: Doc = {"deleted_at": deleted_at, "look_at": look_at}
        if session.running is not None:
            as_read["active.state"], change["active.cancel"] = RUNNING, True
        else:
            as_read["active.state"] = {"$ne": RUNNING}
        return await self._change({**of_key(session.key), **as_read, **_THERE}, {"$set": change})

    async def undelete(self, session: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        """Unset deleted_at: if it is as in `session`, and the session is not purging."""
        if session.deleted_at is None:
            return None
        condition = {**of_key(session.key), "deleted_at": session.deleted_at, "purging": {"$ne": True}}
        change = change_of({"deleted_at": None, "idle_since": idle_since, "look_at": look_at})
        return await self._change(condition, change)

    async def _change(self, condition: Doc, change: Doc) -> Session | None:
        doc = await self._update_and_return(condition, change)
        return session_from_doc(doc) if doc else None
