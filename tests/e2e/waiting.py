"""Waiting for what a service says, in its log or in a stream, within bounds."""

from typing import Any

from tests.support.calls import Events
from tests.support.server import ServerProcess
from tests.support.waiting import until


async def until_logged(server: ServerProcess, event: str, **fields: Any) -> dict[str, Any]:
    """Wait for a log line with these fields and return it; raises TimeoutError."""
    wanted = {"event": event, **fields}

    async def found() -> dict[str, Any] | None:
        return next((entry for entry in list(server.log) if wanted.items() <= entry.items()), None)

    entry = await until(found)
    assert entry is not None
    return entry


async def first_text(events: Events) -> str:
    """Read a stream up to its first text, and return that."""
    async for event in events:
        if event.HasField("delta"):
            return event.delta.text
    raise AssertionError("no text came")
