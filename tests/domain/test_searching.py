from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.entities import ANONYMOUS, Message, Principal, Role, Session, Turn, TurnState
from service.domain.errors import InvalidField, SessionExpired, SessionNotFound
from service.domain.pagetoken import write_token
from service.domain.searching import (
    MAX_EXAMINED_CHARS,
    MAX_READS,
    SNIPPET_CHARS,
    Match,
    MatchPage,
    MessageSearch,
    SearchQuery,
    match_of,
    parse_query,
)
from service.store.sqlite import SqliteStore
from tests.domain.builders import NOW, a_turn

OTHER = Principal("default", "other")


def search(store: SqliteStore) -> MessageSearch:
    return MessageSearch(store, now=lambda: NOW)


async def insert(store: SqliteStore, session_id: str, *turns: Turn, **fields: object) -> Session:
    session = replace(Session(session_id, f"u{session_id}", ANONYMOUS, NOW, NOW), **fields)
    assert await store.insert_session(session)
    for turn in turns:
        assert await store.archive(session.key, turn)
    return session


async def read_all(store: SqliteStore, query: SearchQuery, principal: Principal = ANONYMOUS) -> list[MatchPage]:
    pages = [await search(store).page(principal, query)]
    while pages[-1].next_page_token:
        assert len(pages) < 500
        pages.append(await search(store).page(principal, replace(query, page_token=pages[-1].next_page_token)))
    return pages


async def seqs(store: SqliteStore, query: SearchQuery, principal: Principal = ANONYMOUS) -> list[int]:
    return [match.message.seq for page in await read_all(store, query, principal) for match in page.matches]


def of_text(text: str, query: str) -> Match | None:
    return match_of("s", Message(Role.USER, text, 1, "t", NOW, TurnState.COMPLETED), parse_query(query))


@pytest.mark.parametrize("page_size", [0, 1, 2, 3, 50, 99, 100, 5000])
async def test_pages_join_to_all_matches(store: SqliteStore, page_size: int) -> None:
    turns = [
        replace(
            a_turn(2 * number + 1, "a word", "a word" if number % 3 else "another"), create_time=NOW + timedelta(number)
        )
        for number in range(80)
    ]
    await insert(store, "s", *turns)
    expected = [seq for n in reversed(range(80)) for seq in (2 * n + 2, 2 * n + 1) if n % 3 or seq % 2]
    pages = await read_all(store, SearchQuery("word", page_size=page_size))
    assert [match.message.seq for page in pages for match in page.matches] == expected
    limit = min(page_size, 100) or 20
    assert [len(page.matches) for page in pages[:-1]] == [limit] * (len(pages) - 1)


async def test_a_turn_that_goes_away_between_pages_hides_no_other(store: SqliteStore) -> None:
    turns = [replace(a_turn(2 * n + 1, "word", "word"), create_time=NOW + timedelta(n)) for n in range(3)]
    sessions = [await insert(store, f"s{n}", turn) for n, turn in enumerate(turns)]
    page = await search(store).page(ANONYMOUS, SearchQuery("word", page_size=1))
    await store.delete_turns(sessions[2].key, 9)
    rest = await seqs(store, SearchQuery("word", page_token=page.next_page_token))
    assert rest == [4, 3, 2, 1]


async def test_messages_of_sessions_that_are_gone_are_not_found(store: SqliteStore) -> None:
    for number, fields in enumerate(
        ({}, {"deleted_at": NOW}, {"purging": True}, {"expire_time": NOW}, {"idle_ttl": timedelta(0)}, {"owner": OTHER})
    ):
        await insert(store, f"s{number}", a_turn(1, "word", None), **fields)
    found = await search(store).page(ANONYMOUS, SearchQuery("word"))
    assert [match.session_id for match in found.matches] == ["s0"]
    found = await search(store).page(OTHER, SearchQuery("word"))
    assert [match.session_id for match in found.matches] == ["s5"]


async def test_turns_of_an_older_session_of_the_same_id_are_not_found(store: SqliteStore) -> None:
    old = await insert(store, "s", a_turn(1, "word"))
    await store.start_purge(old, NOW)
    await store.delete_session(old.key)
    await insert(store, "s", uid="anew")
    assert await seqs(store, SearchQuery("word")) == []


async def test_one_session_is_searched_if_it_is_there(store: SqliteStore) -> None:
    await insert(store, "a", a_turn(1, "word", None))
    await insert(store, "b", a_turn(3, "word", None), expire_time=NOW)
    assert await seqs(store, SearchQuery("word", session_id="a")) == [1]
    for session_id, principal, error in [
        ("b", ANONYMOUS, SessionExpired),
        ("c", ANONYMOUS, SessionNotFound),
        ("a", OTHER, SessionNotFound),
    ]:
        with pytest.raises(error):
            await search(store).page(principal, SearchQuery("word", session_id=session_id))


async def test_a_message_that_failed_to_get_an_answer_is_found_once(store: SqliteStore) -> None:
    await insert(store, "s", a_turn(1, "word", None, TurnState.FAILED))
    assert await seqs(store, SearchQuery("word")) == [1]


async def test_a_page_looks_at_a_bounded_number_of_turns(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await insert(store, "gone", *(a_turn(2 * n + 1, "word") for n in range(700)), deleted_at=NOW)
    old = replace(a_turn(1, "word", None), create_time=NOW - timedelta(1))
    await insert(store, "s", old)
    reads: list[int] = []
    find_turns = store.find_turns

    async def counted(*args: Any, **fields: Any) -> Any:
        turns, after = await find_turns(*args, **fields)
        reads.append(len(turns))
        return turns, after

    monkeypatch.setattr(store, "find_turns", counted)
    first = await search(store).page(ANONYMOUS, SearchQuery("word"))
    assert first.matches == []
    assert first.next_page_token
    assert len(reads) == MAX_READS
    assert sum(reads) <= 500
    assert await seqs(store, SearchQuery("word")) == [1]


async def test_a_page_ends_when_much_text_was_looked_at(store: SqliteStore) -> None:
    text = "word " * (MAX_EXAMINED_CHARS // 10 + 1)
    await insert(store, "s", *(a_turn(2 * n + 1, text, None) for n in range(5)))
    pages = await read_all(store, SearchQuery("word"))
    assert [len(page.matches) for page in pages] == [2, 2, 1]


async def test_a_token_holds_for_its_query_and_its_owner(store: SqliteStore) -> None:
    await insert(store, "s", a_turn(1, "word", "word"))
    token = (await search(store).page(ANONYMOUS, SearchQuery("word", page_size=1))).next_page_token
    for principal, query in [
        (OTHER, SearchQuery("word", page_token=token)),
        (ANONYMOUS, SearchQuery("words", page_token=token)),
        (ANONYMOUS, SearchQuery("word", "s", page_token=token)),
    ]:
        with pytest.raises(InvalidField, match="page_token: belongs to another query or caller"):
            await search(store).page(principal, query)
    assert await seqs(store, SearchQuery("word", page_token=token, page_size=5)) == [1]


BOUND = ("default", "anonymous", "messages", "word", "")


@pytest.mark.parametrize("place", [(), ("1",), ("1", "t", "1"), ("x", "t", 1), ("\ud800", "", 0), ("9" * 5000, "", 0)])
async def test_a_token_that_was_not_made_here_is_refused(store: SqliteStore, place: Sequence[object]) -> None:
    with pytest.raises(InvalidField, match="page_token: is not a page token"):
        await search(store).page(ANONYMOUS, SearchQuery("word", page_token=write_token(BOUND, place)))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (SearchQuery(""), "query"),
        (SearchQuery(' "-" … 👋'), "query"),
        (SearchQuery("x" * 257), "query"),
        (SearchQuery("x", page_size=-1), "page_size"),
        (SearchQuery("x", session_id="a/b"), "session_id"),
    ],
)
async def test_a_bad_query_is_refused_by_field_name(store: SqliteStore, query: SearchQuery, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        await search(store).page(ANONYMOUS, query)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("query", "phrases"),
    [
        ("a B  a", [("a",), ("b",)]),
        ('"a b" c', [("a", "b"), ("c",)]),
        ('a"b c"d', [("a",), ("b", "c"), ("d",)]),
        ('"a b', [("a", "b")]),
        ('"" a', [("a",)]),
        ("foo-bar don't", [("foo", "bar"), ("don", "t")]),
        ("学习 中", [("学", "习"), ("中",)]),
    ],
)
def test_what_a_query_asks_for(query: str, phrases: list[tuple[str, ...]]) -> None:
    assert parse_query(query) == phrases


@pytest.mark.parametrize(
    ("text", "query", "hits"),
    [
        ("The lazy dog, the LAZY\n\ndog.", '"lazy dog"', ["lazy dog", "LAZY\n\ndog"]),
        ("a b a b a", '"a b a" b', ["a b a b a"]),
        ("Größe 👋 grosse", "grösse", ["Größe", "grosse"]),
        ("我说你好吗", "你好", ["你好"]),
        ("e\u0301cole", "ecole", ["e\u0301cole"]),
    ],
)
def test_hits_in_a_short_text(text: str, query: str, hits: list[str]) -> None:
    match = of_text(text, query)
    assert match
    assert match.snippet == text
    assert [match.snippet[span.start : span.end] for span in match.spans] == hits


@pytest.mark.parametrize(
    ("text", "query"), [("a b", "c"), ("a b", "a c"), ("b a", '"a b"'), ("a x b", '"a b"'), ("a", '"a a"'), ("", "a")]
)
def test_a_text_that_lacks_something_is_no_match(text: str, query: str) -> None:
    assert of_text(text, query) is None


def test_a_snippet_is_cut_between_words_where_most_is() -> None:
    hay = "hay " * 200
    match = of_text(f"needle {hay}pin needle {hay}", "needle pin")
    assert match
    assert match.snippet.startswith("hay hay")
    assert match.snippet.endswith(" hay")
    assert len(match.snippet) <= SNIPPET_CHARS
    assert [match.snippet[span.start : span.end] for span in match.spans] == ["pin", "needle"]


def test_a_word_longer_than_a_snippet_is_cut() -> None:
    match = of_text("hay " * 50 + "\u00e9" * 250, "e" * 250)
    assert match
    assert len(match.snippet) == SNIPPET_CHARS
    assert [span.end for span in match.spans] == [SNIPPET_CHARS]


_texts = st.lists(st.sampled_from(["a", "b", "É", "你", "好", " ", "\n", ", ", "x" * 90, "👋"])).map("".join)
_words = st.sampled_from(["a", "b", "e", "你", '"a b"', "你好", "x" * 90])
_queries = st.lists(_words, min_size=1, max_size=2).map(" ".join)


@given(text=_texts, query=_queries)
def test_spans_are_in_order_and_each_is_a_hit(text: str, query: str) -> None:
    match = of_text(text, query)
    if match is None:
        return
    assert match.snippet in text
    assert len(match.snippet) <= SNIPPET_CHARS
    assert match.spans
    before = 0
    for span in match.spans:
        assert before <= span.start < span.end <= len(match.snippet)
        before = span.end
