"""Lists of sessions, read along an index."""

from collections.abc import Sequence
from typing import Final

from service.domain.entities import Principal, Session
from service.domain.ranges import Place, SessionRange, Unlisted
from service.store.documents import RUNNING, label_entry
from service.store.sqlite.connection import SqliteDatabase
from service.store.sqlite.rows import COLUMNS, from_ms, owner_column, session_of, to_json, to_ms

# The newest turn only while it runs, and without its texts.
_LISTED: Final = COLUMNS.replace(
    " active, active_ending, active_parts",
    f" CASE WHEN active_state = '{RUNNING}' THEN json_set(active, '$.user_text', '') END, NULL, ''",
)
# What is known to be gone needs no more than its place. Whether a session has expired access.py decides; here it is
# said again, so that SQLite need not read all of a session, nor we.
_GONE: Final = (
    "purging OR expire_time <= ? OR deleted_at IS NOT NULL AND ? OR idle_ttl IS NOT NULL"
    f" AND active_state IS NOT '{RUNNING}' AND coalesce(idle_since, create_time) + idle_ttl <= ?"
)
_LISTED_OR_PLACE: Final = _LISTED.replace(" doc,", f" CASE WHEN {_GONE} THEN NULL ELSE doc END,")
_NAMES: Final = COLUMNS.split(", ")
_DOC: Final = _NAMES.index("doc")
WITH_PIECE: Final = "SELECT id FROM titles WHERE whose = ? AND piece = ? ORDER BY id LIMIT ?"
_BETWEEN: Final = "({0}, {1}) > (?, ?) AND ({0}, {1}) < (?, ?) ORDER BY {0} {2}, {1} {2} LIMIT ?"
# The plus keeps SQLite from looking through all of the owner's sessions instead.
BY_ID: Final = f"SELECT {_LISTED} FROM sessions WHERE session_id IN (SELECT value FROM json_each(?)) AND +owner = ?"


class SqliteListing(SqliteDatabase):
    """A ListStore."""

    async def list_sessions(
        self, owner: Principal, wanted: SessionRange, limit: int, unlisted: Unlisted | None = None
    ) -> Sequence[Session | Place]:
        """Return the first sessions of a range, at most `limit`; only the places of those that are unlisted."""
        if unlisted is None:
            rows = await self._read(list_statement(wanted), _parameters(owner, wanted, limit))
            return [session_of(row) for row in rows]
        now = to_ms(unlisted.now)
        parameters = (now, unlisted.deleted, now, *_parameters(owner, wanted, limit))
        time = _NAMES.index(wanted.time_field)
        return [
            session_of(row) if row[_DOC] else Place(from_ms(row[time]), row[0])
            for row in await self._read(list_statement(wanted, _LISTED_OR_PLACE), parameters)
        ]

    async def count_listed(self, owner: Principal, wanted: SessionRange, limit: int) -> int:
        """Count the sessions of a range, up to `limit`."""
        [(count,)] = await self._read(count_statement(wanted), _parameters(owner, wanted, limit))
        return int(count)

    async def titled_ids(self, owner: Principal, piece: str, limit: int) -> Sequence[str]:
        """Return the ids of sessions whose title has this piece, in order, at most `limit`."""
        return [row[0] for row in await self._read(WITH_PIECE, (owner_column(owner), piece, limit))]

    async def listed_sessions(self, owner: Principal, session_ids: Sequence[str]) -> Sequence[Session]:
        """Return those of these sessions that are there."""
        rows = await self._read(BY_ID, (to_json(session_ids), owner_column(owner)))
        return [session_of(row) for row in rows]


def list_statement(wanted: SessionRange, columns: str = _LISTED) -> str:
    """Return the statement that reads a range. Parameters: owner, entry of the label if there is one, bounds, limit."""
    order = "DESC" if wanted.newest_first else "ASC"
    if not wanted.label:
        between = _BETWEEN.format(wanted.time_field, "session_id", order)
        return f"SELECT {columns} FROM sessions WHERE owner = ? AND {between}"
    return (
        f"SELECT {columns} FROM labels_by_{wanted.time_field} CROSS JOIN sessions ON session_id = id"
        f" WHERE whose = ? AND label = ? AND {_BETWEEN.format('time', 'id', order)}"
    )


def count_statement(wanted: SessionRange) -> str:
    """Return the statement that counts a range. Parameters: as of the one that reads it."""
    order = "DESC" if wanted.newest_first else "ASC"
    if not wanted.label:
        between = _BETWEEN.format(wanted.time_field, "session_id", order)
        return f"SELECT count(*) FROM (SELECT 1 FROM sessions WHERE owner = ? AND {between})"
    between = _BETWEEN.format("time", "id", order)
    table = f"labels_by_{wanted.time_field}"
    return f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE whose = ? AND label = ? AND {between})"


def _parameters(owner: Principal, wanted: SessionRange, limit: int) -> tuple[object, ...]:
    label = (label_entry(wanted.label),) if wanted.label else ()
    bounds = (to_ms(wanted.low.time), wanted.low.session_id, to_ms(wanted.high.time), wanted.high.session_id)
    return (owner_column(owner), *label, *bounds, limit)
