import pytest
import structlog

from service.domain.errors import StoreUnavailable
from service.rpc.health import Readiness
from service.rpc.pipeline import SERVICE_NAME


class Store:
    """Answers pings or not."""

    is_away = False

    async def ping(self) -> None:
        if self.is_away:
            raise StoreUnavailable


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def readiness(store: Store) -> Readiness:
    readiness = Readiness(store.ping, log=structlog.get_logger())
    await readiness.start()
    return readiness


async def test_not_serving_until_the_store_answers(store: Store, readiness: Readiness) -> None:
    store.is_away = True
    await readiness.check()
    assert readiness.status("") == "NOT_SERVING"
    store.is_away = False
    await readiness.check()
    assert (readiness.status(""), readiness.status(SERVICE_NAME)) == ("SERVING", "SERVING")


async def test_one_lost_ping_does_not_move_traffic_and_two_do(store: Store, readiness: Readiness) -> None:
    await readiness.check()
    store.is_away = True
    await readiness.check()
    assert readiness.status("") == "SERVING"
    await readiness.check()
    assert readiness.status("") == "NOT_SERVING"


async def test_stays_down_once_stopped(readiness: Readiness) -> None:
    await readiness.check()
    await readiness.stop()
    assert readiness.status("") == "NOT_SERVING"


async def test_other_services_are_unknown(readiness: Readiness) -> None:
    assert readiness.status("other.Service") == "SERVICE_UNKNOWN"
