"""Turns of imported sessions."""

from collections.abc import Sequence

from pymongo.errors import BulkWriteError

from service.domain.entities import SessionKey, Turn
from service.domain.errors import StoreUncertain
from service.store.documents import turn_to_doc
from service.store.mongo.connection import MongoDatabase

_DUPLICATE = 11000


class MongoImporting(MongoDatabase):
    """An ImportStore."""

    async def insert_turns(self, key: SessionKey, turns: Sequence[Turn]) -> None:
        """Insert archived turns; those that are there already stay as they are."""
        if not turns:
            return
        try:
            await self._write(self._turns.insert_many, [turn_to_doc(key, turn) for turn in turns], ordered=False)
        except BulkWriteError as exc:
            if exc.details["writeConcernErrors"]:
                raise StoreUncertain("the database could not confirm the write") from exc
            if any(error["code"] != _DUPLICATE for error in exc.details["writeErrors"]):
                raise
