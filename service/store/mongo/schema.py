"""The indexes of the collections, and the way from documents of older releases."""

from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from service.store.documents import RUNNING

SESSION_INDEXES: Final = [
    # Holds running sessions only: one small entry made and one dropped per turn.
    IndexModel([("active.state", ASCENDING)], name="running", partialFilterExpression={"active.state": RUNNING}),
    # Holds only sessions that will end by themselves, or are deleted.
    IndexModel([("look_at", ASCENDING)], name="look_at", sparse=True),
]
TURN_INDEXES: Final = [
    IndexModel([("uid", ASCENDING), ("request_key", ASCENDING)], name="request", unique=True),
    IndexModel([("uid", ASCENDING), ("turn_id", ASCENDING)], name="turn", unique=True),
]
PURGE_INDEXES: Final = [IndexModel([("due", ASCENDING)], name="due")]
ERASURE_INDEXES: Final = [
    IndexModel([("owner", ASCENDING), ("number", ASCENDING)], name="number", unique=True),
    IndexModel([("due", ASCENDING)], name="due", sparse=True),
]

SCHEMA_VERSION: Final = 2
_VERSION: Final = {"_id": "schema", "version": SCHEMA_VERSION}


async def upgrade(database: Any) -> None:
    """Bring documents of older releases up to this one; each step may be repeated, by several processes at once.

    Schema 1 had turns without owner and session_id.
    """
    found = await database.meta.find_one({"_id": "schema"})
    if found is not None and found["version"] >= SCHEMA_VERSION:
        return
    async for session in database.sessions.find({}, {"uid": 1, "owner": 1}):
        of_session = {"owner": session["owner"], "session_id": session["_id"]}
        await database.turns.update_many({"uid": session["uid"], "session_id": None}, {"$set": of_session})
    await database.meta.replace_one({"_id": "schema"}, _VERSION, upsert=True)
