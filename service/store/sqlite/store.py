"""The store, put together of its parts."""

from service.store.sqlite.erasing import SqliteErasing
from service.store.sqlite.importing import SqliteImporting
from service.store.sqlite.listing import SqliteListing
from service.store.sqlite.purging import SqlitePurging
from service.store.sqlite.searching import SqliteSearching
from service.store.sqlite.sessions import SqliteSessions
from service.store.sqlite.turns import SqliteTurns


class SqliteStore(
    SqliteSessions, SqliteTurns, SqlitePurging, SqliteImporting, SqliteErasing, SqliteListing, SqliteSearching
):
    """A SessionStore in one file on a local disk, or in memory (`:memory:`, one process, gone with `close`)."""
