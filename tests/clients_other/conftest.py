"""The real service, and one behind a proxy that cuts connections."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients_other.cuts import Cuts
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path) as server:
        yield server


@pytest.fixture
async def cuts(server: ServerProcess) -> AsyncIterator[Cuts]:
    host, _, port = server.grpc_target.rpartition(":")
    async with Proxy(host, int(port)) as proxy:
        cuts = Cuts()
        cuts.target = f"127.0.0.1:{proxy.port}"
        proxy.on_response = cuts.is_next_in
        yield cuts
