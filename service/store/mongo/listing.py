"""Lists of sessions, read along an index."""

from collections.abc import Sequence
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING

from service.domain.entities import Principal, Session
from service.domain.ranges import SessionRange, Unlisted
from service.store.documents import RUNNING, label_entry, owner_to_doc, session_from_doc
from service.store.mongo.connection import BUT_INDEXED, Doc, MongoDatabase

# The newest turn is of use only while it runs, and without its texts.
_LISTED: Final = {"active.user_text": 0, "active.parts": 0, "active.ending": 0, **BUT_INDEXED}


class MongoListing(MongoDatabase):
    """A ListStore."""

    async def list_sessions(
        self, owner: Principal, wanted: SessionRange, limit: int, _unlisted: Unlisted | None = None
    ) -> Sequence[Session]:
        """Return the first sessions of a range, at most `limit`."""
        condition, options = _range(owner, wanted)
        docs = await self._find(self._sessions, condition, projection=_LISTED, limit=limit, **options)
        return [_listed(doc) for doc in docs]

    async def count_listed(self, owner: Principal, wanted: SessionRange, limit: int) -> int:
        """Count the sessions of a range, up to `limit`."""
        condition, options = _range(owner, wanted)
        return len(await self._find(self._sessions, condition, projection={"_id": 1}, limit=limit, **options))

    async def titled_ids(self, owner: Principal, piece: str, limit: int) -> Sequence[str]:
        """Return the ids of sessions whose title has this piece, in order, at most `limit`."""
        condition, order = {"owner": owner_to_doc(owner), "title_index": piece}, [("_id", ASCENDING)]
        options = {"projection": {"_id": 1}, "sort": order, "hint": "titles"}
        return [doc["_id"] for doc in await self._find(self._sessions, condition, limit=limit, **options)]

    async def listed_sessions(self, owner: Principal, session_ids: Sequence[str]) -> Sequence[Session]:
        """Return those of these sessions that are there."""
        condition = {"_id": {"$in": list(session_ids)}, "owner": owner_to_doc(owner)}
        docs = await self._find(self._sessions, condition, projection=_LISTED, limit=len(session_ids))
        return [_listed(doc) for doc in docs]


def _range(owner: Principal, wanted: SessionRange) -> tuple[Doc, Doc]:
    """Return the condition of a range, and what makes MongoDB read it along its index."""
    field, (low, first), (high, last) = wanted.time_field, wanted.low, wanted.high
    condition: Doc = {
        "owner": owner_to_doc(owner),
        # The first is for the index; the others tell sessions of the same time apart.
        field: {"$gte": low, "$lte": high},
        "$and": [
            {"$or": [{field: {"$gt": low}}, {"_id": {"$gt": first}}]},
            {"$or": [{field: {"$lt": high}}, {"_id": {"$lt": last}}]},
        ],
    }
    if wanted.label:
        condition["label_index"] = label_entry(wanted.label)
    direction = DESCENDING if wanted.newest_first else ASCENDING
    order = [(field, direction), ("_id", direction)]
    hint = f"labels_by_{field}" if wanted.label else f"by_{field}"
    return condition, {"sort": order, "hint": hint}


def _listed(doc: Doc) -> Session:
    active: dict[str, Any] | None = doc.pop("active", None)
    if active and active["state"] == RUNNING:
        doc["active"] = {**active, "user_text": ""}
    return session_from_doc(doc)
