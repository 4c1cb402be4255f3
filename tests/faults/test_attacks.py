"""Hostile callers of REST get what they should, take little memory, leave nothing behind, and keep nobody waiting."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.support.attacks import ATTACKS, OPEN, RESET, Attack, Tally, Target, besiege
from tests.support.calls import send_request
from tests.support.door import Door, doors
from tests.support.server import running_server, start_server
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CROWD = next(attack for attack in ATTACKS if attack.name == "open and say nothing")
# The server's own, for the store, the model and the caller of the test, come and go.
_FILES_OF_ITS_OWN = 8


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Door, Target]]:
    """A server with its default limits, and what the attackers know of it."""
    async with running_server(tmp_path_factory.mktemp("attacked")) as server, doors(server) as [door]:
        session_id = await door.grpc.create_session()
        for kib in (250, 250, 250, 250, 1000):
            answer = await door.grpc.send(send_request(session_id, "long", model=f"demo/big:kib={kib}"))
        parts = urlsplit(server.http_url)
        yield door, Target(parts.hostname or "", parts.port or 0, session_id, answer.turn.turn_id)
        assert [str(entry) for entry in server.log if "Traceback" in str(entry) or entry.get("level") == "error"] == []


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def _talk(door: Door, attack: Attack, tally: Tally) -> None:
    """Have conversations until the attackers are there and have had their answers."""
    while tally.begun < attack.attackers or not (tally.outcomes[attack.usual] or attack.usual == OPEN):
        await _converse(door)
    for _ in range(10):
        await _converse(door)


async def _converse(door: Door) -> None:
    session_id = await door.rest.create_session()
    assert await door.rest.ask(session_id, "hello", "demo/echo") == "hello"
    assert await door.rest.said(session_id) == [("user", "hello"), ("assistant", "hello")]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_attackers_are_bounded_and_others_are_served(attacked: tuple[Door, Target], attack: Attack) -> None:
    door, target = attacked
    pid = door.server.pid
    await _converse(door)
    files, rss_mib = _files(pid), _rss_mib(pid)
    tally = Tally()
    besieging = asyncio.ensure_future(besiege(attack, target, tally, within_s=1.0))
    try:
        async with asyncio.timeout(60):
            await _talk(door, attack, tally)
        grown_mib = _rss_mib(pid) - rss_mib
    finally:
        besieging.cancel()
        with suppress(asyncio.CancelledError):
            await besieging

    assert attack.usual in tally.outcomes
    assert set(tally.outcomes) <= {attack.usual, *attack.others}
    assert grown_mib <= attack.most_mib

    async def is_rid_of_them() -> bool:
        return _files(pid) <= files + _FILES_OF_ITS_OWN

    await until(is_rid_of_them)
    await _converse(door)


async def test_connections_beyond_the_limit_are_refused_and_the_others_served(tmp_path: Path) -> None:
    async with running_server(tmp_path, MAX_HTTP_CONNECTIONS="20") as server, doors(server) as [door]:
        await _converse(door)
        parts = urlsplit(server.http_url)
        tally = Tally()
        target = Target(parts.hostname or "", parts.port or 0)
        besieging = asyncio.ensure_future(besiege(_CROWD, target, tally, attackers=100, within_s=0.5))
        try:
            async with asyncio.timeout(30):
                while tally.begun < 100 or tally.outcomes["503"] < 80:
                    await _converse(door)
        finally:
            besieging.cancel()
            with suppress(asyncio.CancelledError):
                await besieging
    assert set(tally.outcomes) <= {"503", OPEN, RESET}


async def test_the_number_of_open_files_is_raised_to_what_is_allowed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    try:
        server = await start_server(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    await server.stop()
    assert allowed == (hard, hard)
