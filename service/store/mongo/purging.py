"""Removing sessions for good."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING

from service.domain.entities import PurgeRecord, Session, SessionKey
from service.store.documents import (
    owner_to_doc,
    purge_record_from_doc,
    purge_record_to_doc,
    session_from_doc,
)
from service.store.mongo.connection import Doc, MongoDatabase, change_of, of_key


class MongoPurging(MongoDatabase):
    """A PurgeStore."""

    async def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        """Return sessions whose look_at has come, the longest due first."""
        docs = await self._find(self._sessions, {"look_at": {"$lte": now}}, sort=[("look_at", ASCENDING)], limit=limit)
        return [session_from_doc(doc) for doc in docs]

    async def postpone(self, session: Session, look_at: datetime | None) -> bool:
        """Set look_at: if it is as in `session`."""
        condition = {
            **of_key(session.key),
            "look_at": session.look_at,
            "settings_version": session.settings_version,
            "deleted_at": session.deleted_at,
            "purging": True if session.purging else {"$ne": True},
        }
        return await self._update(condition, change_of({"look_at": look_at}))

    async def start_purge(self, session: Session, look_at: datetime) -> bool:
        """Begin to remove a session: if it is as in `session`."""
        condition = {
            **of_key(session.key),
            "fence": session.fence,
            "settings_version": session.settings_version,
            "deleted_at": session.deleted_at,
            "idle_since": session.idle_since,
            "purging": {"$ne": True},
        }
        change = {"purging": True, "fence": session.fence + 1, "look_at": look_at, "active": None}
        return await self._update(condition, change_of(change))

    async def delete_turns(self, key: SessionKey, limit: int) -> int:
        """Delete at most `limit` archived turns of a session, and return how many."""
        condition = {"uid": key.uid, "owner": owner_to_doc(key.owner)}
        docs = await self._find(self._turns, condition, projection={"_id": 1}, limit=limit)
        if not docs:
            return 0
        result = await self._write(self._turns.delete_many, {"_id": {"$in": [doc["_id"] for doc in docs]}})
        return int(result.deleted_count)

    async def delete_session(self, key: SessionKey) -> bool:
        """Delete the document of a session: if it is purging."""
        return await self._delete(self._sessions, {**of_key(key), "purging": True})

    async def put_purge_record(self, record: PurgeRecord) -> None:
        """Insert the record, or replace the one of the same session."""
        doc = purge_record_to_doc(record)
        await self._write(self._purges.replace_one, {"_id": doc["_id"]}, doc, upsert=True)

    async def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        """Return records whose time has come, the longest due first."""
        docs = await self._find(self._purges, {"due": {"$lte": now}}, sort=[("due", ASCENDING)], limit=limit)
        return [purge_record_from_doc(doc) for doc in docs]

    async def delete_purge_record(self, record: PurgeRecord) -> bool:
        """Delete the record: if it is as given."""
        return await self._delete(self._purges, purge_record_to_doc(record))

    async def _delete(self, collection: Any, condition: Doc) -> bool:
        result = await self._write(collection.delete_one, condition)
        return bool(result.deleted_count)
