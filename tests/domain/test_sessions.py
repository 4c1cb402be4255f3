"""Sessions as their owners manage them: what is created once, changed under a condition, gone and back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.entities import ModelSettings, Session
from service.domain.errors import (
    ChatError,
    InvalidField,
    SessionExists,
    SessionExpired,
    SessionNotFound,
    StaleEtag,
    StoreUnavailable,
)
from service.domain.fields import SessionFields
from service.domain.ports import Lease
from service.domain.updates import SessionUpdate
from service.store.sqlite import SqliteStore
from tests.domain.builders import a_turn, running
from tests.domain.life import ANNA, BERT, GRACE, MILLISECOND, Life

HOUR = timedelta(hours=1)


@pytest.fixture
def life(store: SqliteStore) -> Life:
    return Life(store)


def an_update(*paths: str, etag: str = "", **fields: Any) -> SessionUpdate:
    return SessionUpdate(SessionFields(**fields), paths or tuple(fields), etag)


async def fails(work: Awaitable[object], error: type[ChatError]) -> Any:
    with pytest.raises(error) as caught:
        await work
    assert type(caught.value) is error
    return caught.value


# Creating


FIELDS: dict[str, Any] = {
    "title": "t",
    "labels": {"a": "b"},
    "instructions": "i",
    "settings": ModelSettings(temperature=0.5, stop_sequences=("x",)),
    "ttl": HOUR,
    "idle_ttl": timedelta(minutes=1),
}


async def test_a_repeated_creation_answers_the_same_session(life: Life) -> None:
    first = await life.create(session_id="mine", **FIELDS)
    life.now += timedelta(minutes=1) - MILLISECOND
    assert await life.create(session_id="mine", **FIELDS) == first


async def test_a_repeated_creation_answers_the_session_as_it_is_now(life: Life) -> None:
    await life.create(session_id="mine", title="before")
    await life.sessions.update(ANNA, "mine", an_update(title="after"))
    assert (await life.create(session_id="mine", title="before")).title == "after"


@pytest.mark.parametrize("field", FIELDS)
async def test_another_creation_under_a_taken_id_is_refused(life: Life, field: str) -> None:
    await life.create(session_id="mine", **FIELDS)
    await fails(life.create(session_id="mine", **{k: v for k, v in FIELDS.items() if k != field}), SessionExists)


async def test_an_id_of_somebody_elses_session_is_taken(life: Life) -> None:
    await life.create(ANNA, "mine")
    await fails(life.create(BERT, "mine"), SessionExists)
    assert (await life.sessions.get(ANNA, "mine")).owner == ANNA


async def test_an_id_that_the_server_chose_is_not_free_for_a_repeat(life: Life) -> None:
    session = await life.create()
    await fails(life.create(session_id=session.session_id), SessionExists)


async def test_an_id_is_taken_while_its_session_is_deleted_and_free_when_it_is_removed(life: Life) -> None:
    await life.create(session_id="mine")
    await life.sessions.delete(ANNA, "mine")
    await fails(life.create(session_id="mine"), SessionExists)
    life.now += GRACE
    await life.purge()
    assert (await life.create(BERT, "mine")).owner == BERT


async def test_an_id_is_taken_while_its_session_is_expired_and_free_when_it_is_removed(life: Life) -> None:
    await life.create(session_id="mine", ttl=HOUR)
    life.now += HOUR
    await fails(life.create(session_id="mine", ttl=HOUR), SessionExists)
    life.now += GRACE
    await life.purge()
    assert (await life.create(session_id="mine", ttl=HOUR)).create_time == life.now


async def test_a_request_id_makes_one_session_of_each_owner(life: Life) -> None:
    create = life.sessions.create
    first = await create(ANNA, SessionFields(title="t"), request_id="r")
    assert await create(ANNA, SessionFields(title="t"), request_id="r") == first
    assert (await create(BERT, SessionFields(title="t"), request_id="r")).session_id != first.session_id
    assert (await create(ANNA, SessionFields(title="t"), request_id="q")).session_id != first.session_id
    await fails(create(ANNA, SessionFields(title="u"), request_id="r"), SessionExists)


async def test_a_request_id_belongs_to_the_content_of_a_chosen_id(life: Life) -> None:
    first = await life.sessions.create(ANNA, SessionFields(), session_id="mine", request_id="r")
    assert await life.sessions.create(ANNA, SessionFields(), session_id="mine", request_id="r") == first
    await fails(life.sessions.create(ANNA, SessionFields(), session_id="mine", request_id="q"), SessionExists)


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("session_id", ["", "mine"])
async def test_a_creation_whose_answer_is_lost_makes_one_session(life: Life, how: str, session_id: str) -> None:
    life.store.lost["insert_session"] = how
    session = await life.create(session_id=session_id)
    assert await life.read(session) == session
    assert life.store.calls.count("insert_session") == 2


async def test_a_creation_without_a_store_is_not_tried_again(life: Life) -> None:
    life.store.lost["insert_session"] = "away"
    await fails(life.create(), StoreUnavailable)
    assert life.store.calls == ["insert_session"]


async def test_of_creations_at_once_all_answer_the_same_session(life: Life) -> None:
    made = await asyncio.gather(*(life.create(session_id="mine", **FIELDS) for _ in range(8)))
    assert all(session == made[0] for session in made)


@pytest.mark.parametrize("session_id", ["-", "a b", "x" * 65, "ü"])
async def test_an_id_that_is_none_is_refused(life: Life, session_id: str) -> None:
    assert (await fails(life.create(session_id=session_id), InvalidField)).field == "session_id"


# Updating

UPDATES: dict[str, tuple[SessionUpdate, dict[str, Any]]] = {
    "title": (an_update(title="new"), {"title": "new"}),
    "title cleared": (an_update("title"), {"title": ""}),
    "labels": (an_update(labels={"c": "d"}), {"labels": {"c": "d"}}),
    "labels cleared": (an_update("labels"), {"labels": {}}),
    "instructions": (an_update(instructions="new"), {"instructions": "new"}),
    "settings": (an_update(settings=ModelSettings(seed=1)), {"settings": ModelSettings(seed=1)}),
    "settings cleared": (an_update("settings"), {"settings": ModelSettings()}),
    "one of the settings": (
        an_update("settings.seed", settings=ModelSettings(seed=1, model="not named")),
        {"settings": ModelSettings(temperature=0.5, stop_sequences=("x",), seed=1)},
    ),
    "one of the settings cleared": (
        an_update("settings.temperature"),
        {"settings": ModelSettings(stop_sequences=("x",))},
    ),
    "several": (an_update(title="new", instructions="new"), {"title": "new", "instructions": "new"}),
    "the same title": (an_update("title", "instructions", title="t"), {"instructions": ""}),
}


@pytest.mark.parametrize("name", UPDATES)
async def test_an_update_changes_what_the_mask_names(life: Life, name: str) -> None:
    session = await life.create(**FIELDS)
    life.now += timedelta(seconds=1)
    update, expected = UPDATES[name]
    updated = await life.sessions.update(ANNA, session.session_id, update)
    assert updated == replace(session, settings_version=2, update_time=life.now, **expected)
    assert await life.read(session) == updated
    assert updated.etag != session.etag


async def test_an_update_of_everything_clears_what_is_not_set(life: Life) -> None:
    session = await life.create(**FIELDS)
    updated = await life.sessions.update(ANNA, session.session_id, an_update("*", title="new"))
    expected = {
        "title": "new", "labels": {}, "instructions": "", "settings": ModelSettings(), "expire_time": None,
        "idle_ttl": None, "look_at": None,
    }  # fmt: skip
    assert updated == replace(session, settings_version=2, idle_since=life.now, **expected)


@pytest.mark.parametrize("update", [SessionUpdate(SessionFields(), ()), an_update(title="t")])
async def test_an_update_that_changes_nothing_leaves_the_etag(life: Life, update: SessionUpdate) -> None:
    session = await life.create(**FIELDS)
    life.now += timedelta(seconds=1)
    assert await life.sessions.update(ANNA, session.session_id, update) == session
    assert await life.read(session) == session


@pytest.mark.parametrize(
    "path", ["nothing", "labels.a", "settings.nothing", "last_seq", "etag", "session_id", "settings_version", ""]
)
async def test_a_mask_that_names_what_cannot_be_changed_is_refused(life: Life, path: str) -> None:
    session = await life.create()
    error = await fails(
        life.sessions.update(ANNA, session.session_id, an_update("title", path, title="x")), InvalidField
    )
    assert error.field == "update_mask"
    assert await life.read(session) == session


async def test_everything_and_a_field_is_no_mask(life: Life) -> None:
    session = await life.create()
    await fails(life.sessions.update(ANNA, session.session_id, an_update("*", "title")), InvalidField)


async def test_an_etag_has_to_be_the_current_one(life: Life) -> None:
    session = await life.create()
    updated = await life.sessions.update(ANNA, session.session_id, an_update(title="1", etag=session.etag))
    await fails(life.sessions.update(ANNA, session.session_id, an_update(title="2", etag=session.etag)), StaleEtag)
    await fails(life.sessions.delete(ANNA, session.session_id, session.etag), StaleEtag)
    assert await life.read(session) == updated
    assert (await life.sessions.delete(ANNA, session.session_id, updated.etag)).deleted_at == life.now


async def test_an_etag_counts_at_the_moment_of_the_write(life: Life) -> None:
    session = await life.create()
    other = Life(life.store.inner)

    async def change() -> None:
        await other.sessions.update(ANNA, session.session_id, an_update(title="theirs"))

    for name, work in (
        ("update_session", life.sessions.update(ANNA, session.session_id, an_update(title="mine", etag=session.etag))),
        ("delete", life.sessions.delete(ANNA, session.session_id, session.etag)),
    ):
        life.store.before[name] = change
        await fails(work, StaleEtag)
        session = await life.sessions.update(ANNA, session.session_id, an_update(title="again"))


async def test_updates_at_once_are_all_kept(life: Life) -> None:
    session = await life.create()
    fields = [{"title": "t"}, {"instructions": "i"}, {"labels": {"a": "b"}}, {"settings": ModelSettings(seed=1)}]
    await asyncio.gather(*(life.sessions.update(ANNA, session.session_id, an_update(**one)) for one in fields))
    found = await life.read(session)
    assert found
    assert (found.title, found.instructions, found.labels, found.settings.seed) == ("t", "i", {"a": "b"}, 1)
    assert found.settings_version == 5


@pytest.mark.parametrize("how", ["before", "after"])
async def test_an_update_whose_answer_is_lost_is_made_once(life: Life, how: str) -> None:
    session = await life.create()
    life.store.lost["update_session"] = how
    updated = await life.sessions.update(ANNA, session.session_id, an_update(title="new", etag=session.etag))
    assert (updated.title, updated.settings_version) == ("new", 2)


async def test_an_update_does_not_disturb_a_running_turn(life: Life) -> None:
    session = await life.create(idle_ttl=HOUR)
    with_turn = await life.run_turn(session, running(a_turn(1)))
    updated = await life.sessions.update(ANNA, session.session_id, an_update(title="new"))
    assert updated.active == with_turn.active
    assert updated.fence == with_turn.fence


# Times


async def test_a_cleared_end_is_as_the_server_says(store: SqliteStore) -> None:
    life = Life(store, ttl=2 * HOUR, idle_ttl=HOUR)
    session = await life.create(ttl=timedelta(days=1), idle_ttl=timedelta(days=1))
    life.now += timedelta(seconds=1)
    for path in ("ttl", "expire_time", "idle_ttl"):
        session = await life.sessions.update(ANNA, session.session_id, an_update(path))
    assert session.expire_time == life.now + 2 * HOUR
    assert session.idle_ttl == HOUR


@pytest.mark.parametrize(
    ("limits", "asked", "end", "idle"),
    [
        ({}, {}, None, None),
        ({"ttl": HOUR}, {}, HOUR, None),
        ({"max_ttl": HOUR}, {}, HOUR, None),
        ({"ttl": HOUR, "max_ttl": 2 * HOUR}, {}, HOUR, None),
        ({"ttl": HOUR, "max_ttl": 2 * HOUR}, {"ttl": 2 * HOUR}, 2 * HOUR, None),
        ({"idle_ttl": HOUR}, {}, None, HOUR),
        ({"max_idle_ttl": HOUR}, {}, None, HOUR),
        ({"max_idle_ttl": HOUR}, {"idle_ttl": MILLISECOND}, None, MILLISECOND),
    ],
)
async def test_defaults_and_maxima(
    store: SqliteStore, limits: Any, asked: Any, end: timedelta | None, idle: timedelta | None
) -> None:
    life = Life(store, **limits)
    session = await life.create(**asked)
    assert session.expire_time == (end and life.now + end)
    assert session.idle_ttl == idle


@pytest.mark.parametrize(
    ("limits", "field", "value"),
    [
        ({}, "ttl", timedelta(0)),
        ({}, "ttl", -HOUR),
        ({}, "ttl", timedelta(days=36_525) + MILLISECOND),
        ({"max_ttl": HOUR}, "ttl", HOUR + MILLISECOND),
        ({}, "expire_time", timedelta(0)),
        ({}, "expire_time", -MILLISECOND),
        ({}, "expire_time", timedelta(days=36_525) + MILLISECOND),
        ({"max_ttl": HOUR}, "expire_time", HOUR + MILLISECOND),
        ({}, "idle_ttl", timedelta(0)),
        ({"max_idle_ttl": HOUR}, "idle_ttl", HOUR + MILLISECOND),
    ],
)
async def test_times_out_of_range_are_refused_by_name(store: SqliteStore, limits: Any, field: str, value: Any) -> None:
    life = Life(store, **limits)
    fields = {field: life.now + value if field == "expire_time" else value}
    session = await life.create()
    for work in (life.create(**fields), life.sessions.update(ANNA, session.session_id, an_update(**fields))):
        assert (await fails(work, InvalidField)).field == f"session.{field}"


METHODS: dict[str, Callable[[Life, Session], Awaitable[object]]] = {
    "get": lambda life, session: life.sessions.get(ANNA, session.session_id),
    "update": lambda life, session: life.sessions.update(ANNA, session.session_id, an_update(title="new")),
    "delete": lambda life, session: life.sessions.delete(ANNA, session.session_id),
    "undelete": lambda life, session: life.sessions.undelete(ANNA, session.session_id),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fields", [{"ttl": HOUR}, {"idle_ttl": HOUR}, {"ttl": 2 * HOUR, "idle_ttl": HOUR}])
async def test_a_session_is_gone_from_the_instant_of_its_end(life: Life, method: str, fields: Any) -> None:
    session = await life.create(**fields)
    life.now += HOUR - MILLISECOND
    await METHODS["get"](life, session)
    life.now += MILLISECOND
    await fails(METHODS[method](life, session), SessionExpired)


async def test_the_idle_limit_counts_from_the_end_of_the_last_turn_and_a_running_one_holds_it_off(life: Life) -> None:
    session = await life.create(idle_ttl=HOUR)
    life.now += HOUR - MILLISECOND
    active = running(a_turn(1))
    session = await life.run_turn(session, active)
    life.now += 5 * HOUR
    assert await life.sessions.get(ANNA, session.session_id) == session
    assert session.active
    ended = replace(a_turn(1).ending, fence=1, end_time=life.now)  # type: ignore[type-var]
    assert await life.store.end(Lease(session.key, active.turn.turn_id, active.lease_id), ended)
    life.now += HOUR - MILLISECOND
    await life.sessions.get(ANNA, session.session_id)
    life.now += MILLISECOND
    await fails(life.sessions.get(ANNA, session.session_id), SessionExpired)


async def test_a_running_turn_does_not_hold_off_the_end(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    await life.run_turn(session, running(a_turn(1)))
    life.now += HOUR
    await fails(life.sessions.get(ANNA, session.session_id), SessionExpired)


async def test_a_new_idle_limit_counts_from_when_it_is_set(life: Life) -> None:
    session = await life.create()
    life.now += 5 * HOUR
    await life.sessions.update(ANNA, session.session_id, an_update(idle_ttl=HOUR))
    life.now += HOUR - MILLISECOND
    await life.sessions.update(ANNA, session.session_id, an_update(title="is no turn"))
    life.now += MILLISECOND
    await fails(life.sessions.get(ANNA, session.session_id), SessionExpired)


# Deleting


@pytest.mark.parametrize("method", ["get", "update", "delete"])
async def test_a_deleted_session_is_gone_at_once(life: Life, method: str) -> None:
    session = await life.create(title="t")
    deleted = await life.sessions.delete(ANNA, session.session_id)
    assert deleted == replace(session, deleted_at=life.now, look_at=life.now + GRACE)
    await fails(METHODS[method](life, session), SessionNotFound)


@pytest.mark.parametrize("method", METHODS)
async def test_somebody_elses_session_is_not_there(life: Life, method: str) -> None:
    session = await life.create(BERT)
    await fails(METHODS[method](life, session), SessionNotFound)
    assert await life.read(session) == session


async def test_deleting_cancels_the_running_turn(life: Life) -> None:
    session = await life.create()
    await life.run_turn(session, running(a_turn(1)))
    deleted = await life.sessions.delete(ANNA, session.session_id)
    assert deleted.running
    assert deleted.running.cancel
    assert life.deleted == [deleted]


async def test_deleting_meets_a_turn_that_begins_or_ends_meanwhile(life: Life) -> None:
    session = await life.create()

    async def begin() -> None:
        await life.run_turn(session, running(a_turn(1)))

    life.store.before["delete"] = begin
    deleted = await life.sessions.delete(ANNA, session.session_id)
    assert deleted.running
    assert deleted.running.cancel


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_deletion_whose_answer_is_lost_is_a_deletion(life: Life, how: str) -> None:
    session = await life.create()
    life.store.lost["delete"] = how
    deleted = await life.sessions.delete(ANNA, session.session_id)
    assert deleted == await life.read(session)
    assert life.deleted == [deleted]


async def test_undeleting_brings_a_session_back_as_it_was(life: Life) -> None:
    session = await life.create(**FIELDS)
    await life.archive(session, a_turn(1))
    await life.sessions.delete(ANNA, session.session_id)
    life.now += timedelta(minutes=30)
    undeleted = await life.sessions.undelete(ANNA, session.session_id)
    assert undeleted == replace(session, idle_since=life.now, look_at=undeleted.look_at)
    assert await life.sessions.get(ANNA, session.session_id) == undeleted
    assert await life.turns(session) == 1


async def test_undeleting_what_is_not_deleted_changes_nothing(life: Life) -> None:
    session = await life.create()
    life.now += HOUR
    assert await life.sessions.undelete(ANNA, session.session_id) == session


@pytest.mark.parametrize("how", ["before", "after"])
async def test_an_undeletion_whose_answer_is_lost_is_one(life: Life, how: str) -> None:
    session = await life.create()
    await life.sessions.delete(ANNA, session.session_id)
    life.store.lost["undelete"] = how
    assert (await life.sessions.undelete(ANNA, session.session_id)).deleted_at is None


async def test_a_session_can_be_undeleted_until_the_last_millisecond_of_the_grace(life: Life) -> None:
    session = await life.create()
    for _ in range(2):
        await life.sessions.delete(ANNA, session.session_id)
        life.now += GRACE - MILLISECOND
        await life.sessions.undelete(ANNA, session.session_id)
    await life.sessions.delete(ANNA, session.session_id)
    life.now += GRACE
    await fails(life.sessions.undelete(ANNA, session.session_id), SessionNotFound)


async def test_a_session_that_has_ended_while_it_was_deleted_stays_gone(life: Life) -> None:
    session = await life.create(ttl=HOUR)
    await life.sessions.delete(ANNA, session.session_id)
    life.now += HOUR
    await fails(life.sessions.undelete(ANNA, session.session_id), SessionExpired)
