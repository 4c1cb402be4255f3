from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from service.domain import listing
from service.domain.entities import ANONYMOUS, Principal, Session
from service.domain.errors import InvalidField
from service.domain.listing import MAX_EXAMINED, MAX_PAGE_BYTES, ListQuery, SessionLister, SessionPage
from service.domain.pagetoken import write_token
from service.domain.ranges import Place, SessionRange, Unlisted
from service.store.sqlite import SqliteStore
from tests.domain.builders import NOW, a_turn, running

SECOND = timedelta(seconds=1)
OTHER = Principal("default", "other")


def lister(store: SqliteStore, now: datetime = NOW) -> SessionLister:
    return SessionLister(store, now=lambda: now)


async def insert(store: SqliteStore, session_id: str, seconds: int = 0, **fields: object) -> Session:
    time = NOW + seconds * SECOND
    session = replace(Session(session_id, f"u{session_id}", ANONYMOUS, time, time), **fields)
    assert await store.insert_session(session)
    return session


async def read_all(of: SessionLister, query: ListQuery, principal: Principal = ANONYMOUS) -> list[SessionPage]:
    pages = [await of.page(principal, query)]
    while pages[-1].next_page_token:
        assert len(pages) < 500
        pages.append(await of.page(principal, replace(query, page_token=pages[-1].next_page_token)))
    return pages


async def ids(of: SessionLister, query: ListQuery, principal: Principal = ANONYMOUS) -> list[str]:
    return [session.session_id for page in await read_all(of, query, principal) for session in page.sessions]


@pytest.mark.parametrize("page_size", [0, 1, 2, 50, 59, 60, 61, 1000, 5000])
@pytest.mark.parametrize("order_by", ["", "update_time", "create_time  desc", " create_time", "create_time asc"])
async def test_pages_join_to_the_whole_list(store: SqliteStore, page_size: int, order_by: str) -> None:
    # Updated in another order than created, and three at a time.
    sessions = [
        await insert(store, f"s{number:02}", number, update_time=NOW + (number * 7 % 60) // 3 * SECOND)
        for number in range(60)
    ]
    field = order_by.split()[0] if order_by else "update_time"
    sessions.sort(key=lambda s: (getattr(s, field), s.session_id), reverse=not order_by or "desc" in order_by)
    pages = await read_all(lister(store), ListQuery(page_size=page_size, order_by=order_by))
    assert [s.session_id for page in pages for s in page.sessions] == [s.session_id for s in sessions]
    limit = min(page_size, 1000) or 50
    assert [len(page.sessions) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 1 <= len(pages[-1].sessions) <= limit


async def test_what_is_gone_is_not_listed(store: SqliteStore) -> None:
    idle = {"idle_ttl": SECOND}
    await insert(store, "alive")
    await insert(store, "ends-later", expire_time=NOW + SECOND)
    await insert(store, "expired", expire_time=NOW)
    await insert(store, "idle", -1, **idle)
    await insert(store, "idle-since-now", -1, idle_since=NOW, **idle)
    await insert(store, "busy", -1, active=running(a_turn(1)), **idle)
    await insert(store, "deleted", deleted_at=NOW)
    await insert(store, "deleted-and-expired", deleted_at=NOW, expire_time=NOW)
    await insert(store, "purging", purging=True)
    await insert(store, "others", owner=OTHER)
    alive = {"alive", "ends-later", "idle-since-now", "busy"}
    assert set(await ids(lister(store), ListQuery())) == alive
    assert set(await ids(lister(store), ListQuery(show_deleted=True))) == {*alive, "deleted"}
    assert await ids(lister(store), ListQuery(), OTHER) == ["others"]
    assert set(await ids(lister(store, NOW + SECOND), ListQuery())) == {"alive", "busy"}


async def test_a_filter_holds_over_all_pages(store: SqliteStore) -> None:
    for number in range(90):
        labels = {"parity": str(number % 2)} if number % 3 else {}
        await insert(store, f"s{number:02}", number, title=f"No. {number}", labels=labels)
    wanted = [
        f"s{number:02}" for number in range(90) if number % 3 and number % 2 and number >= 30 and "5" not in str(number)
    ]
    text = f'labels.parity = "1" AND create_time >= "{(NOW + 30 * SECOND).isoformat()}" AND NOT title:5'
    for page_size in (1, 7, 100):
        query = ListQuery(page_size=page_size, filter=text, order_by="create_time")
        assert await ids(lister(store), query) == wanted
    assert await ids(lister(store), ListQuery(filter="labels:nothing")) == []


class Counting(SqliteStore):
    """Counts the sessions that are read."""

    read = 0

    async def list_sessions(
        self, owner: Principal, wanted: SessionRange, limit: int, unlisted: Unlisted | None = None
    ) -> list[Session | Place]:
        sessions = await super().list_sessions(owner, wanted, limit, unlisted)
        self.read += len(sessions)
        return list(sessions)

    async def listed_sessions(self, owner: Principal, session_ids: Sequence[str]) -> Sequence[Session]:
        sessions = await super().listed_sessions(owner, session_ids)
        self.read += len(sessions)
        return sessions


async def test_a_page_looks_at_a_bounded_number_of_sessions(store: SqliteStore) -> None:
    counting = Counting(":memory:")
    await counting.open()
    count = MAX_EXAMINED + 500
    for number in range(count):
        await insert(counting, f"s{number:04}", number, title="x" if number in (0, count - 1) else "")
    query = ListQuery(filter="title = x", page_size=5)
    pages = []
    while True:
        before = counting.read
        pages.append(await lister(counting).page(ANONYMOUS, query))
        assert counting.read - before <= MAX_EXAMINED
        query = replace(query, page_token=pages[-1].next_page_token)
        if not query.page_token:
            break
    assert [[s.session_id for s in page.sessions] for page in pages] == [[f"s{count - 1}"], ["s0000"]]
    before = counting.read
    await lister(counting).page(ANONYMOUS, ListQuery(page_size=5))
    assert counting.read - before == 6
    await counting.close()


async def test_titles_that_are_looked_up_count_as_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 100)
    monkeypatch.setattr(listing, "_FEW", 0)
    counting = Counting(":memory:")
    await counting.open()
    for number in range(300):
        title = "every third" if number % 3 else "another"
        await insert(counting, f"s{number:03}", number, title="the last" if number < 20 else title)
    for text, is_looked_up in (("last", True), ("third another", False), ("every thing", False)):
        counting.read = 0
        page = await lister(counting).page(ANONYMOUS, ListQuery(page_size=5, filter=f'title:"{text}"'))
        assert len(page.sessions) == (5 if is_looked_up else 0)
        assert counting.read == 26 if is_looked_up else counting.read <= 100
    await counting.close()


async def test_a_page_of_titles_that_are_looked_up_ends_at_a_mebibyte(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_FEW", 0)
    large = MAX_PAGE_BYTES // 3 - 9  # with its title
    for number, size in enumerate([large, large, large, 1, MAX_PAGE_BYTES + 1, 1]):
        await insert(store, f"s{9 - number}", number + 9, title="title", instructions="x" * size)
    for number in range(9):
        await insert(store, f"t{number}", number)
    pages = await read_all(lister(store), ListQuery(page_size=8, filter="title:tit", order_by="create_time"))
    assert [[s.session_id for s in page.sessions] for page in pages] == [["s9", "s8", "s7", "s6"], ["s5"], ["s4"]]


async def test_a_page_ends_at_a_mebibyte_but_has_one_session(store: SqliteStore) -> None:
    large = MAX_PAGE_BYTES // 3
    for number, size in enumerate([large, large, large, 1, MAX_PAGE_BYTES + 1, 1]):
        await insert(store, f"s{number}", number, instructions="x" * size)
    pages = await read_all(lister(store), ListQuery(order_by="create_time"))
    assert [[s.session_id for s in page.sessions] for page in pages] == [["s0", "s1", "s2", "s3"], ["s4"], ["s5"]]


async def test_a_token_holds_for_its_query_and_its_owner(store: SqliteStore) -> None:
    for number in range(3):
        await insert(store, f"s{number}", number)
    first = await lister(store).page(ANONYMOUS, ListQuery(page_size=1))
    token = first.next_page_token
    for principal, query in [
        (OTHER, ListQuery(page_token=token)),
        (Principal("other", "anonymous"), ListQuery(page_token=token)),
        (ANONYMOUS, ListQuery(page_token=token, filter="title:a")),
        (ANONYMOUS, ListQuery(page_token=token, order_by="update_time")),
        (ANONYMOUS, ListQuery(page_token=token, show_deleted=True)),
    ]:
        with pytest.raises(InvalidField, match="page_token: belongs to another query or caller"):
            await lister(store).page(principal, query)
    rest = await lister(store).page(ANONYMOUS, ListQuery(page_token=token, page_size=9))
    assert [session.session_id for session in rest.sessions] == ["s1", "s0"]


BOUND = ("default", "anonymous", "sessions", "", "", False)


@pytest.mark.parametrize(
    "token",
    [
        "e30",
        "bnVsbA",
        "W10",
        "\x00é",
        "=",
        "WyI" * 40_000,
        "W" * 40_000,
        write_token(BOUND, ()),
        write_token(BOUND, (1, "s", 1)),
        write_token(BOUND, ("1", "s")),
        write_token(BOUND, (True, "s")),
        write_token(BOUND, (1, "\ud800")),
        write_token(BOUND, (1, "")),
        write_token(BOUND, (10**30, "s")),
        write_token(BOUND, (-(10**17), "s")),
    ],
)
async def test_a_token_that_was_not_made_here_is_refused(store: SqliteStore, token: str) -> None:
    with pytest.raises(InvalidField, match="page_token: is not a page token"):
        await lister(store).page(ANONYMOUS, ListQuery(page_token=token))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (ListQuery(page_size=-1), "page_size"),
        (ListQuery(order_by="title"), "order_by"),
        (ListQuery(order_by="update_time down"), "order_by"),
        (ListQuery(order_by="create_time, update_time"), "order_by"),
        (ListQuery(filter="x"), "filter"),
    ],
)
async def test_a_bad_query_is_refused_by_field_name(store: SqliteStore, query: ListQuery, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        await lister(store).page(ANONYMOUS, query)
    assert caught.value.field == field


async def test_of_many_labels_the_rarest_is_looked_up(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 20)
    for number in range(100):
        labels = {"a": "common", "b": "rare" if number < 9 else f"other{number}"}
        await insert(store, f"s{number:02}", number, labels=labels)
    for query in ("labels.a = common AND labels.b = rare", "labels:a AND labels.b = rare AND labels.a = common"):
        [page] = await read_all(lister(store), ListQuery(filter=query))
        assert len(page.sessions) == 9


async def test_labels_that_are_never_together_are_a_bounded_page(store: SqliteStore) -> None:
    for number in range(60):
        await insert(store, f"s{number:02}", number, labels={"a" if number % 2 else "b": "x"})
    assert await ids(lister(store), ListQuery(filter="labels.a = x AND labels.b = x")) == []
    assert await ids(lister(store), ListQuery(filter="labels.a = x AND labels.c = x")) == []


async def test_more_sessions_that_have_expired_are_passed_over_than_others_are_looked_at(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 20)
    for number in range(100):
        await insert(store, f"s{number:02}", number, expire_time=NOW - SECOND if number >= 9 else None)
    pages = await read_all(lister(store), ListQuery(page_size=5))
    assert [len(page.sessions) for page in pages] == [2, 5, 2]
    pages = await read_all(lister(store), ListQuery(page_size=5, filter="NOT title:nothing"))
    assert [len(page.sessions) for page in pages] == [2, 5, 2]
