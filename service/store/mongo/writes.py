"""Writes of turns. Those that wait at the same time become one command; each keeps its own condition and answer."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from service.domain.entities import Active
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ids import new_id
from service.domain.ports import Lease
from service.store.batching import Batcher, outcome
from service.store.documents import RUNNING, active_from_doc
from service.store.mongo.connection import PASSING, Doc, MongoDatabase, of_key

_T = TypeVar("_T")
_Update = tuple[Doc, Doc]

_UNREAD_BY_CHECKPOINT: Final = {"active.parts": 0, "instructions": 0, "labels": 0}
_DUPLICATE_KEY: Final = 11000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One call of `checkpoint`."""

    lease: Lease
    beat: int
    part: str

    @property
    def condition(self) -> Doc:
        """The turn is held, and at this beat."""
        return {**held(self.lease), "active.beat": self.beat}

    @property
    def change(self) -> Doc:
        """The next beat, and the part if it is not empty."""
        change: Doc = {"$set": {"active.beat": self.beat + 1}}
        if self.part:
            change["$push"] = {"active.parts": self.part}
        return change

    def found_in(self, doc: Doc | None) -> Active | None:
        """Return the active turn if the checkpoint was made: nobody else counts beats under this lease."""
        active = doc.get("active") if doc else None
        if doc is None or active is None or doc["uid"] != self.lease.key.uid or active["state"] != RUNNING:
            return None
        told = self.lease.turn_id, self.lease.lease_id, self.beat + 1
        return active_from_doc(active) if (active["turn_id"], active["lease_id"], active["beat"]) == told else None


def held(lease: Lease) -> Doc:
    """Return the condition that a lease holds its turn."""
    return {
        **of_key(lease.key),
        "active.turn_id": lease.turn_id,
        "active.lease_id": lease.lease_id,
        "active.state": RUNNING,
    }


class MongoWrites(MongoDatabase):
    """Updates of sessions, checkpoints, and inserts of turns."""

    def __init__(self, uri: str, database: str, *, operation_timeout_s: float = 5.0) -> None:
        super().__init__(uri, database, operation_timeout_s=operation_timeout_s)
        self._updates = Batcher(
            self._flush_updates, key=lambda update: update[0]["_id"], patience_s=operation_timeout_s
        )
        self._checkpoints = Batcher(
            self._flush_checkpoints,
            key=lambda checkpoint: checkpoint.lease.key.session_id,
            patience_s=operation_timeout_s,
        )
        self._inserts = Batcher(self._flush_inserts, key=lambda doc: doc["_id"], patience_s=operation_timeout_s)

    async def close(self) -> None:
        """Close the connections; calls under way fail. May be called twice."""
        await super().close()
        for batcher in (self._updates, self._checkpoints, self._inserts):
            await batcher.close()

    async def _update_session(self, condition: Doc, change: Doc) -> bool:
        if self._is_short_of_time():
            return await self._update(condition, change)
        return await self._updates.do((condition, change))

    async def _write_checkpoint(self, checkpoint: Checkpoint) -> Active | None:
        if self._is_short_of_time():
            return await self._checkpoint_alone(checkpoint)
        return await self._checkpoints.do(checkpoint)

    async def _insert_turn(self, doc: Doc) -> bool:
        if self._is_short_of_time():
            return await self._insert(self._turns, doc)
        return await self._inserts.do(doc)

    async def _flush_updates(self, updates: Sequence[_Update]) -> Sequence[bool | Exception]:
        """Make updates of sessions as one command. Each is a conditional write of its own, in no order.

        The server only says how many matched. If not all did, each carries a mark by which its document is known: those
        found have matched; if as many are found as matched, the others are surely refused, else it is not known.
        """
        if len(updates) == 1:
            return [await outcome(self._update(*updates[0]))]
        marks = [new_id() for _ in updates]
        writes = [
            UpdateOne(condition, {**change, "$set": {**change["$set"], "mark": mark}})
            for (condition, change), mark in zip(updates, marks, strict=True)
        ]
        try:
            matched = (await self._write(self._sessions.bulk_write, writes, ordered=False)).matched_count
        except Exception as exc:
            return await self._one_by_one(exc, [partial(self._update, *update) for update in updates])
        if matched == len(updates):
            return [True] * matched
        ids = [condition["_id"] for condition, _ in updates]
        docs = await outcome(self._find(self._sessions, {"_id": {"$in": ids}}, limit=len(ids), projection={"mark": 1}))
        if isinstance(docs, Exception):
            return [StoreUncertain() for _ in updates]
        found = {doc.get("mark") for doc in docs}.intersection(marks)
        return [mark in found or (len(found) != matched and StoreUncertain()) for mark in marks]

    async def _flush_checkpoints(self, checkpoints: Sequence[Checkpoint]) -> Sequence[Active | Exception | None]:
        """Make checkpoints as one command, and read what became of them with another."""
        if len(checkpoints) == 1:
            return [await outcome(self._checkpoint_alone(checkpoints[0]))]
        writes = [UpdateOne(checkpoint.condition, checkpoint.change) for checkpoint in checkpoints]
        try:
            await self._write(self._sessions.bulk_write, writes, ordered=False)
        except Exception as exc:
            return await self._one_by_one(
                exc, [partial(self._checkpoint_alone, checkpoint) for checkpoint in checkpoints]
            )
        ids = [checkpoint.lease.key.session_id for checkpoint in checkpoints]
        docs = await outcome(
            self._find(self._sessions, {"_id": {"$in": ids}}, limit=len(ids), projection=_UNREAD_BY_CHECKPOINT)
        )
        if isinstance(docs, Exception):
            return [StoreUncertain() for _ in checkpoints]
        by_id = {doc["_id"]: doc for doc in docs}
        return [checkpoint.found_in(by_id.get(checkpoint.lease.key.session_id)) for checkpoint in checkpoints]

    async def _checkpoint_alone(self, checkpoint: Checkpoint) -> Active | None:
        doc = await self._update_and_return(checkpoint.condition, checkpoint.change, projection=_UNREAD_BY_CHECKPOINT)
        return active_from_doc(doc["active"]) if doc else None

    async def _flush_inserts(self, docs: Sequence[Doc]) -> Sequence[bool | Exception]:
        """Insert turns as one command. No caller waits for it, so it lets an update that is under way go first.

        Two threads of Motor at once hand the interpreter to and fro with the event loop's.
        """
        await self._updates.calm()
        if len(docs) == 1:
            return [await outcome(self._insert(self._turns, docs[0]))]
        try:
            await self._write(self._turns.insert_many, docs, ordered=False)
        except BulkWriteError as exc:
            others = StoreUncertain if exc.details["writeConcernErrors"] else None
            errors = _write_errors(exc)
            return [_inserted(errors.get(index), others) for index in range(len(docs))]
        except Exception as exc:
            return await self._one_by_one(exc, [partial(self._insert, self._turns, doc) for doc in docs])
        return [True] * len(docs)

    async def _one_by_one(
        self, exc: Exception, writes: Sequence[Callable[[], Awaitable[_T]]]
    ) -> Sequence[_T | Exception]:
        """After a command failed as a whole: what that means for each of its writes."""
        if isinstance(exc, StoreUnavailable):
            return [type(exc)(str(exc)) for _ in writes]
        if isinstance(exc, BulkWriteError):
            errors = _write_errors(exc)
            return [errors.get(index) or StoreUncertain() for index in range(len(writes))]
        # One of them cannot be made at all; it alone is to fail.
        return [await outcome(write()) or StoreUncertain() for write in writes]


def _write_errors(exc: BulkWriteError) -> dict[int, Exception]:
    """Return the errors of single writes within a command, by their place."""
    return {error["index"]: _write_error(error) for error in exc.details["writeErrors"]}


def _write_error(error: dict[str, Any]) -> Exception:
    code, message = error["code"], error["errmsg"]
    if code == _DUPLICATE_KEY:
        return DuplicateKeyError(message, code)
    return StoreUncertain() if code in PASSING else OperationFailure(message, code)


def _inserted(error: Exception | None, others: type[StoreUncertain] | None) -> bool | Exception:
    """Return the result of one insert of many; `others`: what stands for those without an error of their own."""
    if error is None:
        return others() if others else True
    return False if isinstance(error, DuplicateKeyError) else error
