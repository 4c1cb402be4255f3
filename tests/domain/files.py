"""Exported files, for the tests of exporting and importing."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from service.domain.entities import Principal, Session, Turn
from service.domain.exporting import Exporter
from service.domain.importing import Importer
from service.domain.lifetime import Lifetimes
from service.domain.ports import Lease
from tests.contract.build import a_turn as a_full_turn
from tests.contract.build import an_active, an_ending
from tests.domain.builders import NOW
from tests.domain.life import ANNA, GRACE, Life

HOUR = timedelta(hours=1)
MIB = 1024 * 1024


def importer_of(life: Life, max_bytes: int = 64 * MIB, **limits: Any) -> Importer:
    numbers = itertools.count()
    return Importer(
        life.store,  # type: ignore[arg-type]
        lifetimes=Lifetimes(grace=GRACE, **limits),
        max_bytes=max_bytes,
        now=life.time,
        new_id=lambda: f"imported{next(numbers)}",
    )


async def exported(life: Life, session: Session, owner: Principal | None = None) -> bytes:
    pieces = Exporter(life.store, now=life.time).export(owner or session.owner, session.session_id)  # type: ignore[arg-type]
    return b"".join([piece async for piece in pieces])


async def pieces_of(file: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(file), size):
        yield file[start : start + size]


async def imported(
    life: Life, file: bytes, session_id: str = "copy", owner: Principal = ANNA, **limits: Any
) -> Session:
    return await importer_of(life, **limits).receive(owner, session_id, pieces_of(file))


async def turns_of(life: Life, session: Session) -> list[Turn]:
    return list(await life.store.turns(session.key, first_seq_from=0, first_seq_to=10**6, limit=10**6))


async def rows(life: Life) -> list[int]:
    """Count what there is in the store, of any kind."""
    store: Any = life.store.inner
    tables = ("sessions", "turns", "purges", "erasures")
    return [(await store._read(f"SELECT count(*) FROM {name}", ()))[0][0] for name in tables]


def signed(*lines: dict[str, Any]) -> bytes:
    """Return the file of some lines, with a last line that fits them."""
    body = b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)
    end = {"kind": "end", "turns": len(lines) - 1, "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def lines_of(file: bytes) -> list[dict[str, Any]]:
    """Return the lines of a file but for the last."""
    return [json.loads(line) for line in file.splitlines()[:-1]]


def lease_of(session: Session, active: Any) -> Any:
    return Lease(session.key, active.turn.turn_id, active.lease_id)


async def with_last_seq(life: Life, session: Session) -> Session:
    """End a session's archived turns in its document too."""
    turn = (await turns_of(life, session))[-1]
    assert turn.ending
    found = await life.read(session)
    assert found
    active = replace(an_active(replace(turn, ending=None)), fence=found.fence + 1)
    assert await life.store.accept(found, life.now, active)
    assert await life.store.end(lease_of(session, active), turn.ending)
    found = await life.read(session)
    assert found
    return found


async def a_file(life: Life, turns: int = 4, length: timedelta | None = HOUR) -> bytes:
    """The file of a session with so many turns, two messages each."""
    session = await life.create(session_id="original", title="t", labels={"a": "b"}, ttl=length, idle_ttl=length)
    for number in range(turns):
        ending = an_ending(end_time=NOW, last_seq=2 * number + 2)
        await life.archive(session, a_full_turn(number, create_time=NOW, first_seq=2 * number + 1, ending=ending))
    session = await with_last_seq(life, session) if turns else session
    return await exported(life, session)
