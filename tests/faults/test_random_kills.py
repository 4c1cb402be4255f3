"""Servers that are killed and paused at random while workers send: nothing lost, nothing twice, text equal.

FAULT_SECONDS says for how long (60), FAULT_SEED which chances (random; printed).
"""

import asyncio
import os
import random
import time

import pytest

from service.llm.demo import DemoServer
from service.llm.tally import message_key
from tests.faults.conftest import SHORT_LEASE_S, Stage
from tests.support.fleet import Fleet
from tests.support.workload import Ledger, Worker, all_settled, faults_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

DURATION_S = float(os.environ.get("FAULT_SECONDS", "60"))
WORKERS = 8
SESSIONS = 6
# Time for what was begun, with leases to run out and attempts to be repeated.
FINISH_S = 60.0


class Chaos:
    """Kills and pauses servers; at most one is away at a time, now and then both."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self.done: dict[str, int] = {}

    async def run(self, until: float) -> None:
        """Do harm until a time of the steady clock; all servers run at the end."""
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(0.2, 2.0))
            numbers = [0, 1] if self._random.random() < 0.15 else [self._random.randrange(2)]
            await asyncio.gather(*(self._harm(number) for number in numbers))

    async def _harm(self, number: int) -> None:
        kind = self._random.choice(("kill", "kill", "pause", "long pause"))
        self.done[kind] = self.done.get(kind, 0) + 1
        if kind == "kill":
            await self._fleet.kill(number)
            await asyncio.sleep(self._random.uniform(0.0, 1.5 * SHORT_LEASE_S))
            await self._fleet.restart(number)
            return
        self._fleet.server(number).pause()
        low, high = (0.1, 0.8) if kind == "pause" else (1.2, 2.5)
        await asyncio.sleep(self._random.uniform(low, high) * SHORT_LEASE_S)
        self._fleet.server(number).resume()


def _alarms(fleet: Fleet) -> int:
    return sum(
        len(fleet.log_of(event)) for event in ("another turn stands in this one's place", "call failed unexpectedly")
    )


@pytest.mark.timeout(DURATION_S + FINISH_S + 120)
async def test_nothing_is_lost_or_doubled_when_servers_are_killed_and_paused(stage: Stage, demo: DemoServer) -> None:
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1, 10**6)
    print(f"FAULT_SEED={seed}")
    ledger, fleet = Ledger(), stage.fleet
    alarms = _alarms(fleet)  # other tests on this stage may have provoked some
    sessions = [await fleet.doors[0].grpc.create_session() for _ in range(SESSIONS)]
    chaos, end = Chaos(fleet, seed), time.monotonic() + DURATION_S
    workers = [Worker(f"{seed}w{n}", lambda: fleet.doors, sessions, ledger, seed) for n in range(WORKERS)]
    async with asyncio.timeout(DURATION_S + FINISH_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(chaos.run(end))
        for worker in workers:
            tasks.create_task(worker.run(end))
    await all_settled(fleet.doors[0].grpc, sessions, timeout_s=FINISH_S)
    for door in fleet.doors:
        faults = await faults_in(door.grpc, ledger, lambda text: demo.tally.by_message.get(message_key(text), 0))
        assert not faults, "\n".join(faults)
    taken_over = len(fleet.log_of("turn taken over"))
    tries = sum(told.tries for told in ledger.sends)
    print(f"{len(ledger.sends)} sends, {tries} tries, {chaos.done}, {taken_over} take-overs")
    assert _alarms(fleet) == alarms
    assert len(ledger.sends) > DURATION_S / 2
