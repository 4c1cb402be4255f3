from collections.abc import AsyncIterator

import pytest

from service.store.sqlite import SqliteStore


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    sqlite = SqliteStore(":memory:")
    await sqlite.open()
    yield sqlite
    await sqlite.close()
