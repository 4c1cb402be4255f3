"""The bare parts of a turn, each alone: `python -m benchmarks.peers.parts MONGO_URI DATABASE PROVIDER_URL`.

A call of `/bench.Parts/NAME` with a number does that part so many times in this process and then answers, so that what
the call itself costs does not count. The no-op call is the bare handler's.
"""

import argparse
import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import orjson
import uvloop

from benchmarks import preload
from benchmarks.peers import bare

_LANES = 16
_BODIES = 64
SERVICE = "bench.Parts"

Part = Callable[[], Awaitable[Any]]


class Parts:
    """The parts over connections that are kept."""

    def __init__(self, database: Any, url: str) -> None:
        self._sessions = database.get_collection("sessions")
        self._turns = database.get_collection("turns")
        self._http = bare.open_http()
        self._url = url
        self._numbers = itertools.count()
        exchanges = list(preload.exchanges(_BODIES))
        past = preload.messages(exchanges[:10])
        asked = [[*past, {"role": "user", "content": question}] for question, _ in exchanges]
        options = {"include_usage": True}
        self._ask_streamed = [_body(messages, stream=True, stream_options=options) for messages in asked]
        self._ask_whole = [_body(messages, stream=False) for messages in asked]
        self._endings = [
            {"state": "COMPLETED", "text": text, "n": 2, "last_seq": 22, "fence": 11} for _, text in exchanges
        ]
        self._ids: list[str] = []

    async def read_ids(self) -> None:
        """Find the sessions to work on."""
        self._ids = [doc["_id"] async for doc in self._sessions.find({}, {"_id": 1})]

    def by_name(self) -> dict[str, Part]:
        """Return the parts."""
        return {
            "post_streamed": lambda: self._post(self._ask_streamed),
            "post_whole": lambda: self._post(self._ask_whole),
            "find": lambda: self._sessions.find_one({"_id": self._next(self._ids)}),
            "update": self._update,
            "insert": self._insert,
        }

    async def _post(self, bodies: list[bytes]) -> None:
        async with self._http.post(self._url, data=self._next(bodies)) as response:
            await response.read()

    async def _update(self) -> None:
        change = {"active.state": "ENDED", "active.ending": self._next(self._endings), "last_seq": 22}
        await self._sessions.update_one({"_id": self._next(self._ids)}, {"$set": change})

    async def _insert(self) -> None:
        key, ending = uuid4().hex, self._next(self._endings)
        await self._turns.insert_one({"_id": key, "uid": key, "turn_id": key, "request_key": key, "ending": ending})

    def _next(self, values: list[Any]) -> Any:
        return values[next(self._numbers) % len(values)]


def _body(messages: list[dict[str, str]], **fields: Any) -> bytes:
    return orjson.dumps({"model": preload.MODEL, "messages": messages, **fields})


async def _repeat(part: Part, count: int) -> None:
    async def lane() -> None:
        for _ in range(count // _LANES):
            await part()

    await asyncio.gather(*(lane() for _ in range(_LANES)))


def _handler(part: Part) -> Any:
    async def run(count: bytes, _context: Any) -> bytes:
        await _repeat(part, int(count))
        return b""

    return grpc.unary_unary_rpc_method_handler(run)


async def _serve(arguments: argparse.Namespace) -> None:
    parts = Parts(bare.connect(arguments.mongo_uri, arguments.database), f"{arguments.provider}/v1/chat/completions")
    await parts.read_ids()
    handlers = {name: _handler(part) for name, part in parts.by_name().items()}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(bare.arguments().parse_args()))
