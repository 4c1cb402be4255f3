"""What is looked up by title is what a walk through all sessions finds, in the same order and pages."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain import listing
from service.domain.entities import Principal, Session
from service.domain.filters import parse_filter
from service.domain.listing import ListQuery, SessionLister, _is_there
from service.domain.ports import SessionStore
from service.domain.ranges import SessionRange
from tests.contract.build import MILLISECOND, NOW, OWNER, a_session, an_active, new_id


class Walking:
    """A ListStore of whose titles all pieces are common."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def titled_ids(self, _owner: Principal, _piece: str, limit: int) -> Sequence[str]:
        return [""] * limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


# Folded, some are longer than they were, or the same as others.
_titles = st.text('aAbßs\u017fİi\u0131Kk\u212a\u0307e\u0301éﬃ\0 😀\uffff"\\', max_size=8) | st.sampled_from(
    ["Straße", "STRASSE", "İstanbul", "i\u0307stanbul", "Talk about it", "talk", "a" * 256, "ß" * 256]
)
_lives = st.tuples(
    _titles,
    st.none() | _titles,
    st.sampled_from(["", "", "", "turn", "expired", "deleted", "undeleted", "purging", "purged", "imported"]),
    st.integers(0, 3),
    st.booleans(),
)
_queries = st.tuples(
    st.sampled_from(["title = {}", "title:{}", "title:{} AND labels:x", "title:{} AND NOT labels:x"]),
    st.integers(0, 9),
    st.integers(0, 4),
    st.integers(1, 9),
    st.sampled_from([str, str.upper, str.lower, str.casefold, str.swapcase]),
    st.sampled_from(["", "update_time", "create_time", "create_time desc"]),
    st.booleans(),
    st.integers(1, 4),
)


async def live(store: SessionStore, session: Session, title: str | None, what: str) -> None:
    """Let a session become what its life says."""
    assert await store.insert_session(session)
    if title is not None:
        changed = replace(session, title=title, settings_version=2, update_time=session.update_time + MILLISECOND)
        assert await store.update_session(session, changed)
        session = changed
    match what:
        case "turn":
            assert await store.accept(session, NOW + 5 * MILLISECOND, an_active())
        case "deleted" | "undeleted":
            deleted = await store.delete(session, NOW, NOW)
            assert deleted
            if what == "undeleted":
                assert await store.undelete(deleted, NOW, None)
        case "purging" | "purged":
            assert await store.start_purge(session, NOW)
            assert what == "purging" or await store.delete_session(session.key)


def filter_of(form: str, text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return form.format(f'"{escaped}"')


async def pages_of(listers: Sequence[SessionLister], owner: Principal, query: ListQuery) -> list[list[str]]:
    """The ids of all pages, each from the next of the listers."""
    pages = []
    for lister in cycle(listers):
        page = await lister.page(owner, query)
        pages.append([session.session_id for session in page.sessions])
        assert len(pages) < 100
        if not page.next_page_token:
            return pages
        query = replace(query, page_token=page.next_page_token)
    raise AssertionError


async def expected_of(store: SessionStore, owner: Principal, query: ListQuery) -> list[list[str]]:
    """All of an owner's sessions, looked at one by one."""
    by = "create_time" if "create" in query.order_by else "update_time"
    whole = SessionRange(by, newest_first=not query.order_by or "desc" in query.order_by)
    wanted = parse_filter(query.filter)
    sessions = [s for s in await store.list_sessions(owner, whole, 99) if isinstance(s, Session)]
    found = [s.session_id for s in sessions if _is_there(s, NOW, query.show_deleted) and wanted.matches(s)]
    return [found[start : start + query.page_size] for start in range(0, len(found), query.page_size)] or [[]]


def joined(pages: Sequence[list[str]]) -> list[str]:
    return list(chain.from_iterable(pages))


@pytest.mark.parametrize("max_examined", [2000, 7])
@given(lives=st.lists(_lives, min_size=1, max_size=20), queries=st.lists(_queries, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_titles_are_found_by_their_index_as_they_are_by_walking(
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
    max_examined: int,
    lives: list[tuple[str, str | None, str, int, bool]],
    queries: list[tuple[Any, ...]],
) -> None:
    monkeypatch.setattr(listing, "_FEW", 0)
    monkeypatch.setattr(listing, "MAX_EXAMINED", max_examined)
    owner = replace(OWNER, tenant=new_id())
    for number, (title, new_title, what, time, is_labelled) in enumerate(lives):
        session = a_session(
            session_id=f"s{number:02}-{owner.tenant}",
            owner=owner,
            title=title,
            create_time=NOW - time * MILLISECOND,
            update_time=NOW + number * 7 % 5 * MILLISECOND,
            labels={"x": "1"} if is_labelled else {},
            expire_time=NOW if what == "expired" else None,
            import_time=NOW if what == "imported" else None,
        )
        await live(store, session, new_title, what)
    indexed, walking = (SessionLister(one, now=lambda: NOW) for one in (store, Walking(store)))
    for form, which, start, length, change, order_by, show_deleted, page_size in queries:
        titles = [title for life in lives for title in life[:2] if title is not None]
        text = change(titles[which % len(titles)][start : start + length])
        query = ListQuery(page_size, "", filter_of(form, text), order_by, show_deleted)
        expected = await expected_of(store, owner, query)
        for listers in ([indexed], [walking], [indexed, walking]):
            pages = await pages_of(listers, owner, query)
            assert joined(pages) == joined(expected), query
            if max_examined == 2000:
                assert pages == expected, query


@pytest.mark.parametrize("order_by", ["create_time desc", "create_time", "update_time"])
async def test_titles_among_many_are_on_pages_that_are_full(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, order_by: str
) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 60)
    monkeypatch.setattr(listing, "_FEW", 0)
    for number in range(200):
        created = NOW + timedelta(seconds=number)
        title = "The Straße" if number % 29 == 28 else f"the talk {number}"
        updated = NOW + timedelta(seconds=number * 7 % 200)
        assert await store.insert_session(a_session(title=title, create_time=created, update_time=updated))
    indexed, walking = (SessionLister(one, now=lambda: NOW) for one in (store, Walking(store)))
    for text, counts in (("STRASSE", [2, 2, 2]), ("the strasse", [2, 2, 2]), ("nothing", [0]), ("the x", [0])):
        query = ListQuery(page_size=2, filter=filter_of("title:{}", text), order_by=order_by)
        pages, walked = [await pages_of([lister], OWNER, query) for lister in (indexed, walking)]
        assert ([len(page) for page in pages], joined(pages)) == (counts, joined(walked))
        assert len(walked) > len(pages)
