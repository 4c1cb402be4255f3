"""Searches in the texts of turns, over an index of their words.

A text index would have to sort all that it finds to tell the newest, is not there in every server that speaks
MongoDB's language, and knows other words. This one is read in order of time, a bounded piece at once.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pymongo import DESCENDING

from service.domain.entities import Principal, SessionKey
from service.domain.ports import FoundTurn, UnknownPlace
from service.store.documents import MAX_INDEXED_CHARS, owner_to_doc, turn_from_doc, turn_key
from service.store.mongo.connection import Doc, MongoDatabase

_SCANNED: Final = 1000
_PLACE: Final = re.compile(r"(-?[0-9]{1,14}):([A-Za-z0-9_-]+:[0-9]{10})")
_BY_TIME: Final = [("create_time", DESCENDING), ("_id", DESCENDING)]
_BY_ID: Final = [("_id", DESCENDING)]
_LAST_SEQ: Final = 2**31
_EPOCH: Final = datetime(1970, 1, 1)
_MILLISECOND: Final = timedelta(milliseconds=1)


class MongoSearching(MongoDatabase):
    """A SearchStore."""

    async def find_turns(
        self, owner: Principal, phrases: Sequence[Sequence[str]], *, uid: str, after: str, limit: int
    ) -> tuple[Sequence[FoundTurn], str]:
        """Return archived turns that have all words of the phrases, newest first, at most `limit`."""
        wanted = {word[:MAX_INDEXED_CHARS] for phrase in phrases for word in phrase}
        # The longest word is likely the rarest.
        one = max(sorted(wanted), key=len)
        condition: Doc = {"owner": owner_to_doc(owner)}
        if uid:
            condition["_id"] = {"$gte": turn_key(uid, 0), "$lt": turn_key(uid, _LAST_SEQ)}
            order, hint = _BY_ID, "_id_"
        else:
            condition["words"] = one
            order, hint = _BY_TIME, "words"
        if after:
            _go_on(condition, after)
        is_surely_found = not uid and len(wanted) == 1
        scan = limit if is_surely_found else _SCANNED
        near = await self._find(
            self._turns, condition, sort=order, projection={"create_time": 1}, hint=hint, limit=scan
        )
        among = {"_id": {"$in": [doc["_id"] for doc in near]}, "words": {"$all": sorted(wanted)}}
        docs = await self._find(self._turns, among, sort=order, limit=limit) if near else []
        found = [
            FoundTurn(SessionKey(owner, doc["session_id"], doc["uid"]), turn_from_doc(doc), _place(doc)) for doc in docs
        ]
        if len(found) == limit:
            return found, found[-1].place
        return found, _place(near[-1]) if len(near) == scan else ""


def _place(doc: Doc) -> str:
    return f"{(doc['create_time'] - _EPOCH) // _MILLISECOND}:{doc['_id']}"


def _go_on(condition: Doc, after: str) -> None:
    """Narrow a condition to what is behind a place."""
    match = _PLACE.fullmatch(after)
    if match is None:
        raise UnknownPlace(after)
    ms, turn_id = match.groups()
    if "_id" in condition:
        condition["_id"]["$lt"] = min(turn_id, condition["_id"]["$lt"])
    else:
        time = _EPOCH + int(ms) * _MILLISECOND
        condition["create_time"] = {"$lte": time}
        condition["$or"] = [{"create_time": {"$lt": time}}, {"_id": {"$lt": turn_id}}]
