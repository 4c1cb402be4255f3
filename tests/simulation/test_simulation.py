"""Ten thousand runs, each with its own clients, faults, crashes and take-overs: no promise is broken.

SIMULATION_SEEDS runs another number; SIMULATION_FIRST_SEED begins elsewhere.
"""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.run import first_broken, simulate

_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "10000"))
_FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
_CHUNK = 1250
_BATCH = 125
_CHUNKS = [(begin, min(begin + _CHUNK, _FIRST + _SEEDS)) for begin in range(_FIRST, _FIRST + _SEEDS, _CHUNK)]


@pytest.mark.parametrize(("begin", "end"), _CHUNKS, ids=[f"{begin}-{end - 1}" for begin, end in _CHUNKS])
def test_no_seed_breaks_a_promise(begin: int, end: int) -> None:
    workers = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(os.cpu_count() or 1, 4)
    begins = range(begin, end, _BATCH)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        broken = [found for found in pool.map(first_broken, begins, [min(b + _BATCH, end) for b in begins]) if found]
    report = [
        "\n  ".join((f"python -m tests.simulation --seed {seed} --trace", *violations)) for seed, violations in broken
    ]
    assert not broken, "\n".join(report)


def test_the_runs_are_worth_their_time() -> None:
    """What the seeds hold: turns, answers, take-overs; and runs in which nothing is taken over."""
    outcomes = [simulate(seed) for seed in range(200)]
    assert sum(outcome.turns for outcome in outcomes) > 300
    assert sum(outcome.model_calls for outcome in outcomes) > 300
    assert sum(outcome.take_overs for outcome in outcomes) > 30
    assert sum(outcome.take_overs == 0 for outcome in outcomes) > 50


def test_a_seed_replays() -> None:
    for seed in range(40):
        assert simulate(seed, trace=True) == simulate(seed, trace=True)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_in_another_process(hash_seed: str) -> None:
    seed = 7
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--trace"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}
    )
    assert tuple(done.stdout.splitlines()[: len(simulate(seed, trace=True).lines)]) == simulate(seed, trace=True).lines
