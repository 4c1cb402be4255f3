"""The turns of imported sessions: inserted together, found as if archived one by one."""

from dataclasses import replace

from service.domain.entities import Turn
from service.domain.ports import SessionStore
from tests.contract.build import OTHERS, TEXTS, a_key, a_turn, an_ending


def turns_of(count: int) -> list[Turn]:
    """So many ended turns, of every text that is hard to keep."""
    texts = list(TEXTS.values())
    return [
        a_turn(2 * number + 1, user_text=texts[number % len(texts)], ending=an_ending(last_seq=2 * number + 2))
        for number in range(count)
    ]


async def test_inserted_turns_are_archived_turns(store: SessionStore) -> None:
    key, turns = a_key(), turns_of(100)
    await store.insert_turns(key, turns)
    assert list(await store.turns(key, first_seq_from=1, first_seq_to=1000, limit=1000)) == turns
    assert await store.turn_by_id(key, turns[50].turn_id) == turns[50]
    assert await store.turn_by_request(key, turns[50].request_key) == turns[50]
    assert await store.count_turns(key) == 100
    assert not await store.archive(key, turns[0])


async def test_a_repeat_inserts_what_is_missing(store: SessionStore) -> None:
    key, turns = a_key(), turns_of(5)
    await store.insert_turns(key, turns[1:3])
    await store.insert_turns(key, [replace(turn, user_text="another") for turn in turns])
    found = await store.turns(key, first_seq_from=1, first_seq_to=100, limit=100)
    assert [turn.user_text == "another" for turn in found] == [True, False, False, True, True]


async def test_no_turns_are_no_fault(store: SessionStore) -> None:
    key = a_key()
    await store.insert_turns(key, [])
    assert await store.count_turns(key) == 0


async def test_turns_of_others_are_not_counted(store: SessionStore) -> None:
    key = a_key()
    await store.insert_turns(key, turns_of(2))
    for other in OTHERS:
        assert await store.count_turns(key._replace(owner=other)) == 0
    assert await store.count_turns(key._replace(uid="another")) == 0
