"""An owner for tasks that outlive the call that started them."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskOwner:
    """Starts tasks, keeps them from being lost, and awaits them at the end.

    A task's own exception is its own matter: whoever runs here must handle what it can meet. One that escapes is
    given to the event loop's exception handler, which logs it.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": "a background task failed", "exception": exc, "task": task}
            )

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait(self, timeout_s: float, hurried: asyncio.Event | None = None) -> bool:
        """Wait until all tasks are done; False if some are not within the time, or when `hurried` is set."""
        if self._tasks:
            done = asyncio.ensure_future(asyncio.wait(self._tasks))
            hurry = asyncio.ensure_future((hurried or asyncio.Event()).wait())
            await asyncio.wait((done, hurry), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            done.cancel()
            hurry.cancel()
        return not self._tasks

    async def cancel(self) -> None:
        """Cancel what is left and await it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
