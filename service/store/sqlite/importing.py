"""Turns of imported sessions."""

from collections.abc import Sequence

from service.domain.entities import SessionKey, Turn
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import insert_turns, turn_row


class SqliteImporting(SqliteDatabase):
    """An ImportStore."""

    async def insert_turns(self, key: SessionKey, turns: Sequence[Turn]) -> None:
        """Insert archived turns; those that are there already stay as they are."""
        if turns:
            rows = [value for nth, turn in enumerate(turns, 1) for value in turn_row(key, turn, nth=nth)]
            await self._write(insert_turns(len(turns)), rows)
