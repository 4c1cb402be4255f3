"""Calls that come while others are under way go together, and each gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from service.domain.errors import StoreUnavailable
from service.store.batching import Batcher
from tests.support.waiting import until


class Flushes:
    """Takes batches; each waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()

    async def are_two(self) -> bool:
        return len(self.batches) == 2

    async def __call__(self, items: Sequence[str]) -> Sequence[str | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        return [ValueError(item) if item.startswith("bad") else item.upper() for item in items]


def batcher(flushes: Flushes, patience_s: float = 30.0, max_flights: int = 2) -> Batcher[str, str]:
    return Batcher(flushes, key=lambda item: item[:4], patience_s=patience_s, max_flights=max_flights)


async def _started(batcher: Batcher[str, str], *items: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(batcher.do(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_meanwhile_goes_together() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    first = await _started(many, "one")
    others = await _started(many, "two", "three", "four")
    assert flushes.batches == [["one"]]
    flushes.gate.set()
    assert await asyncio.gather(*first, *others) == ["ONE", "TWO", "THREE", "FOUR"]
    assert flushes.batches == [["one"], ["two", "three", "four"]]


async def test_who_waits_for_calm_goes_on_after_the_flush() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    await many.calm()
    first = await _started(many, "one")
    waiting = asyncio.create_task(many.calm())
    await asyncio.sleep(0)
    assert not waiting.done()
    flushes.gate.set()
    await asyncio.gather(*first, waiting)
    await many.calm()


async def test_a_slow_flush_holds_nobody_up_who_waits_for_calm() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    first = await _started(many, "slow")
    await many.calm()
    assert not first[0].done()
    flushes.gate.set()
    await first[0]


async def test_behind_a_slow_flush_the_next_begins_all_the_same() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    slow = await _started(many, "slow")
    others = await _started(many, "two", "three")
    await until(flushes.are_two)
    assert flushes.batches == [["slow"], ["two", "three"]]
    flushes.gate.set()
    assert await asyncio.gather(*slow, *others) == ["SLOW", "TWO", "THREE"]


async def test_two_with_one_key_do_not_go_together_and_keep_their_order() -> None:
    flushes = Flushes()
    flushes.gate.set()
    many = batcher(flushes)
    await asyncio.gather(*await _started(many, "same1", "same2", "other", "same3"))
    assert flushes.batches == [["same1", "other"], ["same2"], ["same3"]]


async def test_an_error_is_for_its_own_call_only() -> None:
    flushes = Flushes()
    flushes.gate.set()
    many = batcher(flushes)
    good, bad = await asyncio.gather(*await _started(many, "good", "bad"), return_exceptions=True)
    assert good == "GOOD"
    assert isinstance(bad, ValueError)


async def test_a_caller_that_leaves_takes_nothing_back() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    leaving, staying = await _started(many, "leaving", "staying")
    leaving.cancel()
    await asyncio.wait([leaving])
    flushes.gate.set()
    assert await staying == "STAYING"
    assert flushes.batches == [["leaving", "staying"]]


async def test_one_that_waits_for_too_long_is_sent_away_and_never_flushed() -> None:
    flushes = Flushes()
    many = batcher(flushes, patience_s=0.01, max_flights=1)
    first = await _started(many, "first")
    late = await _started(many, "late")
    await asyncio.sleep(0.05)
    flushes.gate.set()
    assert await first[0] == "FIRST"
    with pytest.raises(StoreUnavailable):
        await late[0]
    assert flushes.batches == [["first"]]


async def test_a_call_that_comes_as_a_flight_ends_is_not_forgotten() -> None:
    flushes = Flushes()
    flushes.gate.set()
    many = batcher(flushes)
    for number in range(20):
        task = asyncio.create_task(many.do(f"{number:04}"))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await many.do(f"x{number:03}") == f"X{number:03}"
            await task


async def test_closing_waits_for_what_is_under_way() -> None:
    flushes = Flushes()
    many = batcher(flushes)
    tasks = await _started(many, "one", "two")
    asyncio.get_running_loop().call_later(0.01, flushes.gate.set)
    await many.close()
    assert all(task.done() for task in tasks)
    assert await asyncio.gather(*tasks) == ["ONE", "TWO"]
