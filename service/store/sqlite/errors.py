"""What SQLite's result codes mean."""

import sqlite3
from pathlib import Path
from typing import Final

SURELY_NOT_APPLIED: Final = {
    sqlite3.SQLITE_BUSY: "the database file is locked",
    sqlite3.SQLITE_LOCKED: "the database file is locked",
    sqlite3.SQLITE_PROTOCOL: "the database file is locked",
    sqlite3.SQLITE_FULL: "the database's disk is full",
    sqlite3.SQLITE_READONLY: "the database file may not be written",
    sqlite3.SQLITE_PERM: "the database file may not be used",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_NOMEM: "no memory left for the database",
}


class UnusableFile(Exception):
    """The file cannot be this service's database; the message says why. Raised at start only."""


def reason_of(path: str, exc: sqlite3.Error) -> str:
    """Say why a file could not be opened."""
    directory = Path(path).parent
    if code_of(exc) == sqlite3.SQLITE_CANTOPEN and not directory.is_dir():
        return f"there is no directory {str(directory)!r}"
    return SURELY_NOT_APPLIED.get(code_of(exc), str(exc))


def code_of(exc: sqlite3.Error) -> int:
    """Return the primary result code; 0 if the error is not SQLite's own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF
