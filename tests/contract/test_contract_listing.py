"""Ranges of sessions come in order, whole, and to their owner only."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.entities import Principal, Session
from service.domain.listing import _is_there
from service.domain.ports import SessionStore
from service.domain.ranges import END, START, Place, SessionRange, TimeField, Unlisted
from service.domain.titles import title_pieces
from service.store.sqlite import SqliteStore
from tests.contract.build import (
    MILLISECOND,
    NOW,
    OTHERS,
    OWNER,
    TEXTS,
    a_running_session,
    a_session,
    an_active,
    an_ending,
    new_id,
    the_lease,
)
from tests.contract.model import ModelStore

FIELDS: tuple[TimeField, ...] = ("update_time", "create_time")


def newest(time_field: TimeField = "update_time", **fields: object) -> SessionRange:
    return replace(SessionRange(time_field, newest_first=True), **fields)


async def ids(store: SessionStore, wanted: SessionRange, limit: int = 99, owner: Principal = OWNER) -> list[str]:
    return [session.session_id for session in await store.list_sessions(owner, wanted, limit)]


async def insert(store: SessionStore, *sessions: Session) -> None:
    for session in sessions:
        assert await store.insert_session(session)


@pytest.mark.parametrize("time_field", FIELDS)
async def test_sessions_come_in_order_of_time_then_id(store: SessionStore, time_field: TimeField) -> None:
    times = {"b": 1, "a": 1, "B": 1, "a-": 1, "c": 0, "d": 2}
    for session_id, milliseconds in times.items():
        await insert(store, replace(a_session(session_id=session_id), **{time_field: NOW + milliseconds * MILLISECOND}))
    oldest_first = ["c", "B", "a", "a-", "b", "d"]
    assert await ids(store, newest(time_field)) == oldest_first[::-1]
    assert await ids(store, newest(time_field, newest_first=False)) == oldest_first
    assert await ids(store, newest(time_field), limit=2) == ["d", "b"]
    assert await ids(store, newest(time_field), limit=0) == []


@pytest.mark.parametrize("time_field", FIELDS)
async def test_a_range_is_counted_up_to_a_limit(store: SessionStore, time_field: TimeField) -> None:
    for number in range(5):
        labels = {"a": str(number % 2)}
        await insert(store, a_session(labels=labels, **{time_field: NOW + number * MILLISECOND}))
    await insert(store, a_session(owner=OTHERS[0], labels={"a": "0"}))
    rest = newest(time_field, low=Place(NOW, "~"))
    for wanted, count in ((rest, 4), (replace(rest, label=("a",)), 4), (replace(rest, label=("a", "0")), 2)):
        assert await store.count_listed(OWNER, wanted, 9) == count
        assert await store.count_listed(OWNER, replace(wanted, newest_first=False), 1) == 1
    assert await store.count_listed(OWNER, newest(label=("b",)), 9) == 0


@pytest.mark.parametrize("newest_first", [True, False])
async def test_both_ends_of_a_range_are_left_out(store: SessionStore, newest_first: bool) -> None:
    for number in range(5):
        await insert(store, a_session(session_id=f"s{number}", create_time=NOW + number // 2 * MILLISECOND))
    wanted = newest("create_time", newest_first=newest_first, low=Place(NOW, "s0"), high=Place(NOW + MILLISECOND, "s3"))
    assert sorted(await ids(store, wanted)) == ["s1", "s2"]
    whole_times = replace(wanted, low=Place(NOW + MILLISECOND, ""), high=Place(NOW + 2 * MILLISECOND, ""))
    assert sorted(await ids(store, whole_times)) == ["s2", "s3"]
    assert await ids(store, replace(wanted, low=wanted.high, high=wanted.low)) == []


async def test_another_owner_sees_nothing(store: SessionStore) -> None:
    session = a_session(labels={"a": "b"})
    await insert(store, session)
    for owner in OTHERS:
        assert await ids(store, newest(), owner=owner) == []
        assert await ids(store, newest(label=("a",)), owner=owner) == []
        assert list(await store.listed_sessions(owner, [session.session_id])) == []


async def test_a_listed_session_is_whole_but_for_texts_of_turns(store: SessionStore) -> None:
    plain = a_session(
        title="title",
        labels={"a": "b"},
        instructions="be brief",
        expire_time=NOW,
        idle_ttl=timedelta(seconds=1),
        deleted_at=NOW,
        settings_version=3,
        purging=True,
    )
    running = a_running_session(parts=("text",), beat=1)
    ended = a_session(active=an_active().ended(an_ending()))
    await insert(store, plain, running, ended)
    assert running.active
    told = replace(running.active, turn=replace(running.active.turn, user_text=""), parts=())
    expected = {s.session_id: s for s in (plain, replace(running, active=told), replace(ended, active=None))}
    assert {s.session_id: s for s in await store.list_sessions(OWNER, newest(), 9)} == expected
    assert {s.session_id: s for s in await store.listed_sessions(OWNER, [*expected, "nobody"])} == expected


async def test_no_sessions_are_asked_for_and_none_come(store: SessionStore) -> None:
    assert list(await store.listed_sessions(OWNER, [])) == []


async def test_a_turn_moves_its_session(store: SessionStore) -> None:
    first, second = a_session(labels={"a": "b"}), a_session(labels={"a": "b"}, update_time=NOW + MILLISECOND)
    await insert(store, first, second)
    for wanted in (newest(), newest(label=("a",)), newest(label=("a", "b"))):
        assert await ids(store, wanted) == [second.session_id, first.session_id]
    assert await store.accept(first, NOW + 2 * MILLISECOND, an_active())
    running = replace(first, active=an_active())
    for wanted in (newest(), newest(label=("a",)), newest(label=("a", "b"))):
        assert await ids(store, wanted) == [first.session_id, second.session_id]
    assert await store.end(the_lease(running), an_ending(end_time=NOW - MILLISECOND))
    for wanted in (newest(), newest(label=("a",)), newest(label=("a", "b"))):
        assert await ids(store, wanted) == [second.session_id, first.session_id]


LABELS = [
    {"k": "v"},
    {"k": ""},
    {"k": "v", "l": "v"},
    {"k=v": ""},
    {'k","v': ""},
    {"K": "v"},
    {"": ""},
    {"$set": "a.b"},
    *({"text": text[:256]} for text in TEXTS.values()),
    {f"key {number}": "x" * 256 for number in range(32)},
]


async def test_sessions_are_found_by_their_labels_alone(store: SessionStore) -> None:
    sessions = [
        a_session(labels=labels, create_time=NOW + number * MILLISECOND) for number, labels in enumerate(LABELS)
    ]
    await insert(store, *sessions, a_session())
    entries = {entry for labels in LABELS for pair in labels.items() for entry in (pair, pair[:1])}
    for entry in [*entries, ("nothing",), ("k", "nothing")]:
        expected = [s.session_id for s in sessions if entry in {*s.labels.items(), *((key,) for key in s.labels)}]
        assert await ids(store, newest("create_time", newest_first=False, label=entry)) == expected
        assert sorted(await ids(store, newest(label=entry))) == sorted(expected)


async def test_labels_that_change_are_found_as_they_are(store: SessionStore) -> None:
    session = a_session(labels={"a": "1", "b": "2"})
    await insert(store, session)

    async def found() -> list[str]:
        entries = [("a",), ("a", "1"), ("a", "3"), ("b",), ("c", "4")]
        lists = {entry: [await ids(store, newest(field, label=entry)) for field in FIELDS] for entry in entries}
        return ["=".join(entry) for entry, (updated, created) in lists.items() if updated == created != []]

    assert await found() == ["a", "a=1", "b"]
    changed = replace(session, labels={"a": "3", "c": "4"}, settings_version=2, update_time=NOW + MILLISECOND)
    assert await store.update_session(session, changed) == changed
    assert await found() == ["a", "a=3", "c=4"]
    bare = replace(changed, labels={}, settings_version=3)
    assert await store.update_session(changed, bare) == bare
    assert await found() == []
    assert await store.update_session(bare, replace(session, settings_version=4))
    assert await found() == ["a", "a=1", "b"]


async def test_sessions_are_found_by_pieces_of_their_titles_alone(store: SessionStore) -> None:
    titles = ["", "ab", "Abc", "xABCx", "abcabc", "Straße", "İab", *(text[:256] for text in TEXTS.values())]
    sessions = [a_session(title=title) for title in titles]
    await insert(store, *sessions, a_session(title="abc", owner=OTHERS[0]))
    for piece in {
        "abc",
        "bca",
        "ass",
        "sse",
        "i\u0307a",
        *(piece for title in titles for piece in title_pieces(title)),
    }:
        expected = sorted(s.session_id for s in sessions if piece in title_pieces(s.title))
        assert list(await store.titled_ids(OWNER, piece, 99)) == expected, piece
        assert list(await store.titled_ids(OWNER, piece, 1)) == expected[:1]
    assert list(await store.titled_ids(OWNER, "abc", 0)) == []


async def test_titles_that_change_are_found_as_they_are(store: SessionStore) -> None:
    session = a_session(title="abcd")
    await insert(store, session)

    async def found() -> list[str]:
        return [piece for piece in ("abc", "bcd", "xyz", "ssx") if await store.titled_ids(OWNER, piece, 9)]

    assert await found() == ["abc", "bcd"]
    for title, pieces in (
        ("ABC", ["abc"]),
        ("ßxyz", ["xyz", "ssx"]),
        ("xyz", ["xyz"]),
        ("", []),
        ("abcd", ["abc", "bcd"]),
    ):
        changed = replace(session, title=title, settings_version=session.settings_version + 1)
        assert await store.update_session(session, changed) == changed
        assert await found() == pieces
        session = changed
    assert await store.accept(session, NOW + MILLISECOND, an_active())
    assert await found() == ["abc", "bcd"]


async def test_a_session_that_is_removed_is_not_listed(store: SessionStore) -> None:
    session = a_session(title="Straße", labels={"a": "b"})
    await insert(store, session)
    assert await store.start_purge(session, NOW)
    assert await store.delete_session(session.key)
    assert await ids(store, newest()) == await ids(store, newest(label=("a",))) == []
    await insert(store, replace(session, uid=new_id(), title="", labels={}))
    assert await ids(store, newest(label=("a", "b"))) == list(await store.titled_ids(OWNER, "ass", 9)) == []


_times = st.integers(0, 2).map(lambda milliseconds: NOW + milliseconds * MILLISECOND)
_names = st.sampled_from(["a", "b", "c", "d", "e"])
_labels = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"]))
_lives = st.dictionaries(_names, st.tuples(_times, _times, _labels, st.sampled_from([OWNER, OWNER, OTHERS[0]])))
_places = st.tuples(_times, st.one_of(st.just(""), _names))
_ranges = st.tuples(
    st.sampled_from(FIELDS),
    st.booleans(),
    st.one_of(st.none(), _places),
    st.one_of(st.none(), _places),
    st.sampled_from([(), ("x",), ("x", "1"), ("y", "2")]),
)


@given(lives=_lives, ranges=st.lists(_ranges, min_size=1, max_size=8), limit=st.integers(1, 6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_range_is_as_the_model_has_it(
    store: SessionStore, lives: dict[str, tuple], ranges: Sequence[tuple], limit: int
) -> None:
    example, model = new_id(), ModelStore()
    tenants = {owner: replace(owner, tenant=example) for owner in (OWNER, OTHERS[0])}

    def place(at: tuple | None, default: Place) -> Place:
        return Place(at[0], at[1] and f"{example}-{at[1]}") if at else default

    for name, (create_time, update_time, labels, owner) in lives.items():
        session = a_session(
            session_id=f"{example}-{name}",
            create_time=create_time,
            update_time=update_time,
            labels=labels,
            owner=tenants[owner],
        )
        await insert(store, session)
        await insert(model, session)
    for field, newest_first, low, high, label in ranges:
        wanted = SessionRange(field, newest_first, place(low, START), place(high, END), label)
        for owner in tenants.values():
            listed = await store.list_sessions(owner, wanted, limit)
            assert list(listed) == list(await model.list_sessions(owner, wanted, limit)), wanted


_ages = st.none() | st.integers(-2, 2)


@given(
    sessions=st.lists(st.tuples(st.booleans(), st.booleans(), _ages, _ages, _ages, _ages), min_size=1, max_size=8),
    hide_deleted=st.booleans(),
    newest_first=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_of_no_session_that_is_there_only_the_place_comes(
    store: SessionStore,
    sessions: list[tuple[bool, bool, int | None, int | None, int | None, int | None]],
    hide_deleted: bool,
    newest_first: bool,
) -> None:
    def after(number: int | None) -> datetime | None:
        return None if number is None else NOW + number * MILLISECOND

    owner = replace(OWNER, tenant=new_id())
    made = {}
    for number, (purging, is_running, expire, deleted, idle_ttl, idle_since) in enumerate(sessions):
        session = a_running_session() if is_running else a_session()
        session = replace(
            session,
            session_id=f"s{number}-{owner.tenant}",
            owner=owner,
            create_time=NOW - number * MILLISECOND,
            purging=purging,
            expire_time=after(expire),
            deleted_at=after(deleted),
            idle_ttl=None if idle_ttl is None else (idle_ttl + 3) * MILLISECOND,
            idle_since=after(None if idle_since is None else idle_since - 3),
        )
        await insert(store, session)
        made[session.session_id] = session
    wanted = newest("create_time", newest_first=newest_first)
    found = await store.list_sessions(owner, wanted, 99, Unlisted(NOW, hide_deleted))
    places = [one if isinstance(one, Place) else wanted.place_of(one) for one in found]
    assert places == [wanted.place_of(one) for one in await store.list_sessions(owner, wanted, 99)]
    for one in found:
        session = made[one.session_id]
        if isinstance(one, Place):
            assert not _is_there(session, NOW, show_deleted=not hide_deleted)
        elif isinstance(store, SqliteStore):
            assert _is_there(session, NOW, show_deleted=not hide_deleted)
