"""Searches in the texts of turns, over SQLite's full-text index."""

import re
from collections.abc import Sequence
from typing import Final

from service.domain.entities import Principal, SessionKey
from service.domain.ports import FoundTurn, UnknownPlace
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import owner_column, turn_of

FIND: Final = (
    "SELECT doc, session_id, turns.uid, id FROM search CROSS JOIN turns ON id = search.rowid"
    " WHERE search MATCH ? AND search.rowid < ? AND turns.owner = ? ORDER BY search.rowid DESC LIMIT ?"
)
_NEWEST: Final = 2**63 - 1
_PLACE: Final = re.compile(r"-?[0-9]{1,18}|-?[0-8][0-9]{18}")


class SqliteSearching(SqliteDatabase):
    """A SearchStore."""

    async def find_turns(
        self, owner: Principal, phrases: Sequence[Sequence[str]], *, uid: str, after: str, limit: int
    ) -> tuple[Sequence[FoundTurn], str]:
        """Return archived turns that have all phrases in one of their messages, newest first, at most `limit`."""
        if after and not _PLACE.fullmatch(after):
            raise UnknownPlace(after)
        place = int(after) if after else _NEWEST
        column = owner_column(owner)
        rows = await self._read(FIND, (_match(column, phrases, uid), place, column, limit))
        found = [FoundTurn(SessionKey(owner, row[1], row[2]), turn_of(row), str(row[3])) for row in rows]
        return found, found[-1].place if len(found) == limit else ""


def _match(owner: str, phrases: Sequence[Sequence[str]], uid: str) -> str:
    """Return the search in FTS5's language. Words hold no quotes, nor anything else that is not of a word."""
    all_of_them = " AND ".join(f'"{" ".join(phrase)}"' for phrase in phrases)
    of_session = f' AND uid : "{uid}"' if uid else ""
    return f'owner : "{owner.encode().hex()}"{of_session} AND (question : ({all_of_them}) OR answer : ({all_of_them}))'
