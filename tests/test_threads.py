import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from service.threads import make_batch_threads
from tests.support.server import running_server
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="batch threads are Linux's")


async def test_no_thread_of_the_service_interrupts_that_of_its_event_loop(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:

        async def others_are_batch_threads() -> bool:
            threads = map(int, os.listdir(f"/proc/{server.pid}/task"))
            policies = [os.sched_getscheduler(thread) for thread in threads if thread != server.pid]
            return len(policies) > 1 and set(policies) == {os.SCHED_BATCH}

        assert await until(others_are_batch_threads)
        assert os.sched_getscheduler(server.pid) == os.SCHED_OTHER


async def test_a_thread_that_has_another_policy_keeps_it() -> None:
    over = threading.Event()
    idle, plain = (threading.Thread(target=over.wait) for _ in range(2))
    idle.start()
    plain.start()
    os.sched_setscheduler(idle.native_id or 0, os.SCHED_IDLE, os.sched_param(0))
    working = asyncio.create_task(make_batch_threads())
    try:

        async def plain_one_is_a_batch_thread() -> bool:
            return os.sched_getscheduler(plain.native_id or 0) == os.SCHED_BATCH

        assert await until(plain_one_is_a_batch_thread)
        assert os.sched_getscheduler(idle.native_id or 0) == os.SCHED_IDLE
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        over.set()
        working.cancel()
        await asyncio.wait((working,))
        idle.join()
        plain.join()
