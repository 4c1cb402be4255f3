"""Reads of sessions, which most calls begin with. Those that wait at the same time become one command."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from service.domain.deadline import remaining_s
from service.domain.entities import Principal
from service.domain.errors import StoreUnavailable
from service.store.batching import Batcher, outcome
from service.store.documents import owner_to_doc
from service.store.mongo.connection import BUT_INDEXED, Doc, MongoDatabase

# Sessions may be large, and all that a command returns is decoded at one go.
_MAX_LOOKS: Final = 16


class Look(NamedTuple):
    """One session, as its owner asks for it."""

    owner: Principal
    session_id: str


class MongoLooks(MongoDatabase):
    """LOOK of docs/turns.md."""

    def __init__(self, uri: str, database: str, *, operation_timeout_s: float = 5.0) -> None:
        super().__init__(uri, database, operation_timeout_s=operation_timeout_s)
        self._looks = Batcher(
            self._look_at_all,
            key=id,  # any may go together
            patience_s=operation_timeout_s,
            max_items=_MAX_LOOKS,
        )

    async def close(self) -> None:
        """Close the connections; calls under way fail. May be called twice."""
        await super().close()
        await self._looks.close()

    async def _look(self, look: Look) -> Doc | None:
        if not self._is_short_of_time():
            return await self._looks.do(look)
        try:
            async with asyncio.timeout(remaining_s(self._operation_timeout_s)):
                return await self._looks.do(look)
        except TimeoutError:
            raise StoreUnavailable("no time left to ask the database") from None

    async def _look_at(self, look: Look) -> Doc | None:
        condition = {"_id": look.session_id, "owner": owner_to_doc(look.owner)}
        doc: Doc | None = await self._read(self._sessions.find_one, condition, BUT_INDEXED)
        return doc

    async def _look_at_all(self, looks: Sequence[Look]) -> Sequence[Doc | Exception | None]:
        if len(looks) == 1:
            return [await outcome(self._look_at(looks[0]))]
        ids = list({look.session_id for look in looks})
        docs = await outcome(self._find(self._sessions, {"_id": {"$in": ids}}, limit=len(ids), projection=BUT_INDEXED))
        if isinstance(docs, StoreUnavailable):
            return [StoreUnavailable(str(docs)) for _ in looks]
        if isinstance(docs, Exception):
            # One of them cannot be asked for at all; it alone is to fail.
            return [await outcome(self._look_at(look)) for look in looks]
        by_id = {doc["_id"]: doc for doc in docs}
        return [_owned(by_id.get(look.session_id), look.owner) for look in looks]


def _owned(doc: Doc | None, owner: Principal) -> Doc | None:
    return doc if doc and doc["owner"] == owner_to_doc(owner) else None
