"""A TCP proxy before a MongoDB that knows one message from the next, and which write of the store it carries."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any

import bson

from tests.support.proxy import Relay

_OP_MSG = 2013
_HEADER = struct.Struct("<iiii")
_LAST_ANSWER_S = 5.0


class Fate(Enum):
    """What becomes of a command."""

    PASS = auto()
    CUT_BEFORE = auto()
    """The connection is cut, and the database never sees the command."""
    CUT_AFTER = auto()
    """The command is carried out, and the connection is cut instead of answering."""
    HOLD_ANSWER = auto()
    """The command is carried out, and the answer never comes."""


@dataclass(frozen=True)
class Command:
    """One command to the database. kind: which write of the store it is (see `kind_of`), or ``."""

    name: str
    collection: str
    kind: str


Rule = Callable[[Command], Awaitable[Fate]]


async def pass_on(_: Command) -> Fate:
    """The rule that does no harm."""
    return Fate.PASS


def once(kind: str, act: Rule) -> Rule:
    """Return a rule that acts on the first command of this kind, and passes on all others."""
    is_over = False

    async def rule(command: Command) -> Fate:
        nonlocal is_over
        if is_over or command.kind != kind:
            return Fate.PASS
        is_over = True
        return await act(command)

    return rule


class MongoProxy(Relay):
    """Passes commands on as `rule` says. A rule may take its time.

    carried: how many commands of each kind came. held: set when an answer is held back.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.rule: Rule = pass_on
        self.carried: dict[str, int] = {}
        self.held: asyncio.Event = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._deciding: set[asyncio.Task[Fate]] = set()
        self._outage: asyncio.Task[None] | None = None

    @property
    def uri(self) -> str:
        """What to connect to; stays the same across `down` and `up`."""
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._outage:
            await self._outage
        await super().__aexit__(kind, exc, tb)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run(*self._target)
        finally:
            self._connections.discard(connection)

    async def decide(self, command: Command) -> Fate:
        """Ask the rule."""
        self.carried[command.kind] = self.carried.get(command.kind, 0) + 1
        # In a task: the rule, and what it lets pass, outlast the client's patience.
        deciding: asyncio.Task[Fate] = asyncio.ensure_future(self.rule(command))
        self._deciding.add(deciding)
        deciding.add_done_callback(self._deciding.discard)
        return await deciding

    def outage(self, duration_s: float) -> None:
        """Be down for a while, from now on."""
        if self._outage is None or self._outage.done():
            self._outage = asyncio.create_task(self._be_down(duration_s))

    async def _be_down(self, duration_s: float) -> None:
        await self.down()
        await asyncio.sleep(duration_s)
        await self.up()

    def silence(self) -> int:
        """Carry nothing more on the connections by which commands of the store have come; return how many these are.

        New ones, and those by which the driver looks whether the database is there, are as before.
        """
        silenced = [connection for connection in self._connections if connection.is_used]
        for connection in silenced:
            connection.is_silent = True
        return len(silenced)

    async def idle(self) -> None:
        """Return when no rule is at work, no outage lasts, and whatever was let pass has been passed on."""
        while self._deciding or (self._outage and not self._outage.done()):
            await asyncio.wait([*self._deciding, *([self._outage] if self._outage else [])])
        for connection in list(self._connections):
            await connection.answered.wait()


class _Connection:
    """One client's connection, and ours to the database for it."""

    def __init__(self, proxy: MongoProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._fates: dict[int, Fate] = {}
        self._unanswered: set[int] = set()
        self.answered: asyncio.Event = asyncio.Event()
        self.answered.set()
        self.is_used = self.is_silent = False

    async def run(self, host: str, port: int) -> None:
        """Carry messages until one side closes."""
        try:
            reader, writer = await asyncio.open_connection(host, port)
            answers = asyncio.create_task(self._carry_answers(reader))
            try:
                await self._carry_requests(writer)
                # What was passed on is carried out, though its sender may have left.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_ANSWER_S):
                        await self.answered.wait()
            finally:
                answers.cancel()
                writer.close()
        finally:
            self.answered.set()

    async def _carry_requests(self, sink: asyncio.StreamWriter) -> None:
        while True:
            try:
                message = await _read_message(self._reader)
            except (OSError, asyncio.IncompleteReadError):
                return
            if self.is_silent:
                continue
            command = _command_of(message)
            self.is_used = self.is_used or (command is not None and bool(command.collection))
            fate = await self._proxy.decide(command) if command else Fate.PASS
            if fate is Fate.CUT_BEFORE:
                return
            number = _HEADER.unpack_from(message)[1]
            if fate is not Fate.PASS:
                self._fates[number] = fate
            if command and command.kind:
                self._unanswered.add(number)
                self.answered.clear()
            sink.write(message)
            await sink.drain()

    async def _carry_answers(self, source: asyncio.StreamReader) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    message = await _read_message(source)
                    number = _HEADER.unpack_from(message)[2]
                    fate = self._fates.pop(number, Fate.PASS)
                    self._unanswered.discard(number)
                    if not self._unanswered:
                        self.answered.set()
                    if fate is Fate.CUT_AFTER:
                        return
                    if fate is Fate.HOLD_ANSWER:
                        self._proxy.held.set()
                    else:
                        self._writer.write(message)
                        await self._writer.drain()
        finally:
            self._writer.transport.abort()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(_HEADER.size)
    return header + await reader.readexactly(_HEADER.unpack(header)[0] - _HEADER.size)


def _command_of(message: bytes) -> Command | None:
    """Return the command of an OP_MSG; None for anything else."""
    if _HEADER.unpack_from(message)[3] != _OP_MSG:
        return None
    body = _body_of(message)
    name = next(iter(body))
    collection = body[name] if isinstance(body[name], str) else ""
    return Command(name, collection, kind_of(name, collection, body))


def _body_of(message: bytes) -> dict[str, Any]:
    """Return the command's document, with the documents of its sequences in their fields."""
    body: dict[str, Any] = {}
    at = _HEADER.size + 4
    while at < len(message):
        section, at = message[at], at + 1
        (size,) = struct.unpack_from("<i", message, at)
        if section == 0:
            body = {**bson.decode(message[at : at + size]), **body}
        else:
            end_of_name = message.index(b"\0", at + 4)
            body[message[at + 4 : end_of_name].decode()] = bson.decode_all(message[end_of_name + 1 : at + size])
        at += size
    return body


def kind_of(name: str, collection: str, body: dict[str, Any]) -> str:
    """Return which write of the SessionStore a command is, by the name of its method; `` if it is none."""
    if name == "insert":
        return {"turns": "archive", "sessions": "insert_session"}.get(collection, "")
    if name == "update" and collection == "sessions":
        change = body["updates"][0]["u"]
    elif name == "findAndModify" and collection == "sessions":
        change = body["update"]
    else:
        return ""
    fields = change.get("$set", {})
    # In this order: a write may set what an earlier kind of it is known by.
    for field, kind in (
        ("active", "accept"),
        ("active.ending", "end"),
        ("active.lease_id", "take_over"),
        ("active.cancel", "request_cancel"),
        ("active.released", "release"),
        ("active.beat", "checkpoint"),
    ):
        if field in fields:
            return kind
    return ""
