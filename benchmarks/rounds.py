"""Rounds of turns at one server."""

from collections.abc import Callable
from typing import Any

from benchmarks import preload, turns
from benchmarks.lab import Lab
from benchmarks.measure import Sample
from benchmarks.plans import Kind, Plan
from benchmarks.processes import Server

_EACH = 4

Insert = Callable[[Any, int, int], list[str]]
"""Puts so many sessions of so many turns into a store, and returns their ids."""


class Turns:
    """Measures turns at one server: new sessions in each round, so that the context stays as long as it is said to be.

    ops: how many turns in a round, in a full run.
    warm: each session has had a turn here before, so that the server may know it; else each session has one turn.
    front: a gateway through which the calls go, whose CPU counts too.
    plan: further settings of the plan.
    """

    def __init__(
        self,
        lab: Lab,
        server: Server,
        database: Any,
        *,
        context_turns: int,
        ops: int,
        insert: Insert = preload.sessions,
        call: turns.MakeCall = turns.send,
        kind: Kind = Kind.UNARY,
        each: int = _EACH,
        warm: bool = True,
        front: Server | None = None,
        **plan: Any,
    ) -> None:
        self._lab = lab
        self._server = server
        self._database = database
        self._insert = insert
        self._call = call
        self._kind = kind
        self._context_turns = context_turns
        self._each = each
        self._sessions = max(1, lab.size.ops(ops) // self._each)
        self._warm = warm
        self._front = front
        self._settings = plan

    def __call__(self, number: int) -> Sample:
        # The turn that warms counts, and so does half of those measured.
        before = max(0, self._context_turns - int(self._warm) - self._each // 2)
        # The round that is thrown away need not be long.
        count = self._sessions if number >= 0 else max(1, self._sessions // 4)
        sessions = self._insert(self._database, count, before)
        if self._warm:
            self._lab.warm(self._plan(sessions, each=1, **self._settings))
        # A caller keeps its connection.
        settings = {**self._settings, "fresh": False}
        servers = [self._server, self._front] if self._front else [self._server]
        return self._lab.sample(self._plan(sessions, each=self._each, start=1, **settings), *servers)

    def _plan(self, sessions: list[str], **settings: Any) -> Plan:
        door = self._front or self._server
        target = door.grpc if self._kind in (Kind.UNARY, Kind.STREAM) else door.http
        return turns.plan(self._kind, target, self._call, sessions, **settings)
