import asyncio

import pytest

from service.domain.cursor import Cursor
from service.domain.errors import ShuttingDown
from service.domain.live import Accepted, Delta, Ended, Event, Heartbeat, LiveTurn, View
from tests.domain.builders import a_turn, running

LONG_S = 60.0
SHORT_S = 0.01


@pytest.fixture
def live() -> LiveTurn:
    return LiveTurn("u", running(a_turn(1)), lambda _: None)


def view_of(live: LiveTurn, *, heartbeat_s: float = LONG_S, until: float | None = None) -> View:
    return View(live, Cursor(live.turn_id), heartbeat_s=heartbeat_s, until=until)


def kinds(events: list[Event]) -> list[type]:
    return [type(event.what) for event in events]


async def test_a_viewer_gets_all_text_since_it_looked_as_one_delta(live: LiveTurn) -> None:
    view = view_of(live)
    assert kinds(await view.news()) == [Accepted]
    live.append("Hel")
    live.append("lo")
    [event] = await view.news()
    assert (event.what, event.cursor.offset) == (Delta("Hello"), 5)
    view.close()


async def test_text_wakes_every_viewer_that_waits(live: LiveTurn) -> None:
    views = [view_of(live) for _ in range(3)]
    for view in views:
        await view.news()
    waiting = [asyncio.create_task(view.news()) for view in views]
    await asyncio.sleep(0)
    live.append("Hello")
    assert [[event.what for event in await task] for task in waiting] == [[Delta("Hello")]] * 3
    for view in views:
        view.close()


async def test_silence_brings_heartbeats_and_text_after_them(live: LiveTurn) -> None:
    view = view_of(live, heartbeat_s=SHORT_S)
    await view.news()
    assert kinds(await view.news()) == [Heartbeat]
    assert kinds(await view.news()) == [Heartbeat]
    live.append("Hello")
    assert kinds(await view.news()) == [Delta]
    view.close()


async def test_a_view_ends_where_it_would_wait_too_long_but_not_before_the_text_that_is_there(live: LiveTurn) -> None:
    view = view_of(live, until=asyncio.get_running_loop().time() - 1)
    await view.news()
    live.append("Hello")
    assert kinds(await view.news()) == [Delta]
    with pytest.raises(TimeoutError):
        await view.news()
    view.close()


async def test_a_viewer_that_leaves_while_it_waits_leaves_nothing_behind(live: LiveTurn) -> None:
    view = view_of(live)
    await view.news()
    waiting = asyncio.create_task(view.news())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    view.close()
    assert not live._waiting


async def test_the_ending_is_the_last_that_is_told(live: LiveTurn) -> None:
    view = view_of(live)
    await view.news()
    live.append("a")
    live.finish(LiveTurn.of_ended("u", a_turn(1)).turn)
    events = await view.news()
    assert kinds(events)[-1] is Ended
    assert await view.news() == []
    view.close()


async def test_each_viewer_gets_an_error_of_its_own_when_nothing_more_will_be_known(live: LiveTurn) -> None:
    views = [view_of(live), view_of(live)]
    waiting = []
    for view in views:
        await view.news()
        waiting.append(asyncio.create_task(view.news()))
    await asyncio.sleep(0)
    live.fail(ShuttingDown)
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [ShuttingDown, ShuttingDown]
    assert errors[0] is not errors[1]
