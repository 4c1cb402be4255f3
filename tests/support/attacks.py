"""What hostile callers do to an HTTP port: each attack is what one attacker does on one connection, again and again.

Used by the tests, which ask whether the attackers get what they should, and by `benchmarks.attacks`, which asks what
it costs everybody else.
"""

import asyncio
import gzip
import itertools
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

MIB = 1024 * 1024
OPEN = "open"
CLOSED = "closed"
RESET = "reset"
_BODY_BYTES = 2 * MIB - 1024
_DRIP_S = 0.5


@dataclass(frozen=True)
class Target:
    """A server, with a session that has a long history, and in it an ended turn with a long answer."""

    host: str
    port: int
    session_id: str = ""
    turn_id: str = ""


class Line:
    """One attacker's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> None:
        self.target = target
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send, as fast as the server takes it."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def drip(self, data: bytes, every_s: float) -> None:
        """Send single bytes until there are no more, or the server has something to say."""
        for number in itertools.count():
            if number == len(data) or self._reader.at_eof() or self._reader._buffer:  # type: ignore[attr-defined]
                return
            await self.send(data[number : number + 1])
            await asyncio.sleep(every_s)

    def half_close(self) -> None:
        """Say that nothing more will come."""
        self._writer.write_eof()

    async def verdict(self) -> str:
        """Wait for an answer or the end, and return the status, `closed` or `reset`."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return RESET
        except ValueError:  # longer than what this side wants to hold
            return "long"
        return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else CLOSED

    async def hold(self) -> str:
        """Wait for the end without reading an answer."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.get_running_loop().create_future()
        return OPEN


Act = Callable[[Line], Awaitable[str]]


@dataclass(frozen=True)
class Attack:
    """attackers: at the same time. pause_s: of each of them, between two tries.

    usual: what an attacker gets: an HTTP status, `closed` or `reset` by the server, or `open`, if it was still there
    when the attack ended. others: what it may get instead.
    most_mib: the most by which the server's memory may grow.
    hardly_reads: the attacker's side has little room for what is sent to it.
    """

    name: str
    act: Act
    usual: str
    others: frozenset[str] = frozenset((RESET, OPEN))
    attackers: int = 10
    pause_s: float = 0.5
    most_mib: int = 128
    hardly_reads: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Tally:
    """What attackers got, and after how long at most. begun: attackers that have come."""

    begun: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: dict[str, float] = field(default_factory=dict)

    def note(self, outcome: str, after_s: float) -> None:
        """Count one."""
        self.outcomes[outcome] += 1
        self.longest_s[outcome] = max(after_s, self.longest_s.get(outcome, 0.0))


async def besiege(
    attack: Attack, target: Target, tally: Tally, *, attackers: int | None = None, within_s: float = 3.5
) -> None:
    """Attack until cancelled. The attackers come one after the other, all within some time."""
    number = attackers or attack.attackers
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(_attacker(attack, target, tally))
            await asyncio.sleep(within_s / number)


async def _attacker(attack: Attack, target: Target, tally: Tally) -> None:
    tally.begun += 1
    while True:
        began = time.monotonic()
        outcome = OPEN
        try:
            outcome = await _once(attack, target)
        finally:
            tally.note(outcome, time.monotonic() - began)
        await asyncio.sleep(attack.pause_s)


async def _once(attack: Attack, target: Target) -> str:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone at once when it is closed
    if attack.hardly_reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            return "refused"
        raise
    line = Line(reader, writer, target)
    try:
        return await attack.act(line)
    except ConnectionError:  # while sending: there may be an answer to read
        with suppress(ConnectionError):
            return await line.verdict()
        return RESET
    finally:
        writer.transport.abort()


def _head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: attacked", *headers, "", ""]).encode()


def _post(body: bytes, *headers: str) -> bytes:
    kind = "Content-Type: application/json"
    return _head("POST", "/chat", kind, f"Content-Length: {len(body)}", *headers) + body


def _saying(make: Callable[[], bytes]) -> Act:
    """Send something, and wait for the answer."""
    made = cache(make)

    async def act(line: Line) -> str:
        await line.send(made())
        return await line.verdict()

    return act


def _filled(unit: bytes, prefix: bytes = b"[", suffix: bytes = b"1]", size: int = _BODY_BYTES) -> bytes:
    return prefix + unit * ((size - len(prefix) - len(suffix)) // len(unit)) + suffix


async def _slow_head(line: Line) -> str:
    await line.drip(b"GET /session/x/history HTTP/1.1\r\nX-Slow: " + b"a" * 10_000, _DRIP_S)
    return await line.verdict()


async def _slow_body(line: Line) -> str:
    await line.send(_head("POST", "/chat", "Content-Length: 100000"))
    await line.drip(b'{"message":"' + b"a" * 10_000, _DRIP_S)
    return await line.verdict()


async def _held_body(line: Line) -> str:
    await line.send(_head("POST", "/chat", f"Content-Length: {2 * MIB}"), b" " * _BODY_BYTES)
    return await line.verdict()


async def _endless_header(line: Line) -> str:
    await line.send(b"GET /chat HTTP/1.1\r\nHost: attacked\r\nX-Endless: ")
    return await _endlessly(line, b"a" * 65_536)


async def _endless_chunks(line: Line) -> str:
    await line.send(_head("POST", "/chat", "Transfer-Encoding: chunked"))
    return await _endlessly(line, b"1000\r\n" + b" " * 4096 + b"\r\n")


async def _endless_trailers(line: Line) -> str:
    await line.send(_head("POST", "/chat", "Transfer-Encoding: chunked"), b"0\r\n")
    return await _endlessly(line, b"X-Endless: a\r\n" * 1000)


async def _endless_extension(line: Line) -> str:
    await line.send(_head("POST", "/chat", "Transfer-Encoding: chunked"), b"1;a=")
    return await _endlessly(line, b"a" * 65_536)


async def _endlessly(line: Line, data: bytes) -> str:
    """Send until the server has something to say."""

    async def send() -> None:
        while True:
            await line.send(data)

    sending = asyncio.ensure_future(send())
    answer = asyncio.ensure_future(line.verdict())
    try:
        await asyncio.wait((sending, answer), return_when=asyncio.FIRST_COMPLETED)
        return await answer
    finally:
        for task in (sending, answer):
            task.cancel()
        await asyncio.gather(sending, answer, return_exceptions=True)


async def _single_bytes(line: Line) -> str:
    await line.drip(_post(b'{"sessionId":"nobody","message":"one by one"}'), 0.002)
    return await line.verdict()


async def _half_closed(line: Line) -> str:
    await line.send(_head("POST", "/chat", "Content-Length: 100"), b"{")
    line.half_close()
    return await line.verdict()


async def _silent(line: Line) -> str:
    return await line.verdict()


async def _stalled_stream(line: Line) -> str:
    path = f"/v1/sessions/{line.target.session_id}/turns/{line.target.turn_id}:attach"
    await line.send(_head("GET", path, "Accept: text/event-stream"))
    return await line.hold()


async def _stalled_page(line: Line) -> str:
    await line.send(_head("GET", f"/session/{line.target.session_id}/history"))
    return await line.hold()


_CUT = frozenset(("408", CLOSED, RESET))
_TLS_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(range(200))

ATTACKS: Sequence[Attack] = (
    Attack("open and say nothing", _silent, OPEN, _CUT, attackers=1000),
    Attack("slow head", _slow_head, OPEN, _CUT, attackers=200),
    Attack("slow body", _slow_body, OPEN, _CUT, attackers=200),
    Attack("2 MiB bodies, never ended", _held_body, "503", _CUT | {OPEN}, attackers=200, pause_s=2.0, most_mib=300),
    Attack("half-closed", _half_closed, CLOSED, attackers=100),
    Attack("single bytes", _single_bytes, "404", attackers=20),
    Attack("endless header", _endless_header, "431"),
    Attack("1 MiB header", _saying(lambda: _head("GET", "/chat", "X-Huge: " + "a" * MIB)), "431"),
    Attack("100,000 headers", _saying(lambda: _head("GET", "/chat", *["a: b"] * 100_000)), "431"),
    Attack("64k-slash path", _saying(lambda: _head("GET", "/" * 65_536)), "431"),
    Attack("16k-slash path", _saying(lambda: _head("GET", "/" * 16_384)), "404"),
    Attack(
        "10,000 parameters",
        _saying(lambda: _head("GET", "/session/x/history?" + "&".join(["a"] * 10_000))),
        "414",
    ),
    Attack(
        "8,000 parameters",
        _saying(lambda: _head("GET", "/session/x/history?" + "&".join(["a"] * 8_000))),
        "400",
    ),
    Attack(
        "Content-Length with Transfer-Encoding",
        _saying(lambda: _head("POST", "/chat", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
        "400",
    ),
    Attack("endless chunked body", _endless_chunks, "413"),
    Attack("endless trailers", _endless_trailers, "431"),
    Attack("endless chunk extension", _endless_extension, "431"),
    Attack("pipelined requests", _saying(lambda: _head("GET", "/session/x/history") * 2000), CLOSED),
    Attack("TLS hello", _saying(lambda: _TLS_HELLO), "400"),
    Attack("HTTP/2 preface", _saying(lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "400"),
    Attack("gzip bomb", _saying(lambda: _post(gzip.compress(bytes(64 * MIB), 9), "Content-Encoding: gzip")), "415"),
    Attack("100k-deep JSON", _saying(lambda: _post(b'{"a":' * 100_000)), "400"),
    Attack("2 MiB of empty lists", _saying(lambda: _post(_filled(b"[],"))), "400"),
    Attack(
        "100,000 keys",
        _saying(lambda: _post(b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}")),
        "400",
    ),
    Attack("one key 200,000 times", _saying(lambda: _post(_filled(b'"key":1,', b"{", b'"a":1}'))), "400"),
    Attack("1e400, 300,000 times", _saying(lambda: _post(_filled(b"1e400,"))), "400"),
    Attack("a number of 1 MiB", _saying(lambda: _post(b'{"message":' + b"9" * MIB + b"}")), "400"),
    Attack("numbers of 4,300 digits", _saying(lambda: _post(_filled(b"9" * 4300 + b","))), "400"),
    Attack("2 MiB of escapes", _saying(lambda: _post(_filled(b"\\n", b'{"message":"', b'"}'))), "400"),
    Attack("stalled SSE readers", _stalled_stream, OPEN, attackers=200, most_mib=400, hardly_reads=True),
    Attack("slow readers of 1 MiB pages", _stalled_page, OPEN, attackers=200, most_mib=400, hardly_reads=True),
)
