"""How many calls of the store a turn takes, counted on the wire, so that the bare handler makes the same."""

import asyncio
from collections import Counter
from urllib.parse import urlsplit

from benchmarks import preload, turns
from benchmarks.lab import Lab
from benchmarks.plans import Kind
from tests.support.mongo_proxy import Command, Fate, MongoProxy

_TURNS = 20
_COLLECTIONS = ("sessions", "turns")


def count(lab: Lab) -> Counter[str]:
    """Return how often a warm turn of the service calls the store, by command and collection, when it is alone."""
    return asyncio.run(_count(lab))


async def _count(lab: Lab) -> Counter[str]:
    seen: Counter[str] = Counter()

    async def note(command: Command) -> Fate:
        if command.collection in _COLLECTIONS:
            seen[f"{command.name} {command.collection}"] += 1
        return Fate.PASS

    address = urlsplit(lab.mongo_uri)
    async with MongoProxy(address.hostname or "", address.port or 27017) as proxy:
        proxy.rule = note
        database = lab.new_database()
        [session] = preload.sessions(database, 1, 3)
        server = await asyncio.to_thread(lab.start_service, database.name, MONGO_URI=proxy.uri)
        try:
            await asyncio.to_thread(lab.warm, turns.plan(Kind.UNARY, server.grpc, turns.send, [session], each=2))
            seen.clear()
            plan = turns.plan(Kind.UNARY, server.grpc, turns.send, [session], each=_TURNS, start=2)
            await asyncio.to_thread(lab.warm, plan)
            counted = Counter({name: round(times / _TURNS) for name, times in seen.items()})
        finally:
            await asyncio.to_thread(server.stop)
    return +counted


def told(counts: Counter[str]) -> str:
    """Say it in a line."""
    return ", ".join(f"{times} {name}" for name, times in sorted(counts.items()))
