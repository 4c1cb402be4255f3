"""Erasing all sessions of an owner."""

from collections.abc import Sequence
from datetime import datetime

from pymongo import ASCENDING, DESCENDING

from service.domain.entities import Erasure, Principal, Session, SessionKey
from service.store.documents import erasure_from_doc, erasure_to_doc, owner_to_doc, session_from_doc
from service.store.mongo.connection import Doc, MongoDatabase


class MongoErasing(MongoDatabase):
    """An ErasureStore."""

    async def insert_erasure(self, erasure: Erasure) -> bool:
        """Insert a new erasure; False if the owner has one of this number."""
        return await self._insert(self._erasures, erasure_to_doc(erasure))

    async def erasure(self, owner: Principal, erasure_id: str) -> Erasure | None:
        """Return an erasure."""
        doc = await self._read(self._erasures.find_one, {"_id": erasure_id, "owner": owner_to_doc(owner)})
        return erasure_from_doc(doc) if doc else None

    async def latest_erasure(self, owner: Principal) -> Erasure | None:
        """Return the owner's erasure with the highest number."""
        order = [("number", DESCENDING)]
        docs = await self._find(self._erasures, {"owner": owner_to_doc(owner)}, sort=order, limit=1)
        return erasure_from_doc(docs[0]) if docs else None

    async def due_erasures(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Return erasures whose time has come, the longest due first."""
        docs = await self._find(self._erasures, {"due": {"$lte": now}}, sort=[("due", ASCENDING)], limit=limit)
        return [erasure_from_doc(doc) for doc in docs]

    async def update_erasure(self, changed: Erasure) -> bool:
        """Replace an erasure: if it is the version before."""
        as_read = {"_id": changed.erasure_id, "owner": owner_to_doc(changed.owner), "version": changed.version - 1}
        result = await self._write(self._erasures.replace_one, as_read, erasure_to_doc(changed))
        return bool(result.matched_count)

    async def count_sessions(self, owner: Principal, created_to: datetime) -> int:
        """Count the sessions with create_time <= created_to."""
        return int(await self._read(self._sessions.count_documents, _created(owner, created_to)))

    async def sessions_before(
        self, owner: Principal, created_to: datetime, *, after: Session | None, limit: int
    ) -> Sequence[Session]:
        """Return the sessions with create_time <= created_to, by create_time and id, those behind `after`."""
        condition = _created(owner, created_to)
        if after is not None:
            # The first is for the index; the other tells sessions of the same time apart.
            condition["create_time"]["$gte"] = after.create_time
            condition["$or"] = [{"create_time": {"$gt": after.create_time}}, {"_id": {"$gt": after.session_id}}]
        order = [("create_time", ASCENDING), ("_id", ASCENDING)]
        docs = await self._find(self._sessions, condition, sort=order, hint="by_create_time", limit=limit)
        return [session_from_doc(doc) for doc in docs]

    async def count_turns(self, key: SessionKey) -> int:
        """Count the archived turns of a session."""
        return int(await self._read(self._turns.count_documents, {"uid": key.uid, "owner": owner_to_doc(key.owner)}))


def _created(owner: Principal, created_to: datetime) -> Doc:
    return {"owner": owner_to_doc(owner), "create_time": {"$lte": created_to}}
