"""Archived turns: written once, found by id, by request key and by range."""

import asyncio

import pytest

from service.domain.entities import SessionKey, Turn, TurnState, TurnTexts
from service.domain.ports import SessionStore
from tests.contract.build import ENDINGS, OTHERS, TEXTS, a_key, a_turn, an_ending
from tests.contract.conftest import MakeStore


def _ended(number: int, **fields: object) -> Turn:
    ending = an_ending(text=f"answer {number}", last_seq=number + 1)
    return a_turn(number, **{"ending": ending, **fields})


async def _archived(store: SessionStore, key: SessionKey, *numbers: int) -> list[Turn]:
    turns = [_ended(number) for number in numbers]
    for turn in turns:
        assert await store.archive(key, turn) is True
    return turns


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_turn_comes_back_as_it_was(store: SessionStore, name: str) -> None:
    key, turn = a_key(), a_turn(ending=ENDINGS[name])
    assert await store.archive(key, turn)
    assert await store.turn_by_id(key, "turn1") == turn
    assert await store.turn_by_request(key, "c:request1") == turn
    assert list(await store.turns(key, first_seq_from=1, first_seq_to=1, limit=1)) == [turn]


@pytest.mark.parametrize("name", TEXTS)
async def test_a_turn_keeps_every_text(store: SessionStore, name: str) -> None:
    key, turn = a_key(), _ended(1, user_text=TEXTS[name], ending=an_ending(text=TEXTS[name]))
    assert await store.archive(key, turn)
    assert await store.turn_by_id(key, "turn1") == turn


async def test_a_request_key_may_hold_any_printable_character(store: SessionStore) -> None:
    key, request_key = a_key(), "c:" + "".join(map(chr, range(0x21, 0x7F)))
    turn = _ended(1, request_key=request_key)
    assert await store.archive(key, turn)
    assert await store.turn_by_request(key, request_key) == turn
    assert await store.turn_by_request(key, request_key.swapcase()) is None


async def test_unknown_turns_are_none_or_nothing(store: SessionStore) -> None:
    key = a_key()
    await _archived(store, key, 1)
    for other, turn_id, request_key in (
        (key, "turn2", "c:request2"),
        (a_key(), "turn1", "c:request1"),
        *((key._replace(owner=owner), "turn1", "c:request1") for owner in OTHERS),
    ):
        assert await store.turn_by_id(other, turn_id) is None
        assert await store.turn_by_request(other, request_key) is None
    assert list(await store.turns(a_key(), first_seq_from=0, first_seq_to=100, limit=100)) == []


async def test_an_archive_repeated_is_refused_and_the_turn_stays(store: SessionStore) -> None:
    key = a_key()
    [turn] = await _archived(store, key, 1)
    assert await store.archive(key, turn) is False
    assert list(await store.turns(key, first_seq_from=1, first_seq_to=9, limit=9)) == [turn]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"first_seq": 1}, id="first_seq"),
        pytest.param({"request_key": "c:request1"}, id="request key"),
        pytest.param({"turn_id": "turn1"}, id="turn id"),
    ],
)
async def test_what_is_taken_is_refused_and_the_turn_stays(store: SessionStore, fields: dict[str, object]) -> None:
    key = a_key()
    [turn] = await _archived(store, key, 1)
    assert await store.archive(key, _ended(3, **fields)) is False
    assert list(await store.turns(key, first_seq_from=0, first_seq_to=100, limit=100)) == [turn]


async def test_keys_are_unique_in_one_session_only(store: SessionStore) -> None:
    one, other = a_key(), a_key()
    await _archived(store, one, 1)
    await _archived(store, other, 1)


async def test_of_archives_at_the_same_time_one_wins(make_store: MakeStore) -> None:
    stores = [await make_store() for _ in range(2)]
    key = a_key()
    for number in range(1, 21):
        answers = await asyncio.gather(*(stores[i % 2].archive(key, _ended(number)) for i in range(4)))
        assert sum(answers) == 1
    assert len(await stores[0].turns(key, first_seq_from=1, first_seq_to=99, limit=99)) == 20


NUMBERS = (1, 3, 9, 10, 11, 99, 100, 1000, 123_456_789, 2**31 - 2)


@pytest.mark.parametrize(
    ("first", "last", "limit", "expected"),
    [
        pytest.param(1, 2**31 - 1, 100, NUMBERS, id="all"),
        pytest.param(0, 0, 100, (), id="before the first"),
        pytest.param(3, 3, 100, (3,), id="one"),
        pytest.param(4, 8, 100, (), id="between two"),
        pytest.param(4, 100, 100, (9, 10, 11, 99, 100), id="both ends belong to it"),
        pytest.param(10, 9, 100, (), id="upside down"),
        pytest.param(1, 2**31 - 1, 0, (), id="limit 0"),
        pytest.param(1, 2**31 - 1, 1, NUMBERS[:1], id="limit 1"),
        pytest.param(3, 2**31 - 1, 3, (3, 9, 10), id="limit 3"),
        pytest.param(1000, 2**31 - 1, 1000, NUMBERS[7:], id="to the end"),
    ],
)
async def test_turns_are_a_range_in_order_of_number(
    store: SessionStore, first: int, last: int, limit: int, expected: tuple[int, ...]
) -> None:
    key = a_key()
    # Neighbours whose keys would sort among ours if a key were only a prefix.
    for other in (key.uid[:-1], key.uid + "0", key.uid + ":0"):
        await _archived(store, key._replace(uid=other), 1, 10)
    await _archived(store, key, *reversed(NUMBERS))
    turns = await store.turns(key, first_seq_from=first, first_seq_to=last, limit=limit)
    assert [turn.first_seq for turn in turns] == list(expected)


async def test_newest_first_is_the_same_range_from_its_end(store: SessionStore) -> None:
    key = a_key()
    await _archived(store, key, *NUMBERS)
    turns = await store.turns(key, first_seq_from=3, first_seq_to=1000, limit=4, newest_first=True)
    assert [turn.first_seq for turn in turns] == [1000, 100, 99, 11]


async def test_texts_are_those_of_the_turns_newest_first(store: SessionStore) -> None:
    key = a_key()
    turns = await _archived(store, key, 1, 3, 5)
    failed = _ended(7, ending=an_ending(state=TurnState.FAILED, text="", last_seq=7))
    assert await store.archive(key, failed)
    found = await store.turn_texts(key, first_seq_from=2, first_seq_to=7, limit=3)
    assert list(found) == [
        TurnTexts(
            turn.turn_id, turn.request_key, turn.first_seq, turn.user_text, turn.ending.text if turn.ending else ""
        )
        for turn in (failed, *reversed(turns[1:]))
    ]
    assert len(await store.turn_texts(key, first_seq_from=1, first_seq_to=9, limit=2)) == 2
    for owner in OTHERS:
        assert not await store.turn_texts(key._replace(owner=owner), first_seq_from=1, first_seq_to=9, limit=9)


async def test_a_long_history_comes_in_one_answer(store: SessionStore) -> None:
    key = a_key()
    expected = await _archived(store, key, *range(1, 401, 2))
    assert list(await store.turns(key, first_seq_from=1, first_seq_to=400, limit=1000)) == expected
    assert list(await store.turns(key, first_seq_from=1, first_seq_to=400, limit=150)) == expected[:150]


async def test_large_turns_come_in_one_answer(store: SessionStore) -> None:
    key, text = a_key(), "x" * 256 * 1024
    for number in range(1, 141, 2):
        assert await store.archive(key, _ended(number, user_text=text))
    turns = await store.turns(key, first_seq_from=1, first_seq_to=200, limit=100, newest_first=True)
    assert [turn.first_seq for turn in turns] == list(range(139, 0, -2))


async def test_turns_of_another_owner_are_none(store: SessionStore) -> None:
    key = a_key()
    await _archived(store, key, 1)
    for owner in OTHERS:
        assert list(await store.turns(key._replace(owner=owner), first_seq_from=1, first_seq_to=9, limit=9)) == []
