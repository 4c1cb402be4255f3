"""What needs a socket is tested on both event loops."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_ON_A_SOCKET = ("test_listener.py", "test_streams.py")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loops of a test."""
    if item.path.name in _ON_A_SOCKET:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
