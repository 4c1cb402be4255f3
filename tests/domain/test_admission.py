"""The door for sends, in a time of its own: a server that carries so many a second, and callers who want more."""

import asyncio
from collections import deque
from typing import Any

import pytest

from service.domain.admission import Admission, Pace, Retries
from service.domain.errors import Overloaded


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **_: Any) -> None:
        self.events.append(event)

    debug = info = error = exception = warning


def admission(*, max_turns: int = 100_000, running: int = 0, log: Log | None = None) -> Admission:
    return Admission(
        max_turns=max_turns,
        running=lambda: running,
        clock=asyncio.get_running_loop().time,
        log=log or Log(),
    )


class UnreadProbe:
    """A probe that is sent, and never read."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()

    async def __call__(self) -> None:
        self.sent.set()
        await asyncio.sleep(3600)


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Server:
    """Can carry so many sends in a second if it does nothing else; to read and refuse one costs a part of that.

    The probe waits in the line of those that are not read, and is sent again as soon as it has been read. Half of the
    time is for reading while there is something to carry too.
    """

    STEP_S = 0.01
    READING, REFUSING = 0.05, 0.15
    AT_WORK = 16

    def __init__(self, carries_per_s: float) -> None:
        self.pace = Pace(0.0)
        self.now = 0.0
        self.done = self.refused = 0
        self.refusal_waits_s: list[float] = []
        self.unread: deque[float | None] = deque()
        self._waiting = self._at_work = 0
        self._probed_at = 0.0
        self._to_come = self._for_reading = self._for_carrying = 0.0
        self._carries_per_s = carries_per_s

    def offer(self, per_s: float, for_s: float) -> None:
        until = self.now + for_s
        while self.now < until:
            self.now += self.STEP_S
            self._to_come += per_s * self.STEP_S
            while self._to_come >= 1:
                self._to_come -= 1
                self.unread.append(self.now)
            if None not in self.unread:
                self.unread.append(None)
                self._probed_at = self.now
            unread_s = self.now - self._probed_at
            self.pace.measure(self.now, len(self.unread) - 1 + self._waiting, unread_s=unread_s)
            if self.pace.is_flooded:
                self._begin()
            self._work(self._carries_per_s * self.STEP_S)

    def _work(self, budget: float) -> None:
        half = budget / 2 if self._at_work else budget
        self._for_reading, self._for_carrying = self._for_reading + half, self._for_carrying + budget - half
        while self.unread and self._for_reading > 0:
            self._for_reading -= self._read()
        if not self.unread:
            self._for_carrying += max(0.0, self._for_reading)
            self._for_reading = min(0.0, self._for_reading)
        while self._at_work and self._for_carrying >= 1:
            self._for_carrying -= 1
            self._at_work -= 1
            self.done += 1
            self.pace.carried()
            if not self.pace.is_holding:
                self._begin()
        if not self._at_work:
            self._for_carrying = min(1.0, self._for_carrying)

    def _begin(self) -> None:
        begun = min(self._waiting, self.AT_WORK - self._at_work)
        self._waiting -= begun
        self._at_work += begun

    def _read(self) -> float:
        came = self.unread.popleft()
        if came is None:
            self.pace.probe_was_read()
            self._begin()
            return self.READING
        if self._waiting < 400 and self.pace.has_room(self._waiting):
            self.pace.take_up()
            self._waiting += 1
            if not self.pace.is_holding:
                self._begin()
            return self.READING
        self.pace.refuse(self.now)
        self.refused += 1
        self.refusal_waits_s.append(self.now - came)
        return self.REFUSING


def test_what_can_be_carried_is_never_refused() -> None:
    server = Server(300)
    server.offer(280, 60)
    assert (server.refused, server.pace.is_limited) == (0, False)


@pytest.mark.parametrize("carries_per_s", [300, 30])
def test_a_burst_is_served_however_slow_the_machine(carries_per_s: float) -> None:
    server = Server(carries_per_s)
    server.offer(250 / Server.STEP_S, Server.STEP_S)
    server.offer(0, 20)
    assert (server.done, server.refused) == (250, 0)


@pytest.mark.parametrize(("times", "share"), [(1.5, 0.83), (2, 0.75), (3, 0.58), (10, 0.44)])
def test_overload_leaves_most_of_what_refusals_leave(times: float, share: float) -> None:
    server = Server(300)
    server.offer(300 * times, 3)
    before = server.done
    server.offer(300 * times, 20)
    assert server.refused > 0
    assert (server.done - before) / 20 >= share * 300


def test_one_who_is_refused_does_not_wait_for_it() -> None:
    server = Server(300)
    server.offer(600, 5)
    server.refusal_waits_s.clear()
    server.offer(600, 20)
    waits_s = sorted(server.refusal_waits_s)
    assert waits_s[len(waits_s) // 2] < 0.05
    assert waits_s[-1] < 0.2


def test_from_the_first_on_hardly_any_waits_long_to_be_refused() -> None:
    server = Server(300)
    server.offer(600, 10)
    waits_s = sorted(server.refusal_waits_s)
    assert waits_s[len(waits_s) * 99 // 100] < 0.2


def test_after_a_flood_refusals_are_quick_again() -> None:
    server = Server(300)
    server.offer(3000, 2)
    server.offer(400, 10)
    server.refusal_waits_s.clear()
    server.offer(400, 5)
    assert max(server.refusal_waits_s) < 0.2


def test_all_are_taken_up_again_after_an_overload() -> None:
    server = Server(300)
    server.offer(900, 10)
    assert server.pace.is_limited
    server.offer(100, 10)
    refused = server.refused
    server.offer(100, 10)
    assert (server.refused, server.pace.is_limited) == (refused, False)


def test_no_more_are_taken_up_than_wait_for_something_else_than_this_process() -> None:
    pace = Pace(0.0)
    pace.measure(1.0, 301)
    assert pace.has_room(31)
    assert not pace.has_room(32)


def test_the_rate_that_was_carried_is_remembered_through_a_flood() -> None:
    server = Server(300)
    server.offer(290, 10)
    best = server.pace.per_s
    assert best == pytest.approx(290, rel=0.05)
    server.offer(0, 10)
    assert server.pace.per_s == pytest.approx(best * 0.85, rel=0.05)
    server.offer(0, 600)
    assert server.pace.per_s == 10.0


async def test_one_who_is_refused_before_it_is_read_does_not_enter() -> None:
    log = Log()
    door = admission(max_turns=1, log=log)
    assert not door.is_full
    await door.enter()
    assert door.is_full
    error = door.refusal()
    assert (error.metadata["committed"], error.metadata["retry"]) == ("false", "SAME_REQUEST")
    assert log.events == ["overloaded: sends are refused"]
    door.leave()
    assert not door.is_full


def test_those_refused_come_again_one_after_the_other_as_fast_as_they_can_be_carried() -> None:
    retries = Retries()
    delays = [retries.delay_s(10.0, 100.0) for _ in range(1000)]
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(1.01)
    assert delays[-1] == pytest.approx(11.0)


def test_no_retry_is_put_off_for_longer_than_the_most_and_those_are_spread() -> None:
    retries = Retries()
    delays = [retries.delay_s(0.0, 10.0) for _ in range(1000)][500:]
    assert 15 <= min(delays) < 17
    assert 28 < max(delays) <= 30


def test_retries_start_anew_when_nobody_was_refused_for_a_while() -> None:
    retries = Retries()
    for _ in range(500):
        retries.delay_s(0.0, 100.0)
    assert retries.delay_s(100.0, 100.0) == pytest.approx(1.01)


async def test_sends_begin_in_order_of_arrival_and_few_are_at_work_at_once() -> None:
    door, begun = admission(), []

    async def send(number: int) -> None:
        await door.enter()
        begun.append(number)

    tasks = [asyncio.create_task(send(number)) for number in range(100)]
    await rest()
    assert begun == list(range(16))
    for _ in range(84):
        door.leave()
    await asyncio.gather(*tasks)
    assert begun == list(range(100))


async def test_one_who_waits_for_another_turn_makes_room() -> None:
    door = admission()
    for _ in range(16):
        await door.enter()
    with door.aside():
        await asyncio.wait_for(door.enter(), 20)
    waiting = asyncio.create_task(door.enter())
    await rest()
    assert not waiting.done()
    for _ in range(2):  # 17 are at work
        door.leave()
    await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("when", ["waiting", "called"])
async def test_one_who_leaves_gives_way(when: str) -> None:
    door = admission()
    for _ in range(16):
        await door.enter()
    first, second = asyncio.create_task(door.enter()), asyncio.create_task(door.enter())
    await rest()
    if when == "called":
        door.leave()
        first.cancel()
    else:
        first.cancel()
        door.leave()
    await asyncio.wait_for(second, 20)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_no_more_wait_than_the_bound() -> None:
    door = admission()
    tasks = [asyncio.create_task(door.enter()) for _ in range(500)]
    await rest()
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), Overloaded)]
    assert len(refused) == 100
    assert min(task.exception().retry_delay_s for task in refused) >= 1.0  # type: ignore[union-attr]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_running_turns_and_those_to_come_are_bounded_together() -> None:
    door = admission(max_turns=10, running=7)
    for _ in range(2):
        await door.enter()
    with door.aside():
        await door.enter()
        with pytest.raises(Overloaded):
            await door.enter()


async def test_sends_read_before_the_probe_is_answered_were_waiting() -> None:
    log = Log()
    door, probe = admission(log=log), UnreadProbe()
    watching = asyncio.create_task(door.watch(probe))
    refused = 0
    async with asyncio.timeout(20):
        while not refused:
            for _ in range(50):
                try:
                    await door.enter()
                except Overloaded:
                    refused += 1
                else:
                    door.leave()
            await asyncio.sleep(0.05)
    assert probe.sent.is_set()
    assert log.events == ["overloaded: sends are refused"]
    watching.cancel()


async def test_those_read_before_the_probe_are_not_counted_again_while_they_wait() -> None:
    log = Log()
    door, probe = admission(log=log), UnreadProbe()
    watching = asyncio.create_task(door.watch(probe))
    tasks = [asyncio.create_task(door.enter()) for _ in range(20)]
    await asyncio.wait_for(probe.sent.wait(), 20)
    tasks += [asyncio.create_task(door.enter()) for _ in range(200)]
    await asyncio.sleep(0.35)
    await asyncio.wait_for(asyncio.gather(*(asyncio.shield(task) for task in tasks[:16])), 20)
    last = asyncio.create_task(door.enter())
    await rest()
    assert (last.done(), log.events) == (False, [])
    for task in (watching, last, *tasks):
        task.cancel()
    await asyncio.gather(watching, last, *tasks, return_exceptions=True)


async def test_an_idle_process_sends_no_probe() -> None:
    door = admission()

    async def probe() -> None:
        raise AssertionError("probed")

    watching = asyncio.create_task(door.watch(probe))
    await door.enter()
    door.leave()
    await asyncio.sleep(0.35)
    assert not watching.done()
    watching.cancel()


async def test_while_the_probe_is_late_none_begins_and_all_do_once_it_is_read() -> None:
    now_s, sent, read = [0.0], asyncio.Event(), asyncio.Event()
    door = Admission(max_turns=1000, running=lambda: 0, clock=lambda: now_s[0], log=Log())

    async def probe() -> None:
        sent.set()
        await read.wait()

    watching = asyncio.create_task(door.watch(probe))
    await rest()
    for _ in range(5):  # so that there is something to measure
        await door.enter()
        door.leave()
    await asyncio.wait_for(sent.wait(), 20)
    now_s[0] += 0.1
    async with asyncio.timeout(20):
        while (task := asyncio.create_task(door.enter())) in (await asyncio.wait((task,), timeout=0.02))[0]:
            door.leave()
            await asyncio.sleep(0.005)
    begun: list[int] = []

    async def send(number: int) -> None:
        await door.enter()
        begun.append(number)

    later = [asyncio.create_task(send(number)) for number in range(10)]
    await rest()
    assert begun == []
    read.set()
    await asyncio.wait_for(asyncio.gather(task, *later), 20)
    assert begun == list(range(10))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_none_waits_for_a_probe_that_is_sent_no_more() -> None:
    door, probe = admission(), UnreadProbe()
    watching = asyncio.create_task(door.watch(probe))
    tasks = [asyncio.create_task(door.enter()) for _ in range(20)]
    await asyncio.wait_for(probe.sent.wait(), 20)
    await asyncio.wait_for(asyncio.gather(*tasks[:16]), 20)
    for _ in range(16):
        door.leave()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await asyncio.wait_for(asyncio.gather(*tasks[16:], door.enter()), 20)
