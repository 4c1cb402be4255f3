"""Turns of imported sessions."""

from collections.abc import Sequence
from typing import Final

from service.domain.entities import SessionKey, Turn
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import turn_row

_INSERT_TURNS: Final = (
    "INSERT INTO turns (uid, first_seq, turn_id, request_key, owner, session_id, create_time, doc) VALUES {}"
    " ON CONFLICT DO NOTHING RETURNING 1"
)
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteImporting(SqliteDatabase):
    """An ImportStore."""

    async def insert_turns(self, key: SessionKey, turns: Sequence[Turn]) -> None:
        """Insert archived turns; those that are there already stay as they are."""
        if turns:
            rows = [value for turn in turns for value in turn_row(key, turn)]
            await self._write(_INSERT_TURNS.format(", ".join([_ROW] * len(turns))), rows)
