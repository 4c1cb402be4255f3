"""A thread that is interrupted as it begins a call in the loop's thread leaves nothing running there."""

import asyncio
from typing import Any

import pytest
from chatsession.blocking import _LoopThread


async def _others() -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 2  # the loop's own, and this one


@pytest.mark.parametrize("has_begun", [True, False])
def test_an_interrupt_as_a_call_begins_ends_it(monkeypatch: pytest.MonkeyPatch, has_begun: bool) -> None:
    thread = _LoopThread()
    loop = thread._started.result()
    begin = loop.call_soon_threadsafe

    def interrupted(call: Any) -> None:
        monkeypatch.undo()
        if has_begun:
            begin(call)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.run(asyncio.sleep(3600))
    assert thread.run(_others()) == 0
    thread.stop()
