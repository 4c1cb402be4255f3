"""The servers that tests share are lent only once they have their database, whatever ran in between."""

import time

import pytest

from tests.faults.conftest import Stages

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_after_a_test_without_the_event_loop_the_database_is_there_again(stages: Stages, mongo_uri: str) -> None:
    async with stages.lent("mongo", "steady", mongo_uri):
        pass
    time.sleep(5)  # noqa: ASYNC251  # the proxies before the database stand still meanwhile
    async with stages.lent("mongo", "steady", mongo_uri) as stage:
        for door in stage.fleet.doors:
            assert await door.grpc.create_session()
