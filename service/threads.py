"""The threads of this process beside the event loop's: gRPC's poller, the drivers' that wait on their sockets.

Each is woken several times in a call. Where cores are few, the kernel lets a thread that wakes interrupt the one that
runs: the loop's, which holds the interpreter that the other waits for next. A batch thread (sched(7)) begins when the
loop waits, or has had its time; on a core that has nothing else to do at once, as before.
"""

import asyncio
import os
import sys
import threading
from contextlib import suppress

_EVERY_S = 1.0


async def make_batch_threads() -> None:
    """Make all threads but the caller's batch threads, and those that begin later within a second, until cancelled.

    Returns at once where there is no such thing. A thread that has another policy than the usual keeps it.
    """
    if sys.platform != "linux":
        return
    known = {threading.get_native_id()}
    while True:
        try:
            threads = set(map(int, os.listdir("/proc/self/task")))
        except OSError:
            return
        for thread in threads - known:
            # It may have ended, or the process may not be allowed to.
            with suppress(OSError):
                if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
        known = threads
        await asyncio.sleep(_EVERY_S)
