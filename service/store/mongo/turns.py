"""The turns of sessions: what docs/turns.md asks of a store."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from pymongo import ASCENDING, DESCENDING

from service.domain.entities import Active, Ending, Principal, Session, SessionKey, Turn, TurnTexts
from service.domain.ports import Lease, TurnKey
from service.store.documents import (
    ENDED,
    RUNNING,
    active_to_doc,
    ending_to_doc,
    owner_to_doc,
    session_from_doc,
    turn_from_doc,
    turn_key,
    turn_to_doc,
)
from service.store.mongo.connection import Doc, of_key
from service.store.mongo.looks import Look, MongoLooks
from service.store.mongo.writes import Checkpoint, MongoWrites, held

_KEYS_ONLY: Final = {"uid": 1, "active.turn_id": 1}
# They may be thousands: in parts, so that other work goes on meanwhile.
_SCAN_BATCH: Final = 200
# What a turn is found by is half of it, and of no use to those who read it.
_BUT_WORDS: Final = {"words": 0}
_TEXTS: Final = {"_id": 0, "turn_id": 1, "request_key": 1, "first_seq": 1, "user_text": 1, "ending.text": 1}


class MongoTurns(MongoLooks, MongoWrites):
    """A TurnStore."""

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""
        doc = await self._look(Look(owner, session_id))
        return session_from_doc(doc) if doc else None

    async def running_sessions(self, limit: int, *, but: Collection[TurnKey] = ()) -> Sequence[Session]:
        """Return sessions that have a RUNNING turn, but not those turns, at most `limit`, in no order."""
        most = limit + len(but) if limit > 0 else 0
        running = {"active.state": RUNNING}
        found = await self._find(self._sessions, running, limit=most, projection=_KEYS_ONLY, batch_size=_SCAN_BATCH)
        ids = [doc["_id"] for doc in found if (doc["uid"], doc["active"]["turn_id"]) not in but][:limit]
        sessions: list[Session] = []
        for start in range(0, len(ids), _SCAN_BATCH):
            part = ids[start : start + _SCAN_BATCH]
            sessions += map(session_from_doc, await self._find(self._sessions, {"_id": {"$in": part}}, limit=len(part)))
        return [session for session in sessions if session.running]

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""
        doc = await self._read(self._turns.find_one, {**_turn_of(key), "request_key": request_key}, _BUT_WORDS)
        return turn_from_doc(doc) if doc else None

    async def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""
        doc = await self._read(self._turns.find_one, {**_turn_of(key), "turn_id": turn_id}, _BUT_WORDS)
        return turn_from_doc(doc) if doc else None

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to in order of first_seq."""
        order = DESCENDING if newest_first else ASCENDING
        docs = await self._turns_between(key, first_seq_from, first_seq_to, limit, order, _BUT_WORDS)
        return [turn_from_doc(doc) for doc in docs]

    async def turn_texts(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int
    ) -> Sequence[TurnTexts]:
        """Return what was said in archived turns, newest first; a range as in `turns`."""
        docs = await self._turns_between(key, first_seq_from, first_seq_to, limit, DESCENDING, _TEXTS)
        return [
            TurnTexts(doc["turn_id"], doc["request_key"], doc["first_seq"], doc["user_text"], doc["ending"]["text"])
            for doc in docs
        ]

    async def _turns_between(
        self, key: SessionKey, first_seq_from: int, first_seq_to: int, limit: int, order: int, projection: Doc
    ) -> list[Doc]:
        keys = {"$gte": turn_key(key.uid, first_seq_from), "$lte": turn_key(key.uid, first_seq_to)}
        condition, options = {"_id": keys, **_turn_of(key)}, {"sort": [("_id", order)], "hint": "_id_"}
        return await self._find(self._turns, condition, limit=limit, projection=projection, **options)

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if it is as in `session` and not deleted, purging or expired."""
        condition = {
            **of_key(session.key),
            "fence": session.fence,
            "settings_version": session.settings_version,
            "deleted_at": None,
            "purging": {"$ne": True},
            "expire_time": {"$not": {"$lte": now}},
        }
        change = {"fence": active.fence, "update_time": now, "active": active_to_doc(active)}
        return await self._update_session(condition, {"$set": change})

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1; the answer's parts are left out."""
        return await self._write_checkpoint(Checkpoint(lease, beat, part))

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""
        checkpoint = Checkpoint(lease, beat, part)
        change = checkpoint.change
        change["$set"]["active.released"] = True
        return await self._update_session(checkpoint.condition, change)

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING."""
        change = {
            "$set": {
                "active.state": ENDED,
                "active.ending": ending_to_doc(ending),
                "last_seq": ending.last_seq,
                "update_time": ending.end_time,
                "idle_since": ending.end_time,
            },
            "$unset": {"active.parts": ""},
        }
        return await self._update_session(held(lease), change)

    async def archive(self, key: SessionKey, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if a turn with this first_seq, id or request key is there already."""
        return await self._insert_turn(turn_to_doc(key, turn))

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING."""
        active = session.active
        if active is None:
            return None
        lease = Lease(session.key, active.turn.turn_id, active.lease_id)
        change = {
            "fence": session.fence + 1,
            "active.fence": session.fence + 1,
            "active.lease_id": lease_id,
            "active.attempt": active.turn.attempt + 1,
            "active.beat": 0,
            "active.released": False,
        }
        doc = await self._update_and_return({**held(lease), "active.beat": active.beat}, {"$set": change})
        return session_from_doc(doc) if doc else None

    async def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""
        condition = {**of_key(key), "active.turn_id": turn_id, "active.state": RUNNING}
        return await self._update_session(condition, {"$set": {"active.cancel": True}})


def _turn_of(key: SessionKey) -> Doc:
    return {"uid": key.uid, "owner": owner_to_doc(key.owner)}
