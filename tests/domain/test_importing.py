"""Imported files: whole or not at all, whatever is wrong with them, and whoever is killed."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.domain.errors import (
    InvalidField,
    InvalidImport,
    Overloaded,
    SessionExists,
)
from service.domain.purger import RECORD_KEPT
from service.store.sqlite import SqliteStore
from tests.domain.files import (
    MIB,
    a_file,
    imported,
    importer_of,
    lines_of,
    rows,
    signed,
)
from tests.domain.life import ANNA, BERT, Interfering, Killed, Life, Mortal


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


# Nothing by halves


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
    (0, {"format": "chatsession.export.v2"}),
    (0, {"format": ...}),
    (0, {"kind": "turn"}),
    (0, {"new_field": 1}),
    (0, {"session_id": "-"}),
    (0, {"session_id": 7}),
    (0, {"title": "t" * 257}),
    (0, {"title": None}),
    (0, {"labels": {"a": 1}}),
    (0, {"labels": {"": "a"}}),
    (0, {"labels": {}}),
    (0, {"instructions": "ä" * 32_768}),
    (0, {"settings": {"temperature": 3.0}}),
    (0, {"settings": {"temperature": 1}}),
    (0, {"settings": {"seed": 2**31}}),
    (0, {"settings": {"max_output_tokens": 2**31}}),
    (0, {"settings": {"stop_sequences": "stop"}}),
    (0, {"settings": {"stop_sequences": ["a"] * 5}}),
    (0, {"settings": {"stop_sequences": [1]}}),
    (0, {"create_time": "2030-01-01"}),
    (0, {"create_time": "2030-01-01T00:00:00.000"}),
    (0, {"create_time": "2030-01-01T00:00:00.000+01:00"}),
    (0, {"create_time": 0}),
    (0, {"create_time": ...}),
    (0, {"expire_time": "0001-01-01T00:00:00.000+23:59"}),
    (0, {"idle_ttl_ms": 0}),
    (0, {"idle_ttl_ms": 2**60}),
    (0, {"idle_ttl_ms": True}),
    (0, {"last_seq": 7}),
    (0, {"last_seq": 9}),
    (0, {"last_seq": -1}),
    (0, {"last_seq": 2**31}),
    (0, {"settings_version": 0}),
    (0, {"fingerprint": "x"}),
    (2, {"kind": "session"}),
    (2, {"new_field": 1}),
    (2, {"turn_id": "a b"}),
    (2, {"turn_id": "turn0"}),
    (2, {"request_id": "request0"}),
    (2, {"request_id": ""}),
    (2, {"first_seq": 4}),
    (2, {"first_seq": 0}),
    (2, {"first_seq": "3"}),
    (2, {"first_seq": 3.0}),
    (2, {"first_seq": True}),
    (2, {"last_seq": 5}),
    (2, {"last_seq": 3}),
    (2, {"response": ...}),
    (2, {"response": None}),
    (2, {"message": ""}),
    (2, {"message": "ä" * 131_073}),
    (2, {"state": "RUNNING"}),
    (2, {"state": "DONE"}),
    (2, {"state": "FAILED"}),
    (2, {"failure": {"reason": "a", "message": "b"}}),
    (2, {"finish_reason": "BORED"}),
    (2, {"fence": 0}),
    (2, {"attempt": 0}),
    (2, {"settings_version": 2**31}),
    (2, {"usage": {"input_tokens": -1}}),
    (2, {"usage": {"input_tokens": 2**31}}),
    (2, {"usage": {"other": 1}}),
    (2, {"end_time": ...}),
    (2, {"model": 1}),
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
    file = await a_file(life, 4, None)
    turns = len(await life.store.inner._read("SELECT 1 FROM turns", ()))
    with pytest.raises(SessionExists):
        await imported(life, file, "", BERT)
    assert len(await life.store.inner._read("SELECT 1 FROM turns", ())) == turns
    life.now += RECORD_KEPT
    await life.purge()
    assert await life.store.session(ANNA, "original")
    assert await life.store.due_purge_records(life.now, 10) == []


# Crashes and lost answers


@pytest.mark.parametrize("is_applied", [False, True])
async def test_a_crash_anywhere_leaves_the_session_whole_or_nothing(life: Life, is_applied: bool) -> None:
    file = await a_file(life, 250, None)
    original, inner = await rows(life), life.store.inner
    outcomes = []
    for at in itertools.count():
        life.store = Interfering(Mortal(inner, at, is_applied=is_applied))
        crashed = False
        try:
            await imported(life, file, "copy")
        except Killed:
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
