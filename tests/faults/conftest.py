"""Real servers, two on one store, with one demo model for all that counts its calls.

All tests here run in the session's event loop, so that servers serve many tests: starting one takes seconds. Each test
makes sessions of its own and leaves no turn running. Servers that a test has killed are started anew for the next.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from pymongo.uri_parser import parse_uri

from service.llm.demo import DemoServer
from tests.support.door import Door
from tests.support.fleet import Fleet
from tests.support.mongo import database_name, mongo_client, mongo_database, mongo_uri
from tests.support.mongo_proxy import MongoProxy, pass_on

__all__ = ["mongo_client", "mongo_database", "mongo_uri"]

Pair = list[Door]

SHORT_LEASE_S = 2.0
STOP_LEASE_S = 9.0
STORE_TIMEOUT_S = 2.0

_FLAVOURS = {
    # For tests that harm no server: nobody loses a lease, however slow the machine is.
    "steady": {"LEASE_SECONDS": "30", "STOP_GRACE_SECONDS": "0"},
    # For tests that kill and pause.
    "short": {"LEASE_SECONDS": str(SHORT_LEASE_S), "STOP_GRACE_SECONDS": "0"},
    # For tests that stop servers in good order.
    "stop": {"LEASE_SECONDS": str(STOP_LEASE_S), "STOP_GRACE_SECONDS": "0.5"},
    # For tests that harm the database.
    "stalling": {
        "LEASE_SECONDS": "30",
        "STOP_GRACE_SECONDS": "0",
        "STORE_TIMEOUT_SECONDS": str(STORE_TIMEOUT_S),
    },
}


@dataclass
class Stage:
    """Two servers on a store of their own. proxies: before the MongoDB of each; none on SQLite."""

    fleet: Fleet
    proxies: list[MongoProxy]
    sqlite_path: str = ""


class Stages:
    """The stages of this test session, set up when first asked for."""

    def __init__(self, demo: DemoServer, stack: AsyncExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._demo = demo
        self._stack = stack
        self._tmp_path_factory = tmp_path_factory
        self._stages: dict[tuple[str, str], Stage] = {}

    @asynccontextmanager
    async def lent(self, store_kind: str, flavour: str, mongo_uri: str) -> AsyncIterator[Stage]:
        """A stage with both servers running and no fault in the way; at the end none may have fallen by itself."""
        key = store_kind, flavour
        if key not in self._stages:
            self._stages[key] = await self._set_up(store_kind, _FLAVOURS[flavour], mongo_uri)
        stage = self._stages[key]
        for proxy in stage.proxies:
            proxy.rule = pass_on
            proxy.held.clear()
        await stage.fleet.heal()
        yield stage
        stage.fleet.assert_none_fell()

    async def _set_up(self, store_kind: str, settings: dict[str, str], mongo_uri: str) -> Stage:
        stack = self._stack
        cwd = self._tmp_path_factory.mktemp("servers")
        settings = {**_model_settings(self._demo), **settings}
        if store_kind == "sqlite":
            path = str(cwd / "sessions.db")
            fleet = Fleet(cwd, [{**settings, "SQLITE_PATH": path}] * 2)
            return Stage(await stack.enter_async_context(fleet), [], path)
        [(host, port), *_] = parse_uri(mongo_uri)["nodelist"]
        settings["MONGO_DATABASE"] = database_name()
        proxies = [await stack.enter_async_context(MongoProxy(host, port)) for _ in range(2)]
        fleet = Fleet(cwd, [{**settings, "MONGO_URI": proxy.uri} for proxy in proxies])
        return Stage(await stack.enter_async_context(fleet), proxies)


def _model_settings(demo: DemoServer) -> dict[str, str]:
    return {"OPENAI_BASE_URL": demo.base_url, "OPENAI_API_KEY": "test", "MODEL_ATTEMPTS": "1"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo() -> AsyncIterator[DemoServer]:
    """The model provider of all servers."""
    server = DemoServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stages(demo: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stages]:
    """All servers of the session."""
    async with AsyncExitStack() as stack:
        yield Stages(demo, stack, tmp_path_factory)


@pytest.fixture(params=("sqlite", "mongo"))
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each of the stores in turn."""
    kind: str = request.param
    return kind


@pytest.fixture
def store_uri(store_kind: str, request: pytest.FixtureRequest) -> str:
    """The MongoDB, for tests that use one; skips if there is none."""
    return request.getfixturevalue("mongo_uri") if store_kind == "mongo" else ""


@pytest.fixture(params=("grpc", "rest"))
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the transports in turn."""
    name: str = request.param
    return name


@pytest.fixture
def one_transport(store_kind: str) -> str:
    """One transport for each store, where a test takes too long for both."""
    return {"sqlite": "grpc", "mongo": "rest"}[store_kind]


@pytest_asyncio.fixture(loop_scope="session")
async def pair(stages: Stages, store_kind: str, store_uri: str) -> AsyncIterator[Pair]:
    """Two servers, A and B, on one store; not to be harmed."""
    async with stages.lent(store_kind, "steady", store_uri) as stage:
        yield stage.fleet.doors


@pytest_asyncio.fixture(loop_scope="session")
async def stage(stages: Stages, store_kind: str, store_uri: str) -> AsyncIterator[Stage]:
    """Two servers with a short lease, to be killed and paused."""
    async with stages.lent(store_kind, "short", store_uri) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stop_stage(stages: Stages, store_kind: str, store_uri: str) -> AsyncIterator[Stage]:
    """Two servers to be stopped in good order."""
    async with stages.lent(store_kind, "stop", store_uri) as stage:
        yield stage
