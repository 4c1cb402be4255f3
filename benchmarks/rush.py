"""More calls than a server can carry, from the load generator."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from benchmarks.plans import Call, Rush, RushOutcome

_DETAILS_KEY = "grpc-status-details-bin"
_WITHOUT_DELAY_S = 1.0
_LAG_EVERY_S = 0.05


async def rush(channels: Sequence[grpc.aio.Channel], plan: Rush) -> RushOutcome:
    """Carry a rush out."""
    outcome = RushOutcome()
    methods = [channel.unary_unary(plan.calls[0][0]) for channel in channels]
    began, cpu_began = time.perf_counter(), time.process_time()
    watch = asyncio.create_task(_watch_lag(outcome.lags_ms))
    if plan.per_s:
        await _open_loop(methods, plan, outcome)
    else:
        until = began + plan.for_s
        await asyncio.gather(
            *(_client(methods[n % len(methods)], call, plan, until, outcome) for n, call in enumerate(plan.calls))
        )
    outcome.wall_s, outcome.cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    watch.cancel()
    return outcome


async def _watch_lag(lags_ms: list[float]) -> None:
    """Note how much too late this process wakes up: what it adds to each time that it takes."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY_S)
        lags_ms.append((time.perf_counter() - began - _LAG_EVERY_S) * 1000)


async def _open_loop(methods: Sequence[Any], plan: Rush, outcome: RushOutcome) -> None:
    """Begin calls at random moments; each is a session of its own."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    due_s = began_s = loop.time()
    made = set()
    for number, call in enumerate(plan.calls):
        due_s += chance.expovariate(plan.per_s)
        if due_s > began_s + plan.for_s:
            break
        await asyncio.sleep(due_s - loop.time())
        made.add(loop.create_task(_once(methods[number % len(methods)], call, plan.timeout_s, outcome)))
    await asyncio.gather(*made)


async def _client(method: Any, call: Call, plan: Rush, until: float, outcome: RushOutcome) -> None:
    """Call, think, call again; come back when told."""
    chance = random.Random(id(call))
    await asyncio.sleep(chance.random() * plan.think_s)
    while time.perf_counter() < until:
        delay_s = await _once(method, call, plan.timeout_s, outcome)
        pause_s = plan.think_s if delay_s is None else delay_s
        if time.perf_counter() + pause_s > until:
            return
        await asyncio.sleep(pause_s)


async def _once(method: Any, call: Call, timeout_s: float, outcome: RushOutcome) -> float | None:
    """Make a call; return the delay that a refusal asks for, None if it was none."""
    began = time.perf_counter()
    try:
        await method(call[1], timeout=timeout_s)
    except grpc.aio.AioRpcError as exc:
        took_ms = (time.perf_counter() - began) * 1000
        match exc.code():
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                outcome.refused_ms.append(took_ms)
                delay_s = _retry_delay_s(exc)
                outcome.refusals_without_delay += delay_s is None
                return _WITHOUT_DELAY_S if delay_s is None else delay_s
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                outcome.timed_out += 1
            case _:
                outcome.errors.append(repr(exc)[:500])
    else:
        outcome.answered_ms.append((time.perf_counter() - began) * 1000)
    return None


def _retry_delay_s(exc: grpc.aio.AioRpcError) -> float | None:
    for key, value in exc.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            detail: AnyMessage
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return info.retry_delay.ToTimedelta().total_seconds()
    return None
