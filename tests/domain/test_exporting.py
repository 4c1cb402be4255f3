"""Exported sessions: what the file holds, and that what is made of it is the same session."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import ModelSettings, Principal, Session, Turn
from service.domain.errors import (
    InvalidField,
    InvalidImport,
    Overloaded,
    SessionExists,
    SessionExpired,
    SessionNotFound,
)
from service.domain.exporting import Exporter
from service.domain.importing import Importer
from service.domain.lifetime import Lifetimes
from service.domain.purger import RECORD_KEPT
from service.store.sqlite import SqliteStore
from tests.contract.build import ENDINGS, TEXTS, an_active, an_ending
from tests.contract.build import a_turn as a_full_turn
from tests.domain.builders import a_turn, running
from tests.domain.life import ANNA, BERT, GRACE, Interfering, Life

HOUR = timedelta(hours=1)
MIB = 1024 * 1024


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


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
    tables = [name for (name,) in await store._read("SELECT name FROM sqlite_master WHERE type = 'table'", ())]
    return [(await store._read(f"SELECT count(*) FROM {name}", ()))[0][0] for name in sorted(tables)]


def signed(*lines: dict[str, Any]) -> bytes:
    """Return the file of some lines, with a last line that fits them."""
    body = b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)
    end = {"kind": "end", "turns": len(lines) - 1, "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def lines_of(file: bytes) -> list[dict[str, Any]]:
    """Return the lines of a file but for the last."""
    return [json.loads(line) for line in file.splitlines()[:-1]]


async def a_rich_session(life: Life) -> Session:
    """A session with all that a session and a turn can have."""
    session = await life.create(
        session_id="rich",
        title="Título \u2028 😀",
        labels={"a.b": "", "$x": "\x00", "": "no"} | {f"k{n}": "ä" * 256 for n in range(29)}
        if False
        else {"a.b": "", "$x": "\x00"},
        instructions="Be brief.\n",
        settings=ModelSettings("m", 0.1, 1.0, 100, -7, ("stop", "¶")),
        ttl=timedelta(days=30),
        idle_ttl=timedelta(days=2),
    )
    seq = 1
    turns = []
    for number, (ending, text) in enumerate(itertools.product(ENDINGS.values(), TEXTS.values())):
        answer = text if ending.message_count > 1 else ""
        turn = a_full_turn(
            number,
            request_key=f"s:turn{number}" if number % 3 == 0 else f"c:request{number}",
            user_text=text or "not empty",
            first_seq=seq,
            ending=replace(ending, text=answer, last_seq=seq + ending.message_count - 1, fence=number + 1),
            settings_version=number % 4 + 1,
            attempt=number % 3 + 1,
        )
        turns.append(turn)
        seq = turn.last_seq + 1
    await life.archive(session, *turns)
    last = turns[-1]
    assert last.ending is not None
    active = replace(an_active(replace(last, ending=None)), fence=session.fence + 1)
    assert await life.store.accept(session, life.now, active)
    assert await life.store.end(_lease(session, active), last.ending)
    found = await life.read(session)
    assert found is not None
    return found


def _lease(session: Session, active: Any) -> Any:
    from service.domain.ports import Lease

    return Lease(session.key, active.turn.turn_id, active.lease_id)


# What comes back


async def test_an_imported_session_is_the_exported_one(life: Life) -> None:
    session = await a_rich_session(life)
    life.now += HOUR
    copy = await imported(life, await exported(life, session))
    original = await turns_of(life, session)
    assert await turns_of(life, copy) == original
    assert len(original) == len(ENDINGS) * len(TEXTS)
    newest_fence = max(turn.ending.fence for turn in original if turn.ending)
    assert copy == replace(
        session,
        session_id="copy",
        uid=copy.uid,
        fingerprint="",
        active=None,
        fence=newest_fence,
        idle_since=life.now,
        import_time=life.now,
        look_at=copy.look_at,
    )
    assert await life.read(copy) == copy
    assert copy.uid != session.uid
    assert copy.look_at == life.now + timedelta(days=2) + GRACE


async def test_an_export_of_an_import_is_the_same_file(life: Life) -> None:
    session = await a_rich_session(life)
    file = await exported(life, session)
    copy = await imported(life, file, "copy")
    again = lines_of(await exported(life, copy))
    assert again[1:] == lines_of(file)[1:]
    assert again[0] == {**lines_of(file)[0], "session_id": "copy"}


async def test_under_its_own_id_a_repeat_of_its_creation_answers_it(life: Life) -> None:
    session = await life.create(session_id="mine", title="x")
    file = await exported(life, session)
    await life.purger.remove(session)
    copy = await imported(life, file, "")
    assert (await life.create(session_id="mine", title="x")).key == copy.key
    with pytest.raises(SessionExists):
        await life.create(session_id="mine", title="y")


async def test_a_request_id_is_remembered_and_turns_go_on_behind(life: Life) -> None:
    session = await life.create()
    await life.archive(session, a_full_turn(1, first_seq=1, ending=an_ending(fence=7)))
    session = await _with_last_seq(life, session)
    copy = await imported(life, await exported(life, session))
    assert (copy.last_seq, copy.fence) == (2, 7)
    assert await life.store.turn_by_request(copy.key, "c:request1")


async def _with_last_seq(life: Life, session: Session) -> Session:
    """End a session's archived turns in its document too."""
    turn = (await turns_of(life, session))[-1]
    assert turn.ending
    found = await life.read(session)
    assert found
    active = replace(an_active(replace(turn, ending=None)), fence=found.fence + 1)
    assert await life.store.accept(found, life.now, active)
    assert await life.store.end(_lease(session, active), turn.ending)
    found = await life.read(session)
    assert found
    return found


async def test_an_empty_session_can_be_restored(life: Life) -> None:
    session = await life.create()
    copy = await imported(life, await exported(life, session))
    assert (copy.last_seq, await turns_of(life, copy)) == (0, [])


async def test_the_file_comes_in_bounded_pieces(life: Life) -> None:
    session = await life.create()
    turns = [replace(a_turn(2 * n + 1, "q" * 200_000, "a" * 200_000)) for n in range(10)]
    await life.archive(session, *turns)
    session = await _with_last_seq(life, session)
    pieces = [piece async for piece in Exporter(life.store, now=life.time).export(ANNA, session.session_id)]  # type: ignore[arg-type]
    assert max(map(len, pieces)) < 70_000
    assert len(b"".join(pieces)) > 4_000_000


# While turns run


async def test_a_running_turn_is_not_exported(life: Life) -> None:
    session = await life.create()
    await life.archive(session, a_turn(1))
    session = await _with_last_seq(life, session)
    session = await life.run_turn(session, running(a_turn(3)))
    lines = lines_of(await exported(life, session))
    assert [line.get("first_seq") for line in lines] == [None, 1]
    assert lines[0]["last_seq"] == 2


async def test_a_turn_that_is_not_archived_yet_is_exported(life: Life) -> None:
    session = await life.create()
    turn = a_turn(1)
    assert turn.ending
    active = replace(running(turn), fence=session.fence + 1)
    assert await life.store.accept(session, life.now, active)
    assert await life.store.end(_lease(session, active), turn.ending)
    file = await exported(life, session)
    assert [line["kind"] for line in lines_of(file)] == ["session", "turn"]
    assert (await imported(life, file)).last_seq == 2


@pytest.mark.parametrize("number", range(3))
async def test_turns_that_end_on_the_way_are_left_out(life: Life, number: int) -> None:
    session = await life.create()
    await life.archive(session, *(a_turn(2 * n + 1) for n in range(60)))
    session = await _with_last_seq(life, session)

    async def one_more() -> None:
        await life.archive(session, a_turn(121))
        await _with_last_seq(life, session)

    if number:
        life.store.before["turns"] = one_more if number == 1 else life_skips(life, one_more)
    lines = lines_of(await exported(life, session))
    assert (lines[0]["last_seq"], [line["first_seq"] for line in lines[1:]]) == (120, list(range(1, 121, 2)))


def life_skips(life: Life, what: Any) -> Any:
    """Do something before the second page instead of the first."""

    async def again() -> None:
        life.store.before["turns"] = what

    return again


async def test_a_session_that_is_removed_on_the_way_is_gone(life: Life) -> None:
    session = await life.create()
    await life.archive(session, *(a_turn(2 * n + 1) for n in range(60)))
    session = await _with_last_seq(life, session)
    life.store.before["turns"] = life_skips(life, lambda: life.new_purger(life.store.inner).remove(session))
    with pytest.raises(SessionNotFound):
        await exported(life, session)


async def test_what_is_gone_or_of_another_cannot_be_exported(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    with pytest.raises(SessionNotFound):
        await exported(life, session, BERT)
    with pytest.raises(InvalidField):
        await exported(life, replace(session, session_id="-"))
    deleted = await life.create()
    await life.sessions.delete(ANNA, deleted.session_id)
    with pytest.raises(SessionNotFound):
        await exported(life, deleted)
    life.now += HOUR
    with pytest.raises(SessionExpired):
        await exported(life, session)


# Times


async def test_an_end_that_has_passed_is_left_out(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    file = await exported(life, session)
    life.now += 2 * HOUR
    assert (await imported(life, file)).expire_time is None
    copy = await imported(life, file, "copy2", ttl=5 * HOUR)
    assert copy.expire_time == life.now + 5 * HOUR


async def test_ends_beyond_the_servers_limits_are_moved(life: Life) -> None:
    session = await life.create(ttl=10 * HOUR, idle_ttl=9 * HOUR)
    copy = await imported(life, await exported(life, session), max_ttl=HOUR, max_idle_ttl=HOUR / 2)
    assert (copy.expire_time, copy.idle_ttl) == (life.now + HOUR, HOUR / 2)
    within = await imported(life, await exported(life, session), "copy2", max_ttl=99 * HOUR)
    assert (within.expire_time, within.idle_ttl) == (session.expire_time, session.idle_ttl)


async def test_a_session_of_a_clock_ahead_is_not_from_the_future(life: Life) -> None:
    session = await life.create()
    file = await exported(life, session)
    life.now -= HOUR
    copy = await imported(life, file)
    assert (copy.create_time, copy.update_time) == (life.now, life.now)


# Nothing by halves


async def a_file(life: Life, turns: int = 4) -> bytes:
    session = await life.create(session_id="original", title="t", labels={"a": "b"}, ttl=HOUR, idle_ttl=HOUR)
    await life.archive(
        session, *(a_full_turn(n, first_seq=2 * n + 1, ending=an_ending(last_seq=2 * n + 2)) for n in range(turns))
    )
    session = await _with_last_seq(life, session) if turns else session
    return await exported(life, session)


async def refused_at(life: Life, file: bytes) -> int:
    """Import a file that is no good; check that nothing is written, and return the line that is named."""
    before, calls = await rows(life), len(life.store.calls)
    with pytest.raises(InvalidImport) as caught:
        await imported(life, file)
    assert await rows(life) == before
    assert life.store.calls[calls:] == []
    assert str(caught.value).startswith(f"line {caught.value.metadata['line']}: ")
    return int(caught.value.metadata["line"])


async def test_every_damaged_byte_is_found(life: Life) -> None:
    file = await a_file(life, 2)
    starts = [0, *itertools.accumulate(len(line) for line in file.splitlines(keepends=True))]
    found = set()
    for at in range(0, len(file), 7):
        damaged = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        line = await refused_at(life, damaged)
        of_byte = sum(start <= at for start in starts)
        assert line in (of_byte, 4)  # where it is, or the checksum
        found.add(line)
    assert found == {1, 2, 3, 4}


async def test_every_line_that_is_missing_doubled_or_out_of_order_is_found(life: Life) -> None:
    lines = (await a_file(life)).splitlines(keepends=True)
    assert len(lines) == 6
    for number in range(6):
        without = lines[:number] + lines[number + 1 :]
        assert await refused_at(life, b"".join(without)) == (1 if number == 0 else number + 1)
        doubled = lines[: number + 1] + lines[number:]
        assert await refused_at(life, b"".join(doubled)) == number + 2
    for one, other in itertools.combinations(range(6), 2):
        swapped = list(lines)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        assert await refused_at(life, b"".join(swapped)) == one + 1


async def test_a_file_cut_anywhere_is_found(life: Life) -> None:
    file = await a_file(life, 2)
    lines = file.splitlines(keepends=True)
    for count in range(len(lines)):
        assert await refused_at(life, b"".join(lines[:count])) == count + 1
    for at in range(1, len(file), 11):
        assert await refused_at(life, file[:at]) == file[:at].count(b"\n") + 1


GARBAGE = {
    "empty": (b"", 1),
    "a blank line": (b"\n", 1),
    "not JSON": (b"hello\n", 1),
    "JSON of another kind": (b"[]\n", 1),
    "another file of lines": (b'{"question_id": 81, "turns": []}\n', 1),
    "no UTF-8": (b'{"kind":"session","title":"\xff"}\n', 1),
    "a byte order mark": (b"\xef\xbb\xbf{}\n", 1),
    "a bomb of brackets": (b"[" * 5_000_000 + b"\n", 1),
    "a bomb of lists": (b'{"kind":"session","a":[' + b"[]," * 1_000_000 + b"[]]}\n", 1),
    "a bomb of quotes": (b'\\"' * 3_000_000 + b"\n", 1),
    "an endless line": (b'{"kind":"session","title":"' + b"a" * (13 * MIB), 1),
    "a huge number": (b'{"kind":"session","n":' + b"1" * 5000 + b"}\n", 1),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_what_is_no_export_is_refused(life: Life, name: str) -> None:
    file, line = GARBAGE[name]
    assert await refused_at(life, file) == line


async def test_an_endless_turn_is_refused(life: Life) -> None:
    lines = lines_of(await a_file(life))
    lines[2]["response"] = "a" * (13 * MIB)
    assert await refused_at(life, signed(*lines)) == 3


# In which line, and its new values; `...` takes one out.
CHANGES: list[tuple[int, dict[str, Any]]] = [
    (0, dict(format="chatsession.export.v2")),
    (0, dict(format=...)),
    (0, dict(kind="turn")),
    (0, dict(new_field=1)),
    (0, dict(session_id="-")),
    (0, dict(session_id=7)),
    (0, dict(title="t" * 257)),
    (0, dict(title=None)),
    (0, dict(labels={"a": 1})),
    (0, dict(labels={"": "a"})),
    (0, dict(labels={})),
    (0, dict(instructions="ä" * 32_768)),
    (0, dict(settings={"temperature": 3.0})),
    (0, dict(settings={"temperature": 1})),
    (0, dict(settings={"seed": 2**31})),
    (0, dict(settings={"max_output_tokens": 2**31})),
    (0, dict(settings={"stop_sequences": "stop"})),
    (0, dict(settings={"stop_sequences": ["a"] * 5})),
    (0, dict(settings={"stop_sequences": [1]})),
    (0, dict(create_time="2030-01-01")),
    (0, dict(create_time="2030-01-01T00:00:00.000")),
    (0, dict(create_time="2030-01-01T00:00:00.000+01:00")),
    (0, dict(create_time=0)),
    (0, dict(create_time=...)),
    (0, dict(expire_time="0001-01-01T00:00:00.000+23:59")),
    (0, dict(idle_ttl_ms=0)),
    (0, dict(idle_ttl_ms=2**60)),
    (0, dict(idle_ttl_ms=True)),
    (0, dict(last_seq=7)),
    (0, dict(last_seq=9)),
    (0, dict(last_seq=-1)),
    (0, dict(last_seq=2**31)),
    (0, dict(settings_version=0)),
    (0, dict(fingerprint="x")),
    (2, dict(kind="session")),
    (2, dict(new_field=1)),
    (2, dict(turn_id="a b")),
    (2, dict(turn_id="turn0")),
    (2, dict(request_id="request0")),
    (2, dict(request_id="")),
    (2, dict(first_seq=4)),
    (2, dict(first_seq=0)),
    (2, dict(first_seq="3")),
    (2, dict(first_seq=3.0)),
    (2, dict(first_seq=True)),
    (2, dict(last_seq=5)),
    (2, dict(last_seq=3)),
    (2, dict(response=...)),
    (2, dict(response=None)),
    (2, dict(message="")),
    (2, dict(message="ä" * 131_073)),
    (2, dict(state="RUNNING")),
    (2, dict(state="DONE")),
    (2, dict(state="FAILED")),
    (2, dict(failure={"reason": "a", "message": "b"})),
    (2, dict(finish_reason="BORED")),
    (2, dict(fence=0)),
    (2, dict(attempt=0)),
    (2, dict(settings_version=2**31)),
    (2, dict(usage={"input_tokens": -1})),
    (2, dict(usage={"input_tokens": 2**31})),
    (2, dict(usage={"other": 1})),
    (2, dict(end_time=...)),
    (2, dict(model=1)),
]


@pytest.mark.parametrize(("number", "values"), CHANGES, ids=range(len(CHANGES)))
async def test_values_that_cannot_be_right_are_refused_even_with_a_fitting_checksum(
    life: Life, number: int, values: dict[str, Any]
) -> None:
    lines = lines_of(await a_file(life))
    assert (await imported(life, signed(*lines), "sound")).last_seq == 8
    changed = {**lines[number], **values}
    lines[number] = {name: value for name, value in changed.items() if value is not ...}
    assert await refused_at(life, signed(*lines)) == number + 1


async def test_a_lone_surrogate_is_refused(life: Life) -> None:
    file = (await a_file(life)).replace(b'"question 1"', b'"\\ud800"')
    assert await refused_at(life, file) == 3


async def test_another_spelling_of_the_same_is_refused(life: Life) -> None:
    lines = (await a_file(life)).splitlines(keepends=True)
    for spelled in (lines[2].replace(b":", b": ", 1), lines[2].replace(b"turn", b"t\\u0075rn", 1), b" " + lines[2]):
        assert await refused_at(life, b"".join([*lines[:2], spelled, *lines[3:]])) == 3
    twice = lines[2].replace(b'"kind":"turn"', b'"kind":"turn","kind":"turn"')
    assert await refused_at(life, b"".join([*lines[:2], twice, *lines[3:]])) == 3


async def test_a_file_beyond_the_limit_is_refused_and_no_more_of_it_is_read(life: Life) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(MIB)

    before = await rows(life)
    with pytest.raises(InvalidField, match="at most 3145728 bytes"):
        await importer_of(life, 3 * MIB).receive(ANNA, "", endless())
    assert (read, await rows(life)) == (4, before)


async def test_a_bad_id_is_refused(life: Life) -> None:
    with pytest.raises(InvalidField, match="session_id"):
        await imported(life, await a_file(life), "-")


async def test_too_many_at_once_are_turned_away(life: Life) -> None:
    importer, file, begun = importer_of(life), await a_file(life), itertools.count()

    async def slow(number: int) -> AsyncIterator[bytes]:
        next(begun)
        if number:
            await life_nested(number - 1)
        yield file

    async def life_nested(number: int) -> None:
        await importer.receive(ANNA, f"copy{number}", slow(number))

    with pytest.raises(Overloaded):
        await life_nested(16)
    assert next(begun) == 16
    await life_nested(15)  # the places were given back


# Taken ids


async def test_a_taken_id_is_refused_and_nothing_stays(life: Life) -> None:
    file = await a_file(life)
    before = await rows(life)
    with pytest.raises(SessionExists, match="original"):
        await imported(life, file, "")
    assert await rows(life) == before


async def test_an_id_of_another_owner_is_refused_and_no_turn_stays(life: Life) -> None:
    file = await a_file(life)
    turns = len(await life.store.inner._read("SELECT 1 FROM turns", ()))
    with pytest.raises(SessionExists):
        await imported(life, file, "", BERT)
    assert len(await life.store.inner._read("SELECT 1 FROM turns", ())) == turns
    life.now += RECORD_KEPT
    await life.purge()
    assert await life.store.session(ANNA, "original")
    assert await life.store.due_purge_records(life.now, 10) == []


# Crashes and lost answers


class Crash(BaseException):
    """The process is killed."""


class Crashing(Interfering):
    """A store whose process is killed at its n-th call, before or after it is carried out."""

    def __init__(self, store: Any, at: int, *, after: bool) -> None:
        super().__init__(store)
        self.left, self.after = at, after

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)

        async def crashing(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Crash
            answer = await call(*args, **options)
            if self.left == 0:
                raise Crash
            return answer

        return crashing


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_anywhere_leaves_the_session_whole_or_nothing(life: Life, after: bool) -> None:
    file = await a_file(life, 250)
    original, inner = await rows(life), life.store.inner
    outcomes = []
    for at in itertools.count(1):
        life.store = Crashing(inner, at, after=after)
        crashed = False
        try:
            await imported(life, file, "copy")
        except Crash:
            crashed = True
        life.store = Interfering(inner)
        life.purger = life.new_purger()
        copy = await life.store.session(ANNA, "copy")
        outcomes.append(copy is not None)
        life.now += RECORD_KEPT
        await life.purge()
        if copy is not None:
            assert copy.last_seq == 500
            assert await life.turns(copy) == 250
            await life.purger.remove(copy)
            life.now += RECORD_KEPT
            await life.purge()
        assert await rows(life) == original
        if not crashed:
            break
    assert outcomes == sorted(outcomes)
    assert len(outcomes) == 8  # look, record, three batches, session, record; and one without a crash


@pytest.mark.parametrize("how", ["before", "after", "away"])
@pytest.mark.parametrize("call", ["put_purge_record", "insert_turns", "insert_session", "delete_purge_record"])
async def test_an_answer_that_was_lost_is_asked_for_again(life: Life, call: str, how: str) -> None:
    file = await a_file(life)
    life.store.lost[call] = how
    copy = await imported(life, file)
    assert await life.read(copy) == copy
    assert await life.turns(copy) == 4
    life.now += RECORD_KEPT
    await life.purge()
    assert await life.turns(copy) == 4


async def test_an_import_that_took_longer_than_its_record_is_undone(life: Life) -> None:
    file = await a_file(life)

    async def a_day_later() -> None:
        life.now += RECORD_KEPT
        await life.new_purger(life.store.inner).sweep()

    life.store.before["insert_session"] = a_day_later
    with pytest.raises(Exception, match="took too long"):
        await imported(life, file)
    await life.purge()
    assert await life.store.session(ANNA, "copy") is None
