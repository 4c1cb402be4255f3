"""The stores that the contract suite runs over.

`store` is one store; `make_store` opens any number of them over one database, as several processes would.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.domain.ports import SessionStore
from service.store.mongo import MongoStore
from service.store.sqlite import SqliteStore
from tests.support.mongo import mongo_client, mongo_database, mongo_uri

__all__ = ["mongo_client", "mongo_database", "mongo_uri"]

MakeStore = Callable[[], Awaitable[SessionStore]]
_SHARED = ("sqlite", "mongo")


@pytest.fixture(params=_SHARED)
def shared_kind(request: pytest.FixtureRequest) -> str:
    """The kind of a store that several instances can share."""
    kind: str = request.param
    return kind


@pytest.fixture(params=("memory", *_SHARED))
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of a store."""
    kind: str = request.param
    return kind


@pytest.fixture
async def make_store(shared_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Open one more store over the test's database; closed after the test."""
    async with AsyncExitStack() as stack:
        maker = _maker(shared_kind, request, tmp_path)

        async def make() -> SessionStore:
            store = maker()
            stack.push_async_callback(store.close)
            await store.open()
            return store

        yield make


@pytest.fixture
async def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """An open store over a database of its own."""
    store = _maker(kind, request, tmp_path)()
    await store.open()
    yield store
    await store.close()


def _maker(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SqliteStore | MongoStore]:
    if kind == "memory":
        return lambda: SqliteStore(":memory:")
    if kind == "sqlite":
        return lambda: SqliteStore(str(tmp_path / "sessions.db"))
    uri, database = request.getfixturevalue("mongo_uri"), request.getfixturevalue("mongo_database")
    return lambda: MongoStore(uri, database)
