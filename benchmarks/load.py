"""The load generator: a process of its own that sends prepared calls and times them.

Requests are bytes made beforehand and answers are not parsed, so that it costs little. A plan's lanes run side by side,
the calls of a lane one after the other.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import aiohttp
import grpc
import uvloop
from chatsession.v1 import chat_session_pb2 as pb

from benchmarks.crowd import Crowd
from benchmarks.plans import Call, EndCrowd, Kind, OpenCrowd, Outcome, Plan, Rush, RushOutcome
from benchmarks.rush import rush

_TIMEOUT_S = 120.0
# Servers close idle HTTP connections, uvicorn after 5 s: sooner, none is used just then.
_IDLE_S = 3.0

Caller = Callable[[str, bytes], Awaitable[None]]


class Load:
    """The process. A context manager that ends it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, plan: Any) -> Any:
        """Carry a plan out and return what came of it."""
        self._pipe.send(plan)
        outcome = self._pipe.recv()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        self._process.join()


def _main(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    sender = _Sender()
    while True:
        plan = await loop.run_in_executor(None, pipe.recv)
        try:
            outcome: Any = await sender.carry_out(plan)
        except Exception as exc:
            outcome = RuntimeError(f"the load generator failed: {exc!r}")
        pipe.send(outcome)


class _Sender:
    """Keeps connections from one plan to the next, so that no plan pays for making them."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, int], grpc.aio.Channel] = {}
        self._session: aiohttp.ClientSession | None = None
        self._crowd: Crowd | None = None

    async def carry_out(self, plan: Plan | OpenCrowd | EndCrowd | Rush) -> Outcome | RushOutcome:
        match plan:
            case OpenCrowd():
                self._crowd = Crowd(self._channels_to(plan.target, plan.connections))
                return await self._crowd.open(plan)
            case EndCrowd():
                assert self._crowd
                return await self._crowd.end()
            case Rush():
                return await rush(self._channels_to(plan.target, plan.connections), plan)
        return await self._carry_out(plan)

    def _channels_to(self, target: str, count: int) -> list[grpc.aio.Channel]:
        return [self._channel(target, number) for number in range(count)]

    async def _carry_out(self, plan: Plan) -> Outcome:
        outcome = Outcome()
        if plan.fresh:
            await self._forget(plan.target)
        callers = [self._caller(plan, number, outcome) for number in range(len(plan.lanes))]
        started, cpu_started = time.perf_counter(), time.process_time()
        if plan.per_s:
            await _run_open(callers, plan, outcome)
        else:
            await asyncio.gather(*(_run_lane(*pair, outcome) for pair in zip(callers, plan.lanes, strict=True)))
        outcome.wall_s, outcome.cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        return outcome

    def _caller(self, plan: Plan, lane: int, outcome: Outcome) -> Caller:
        match plan.kind:
            case Kind.UNARY:
                return _unary(self._channel(plan.target, lane % plan.connections))
            case Kind.STREAM:
                return _stream(self._channel(plan.target, lane % plan.connections), outcome)
            case Kind.SSE:
                return _sse(self._http(), plan.target, outcome)
            case Kind.POST:
                return _post(self._http(), plan.target)

    async def _forget(self, target: str) -> None:
        for key in [key for key in self._channels if key[0] == target]:
            await self._channels.pop(key).close()

    def _channel(self, target: str, number: int) -> grpc.aio.Channel:
        key = target, number
        if key not in self._channels:
            self._channels[key] = grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        return self._channels[key]

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            )
        return self._session


async def _run_lane(call: Caller, calls: Sequence[Call], outcome: Outcome) -> None:
    for each in calls:
        await _make(call, each, outcome)


async def _run_open(callers: Sequence[Caller], plan: Plan, outcome: Outcome) -> None:
    """Begin calls at random moments, as they come from many callers who know nothing of each other."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    due_s = loop.time()
    made = set()
    for row in itertools.zip_longest(*plan.lanes):
        for call, each in zip(callers, row, strict=True):
            if each is not None:
                due_s += chance.expovariate(plan.per_s)
                await asyncio.sleep(due_s - loop.time())
                made.add(asyncio.create_task(_make(call, each, outcome)))
    await asyncio.gather(*made)


async def _make(call: Caller, each: Call, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        await call(*each)
    except (grpc.aio.AioRpcError, aiohttp.ClientError, TimeoutError) as exc:
        outcome.errors.append(repr(exc)[:500])
    else:
        outcome.latencies_ms.append((time.perf_counter() - started) * 1000)


def _unary(channel: grpc.aio.Channel) -> Caller:
    methods: dict[str, Any] = {}

    async def call(path: str, body: bytes) -> None:
        method = methods.get(path) or methods.setdefault(path, channel.unary_unary(path))
        await method(body, timeout=_TIMEOUT_S)

    return call


def _stream(channel: grpc.aio.Channel, outcome: Outcome) -> Caller:
    methods: dict[str, Any] = {}

    async def call(path: str, body: bytes) -> None:
        method = methods.get(path) or methods.setdefault(path, channel.unary_stream(path))
        started, has_text = time.perf_counter(), False
        async for message in method(body, timeout=_TIMEOUT_S):
            if not has_text and pb.TurnEvent.FromString(message).WhichOneof("event") == "delta":
                has_text = True
                outcome.first_ms.append((time.perf_counter() - started) * 1000)

    return call


def _sse(session: aiohttp.ClientSession, url: str, outcome: Outcome) -> Caller:
    async def call(path: str, body: bytes) -> None:
        started, has_text = time.perf_counter(), False
        async with session.post(url + path, data=body) as response:
            async for data in response.content.iter_any():
                if not has_text and b'"delta":{"content":"' in data:
                    has_text = True
                    outcome.first_ms.append((time.perf_counter() - started) * 1000)

    return call


def _post(session: aiohttp.ClientSession, url: str) -> Caller:
    async def call(path: str, body: bytes) -> None:
        async with session.post(url + path, data=body) as response:
            text = await response.read()
            if response.status != 200:
                raise aiohttp.ClientError(f"{response.status} {text[:300]!r}")

    return call
