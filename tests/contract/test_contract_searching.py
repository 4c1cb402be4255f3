"""Searches come upon every turn that has the words, newest first, and upon no other owner's."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.domain.entities import Principal, Session, Turn, messages_of
from service.domain.ports import FoundTurn, SessionStore, UnknownPlace
from service.domain.searching import MessageSearch, SearchQuery, match_of, parse_query
from tests.contract.build import MILLISECOND, NOW, OTHERS, OWNER, TEXTS, a_session, a_turn, an_ending, new_id


def ended(number: int, user_text: str = "", answer: str = "", time: datetime = NOW) -> Turn:
    """A turn of two messages, of its own in its session."""
    seq = 2 * number + 1
    ending = an_ending(text=answer, last_seq=seq + 1)
    return a_turn(number, first_seq=seq, user_text=user_text, ending=ending, create_time=time)


async def a_session_of(store: SessionStore, *turns: Turn, **fields: object) -> Session:
    session = a_session(last_seq=turns[-1].last_seq if turns else 0, **fields)
    assert await store.insert_session(session)
    for turn in turns:
        assert await store.archive(session.key, turn)
    return session


async def find(
    store: SessionStore, query: str, *, owner: Principal = OWNER, uid: str = "", limit: int = 3
) -> list[FoundTurn]:
    """All turns that a query comes upon, read a few at once."""
    found: list[FoundTurn] = []
    after = ""
    for _ in range(99):
        turns, after = await store.find_turns(owner, parse_query(query), uid=uid, after=after, limit=limit)
        assert len(turns) <= limit
        found += turns
        if not after:
            return found
    raise AssertionError("the search does not end")


async def numbers(store: SessionStore, query: str, **fields: object) -> list[int]:
    return [int(found.turn.turn_id.removeprefix("turn")) for found in await find(store, query, **fields)]


async def test_a_found_turn_comes_with_its_session(store: SessionStore) -> None:
    turn = ended(1, "the question", "the answer")
    session = await a_session_of(store, turn)
    assert [(found.key, found.turn) for found in await find(store, "question")] == [(session.key, turn)]


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        ("The quick brown fox", ["fox", "QUICK the", '"quick brown"', "brown, quick!"], ["foxes", "qui", "fox cat"]),
        ("Grüße aus Köln", ["grusse", "GRÜSSE", "koln", '"aus köln"'], ["gruse"]),
        ("le cafe\u0301 de l'École", ["café", "CAFE ecole", "l'école"], ["caf"]),
        ("ΟΔΥΣΣΕΎΣ Привет", ["οδυσσεύς", "привет"], ["при"]),
        ("我想学习中文。", ["学习", "中文", "我 中", "习中"], ["文中", "日"]),
        ("カタカナとひらがな 한국어를", ["カナ", "ひらがな", "한국어", "국"], ["かな"]),
        ("foo_bar-baz don't", ["foo", "foo_bar", "bar baz", '"foo bar baz"', "don't", "t"], ["foobar", "dont"]),
        ("a\x00b\x00", ["a", "b", '"a b"'], ["ab"]),
        ("हिन्दी สวัสดี", ["हिन्दी", "สวัสดี", "สวัส"], ["हनद", "สวสด"]),
        ("1,234.5 \uff14\uff15", ["234", "1,234.5", "\uff14\uff15"], ["1234"]),
        ("x" * 300 + " y" * 3000 + " z", ["z", "y z"], ["x" * 99]),
    ],
)
async def test_words_are_found_in_any_script(
    store: SessionStore, text: str, found: list[str], not_found: list[str]
) -> None:
    await a_session_of(store, ended(1, user_text=text), ended(2, answer=text))
    for query in found:
        assert await numbers(store, query) in ([1, 2], [2, 1]), query
    for query in not_found:
        matches = [
            match
            for found_turn in await find(store, query)
            for message in messages_of(found_turn.turn)
            if (match := match_of("", message, parse_query(query)))
        ]
        assert matches == [], query


@pytest.mark.parametrize("name", TEXTS)
async def test_every_text_can_be_archived_and_found(store: SessionStore, name: str) -> None:
    await a_session_of(store, ended(1, user_text=TEXTS[name], answer=f"{TEXTS[name]} needle"))
    assert await numbers(store, "needle") == [1]


async def test_many_words_may_be_asked_for(store: SessionStore) -> None:
    letters = " ".join(map(chr, range(0x4E00, 0x4E00 + 128)))
    await a_session_of(store, ended(1, user_text=letters), ended(2, user_text=letters[:100]))
    # A store need not look for all of them, nor for pieces as long as that.
    assert 1 in await numbers(store, letters)
    assert await numbers(store, letters.replace(" ", "")) in ([1], [2, 1], [])


async def test_the_newest_turn_comes_first(store: SessionStore) -> None:
    times = [5, 1, 3, 3, 3, 2, 4, 0]
    turns = [ended(number, "word", time=NOW + ms * MILLISECOND) for number, ms in enumerate(times)]
    # Written in another order than they were said, as an import does, and over several sessions.
    for turn in turns:
        await a_session_of(store, turn)
    found = await find(store, "word")
    assert [times[int(turn.turn.turn_id.removeprefix("turn"))] for turn in found] == sorted(times, reverse=True)
    assert {turn.turn.turn_id for turn in found} == {turn.turn_id for turn in turns}


async def test_times_far_away_are_in_order_too(store: SessionStore) -> None:
    days = [timedelta(days=number) for number in (0, -30_000, 2_000_000, 40_000)]
    await a_session_of(store, *(ended(number, "word", time=NOW + day) for number, day in enumerate(days)))
    assert await numbers(store, "word") == [2, 3, 0, 1]


async def test_turns_inserted_at_once_are_all_found(store: SessionStore) -> None:
    session = await a_session_of(store)
    turns = [ended(number, "word", "é") for number in range(20)]
    for _ in range(2):
        await store.insert_turns(session.key, turns)
    await store.insert_turns(session.key, [ended(number, "word") for number in range(15, 25)])
    assert sorted(await numbers(store, "word")) == list(range(25))
    assert sorted(await numbers(store, "é")) == list(range(20))


async def test_only_the_sessions_turns_are_found_in_a_session(store: SessionStore) -> None:
    first = await a_session_of(store, *(ended(number, "word") for number in range(5)))
    second = await a_session_of(store, ended(7, "word"), ended(8, "other"))
    assert sorted(await numbers(store, "word", uid=first.uid)) == [0, 1, 2, 3, 4]
    assert await numbers(store, "word", uid=second.uid) == [7]
    assert await numbers(store, "word", uid="nothing") == []


async def test_another_owner_finds_nothing(store: SessionStore) -> None:
    session = await a_session_of(store, ended(1, "word"))
    await a_session_of(store, ended(2, "word"), owner=OTHERS[0])
    assert await numbers(store, "word") == [1]
    assert await numbers(store, "word", owner=OTHERS[0]) == [2]
    assert await numbers(store, "word", owner=OTHERS[1]) == []
    assert await numbers(store, "word", owner=OTHERS[0], uid=session.uid) == []


async def test_the_owners_name_and_the_uid_are_no_words_of_a_message(store: SessionStore) -> None:
    session = await a_session_of(store, ended(1, "word"))
    for query in (OWNER.tenant, OWNER.subject, f"{OWNER.tenant} {OWNER.subject}", session.uid, "owner", "question"):
        assert await numbers(store, query) == []


@pytest.mark.parametrize("query", ["AND", "or NOT", "NEAR(word, 2)", "wor*", "^wor", "answer : word", "{question}"])
async def test_a_query_has_no_language_of_its_own(store: SessionStore, query: str) -> None:
    await a_session_of(store, ended(1, "word"), ended(2, f"{query} and more"))
    assert await numbers(store, query) == [2]


async def test_turns_that_are_deleted_are_not_found(store: SessionStore) -> None:
    turns = [ended(number, "word", "schön") for number in range(3)]
    session = await a_session_of(store, *turns)
    other = await a_session_of(store, ended(9, "word"))
    assert await store.delete_turns(session.key, 2) == 2
    assert len(await find(store, "schön")) == 1
    assert await store.delete_turns(session.key, 2) == 1
    assert await find(store, "schön") == []
    assert [found.key for found in await find(store, "word")] == [other.key]
    assert await store.archive(session.key, turns[0])
    assert await numbers(store, "schön") == [0]


@pytest.mark.parametrize(
    "place", ["x", "1:", "9" * 30, "1:a:0000000001x", "9" * 16 + ":a:0000000001", "\ud800", "1\n", "\u0661", ":", "0x1"]
)
async def test_a_place_of_nobodys_is_refused(store: SessionStore, place: str) -> None:
    with pytest.raises(UnknownPlace):
        await store.find_turns(OWNER, [("word",)], uid="", after=place, limit=9)


_words = st.sampled_from(["a", "b", "c", "Ä", "é", "你", "好", "-", "\n"])
_texts = st.lists(_words, max_size=6).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words)]))
_queries = st.lists(_words, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([" ".join(words), f'"{" ".join(words)}"', "".join(words)])
)
_turns = st.lists(st.tuples(_texts, _texts, st.integers(0, 2), st.integers(0, 2)), max_size=12)


@given(turns=_turns, queries=st.lists(_queries, min_size=1, max_size=4), limit=st.integers(1, 4))
@example(turns=[("a b", "b a", 0, 0), ("a", "b", 0, 1)], queries=["a b", '"b a"'], limit=1)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_of_matches_join_to_all_that_match(
    store: SessionStore, turns: list[tuple[str, str, int, int]], queries: list[str], limit: int
) -> None:
    owner = replace(OWNER, tenant=new_id())
    sessions = [await a_session_of(store, owner=owner) for _ in range(3)]
    written = []
    for number, (question, answer, ms, at) in enumerate(turns):
        turn = ended(number, question or "-", answer, NOW + ms * MILLISECOND)
        assert await store.archive(sessions[at].key, turn)
        written.append((sessions[at].session_id, turn))
    search = MessageSearch(store, now=lambda: NOW)
    for query in queries:
        if not any(character.isalnum() for character in query):
            continue
        expected = {
            (session_id, message.seq, message.turn_id)
            for session_id, turn in written
            for message in messages_of(turn)
            if match_of(session_id, message, parse_query(query))
        }
        found, token = [], ""
        for _ in range(99):
            page = await search.page(owner, SearchQuery(query, page_size=limit, page_token=token))
            assert len(page.matches) <= limit
            found += page.matches
            token = page.next_page_token
            if not token:
                break
        assert not token
        assert len(found) == len(expected)
        assert {(match.session_id, match.message.seq, match.message.turn_id) for match in found} == expected
        times = {turn.turn_id: turn.create_time for _, turn in written}
        shown = [times[match.message.turn_id] for match in found]
        assert shown == sorted(shown, reverse=True)
