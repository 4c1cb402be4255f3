"""`within`: a bound on waiting."""

import asyncio
import gc
from contextlib import suppress
from weakref import ref

import pytest

from service.rest.waiting import within


class Work:
    """A coroutine that sleeps so long in each step, and how it ended."""

    def __init__(self, *steps_s: float) -> None:
        self.steps_s = steps_s
        self.ended = ""

    async def run(self) -> str:
        try:
            for step_s in self.steps_s:
                await asyncio.sleep(step_s)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return self.ended


async def _fail(after_s: float | None) -> None:
    if after_s is not None:
        await asyncio.sleep(after_s)
    raise KeyError("why")


@pytest.mark.parametrize("steps_s", [(), (0.0,), (0.0, 0.001, 0.0)])
async def test_what_is_done_in_time_is_returned(steps_s: tuple[float, ...]) -> None:
    assert await within(10, Work(*steps_s).run()) == "done"


async def test_what_is_done_at_once_needs_no_time() -> None:
    assert await within(0, Work().run()) == "done"


@pytest.mark.parametrize("steps_s", [(60.0,), (0.001, 60.0)])
async def test_what_waits_for_too_long_is_cancelled(steps_s: tuple[float, ...]) -> None:
    work = Work(*steps_s)
    with pytest.raises(TimeoutError):
        await within(0.01, work.run())
    assert work.ended == "cancelled"
    await asyncio.sleep(0)  # no cancellation is left over


@pytest.mark.parametrize("after_s", [None, 0.0, 0.001])
async def test_errors_are_raised(after_s: float | None) -> None:
    with pytest.raises(KeyError, match="why"):
        await within(10, _fail(after_s))


async def test_a_cancellation_from_outside_goes_through() -> None:
    work = Work(0.0, 60.0)
    task = asyncio.create_task(within(10, work.run()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended == "cancelled"


async def test_work_may_go_on_behind_an_error_that_it_catches() -> None:
    async def work() -> str:
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            await asyncio.sleep(0.001)
        return "done"

    assert await within(10, work()) == "done"


@pytest.mark.parametrize("timeout_s", [0.01, 60])
async def test_nothing_is_kept_of_work_that_is_cancelled(timeout_s: float) -> None:
    """What a body has brought must not wait for the collector."""
    held: ref[Work] | None = None

    async def work() -> None:
        nonlocal held
        data = Work()
        held = ref(data)
        await asyncio.sleep(30)

    async def caller() -> None:
        with suppress(TimeoutError, asyncio.CancelledError):
            await within(timeout_s, work())

    gc.disable()
    try:
        task = asyncio.create_task(caller())
        await asyncio.wait([task], timeout=0.1)
        task.cancel()
        await asyncio.wait([task])
        assert held is not None
        assert held() is None
    finally:
        gc.enable()
