import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.domain.keeper import LeaseKeeper
from service.domain.runner import TurnLimits
from service.domain.tasks import TaskOwner

LIMITS = TurnLimits(lease_s=0.3, beat_s=0.02)


class Runner:
    """Stands for a runner: notes how it was asked, and how often it was saved."""

    def __init__(self, *, has_news: bool = True) -> None:
        self.has_news = has_news
        self.idle_s = 0.0
        self.saved = 0

    def is_due(self, now: float, *, beat_s: float, idle_s: float) -> bool:
        self.idle_s = idle_s
        return self.has_news

    def save(self, tasks: TaskOwner) -> None:
        self.saved += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # nobody here could set an event
            await asyncio.sleep(LIMITS.beat_s)


@pytest.fixture
def keeper() -> Any:
    return LeaseKeeper(TaskOwner(), limits=LIMITS)


async def test_every_turn_is_saved_again_and_again(keeper: Any) -> None:
    runners = [Runner() for _ in range(3)]
    for runner in runners:
        keeper.add(runner)
    await until(lambda: all(runner.saved > 2 for runner in runners))
    for runner in runners:
        keeper.remove(runner)


async def test_a_turn_that_has_ended_is_saved_no_more(keeper: Any) -> None:
    fast, other = Runner(), Runner()
    keeper.add(fast)
    keeper.add(other)
    keeper.remove(fast)
    await until(lambda: other.saved > 2)
    assert fast.saved == 0
    keeper.remove(other)


async def test_a_keeper_that_had_nothing_to_do_begins_again(keeper: Any) -> None:
    first, second = Runner(), Runner()
    for runner in (first, second):
        keeper.add(runner)
        await until(lambda runner=runner: runner.saved > 0)
        keeper.remove(runner)
        await asyncio.sleep(LIMITS.beat_s * 3)


@pytest.mark.parametrize(("count", "idle_s"), [(3, LIMITS.beat_s), (2000, LIMITS.lease_s / 3)])
async def test_turns_without_new_text_wait_longer_where_there_are_very_many(
    keeper: Any, count: int, idle_s: float
) -> None:
    runners = [Runner(has_news=number % 2 == 0) for number in range(count)]
    for runner in runners:
        keeper.add(runner)
    await until(lambda: all(runner.saved for runner in runners[::2]))
    assert all(runner.idle_s == pytest.approx(idle_s) for runner in runners)
    assert not any(runner.saved for runner in runners[1::2])
    for runner in runners:
        keeper.remove(runner)
