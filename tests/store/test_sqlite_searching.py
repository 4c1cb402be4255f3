"""SQLite joins words in pieces: no search goes through more of the index at once, and none passes over a turn."""

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from service.domain.entities import Principal, SessionKey, Turn
from service.domain.searching import parse_query
from service.store.sqlite import SqliteStore, searching
from service.store.sqlite.searching import _common
from tests.contract.build import MILLISECOND, NOW, OTHERS, OWNER, a_turn, an_ending

_SCANNED = 8
_LIMIT = 3


class Counting(SqliteStore):
    """Counts the rows that it reads."""

    rows = 0

    async def _read(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        rows = await super()._read(sql, parameters)
        self.rows += len(rows)
        return rows


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counting]:
    monkeypatch.setattr(searching, "_SCANNED", _SCANNED)
    store = Counting(":memory:")
    await store.open()
    yield store
    await store.close()


def a_turn_of(number: int, text: str) -> Turn:
    seq = 2 * number + 1
    time = NOW + number * MILLISECOND
    ending = an_ending(text="", last_seq=seq + 1)
    return a_turn(number, first_seq=seq, user_text=text, ending=ending, create_time=time)


async def fill(store: Counting, texts: Sequence[str], owner: Principal = OWNER, first: int = 0) -> None:
    key = SessionKey(owner, f"s{first}", f"u{first}")
    await store.insert_turns(key, [a_turn_of(first + number, text) for number, text in enumerate(texts)])


async def find(store: Counting, query: str, owner: Principal = OWNER) -> tuple[set[int], int]:
    """Return what is found, and in how many pieces; each is held to what it may read."""
    phrases, after = parse_query(query), ""
    found: set[int] = set()
    for pieces in range(1, 999):
        before = store.rows
        turns, rest = await store.find_turns(owner, phrases, uid="", after=after, limit=_LIMIT)
        assert store.rows - before <= (len(phrases) + 1) * _SCANNED + _LIMIT
        assert len(turns) <= _LIMIT
        found |= {int(turn.turn.turn_id.removeprefix("turn")) for turn in turns}
        if not rest:
            return found, pieces
        assert not after or int(rest) < int(after)
        after = rest
    raise AssertionError("the search does not end")


async def test_words_that_are_never_together_are_joined_piece_by_piece(store: Counting) -> None:
    await fill(store, ["even", "odds"] * 50)
    found, pieces = await find(store, "even odds")
    assert found <= set()
    assert pieces > 5


async def test_a_rare_word_among_common_ones_is_one_piece(store: Counting) -> None:
    await fill(store, ["common often"] * 100)
    await fill(store, ["common often rare"], first=100)
    await fill(store, ["common often"] * 100, first=101)
    assert await find(store, "common often rare") == ({100}, 1)


async def test_what_others_say_is_passed_over(store: Counting) -> None:
    for number in range(0, 200, 20):
        await fill(store, ["word"] * 19, OTHERS[0], number)
        await fill(store, ["word" if number % 40 else "another"], OWNER, number + 19)
    found, pieces = await find(store, "word")
    assert found >= {39, 79, 119, 159, 199}
    assert pieces <= 5


@pytest.mark.parametrize("seed", range(20))
async def test_no_turn_is_passed_over(store: Counting, seed: int) -> None:
    chance = random.Random(seed)
    vocabulary = ["aa", "bb", "cc", "dd"]
    shares = [chance.random() ** 3 for _ in vocabulary]
    texts = [
        " ".join(word for word, share in zip(vocabulary, shares, strict=True) if chance.random() < share) or "-"
        for _ in range(120)
    ]
    await fill(store, texts)
    for query in ("aa", "aa bb", "bb cc dd", "aa bb cc dd"):
        found, _ = await find(store, query)
        assert found >= {number for number, text in enumerate(texts) if set(query.split()) <= set(text.split())}


def test_a_list_that_was_read_to_its_end_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_SCANNED", _SCANNED)
    assert _common([[9, 7, 5, 3], [9, 8, 7, 2]], _LIMIT) == ([9, 7], "")
