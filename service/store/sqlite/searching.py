"""Searches in the texts of turns, over SQLite's full-text index.

The index is asked for one word at a time, and for so many turns: to join words itself it would go through all turns of
words that are common and never together, in one statement, while everybody else waits.
"""

import re
from collections.abc import Sequence
from typing import Final

from service.domain.entities import Principal, SessionKey
from service.domain.ports import FoundTurn, UnknownPlace
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import owner_column, to_json, turn_of

WITH_WORD: Final = "SELECT rowid FROM search WHERE search MATCH ? AND rowid <= ? ORDER BY rowid DESC LIMIT ?"
BY_IDS: Final = (
    "SELECT doc, session_id, uid, id FROM turns WHERE id IN (SELECT value FROM json_each(?)) AND owner = ?"
    " AND uid = coalesce(?, uid) ORDER BY id DESC"
)
_NEWEST: Final = 2**63 - 1
_PLACE: Final = re.compile(r"-?[0-9]{1,18}|-?[0-8][0-9]{18}")
_SCANNED: Final = 1000
# Whether turns have the words beyond these, who asks finds out by itself.
_MAX_WORDS: Final = 6


class SqliteSearching(SqliteDatabase):
    """A SearchStore."""

    async def find_turns(
        self, owner: Principal, phrases: Sequence[Sequence[str]], *, uid: str, after: str, limit: int
    ) -> tuple[Sequence[FoundTurn], str]:
        """Return archived turns that have all words of the phrases, newest first, at most `limit`."""
        if after and not _PLACE.fullmatch(after):
            raise UnknownPlace(after)
        column = owner_column(owner)
        terms = [*_words(phrases), f'uid : "{uid}"' if uid else f'owner : "{column.encode().hex()}"']
        ids, rest = await self._ids(terms, int(after) - 1 if after else _NEWEST, limit)
        rows = await self._read(BY_IDS, (to_json(ids), column, uid or None)) if ids else ()
        return [FoundTurn(SessionKey(owner, row[1], row[2]), turn_of(row), str(row[3])) for row in rows], rest

    async def _ids(self, terms: Sequence[str], newest: int, limit: int) -> tuple[Sequence[int], str]:
        """Return the newest turns that may have all terms, and behind which place to go on."""
        lists: list[list[int]] = []
        for term in terms:
            ids = [row[0] for row in await self._read(WITH_WORD, (term, newest, _SCANNED))]
            if len(ids) <= min(limit, _SCANNED - 1):
                return ids, ""  # no more than can be looked at
            lists.append(ids)
            newest = ids[0]
        return _common(lists, limit)


def _common(lists: Sequence[Sequence[int]], limit: int) -> tuple[Sequence[int], str]:
    """Return the first ids that may be in all of the lists, which are in descending order and longer than `limit`, but
    may be cut; and the place behind which more may follow.
    """
    low = max((ids[-1] for ids in lists if len(ids) == _SCANNED), default=None)
    common = sorted((i for i in set.intersection(*map(set, lists)) if low is None or i >= low), reverse=True)
    if len(common) > limit or low is None:
        return common[:limit], str(common[limit - 1]) if len(common) > limit else ""
    # Where one is sparse, more is done by looking at its own.
    sparse = min(lists, key=lambda ids: ids[limit - 1])[:limit]
    if sparse[-1] < low:
        return [*common, *(i for i in sparse if i < low)], str(sparse[-1])
    return common, str(low)


def _words(phrases: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return words in FTS5's language, the longest first, which are likely the rarest.

    They hold no quotes, nor anything else that is not of a word.
    """
    words = {word for phrase in phrases for word in phrase}
    return [f'{{question answer}} : "{word}"' for word in sorted(words, key=lambda word: (-len(word), word))][
        :_MAX_WORDS
    ]
