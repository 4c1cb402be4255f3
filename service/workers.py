"""Several processes on the same two ports: starts them, passes signals on, and starts one again that was lost.

Each worker has the reading end of a pipe whose writing end only the supervisor holds: when that ends, however it ends,
the worker sees it and stops too.
"""

import os
import signal
import subprocess
import sys
import time

_RESTART_DELAY_S = 1.0
_POLL_S = 0.2
_KILL_AFTER_GRACE_S = 30.0


WORKER_ENV = "CHATSESSION_WORKER_PIPE"
"""In a worker: the number of the file descriptor that ends when the supervisor does."""


def supervise(count: int, *, grace_s: float) -> int:
    """Run `count` workers until SIGTERM or SIGINT; return the exit code.

    A worker that ends with an error before any has run for a while ends all: its setting is wrong for the others too.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: signals.append(received))
    pipe, _held = os.pipe()
    workers = {index: _start(pipe) for index in range(count)}
    started = {index: time.monotonic() for index in workers}
    code = 0
    try:
        while not signals:
            time.sleep(_POLL_S)
            for index, worker in workers.items():
                if worker.poll() is None:
                    continue
                if time.monotonic() - started[index] < _RESTART_DELAY_S * 3 and worker.returncode in (1, 2):
                    code = worker.returncode
                    signals.append(signal.SIGTERM)
                    break
                time.sleep(_RESTART_DELAY_S)
                workers[index] = _start(pipe)
                started[index] = time.monotonic()
    finally:
        _stop(list(workers.values()), signals, grace_s)
    return code


def _start(pipe: int) -> subprocess.Popen[bytes]:
    # A session of its own, so that Ctrl-C reaches the workers once, from here.
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**os.environ, WORKER_ENV: str(pipe)},
        pass_fds=(pipe,),
        start_new_session=True,
    )


def _stop(workers: list[subprocess.Popen[bytes]], signals: list[int], grace_s: float) -> None:
    """Pass each signal on once, wait for the grace, then kill."""
    until = time.monotonic() + grace_s + _KILL_AFTER_GRACE_S
    passed_on = 0
    if not signals:
        signals.append(signal.SIGTERM)
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        while passed_on < len(signals):
            for worker in workers:
                if worker.poll() is None:
                    worker.send_signal(signal.SIGTERM)
            passed_on += 1
        time.sleep(_POLL_S)
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()
