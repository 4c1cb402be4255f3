"""The indexes of the collections, and the way from documents of older releases."""

from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from service.store.documents import RUNNING, session_index, turn_words

_OWNER: Final = ("owner", ASCENDING)
_TIMES: Final = ("update_time", "create_time")
# For lists: an owner's sessions in order of time, and those with a label (which hold no others).
_LISTS: Final = [IndexModel([_OWNER, (time, ASCENDING), ("_id", ASCENDING)], name=f"by_{time}") for time in _TIMES] + [
    IndexModel(
        [_OWNER, ("label_index", ASCENDING), (time, ASCENDING), ("_id", ASCENDING)],
        name=f"labels_by_{time}",
        partialFilterExpression={"label_index": {"$exists": True}},
    )
    for time in _TIMES
]
# The sessions whose title has a piece. Without a time, so that a turn changes nothing here.
_TITLES: Final = IndexModel(
    [_OWNER, ("title_index", ASCENDING), ("_id", ASCENDING)],
    name="titles",
    partialFilterExpression={"title_index": {"$exists": True}},
)
SESSION_INDEXES: Final = [
    # Holds running sessions only: one small entry made and one dropped per turn.
    IndexModel([("active.state", ASCENDING)], name="running", partialFilterExpression={"active.state": RUNNING}),
    # Holds only sessions that will end by themselves, or are deleted.
    IndexModel([("look_at", ASCENDING)], name="look_at", sparse=True),
    *_LISTS,
    _TITLES,
]
TURN_INDEXES: Final = [
    IndexModel([("uid", ASCENDING), ("request_key", ASCENDING)], name="request", unique=True),
    IndexModel([("uid", ASCENDING), ("turn_id", ASCENDING)], name="turn", unique=True),
    # For searches: the turns that have a word, in order of time. A text index cannot tell them in order.
    IndexModel([_OWNER, ("words", ASCENDING), ("create_time", ASCENDING), ("_id", ASCENDING)], name="words"),
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

    Schema 1 had turns without owner, session_id and words, and labels and titles without an index.
    """
    found = await database.meta.find_one({"_id": "schema"})
    if found is not None and found["version"] >= SCHEMA_VERSION:
        return
    fields = {"uid": 1, "owner": 1, "labels": 1, "title": 1, "settings_version": 1}
    async for session in database.sessions.find({}, fields):
        of_session = {"owner": session["owner"], "session_id": session["_id"]}
        await database.turns.update_many({"uid": session["uid"], "session_id": None}, {"$set": of_session})
        if found_by := session_index(session.get("title", ""), dict(session.get("labels", ()))):
            as_read = {name: session.get(name) for name in ("_id", "uid", "settings_version")}
            await database.sessions.update_one(as_read, {"$set": found_by})
    async for turn in database.turns.find({"words": None}, {"user_text": 1, "ending.text": 1}):
        words = turn_words(turn["user_text"], turn["ending"]["text"])
        await database.turns.update_one({"_id": turn["_id"]}, {"$set": {"words": words}})
    await database.meta.replace_one({"_id": "schema"}, _VERSION, upsert=True)
