from dataclasses import replace

import pytest

from service.domain.context import ContextBuilder, Past, build_context, estimate_tokens
from service.domain.entities import Role, TurnState
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_session, a_turn, running


async def contents(store: SqliteStore, session: object, budget_tokens: int = 10**6) -> list[str]:
    past = await ContextBuilder(store, budget_tokens=budget_tokens).past_of(session)  # type: ignore[arg-type]
    return [message.content for message in past.messages]


async def test_oldest_comes_first(store: SqliteStore) -> None:
    session = await a_session(store, [a_turn(1, "q1", "a1"), a_turn(3, "q2", "a2")])
    assert await contents(store, session) == ["q1", "a1", "q2", "a2"]


async def test_turn_without_answer_is_left_out_and_what_was_said_is_kept(store: SqliteStore) -> None:
    turns = [
        a_turn(1, "ok", "yes"),
        a_turn(3, "failed", None, TurnState.FAILED),
        a_turn(4, "stopped", None, TurnState.CANCELLED),
        a_turn(5, "stopped late", "half", TurnState.CANCELLED),
        a_turn(7, "cut", "par", TurnState.INCOMPLETE),
        a_turn(9, "empty", "", TurnState.COMPLETED),
    ]
    session = await a_session(store, turns)
    assert await contents(store, session) == ["ok", "yes", "stopped late", "half", "cut", "par"]


async def test_newest_turn_is_taken_from_the_session_document(store: SqliteStore) -> None:
    newest = a_turn(3, "q2", "a2")
    session = await a_session(store, [a_turn(1, "q1", "a1")], replace(running(newest), turn=newest))
    assert await contents(store, session) == ["q1", "a1", "q2", "a2"]


async def test_the_copy_of_the_newest_turn_counts_once_and_is_known_to_be_there(store: SqliteStore) -> None:
    older, newest = a_turn(1, "q1", "a1"), a_turn(3, "q2", "a2")
    session = await a_session(store, [older, newest], replace(running(newest), turn=newest))
    builder = ContextBuilder(store, budget_tokens=1000)
    past = await builder.past_of(session)
    assert [message.content for message in past.messages] == ["q1", "a1", "q2", "a2"]
    assert past.archived_turn_id == newest.turn_id
    known = Past(2, 1000, request_keys=frozenset()).after([older.texts], 2)
    assert await builder.past_of(session, known) == past


async def test_running_turn_is_not_part_of_it(store: SqliteStore) -> None:
    session = await a_session(store, [a_turn(1, "q1", "a1")], running(a_turn(3, "now")))
    assert await contents(store, session) == ["q1", "a1"]


@pytest.mark.parametrize("kept", range(6))
async def test_only_whole_newest_turns_that_fit(store: SqliteStore, kept: int) -> None:
    turns = [a_turn(2 * n + 1, f"question {n}", f"answer {n}") for n in range(5)]
    cost = estimate_tokens("question 0") + estimate_tokens("answer 0")
    session = await a_session(store, turns)
    found = await contents(store, session, budget_tokens=cost * kept + cost - 1)
    expected = turns[len(turns) - kept :] if kept else []
    assert found == [text for turn in expected for text in (turn.user_text, turn.ending.text)]


async def test_no_gap_arises_where_a_large_turn_does_not_fit(store: SqliteStore) -> None:
    session = await a_session(store, [a_turn(1, "old", "x"), a_turn(3, "big", "y" * 9000), a_turn(5, "new", "z")])
    assert await contents(store, session, budget_tokens=200) == ["new", "z"]


async def test_long_sessions_are_read_in_batches(store: SqliteStore) -> None:
    session = await a_session(store, [a_turn(2 * n + 1, f"q{n}", f"a{n}") for n in range(130)])
    found = await contents(store, session)
    assert found == [text for n in range(130) for text in (f"q{n}", f"a{n}")]


async def test_instructions_come_first_and_the_new_message_last(store: SqliteStore) -> None:
    session = replace(await a_session(store, [a_turn(1)]), instructions="be brief")
    past = await ContextBuilder(store, budget_tokens=1000).past_of(session)
    context = build_context(session, past, "hello")
    assert [(message.role, message.content) for message in context] == [
        (Role.SYSTEM, "be brief"),
        (Role.USER, "q"),
        (Role.ASSISTANT, "a"),
        (Role.USER, "hello"),
    ]


def test_request_keys_are_known_up_to_a_number() -> None:
    past = Past(0, 1000, request_keys=frozenset())
    keys = [f"c:{number}" for number in range(256)]
    for number, key in enumerate(keys):
        past = past.after([replace(a_turn(2 * number + 1), request_key=key).texts], 2 * number + 2)
    past = past.after([a_turn(513).texts], 514)  # without a caller's id
    assert past.request_keys == set(keys)
    past = past.after([replace(a_turn(515), request_key="c:more").texts], 516)
    assert past.request_keys is None
    assert past.after([], 516).request_keys is None


@pytest.mark.parametrize(("turns", "is_known"), [(63, True), (64, False)])
async def test_request_keys_are_known_where_all_turns_were_read(store: SqliteStore, turns: int, is_known: bool) -> None:
    archived = [replace(a_turn(2 * number + 1, answer="a" * 30), request_key=f"c:{number}") for number in range(turns)]
    session = await a_session(store, archived)
    past = await ContextBuilder(store, budget_tokens=100).past_of(session)
    assert past.is_cut
    assert past.request_keys == ({turn.request_key for turn in archived} if is_known else None)
