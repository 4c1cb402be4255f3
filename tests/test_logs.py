"""Lines of the log: all of them, in order, and many with one call of the system."""

import asyncio
import io
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
import structlog

from service import logs
from service.domain.log import Log


class Taken(io.RawIOBase):
    """What each call of the system was given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.writes.append(bytes(data))
        return len(data)

    def events(self) -> list[list[str]]:
        return [[orjson.loads(line)["event"] for line in written.splitlines()] for written in self.writes]


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def log(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # else they would be closed
    text = io.TextIOWrapper(io.BufferedWriter(taken))
    monkeypatch.setattr(sys, "stderr", text)
    yield logs.set_up("info", "json")
    text.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_lines_of_one_turn_of_the_loop_go_out_together(log: Log, taken: Taken) -> None:
    async def say(*events: str) -> None:
        for event in events:
            log.info(event)

    await asyncio.gather(say("a", "b"), say("c"))
    assert taken.events() == [["a", "b", "c"]]
    log.info("d")
    await asyncio.sleep(0)
    assert taken.events()[1:] == [["d"]]


def test_a_line_outside_of_a_loop_goes_out_at_once(log: Log, taken: Taken) -> None:
    log.info("a")
    log.info("b")
    assert taken.events() == [["a"], ["b"]]


def test_what_the_loop_did_not_come_to_goes_out_with_the_next_line(log: Log, taken: Taken) -> None:
    loop = asyncio.new_event_loop()

    def last_words() -> None:
        log.info("last words")
        loop.stop()

    loop.call_soon(last_words)
    loop.run_forever()
    loop.close()
    log.info("after")
    assert [event for written in taken.events() for event in written] == ["last words", "after"]


async def test_a_line_says_when_in_utc(log: Log, taken: Taken) -> None:
    before = datetime.now(UTC)
    log.info("now")
    await asyncio.sleep(0)
    stamp = orjson.loads(taken.writes[-1])["timestamp"]
    assert stamp.endswith("Z")
    assert before <= datetime.fromisoformat(stamp) <= datetime.now(UTC)
