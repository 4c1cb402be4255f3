"""Five thousand random lives of sessions: the service does what a plain model says, and nothing dead is left.

LIFECYCLE_SEEDS runs another number; LIFECYCLE_FIRST_SEED begins elsewhere.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

import pytest

from service.domain import access, purger, sessions
from service.domain.lifetime import Lifetimes
from service.domain.ports import SessionStore
from service.domain.purger import Purger
from service.domain.sessions import Sessions
from tests.contract.model import ModelStore
from tests.lifecycle.run import Run, first_broken, run

_SEEDS = int(os.environ.get("LIFECYCLE_SEEDS", "5000"))
_FIRST = int(os.environ.get("LIFECYCLE_FIRST_SEED", "0"))
_CHUNK = 1250
_BATCH = 125
_CHUNKS = [(begin, min(begin + _CHUNK, _FIRST + _SEEDS)) for begin in range(_FIRST, _FIRST + _SEEDS, _CHUNK)]


@pytest.mark.parametrize(("begin", "end"), _CHUNKS, ids=[f"{begin}-{end - 1}" for begin, end in _CHUNKS])
def test_no_life_is_another_than_the_models(begin: int, end: int) -> None:
    workers = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(os.cpu_count() or 1, 4)
    begins = range(begin, end, _BATCH)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        broken = [found for found in pool.map(first_broken, begins, [min(b + _BATCH, end) for b in begins]) if found]
    assert not broken, "\n".join(f"python -m tests.lifecycle --seed {seed} --trace\n  {what}" for seed, what in broken)


@pytest.mark.parametrize("first", range(0, 40, 10))
async def test_a_real_store_gives_the_same_lives(store: SessionStore, first: int) -> None:
    for seed in range(first, first + 10):
        await Run(seed, store).happen(40)


def test_a_seed_replays() -> None:
    for seed in range(20):
        traces: list[list[str]] = [[], []]
        for trace in traces:
            run(seed, trace=trace.append)
        assert traces[0] == traces[1]


def test_lives_are_worth_their_time() -> None:
    """What the seeds hold: each call, answered and refused; turns that run; sessions that are removed."""
    lines: list[str] = []
    for seed in range(200):
        run(seed, trace=lines.append)
    for call in ("creates", "sends", "begins", "gets", "updates", "deletes", "undeletes", "reads", "exports"):
        assert sum(f" {call} " in line and line.endswith(": OK") for line in lines) > 100, call
    for reason in ("SESSION_EXISTS", "SESSION_NOT_FOUND", "SESSION_EXPIRED", "SESSION_BUSY", "STALE_ETAG"):
        assert sum(line.endswith(reason) for line in lines) > 50, reason
    assert sum("purged ['" in line for line in lines) > 200


# Rules taken out on purpose: the lives show it.

_is_expired = access.is_expired
_expiry = access.expiry
_undelete = ModelStore.undelete


def expired_a_moment_late(session: Any, now: Any) -> bool:
    return _is_expired(session, now - timedelta(milliseconds=1))


def idle_though_it_runs(session: Any) -> Any:
    return _expiry(replace(session, active=None))


def idle_since_its_creation(session: Any) -> Any:
    return _expiry(replace(session, idle_since=None))


async def deleted_turns_only(self: Purger, key: Any) -> int:
    return await self._delete_turns(key)


async def undeleted_as_idle_as_before(self: ModelStore, session: Any, idle_since: Any, look_at: Any) -> Any:
    return await _undelete(self, session, session.idle_since or session.create_time, look_at)


async def nothing_deleted(self: ModelStore, key: Any, limit: int) -> int:
    return 0


async def purged_whatever_has_become_of_it(self: ModelStore, read: Any, look_at: Any) -> bool:
    return True


BROKEN: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "expired a moment late": [(where, "is_expired", expired_a_moment_late) for where in (access, sessions)],
    "idle though a turn runs": [(access, "expiry", idle_though_it_runs)],
    "idle since its creation": [(access, "expiry", idle_since_its_creation)],
    "an undeleted session is as idle as before": [(ModelStore, "undelete", undeleted_as_idle_as_before)],
    "hints are never set": [(Lifetimes, "look_at", lambda *_: None)],
    "removed without grace": [(Lifetimes, "purge_time", lambda self, session: session.deleted_at or _expiry(session))],
    "sessions are left": [(Purger, "finish", deleted_turns_only)],
    "turns are left": [(ModelStore, "delete_turns", nothing_deleted)],
    "purging is never begun": [(ModelStore, "start_purge", purged_whatever_has_become_of_it)],
    "a killed purger's work is left": [(purger, "_CLAIM", timedelta(days=4000))],  # type: ignore[list-item]
    "a creation is not compared": [(sessions.SessionFields, "fingerprint", lambda *_: "same")],
    "etags are not compared": [(sessions, "_check_etag", lambda *_: None)],
    "a repeat is not recognised": [(Sessions, "_is_there", lambda *_: False)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for where, attribute, replacement in BROKEN[name]:
        monkeypatch.setattr(where, attribute, replacement)
    assert any(_disagrees(seed) for seed in range(300))


def _disagrees(seed: int) -> bool:
    try:
        return bool(run(seed))
    except TimeoutError:
        return True
