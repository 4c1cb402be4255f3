import asyncio

import pytest

from service.domain.errors import Overloaded, ShuttingDown
from service.domain.line import Lines


async def stand(lines: Lines, name: str, order: list[str], leave: asyncio.Event, *, at_front: bool = False) -> None:
    with lines.place("s", at_front=at_front) as ticket:
        while not ticket.is_front:
            await ticket.wait_for_front()
        order.append(name)
        await leave.wait()


async def settle_down() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    lines, order, leave = Lines(max_waiting=10), [], asyncio.Event()
    tasks = [asyncio.create_task(stand(lines, name, order, leave)) for name in "abc"]
    await settle_down()
    assert order == ["a"]
    leave.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]
    assert lines.is_empty("s")


async def test_one_who_leaves_gives_way() -> None:
    lines, order, leave = Lines(max_waiting=10), [], asyncio.Event()
    tasks = [asyncio.create_task(stand(lines, name, order, leave)) for name in "abc"]
    await settle_down()
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    leave.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert order == ["a", "c"]


async def test_full_line_is_refused() -> None:
    lines = Lines(max_waiting=1)
    with lines.place("s"), pytest.raises(Overloaded), lines.place("s"):
        pass
    assert lines.is_empty("s")


async def test_closing_sends_those_away_who_wait() -> None:
    lines, order, leave = Lines(max_waiting=10), [], asyncio.Event()
    tasks = [asyncio.create_task(stand(lines, name, order, leave)) for name in "ab"]
    await settle_down()
    lines.close()
    leave.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], ShuttingDown)
