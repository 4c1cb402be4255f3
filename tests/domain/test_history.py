from dataclasses import replace
from typing import Any

import pytest

from service.domain.entities import ANONYMOUS, Principal, TurnState
from service.domain.errors import InvalidField, SessionExpired, SessionNotFound
from service.domain.history import MAX_PAGE_BYTES, History, HistoryPage, HistoryQuery
from service.store.sqlite import SqliteStore
from tests.domain.builders import NOW, a_session, a_turn, running


def turns_of(count: int) -> list:
    """Turns with a failed one (a single message) after each third."""
    turns, seq = [], 1
    for number in range(count):
        has_failed = number % 3 == 2
        turn = a_turn(
            seq,
            f"q{number}",
            None if has_failed else f"a{number}",
            TurnState.FAILED if has_failed else TurnState.COMPLETED,
        )
        turns.append(turn)
        seq = turn.last_seq + 1
    return turns


def texts(turns: list) -> list[str]:
    return [text for turn in turns for text in (turn.user_text, turn.ending.text)[: turn.ending.message_count]]


async def read_all(history: History, session_id: str, query: HistoryQuery) -> list[HistoryPage]:
    pages = [await history.page(ANONYMOUS, session_id, query)]
    while pages[-1].next_page_token is not None:
        assert len(pages) < 500
        pages.append(await history.page(ANONYMOUS, session_id, replace(query, page_token=pages[-1].next_page_token)))
    return pages


@pytest.mark.parametrize("page_size", [0, 1, 2, 3, 7, 1000, 5000])
@pytest.mark.parametrize("order_by", ["", "seq", "seq desc"])
@pytest.mark.parametrize("newest", ["archived", "ended", "running"])
async def test_pages_join_to_the_whole_history(store: SqliteStore, page_size: int, order_by: str, newest: str) -> None:
    turns = turns_of(120)
    expected = texts(turns)
    active = None
    if newest == "ended":
        active = replace(running(turns[-1]), turn=turns.pop())
    elif newest == "running":
        active = running(a_turn(turns[-1].last_seq + 1, "now"))
        expected.append("now")
    session = await a_session(store, turns, active)
    history = History(store, now=lambda: NOW)
    pages = await read_all(history, session.session_id, HistoryQuery(page_size=page_size, order_by=order_by))
    found = [message.content for page in pages for message in page.messages]
    assert found == (expected[::-1] if order_by == "seq desc" else expected)
    assert all(len(page.messages) <= min(page_size or 10**6, 1000) for page in pages)
    seqs = [message.seq for page in pages for message in page.messages]
    assert len(set(seqs)) == len(seqs)


async def test_the_newest_page_reads_no_more_turns_than_it_shows(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [a_turn(seq, "q", "a") for seq in range(1, 61, 2)]
    session = await a_session(store, turns, replace(running(turns[-1]), turn=turns[-1]))
    read, count = store.turns, 0

    async def counting(*args: Any, **options: Any) -> Any:
        nonlocal count
        found = await read(*args, **options)
        count += len(found)
        return found

    monkeypatch.setattr(store, "turns", counting)
    query = HistoryQuery(page_size=10, order_by="seq desc")
    page = await History(store, now=lambda: NOW).page(ANONYMOUS, session.session_id, query)
    assert (len(page.messages), page.next_page_token is None, count) == (10, False, 4)


async def test_turn_is_shown_once_if_it_stands_in_both_places(store: SqliteStore) -> None:
    turns = turns_of(2)
    session = await a_session(store, turns, replace(running(turns[-1]), turn=turns[-1]))
    page = await History(store, now=lambda: NOW).page(ANONYMOUS, session.session_id, HistoryQuery())
    assert [message.content for message in page.messages] == texts(turns)


@pytest.mark.parametrize("after_seq", range(9))
async def test_after_seq_leaves_out_what_was_seen(store: SqliteStore, after_seq: int) -> None:
    turns = turns_of(5)
    session = await a_session(store, turns)
    page = await History(store, now=lambda: NOW).page(ANONYMOUS, session.session_id, HistoryQuery(after_seq=after_seq))
    assert [message.content for message in page.messages] == texts(turns)[after_seq:]


async def test_page_ends_at_a_mebibyte_but_has_one_message(store: SqliteStore) -> None:
    turns = [a_turn(1, "x" * 200_000, "y" * (MAX_PAGE_BYTES + 1)), a_turn(3, "z", "w")]
    session = await a_session(store, turns)
    pages = await read_all(History(store, now=lambda: NOW), session.session_id, HistoryQuery())
    assert [[len(message.content) for message in page.messages] for page in pages] == [
        [200_000],
        [MAX_PAGE_BYTES + 1],
        [1, 1],
    ]


async def test_without_a_page_size_a_page_ends_all_the_same(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.domain.history.MAX_PAGE_MESSAGES", 3)
    session = await a_session(store, [a_turn(seq) for seq in (1, 3, 5, 7)])
    pages = await read_all(History(store, now=lambda: NOW), session.session_id, HistoryQuery())
    assert [len(page.messages) for page in pages] == [3, 3, 2]


async def test_token_of_another_session_or_query_is_refused(store: SqliteStore) -> None:
    first, second = await a_session(store, turns_of(3)), await a_session(store, turns_of(3))
    history = History(store, now=lambda: NOW)
    token = (await history.page(ANONYMOUS, first.session_id, HistoryQuery(page_size=1))).next_page_token or ""
    for session_id, query in [
        (second.session_id, HistoryQuery(page_token=token)),
        (first.session_id, HistoryQuery(page_token=token, order_by="seq desc")),
        (first.session_id, HistoryQuery(page_token=token, after_seq=1)),
        (first.session_id, HistoryQuery(page_token="e30")),
        (first.session_id, HistoryQuery(page_token="WzEsMiwzLCJ4Il0")),
        (first.session_id, HistoryQuery(page_token="\x00é")),
    ]:
        with pytest.raises(InvalidField, match="page_token"):
            await history.page(ANONYMOUS, session_id, query)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (HistoryQuery(page_size=-1), "page_size"),
        (HistoryQuery(after_seq=-1), "after_seq"),
        (HistoryQuery(order_by="content"), "order_by"),
    ],
)
async def test_bad_query_is_refused_by_field_name(store: SqliteStore, query: HistoryQuery, field: str) -> None:
    session = await a_session(store, [])
    with pytest.raises(InvalidField, match=field):
        await History(store, now=lambda: NOW).page(ANONYMOUS, session.session_id, query)


async def test_session_of_another_principal_is_not_found(store: SqliteStore) -> None:
    session = await a_session(store, [])
    with pytest.raises(SessionNotFound):
        await History(store, now=lambda: NOW).page(Principal("other", "x"), session.session_id, HistoryQuery())


async def test_expired_session_is_gone_at_the_instant(store: SqliteStore) -> None:
    session = await a_session(store, [])
    expiring = replace(session, session_id="e1", uid="ue1", expire_time=NOW)
    assert await store.insert_session(expiring)
    with pytest.raises(SessionExpired):
        await History(store, now=lambda: NOW).page(ANONYMOUS, "e1", HistoryQuery())
