"""What lists and searches ask of MongoDB: one index each, in its order, so many documents and no more."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from service.domain.ranges import Place, SessionRange, TimeField
from service.store.mongo import MongoStore, connection
from tests.contract.build import MILLISECOND, NOW, OWNER, a_session, a_turn, an_ending

OWNER_DOC = {"tenant": OWNER.tenant, "subject": OWNER.subject}


class Finds(CommandListener):
    """The `find` commands that were sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find" and event.command["find"] in ("sessions", "turns"):
            self.sent.append(event.command)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing to do."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing to do."""


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Finds:
    finds = Finds()
    monkeypatch.setitem(connection._CLIENT_OPTIONS, "event_listeners", [finds])
    return finds


@pytest.fixture
async def store(finds: Finds, mongo_uri: str, mongo_database: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(mongo_uri, mongo_database)
    await store.open()
    await store.ping()
    finds.sent.clear()
    yield store
    await store.close()


@pytest.mark.parametrize(("newest_first", "direction"), [(True, -1), (False, 1)])
@pytest.mark.parametrize("time_field", ["update_time", "create_time"])
@pytest.mark.parametrize("label", [(), ("a", "b")])
async def test_a_list_is_read_along_its_index(
    store: MongoStore, finds: Finds, time_field: TimeField, newest_first: bool, direction: int, label: tuple[str, ...]
) -> None:
    low, high = Place(NOW, "a"), Place(NOW + MILLISECOND, "")
    await store.list_sessions(OWNER, SessionRange(time_field, newest_first, low, high, label), 7)
    [find] = finds.sent
    asked = {name: value for name, value in find["filter"].items() if name != "$and"}
    assert asked == {
        "owner": OWNER_DOC,
        time_field: {"$gte": low.time, "$lte": high.time},
        **({"label_index": '["a", "b"]'} if label else {}),
    }
    assert find["hint"] == f"{'labels_' if label else ''}by_{time_field}"
    assert (dict(find["sort"]), find["limit"]) == ({time_field: direction, "_id": direction}, 7)


async def test_titles_are_looked_up_in_their_index_alone(store: MongoStore, finds: Finds) -> None:
    await store.titled_ids(OWNER, "abc", 7)
    [find] = finds.sent
    assert (find["filter"], find["hint"]) == ({"owner": OWNER_DOC, "title_index": "abc"}, "titles")
    assert (find["projection"], dict(find["sort"]), find["limit"]) == ({"_id": 1}, {"_id": 1}, 7)


async def test_what_a_session_is_found_by_is_not_read(store: MongoStore, finds: Finds) -> None:
    await store.session(OWNER, "id")
    await store.listed_sessions(OWNER, ["id"])
    for find in finds.sent:
        assert find["projection"].items() >= {"label_index": 0, "title_index": 0}.items()


async def test_a_search_is_read_along_one_word_a_bounded_piece_at_once(store: MongoStore, finds: Finds) -> None:
    session = a_session()
    await store.insert_session(session)
    await store.archive(session.key, a_turn(user_text="a rarest word", ending=an_ending()))
    [found], _ = await store.find_turns(OWNER, [("a", "rarest"), ("word",)], uid="", after="", limit=7)
    await store.find_turns(OWNER, [("word",)], uid="", after=found.place, limit=7)
    scan, fetch, single = finds.sent
    assert (scan["filter"], scan["hint"]) == ({"owner": OWNER_DOC, "words": "rarest"}, "words")
    assert (scan["projection"], scan["limit"]) == ({"create_time": 1}, 1000)
    assert fetch["filter"]["words"] == {"$all": ["a", "rarest", "word"]}
    assert (list(fetch["filter"]["_id"]["$in"]), fetch["limit"]) == ([f"{session.uid}:0000000001"], 7)
    # With one word each that is looked at is found.
    assert (single["hint"], single["limit"]) == ("words", 7)
    assert single["filter"]["create_time"] == {"$lte": NOW.replace(tzinfo=None)}
    for find in finds.sent:
        assert dict(find["sort"]) == {"create_time": -1, "_id": -1}


async def test_a_search_in_a_session_is_read_along_its_turns(store: MongoStore, finds: Finds) -> None:
    await store.find_turns(OWNER, [("word",)], uid="uid", after="", limit=7)
    [scan] = finds.sent
    assert scan["filter"] == {"owner": OWNER_DOC, "_id": {"$gte": "uid:0000000000", "$lt": "uid:2147483648"}}
    assert (scan["hint"], dict(scan["sort"]), scan["limit"]) == ("_id_", {"_id": -1}, 1000)
