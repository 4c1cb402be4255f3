"""Sessions in a SQLite file. Several processes may share the file.

Each write is one autocommit statement whose RETURNING rows are fetched to the end in one go in the connection's
thread: a cancelled await leaves nothing half done, the statement then runs (or has run) to its end all the same.
SQLite tells for sure whether a statement was applied; only a failing disk leaves it open.
"""

from service.store.sqlite.errors import UnusableFile
from service.store.sqlite.schema import SCHEMA_VERSION
from service.store.sqlite.store import SqliteStore

__all__ = ["SCHEMA_VERSION", "SqliteStore", "UnusableFile"]
