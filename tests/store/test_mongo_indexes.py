"""Every command that MongoDB gets is served by an index: its condition has the first keys of one, its order the next.

mongo-java-server plans no query as MongoDB does, so the commands are judged by their shape. See docs/sessions.md.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from service.domain.entities import Erasure, PurgeRecord
from service.domain.ports import Lease
from service.domain.ranges import SessionRange
from service.store.mongo import MongoStore, connection
from service.store.mongo.schema import ERASURE_INDEXES, PURGE_INDEXES, SESSION_INDEXES, TURN_INDEXES
from tests.contract.build import MILLISECOND, NOW, OWNER, a_session, a_turn, an_active, an_ending

_INDEXES = {
    "sessions": SESSION_INDEXES,
    "turns": TURN_INDEXES,
    "purges": PURGE_INDEXES,
    "erasures": ERASURE_INDEXES,
}


class Commands(CommandListener):
    """Conditions that were sent: collection, condition, order, hint."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, Any], Sequence[str], str]] = []

    def started(self, event: CommandStartedEvent) -> None:
        name, command = event.command_name, event.command
        collection = str(command.get(name))
        if collection not in _INDEXES:
            return
        order, hint = list(command.get("sort", ())), command.get("hint", "")
        match name:
            case "find":
                self.sent.append((collection, command["filter"], order, hint))
            case "findAndModify":
                self.sent.append((collection, command["query"], order, hint))
            case "update" | "delete":
                self.sent += [(collection, one["q"], (), "") for one in command[f"{name}s"]]
            case "aggregate":
                self.sent.append((collection, command["pipeline"][0]["$match"], (), hint))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing to do."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing to do."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setitem(connection._CLIENT_OPTIONS, "event_listeners", [commands])
    return commands


@pytest.fixture
async def store(commands: Commands, mongo_uri: str, mongo_database: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(mongo_uri, mongo_database)
    await store.open()
    await store.ping()
    commands.sent.clear()
    yield store
    await store.close()


def indexes_of(collection: str, hint: str) -> Sequence[Sequence[str]]:
    """The keys of the indexes that may serve a command: those named by its hint, if it has one."""
    named = {str(index.document["name"]): list(index.document["key"]) for index in _INDEXES[collection]}
    named["_id_"] = ["_id"]
    return [named[hint]] if hint else list(named.values())


def serves(keys: Sequence[str], condition: Mapping[str, Any], order: Sequence[str]) -> bool:
    """Whether an index finds what a condition asks for, in this order, without looking at all documents or sorting."""
    if keys[0] not in condition:
        return False
    if keys == ["_id"] and _is_range(condition["_id"]) and "$in" in condition["_id"]:
        return True  # no more than were named, which may be put in any order
    equal = 0
    while equal < len(keys) and keys[equal] in condition and not _is_range(condition[keys[equal]]):
        equal += 1
    is_in_order = list(keys[equal : equal + len(order)]) == list(order) or equal == len(keys)
    is_bounded = equal > 0 or _is_range(condition[keys[0]])
    # By the owner alone is not enough: an owner may have very many.
    return is_in_order and is_bounded and (keys[0] != "owner" or equal > 1 or keys[1] in condition or bool(order))


def _is_range(asked: Any) -> bool:
    return isinstance(asked, Mapping) and any(name.startswith("$") for name in asked)


async def test_every_command_is_served_by_an_index(store: MongoStore, commands: Commands) -> None:
    session = a_session(title="t", labels={"a": "b"}, idle_ttl=timedelta(hours=1), look_at=NOW)
    key, ended = session.key, a_turn(user_text="one word", ending=an_ending())
    await store.insert_session(session)
    for time_field in ("update_time", "create_time"):
        for label in ((), ("a",), ("a", "b")):
            await store.list_sessions(OWNER, SessionRange(time_field, True, label=label), 7)
            await store.count_listed(OWNER, SessionRange(time_field, True, label=label), 7)
    await store.titled_ids(OWNER, "abc", 7)
    await store.listed_sessions(OWNER, [session.session_id])
    await store.update_session(session, replace(session, title="new", settings_version=2))
    session = replace(session, settings_version=2)
    active = an_active()
    await store.accept(session, NOW, active)
    accepted = await store.session(OWNER, session.session_id)
    assert accepted is not None
    lease = Lease(key, active.turn.turn_id, active.lease_id)
    await store.running_sessions(7)
    await store.checkpoint(lease, 0, "text")
    await store.request_cancel(key, active.turn.turn_id)
    await store.release(lease, 1, "more")
    await store.take_over(accepted, "another")
    await store.end(lease, an_ending())
    await store.archive(key, ended)
    await store.insert_turns(key, [ended])
    await store.turn_by_id(key, ended.turn_id)
    await store.turn_by_request(key, ended.request_key)
    await store.turns(key, first_seq_from=1, first_seq_to=9, limit=7)
    found, _ = await store.find_turns(OWNER, [("one",), ("word",)], uid="", after="", limit=7)
    await store.find_turns(OWNER, [("word",)], uid="", after=found[0].place, limit=7)
    await store.find_turns(OWNER, [("word",)], uid=session.uid, after="", limit=7)
    await store.delete(accepted, NOW, NOW)
    await store.undelete(replace(session, deleted_at=NOW), NOW, NOW)
    await store.due_sessions(NOW + MILLISECOND, 7)
    await store.postpone(session, NOW)
    await store.start_purge(session, NOW)
    await store.delete_turns(key, 7)
    record = PurgeRecord(key, NOW)
    await store.put_purge_record(record)
    await store.delete_session(key)
    await store.due_purge_records(NOW, 7)
    await store.delete_purge_record(record)
    erasure = Erasure("e1", OWNER, 1, NOW, 1, due=NOW)
    await store.insert_erasure(erasure)
    await store.erasure(OWNER, "e1")
    await store.latest_erasure(OWNER)
    await store.due_erasures(NOW, 7)
    await store.update_erasure(replace(erasure, version=2))
    await store.count_sessions(OWNER, NOW)
    await store.sessions_before(OWNER, NOW, after=None, limit=7)
    await store.sessions_before(OWNER, NOW, after=session, limit=7)
    await store.count_turns(key)
    assert {collection for collection, *_ in commands.sent} == set(_INDEXES)
    for collection, condition, order, hint in commands.sent:
        served = [keys for keys in indexes_of(collection, hint) if serves(keys, condition, order)]
        assert served, (collection, condition, order, hint)


async def test_an_erasure_goes_on_where_it_was(store: MongoStore, commands: Commands) -> None:
    session = a_session()
    await store.sessions_before(OWNER, NOW + MILLISECOND, after=session, limit=7)
    [(_, condition, order, hint)] = commands.sent
    assert condition["create_time"] == {
        "$gte": session.create_time,
        "$lte": NOW + MILLISECOND,
    }
    assert (order, hint) == (["create_time", "_id"], "by_create_time")
