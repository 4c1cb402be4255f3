"""What is the Mongo store's own: its documents and indexes, lost connections, outages, errors, causality."""

import asyncio
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import bson
import pymongo
import pytest
from pymongo import common, errors
from pymongo.uri_parser import parse_uri

from service.domain import deadline
from service.domain.entities import PurgeRecord
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ranges import SessionRange
from service.store.mongo import MongoStore, UnusableDatabaseName, UnusableUri
from service.store.mongo.connection import _translated
from service.store.mongo.schema import SCHEMA_VERSION
from tests.contract.build import (
    MILLISECOND,
    NOW,
    OWNER,
    a_running_session,
    a_session,
    a_turn,
    an_active,
    an_ending,
    the_lease,
)
from tests.support.mongo_proxy import Command, Fate, MongoProxy, pass_on
from tests.support.proxy import Proxy, Relay
from tests.support.waiting import until

Client = pymongo.MongoClient[dict[str, Any]]

_HANGS_S = 30.0

SESSION = a_running_session()
LEASE = the_lease(SESSION)
IDLE = a_session()
DELETED = a_session(deleted_at=NOW)
PURGING = a_session(purging=True)
RECORD = PurgeRecord(PURGING.key, NOW)
ENDED = a_turn(ending=an_ending())

# Each write, the name of its command, and whether a repeat of one that was applied is refused.
WRITES: dict[str, tuple[Callable[[MongoStore], Awaitable[object]], str, bool]] = {
    "insert_session": (lambda store: store.insert_session(a_session(session_id="new", uid="new")), "insert", True),
    "accept": (lambda store: store.accept(IDLE, NOW, an_active()), "update", True),
    "checkpoint": (lambda store: store.checkpoint(LEASE, 0, "text"), "findAndModify", True),
    "release": (lambda store: store.release(LEASE, 0, "text"), "update", True),
    "end": (lambda store: store.end(LEASE, an_ending()), "update", True),
    "archive": (lambda store: store.archive(SESSION.key, ENDED), "insert", True),
    "take_over": (lambda store: store.take_over(SESSION, "lease2"), "findAndModify", True),
    "request_cancel": (lambda store: store.request_cancel(SESSION.key, "turn1"), "update", False),
    "update_session": (
        lambda store: store.update_session(IDLE, replace(IDLE, title="new", settings_version=2)),
        "findAndModify",
        True,
    ),
    "delete": (lambda store: store.delete(IDLE, NOW, NOW), "findAndModify", True),
    "undelete": (lambda store: store.undelete(DELETED, NOW, None), "findAndModify", True),
    "postpone": (lambda store: store.postpone(IDLE, NOW), "update", True),
    "start_purge": (lambda store: store.start_purge(IDLE, NOW), "update", True),
    "delete_session": (lambda store: store.delete_session(PURGING.key), "delete", True),
    "delete_purge_record": (lambda store: store.delete_purge_record(RECORD), "delete", True),
}
READS: dict[str, Callable[[MongoStore], Awaitable[object]]] = {
    "session": lambda store: store.session(OWNER, SESSION.session_id),
    "turn_by_id": lambda store: store.turn_by_id(SESSION.key, "turn1"),
    "turn_by_request": lambda store: store.turn_by_request(SESSION.key, "c:1"),
    "turns": lambda store: store.turns(SESSION.key, first_seq_from=1, first_seq_to=9, limit=9),
    "turn_texts": lambda store: store.turn_texts(SESSION.key, first_seq_from=1, first_seq_to=9, limit=9),
    "running_sessions": lambda store: store.running_sessions(9),
    "due_sessions": lambda store: store.due_sessions(NOW, 9),
    "due_purge_records": lambda store: store.due_purge_records(NOW, 9),
}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMongo looks for a lost server every half second; tests need not wait so long."""
    monkeypatch.setattr(common, "MIN_HEARTBEAT_INTERVAL", 0.05)


@pytest.fixture
async def proxy(mongo_uri: str) -> AsyncIterator[Proxy]:
    [(host, port), *_] = parse_uri(mongo_uri)["nodelist"]
    async with Proxy(host, port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy, mongo_database: str) -> AsyncIterator[MongoStore]:
    """A store behind the proxy, with one running and one idle session in it."""
    store = _store(proxy, mongo_database)
    await store.open()
    for session in (SESSION, IDLE, DELETED, PURGING):
        assert await store.insert_session(session)
    await store.put_purge_record(RECORD)
    yield store
    proxy.let_go()
    await store.close()


def _store(proxy: Relay, database: str, **options: Any) -> MongoStore:
    return MongoStore(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", database, **options)


def _is(command: str) -> Callable[[bytes], bool]:
    return lambda piece: b"\x02" + command.encode() + b"\x00" in piece


class _LostAnswer:
    """Lets a command through and cuts the connection in place of its answer, once."""

    def __init__(self, proxy: Proxy, command: str) -> None:
        self._is_command = _is(command)
        self._awaited = False
        self.times = 0
        proxy.on_request, proxy.on_response = self.request, self.response

    def request(self, piece: bytes) -> bool:
        self._awaited = self._awaited or (not self.times and self._is_command(piece))
        return False

    def response(self, piece: bytes) -> bool:
        if self._awaited and b"ismaster" not in piece:
            self._awaited = False
            self.times += 1
            return True
        return False


async def _until_it_answers(store: MongoStore) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.ping()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


# Documents and indexes


async def test_documents_have_their_documented_shape(
    store: MongoStore, mongo_client: Client, mongo_database: str
) -> None:
    session = a_running_session(parts=("one",))
    await store.insert_session(replace(session, title="Title", labels={"a.b": "c"}, deleted_at=NOW))
    await store.archive(session.key._replace(uid="uid"), replace(ENDED, first_seq=12))
    doc = mongo_client[mongo_database].sessions.find_one({"_id": session.session_id})
    assert doc
    assert set(doc) == {
        *("_id", "uid", "owner", "last_seq", "fence", "deleted_at", "settings", "active"),
        *("title", "title_index", "labels", "label_index", "create_time", "update_time", "settings_version"),
    }
    assert doc["title_index"] == ["tit", "itl", "tle"]
    assert doc["owner"] == {"tenant": "tenant", "subject": "subject"}
    assert doc["labels"] == [["a.b", "c"]]
    assert set(doc["active"]) == {
        *("turn_id", "request_key", "user_text", "sent_settings", "settings", "first_seq", "on_disconnect"),
        *("deadline", "state", "lease_id", "fence", "attempt", "beat", "released", "cancel", "parts", "create_time"),
        "settings_version",
    }
    turn_doc = mongo_client[mongo_database].turns.find_one({"uid": "uid"})
    assert turn_doc
    assert turn_doc["_id"] == "uid:0000000012"
    assert set(turn_doc["ending"]) == {
        *("state", "text", "n", "last_seq", "fence", "end_time", "finish_reason", "usage", "model"),
    }


async def test_end_leaves_no_parts(store: MongoStore, mongo_client: Client, mongo_database: str) -> None:
    assert await store.checkpoint(LEASE, 0, "text")
    assert await store.end(LEASE, an_ending())
    doc = mongo_client[mongo_database].sessions.find_one({"_id": SESSION.session_id})
    assert doc
    assert "parts" not in doc["active"]
    assert doc["active"]["state"] == "ENDED"


async def test_fields_of_a_later_release_are_ignored_and_kept(
    store: MongoStore, mongo_client: Client, mongo_database: str
) -> None:
    sessions = mongo_client[mongo_database].sessions
    later = {"new": 1, "active.new": {"a": 1}, "settings.new": 3, "active.settings.new": 4}
    sessions.update_one({"_id": SESSION.session_id}, {"$set": later})
    assert await store.session(OWNER, SESSION.session_id) == SESSION
    assert await store.checkpoint(LEASE, 0, "text")
    assert await store.end(LEASE, an_ending())
    doc = sessions.find_one({"_id": SESSION.session_id})
    assert doc
    assert doc["new"] == 1
    assert doc["active"]["new"] == {"a": 1}


async def test_null_fields_are_as_good_as_absent_ones(
    store: MongoStore, mongo_client: Client, mongo_database: str
) -> None:
    nulls = {"deleted_at": None, "expire_time": None, "active": None, "purging": False}
    mongo_client[mongo_database].sessions.update_one({"_id": IDLE.session_id}, {"$set": nulls})
    assert await store.session(OWNER, IDLE.session_id) == IDLE
    assert await store.accept(IDLE, NOW, an_active())


async def test_the_indexes_are_there(store: MongoStore, mongo_client: Client, mongo_database: str) -> None:
    database = mongo_client[mongo_database]
    turns = database.turns.index_information()
    assert {name: (index["key"], index.get("unique", False)) for name, index in turns.items() if name != "_id_"} == {
        "request": ([("uid", 1), ("request_key", 1)], True),
        "turn": ([("uid", 1), ("turn_id", 1)], True),
        "words": ([("owner", 1), ("words", 1), ("create_time", 1), ("_id", 1)], False),
    }
    sessions = database.sessions.index_information()
    assert {name: index["key"] for name, index in sessions.items() if "by_" in name or name == "titles"} == {
        "by_update_time": [("owner", 1), ("update_time", 1), ("_id", 1)],
        "by_create_time": [("owner", 1), ("create_time", 1), ("_id", 1)],
        "labels_by_update_time": [("owner", 1), ("label_index", 1), ("update_time", 1), ("_id", 1)],
        "labels_by_create_time": [("owner", 1), ("label_index", 1), ("create_time", 1), ("_id", 1)],
        # No time: a turn moves nothing here.
        "titles": [("owner", 1), ("title_index", 1), ("_id", 1)],
    }


async def test_documents_of_the_first_release_get_what_they_are_found_by(
    store: MongoStore, mongo_uri: str, mongo_client: Client, mongo_database: str
) -> None:
    database = mongo_client[mongo_database]
    assert database.meta.find_one() == {"_id": "schema", "version": SCHEMA_VERSION}
    await store.archive(SESSION.key, ENDED)
    labelled, titled = a_session(labels={"a": "b"}), a_session(title="A title")
    for session in (labelled, titled):
        assert await store.insert_session(session)
    database.sessions.update_many({}, {"$unset": {"label_index": "", "title_index": ""}})
    gone = ("owner", "session_id", "settings_version", "words")
    database.turns.update_many({}, {"$unset": dict.fromkeys(gone, "")})
    database.meta.delete_many({})
    assert await store.turn_by_id(SESSION.key, "turn1") is None
    for _ in range(2):
        again = MongoStore(mongo_uri, mongo_database)
        await again.open()
        assert await again.turn_by_id(SESSION.key, "turn1") == ENDED
        [found], _ = await again.find_turns(OWNER, [("question", "1")], uid="", after="", limit=9)
        assert (found.key, found.turn) == (SESSION.key, ENDED)
        for label in (("a",), ("a", "b")):
            wanted = SessionRange("create_time", newest_first=True, label=label)
            assert await again.list_sessions(OWNER, wanted, 9) == [labelled]
        assert await again.titled_ids(OWNER, "tit", 9) == [titled.session_id]
        await again.close()
    assert database.meta.find_one() == {"_id": "schema", "version": SCHEMA_VERSION}


# Lost connections


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_was_lost_is_uncertain_and_its_repeat_matches(
    store: MongoStore, proxy: Proxy, name: str
) -> None:
    write, command, _ = WRITES[name]
    proxy.on_request = _is(command)
    with pytest.raises(StoreUncertain):
        await write(store)
    proxy.on_request = lambda _: False
    await _until_it_answers(store)
    assert await write(store)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_answer_was_lost_is_uncertain_and_its_repeat_is_refused(
    store: MongoStore, proxy: Proxy, name: str
) -> None:
    write, command, is_refused = WRITES[name]
    fault = _LostAnswer(proxy, command)
    with pytest.raises(StoreUncertain):
        await write(store)
    assert fault.times == 1
    await _until_it_answers(store)
    assert bool(await write(store)) is not is_refused


@pytest.mark.parametrize("name", READS)
async def test_a_read_whose_answer_was_lost_is_made_again(store: MongoStore, proxy: Proxy, name: str) -> None:
    expected = await READS[name](store)
    fault = _LostAnswer(proxy, "find")
    assert await READS[name](store) == expected
    assert fault.times == 1


@pytest.mark.parametrize("name", READS)
async def test_a_read_that_is_lost_again_is_unavailable(store: MongoStore, proxy: Proxy, name: str) -> None:
    proxy.on_request = _is("find")
    with pytest.raises(StoreUnavailable) as caught:
        await READS[name](store)
    assert not isinstance(caught.value, StoreUncertain)


async def test_connections_cut_while_idle_do_no_harm_to_reads(store: MongoStore, proxy: Proxy) -> None:
    for _ in range(3):
        proxy.cut()
        assert await store.session(OWNER, SESSION.session_id) == SESSION


# A database that hangs, or is away


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_to_a_hanging_database_is_uncertain_in_time(proxy: Proxy, mongo_database: str, name: str) -> None:
    store = _store(proxy, mongo_database, operation_timeout_s=0.5)
    await store.open()
    await store.ping()
    proxy.hold()
    async with asyncio.timeout(_HANGS_S):
        answers = await asyncio.gather(*(WRITES[name][0](store) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert any(isinstance(answer, StoreUncertain) for answer in answers)
    proxy.let_go()
    await store.close()


async def test_when_one_connection_is_dead_the_others_are_not_tried_in_turn(
    mongo_uri: str, mongo_database: str
) -> None:
    """The driver does not notice that by itself: new connections work, and so do those by which it looks."""
    [(host, port), *_] = parse_uri(mongo_uri)["nodelist"]
    together = asyncio.Barrier(4)

    async def at_once(command: Command) -> Fate:
        if command.name == "find":
            await together.wait()
        return Fate.PASS

    async with MongoProxy(host, port) as proxy:
        store = _store(proxy, mongo_database, operation_timeout_s=2)
        await store.open()
        try:
            await store.insert_session(IDLE)
            proxy.rule = at_once
            await asyncio.gather(*(store.turn_by_id(IDLE.key, f"turn{n}") for n in range(together.parties)))
            proxy.rule = pass_on
            assert proxy.silence() >= together.parties
            with pytest.raises(StoreUncertain):
                await store.accept(IDLE, NOW, an_active())
            assert await store.accept(IDLE, NOW, an_active())
        finally:
            await store.close()


async def test_a_read_from_a_hanging_database_ends_with_the_callers_deadline(proxy: Proxy, mongo_database: str) -> None:
    store = _store(proxy, mongo_database, operation_timeout_s=10 * _HANGS_S)
    await store.open()
    await store.ping()
    proxy.hold()
    async with asyncio.timeout(_HANGS_S):
        with deadline.scope(asyncio.get_running_loop().time() + 0.3), pytest.raises(StoreUnavailable):
            await store.session(OWNER, "id")
    proxy.let_go()
    await store.close()


async def test_a_late_write_is_carried_out_and_its_repeat_is_refused(
    store: MongoStore, proxy: Proxy, mongo_client: Client, mongo_database: str
) -> None:
    proxy.hold()
    with deadline.scope(asyncio.get_running_loop().time() + 0.2), pytest.raises(StoreUncertain):
        await store.end(LEASE, an_ending())
    proxy.let_go()
    await _until_it_answers(store)
    await store.end(LEASE, an_ending())
    assert await store.end(LEASE, an_ending()) is False
    found = await store.session(OWNER, SESSION.session_id)
    assert found
    assert found.active == an_active().ended(an_ending())


async def test_a_dead_port_does_not_fail_the_start_and_is_found_out_soon(proxy: Proxy, mongo_database: str) -> None:
    await proxy.down()
    store = _store(proxy, mongo_database)
    await store.open()
    calls = [store.ping(), *(READS[name](store) for name in READS), *(write(store) for write, _, _ in WRITES.values())]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    await until(lambda: _is_refused_without_waiting(store))
    await store.close()


async def _is_refused_without_waiting(store: MongoStore) -> bool:
    ping = store.ping()
    try:
        ping.send(None)  # as far as it comes without giving way to anything
    except StoreUnavailable:
        return True
    ping.close()
    return False


async def test_a_call_to_a_dead_port_ends_with_the_callers_deadline(
    proxy: Proxy, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.mongo.connection._PATIENCE_S", 10 * _HANGS_S)
    await proxy.down()
    store = _store(proxy, mongo_database, operation_timeout_s=10 * _HANGS_S)
    await store.open()
    async with asyncio.timeout(_HANGS_S):
        with deadline.scope(asyncio.get_running_loop().time() + 0.2), pytest.raises(StoreUnavailable):
            await store.session(OWNER, "id")
    await store.close()


async def test_a_database_that_comes_late_is_used_and_gets_its_indexes(
    proxy: Proxy, mongo_client: Client, mongo_database: str
) -> None:
    await proxy.down()
    store = _store(proxy, mongo_database)
    await store.open()
    with deadline.scope(asyncio.get_running_loop().time() + 0.1), pytest.raises(StoreUnavailable):
        await store.ping()
    await proxy.up()
    await _until_it_answers(store)
    assert {"request", "turn"} <= set(mongo_client[mongo_database].turns.index_information())
    await store.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.mongo.connection._PATIENCE_S", 0.3)


@pytest.mark.usefixtures("_impatient")
async def test_after_an_outage_everything_goes_on(
    store: MongoStore, proxy: Proxy, mongo_client: Client, mongo_database: str
) -> None:
    await proxy.down()
    with pytest.raises(StoreUnavailable):
        await store.session(OWNER, SESSION.session_id)
    # As if the database had lost them.
    for name in ("request", "turn"):
        mongo_client[mongo_database].turns.drop_index(name)
    await proxy.up()
    await _until_it_answers(store)
    assert await store.session(OWNER, SESSION.session_id) == SESSION
    assert await store.end(LEASE, an_ending())
    assert {"request", "turn"} <= set(mongo_client[mongo_database].turns.index_information())


@pytest.mark.usefixtures("_impatient")
async def test_in_an_outage_writes_are_surely_not_applied_once_it_is_known(store: MongoStore, proxy: Proxy) -> None:
    await proxy.down()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(StoreUnavailable) as caught:
        await store.end(LEASE, an_ending())
    assert not isinstance(caught.value, StoreUncertain)


async def test_close_does_not_wait_for_a_hanging_database(proxy: Proxy, mongo_database: str) -> None:
    store = _store(proxy, mongo_database, operation_timeout_s=10 * _HANGS_S)
    await store.open()
    await store.ping()
    proxy.hold()
    call = asyncio.ensure_future(store.session(OWNER, "id"))
    await asyncio.sleep(0)
    async with asyncio.timeout(_HANGS_S):
        await store.close()
    proxy.let_go()
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        await call


async def test_a_call_that_waits_for_the_database_ends_with_the_store(proxy: Proxy, mongo_database: str) -> None:
    await proxy.down()
    store = _store(proxy, mongo_database)
    await store.open()
    call = asyncio.ensure_future(store.session(OWNER, "id"))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await call


async def test_a_host_that_does_not_exist_is_unavailable(mongo_database: str) -> None:
    for uri in ("mongodb://nowhere.invalid", "mongodb+srv://nowhere.invalid"):
        store = MongoStore(uri, mongo_database)
        await store.open()
        with deadline.scope(asyncio.get_running_loop().time() + 1), pytest.raises(StoreUnavailable):
            await store.ping()
        await store.close()


@pytest.mark.parametrize(
    ("uri", "details"),
    [
        ("http://localhost", "Invalid URI scheme"),
        ("mongodb://", "hostname"),
        ("mongodb://localhost:port", "Port"),
        ("mongodb://localhost/?colour=red", "Unknown option: colour"),
        ("mongodb://localhost/?connectTimeoutMS=soon", "must be a"),
    ],
)
async def test_a_malformed_uri_fails_the_start(uri: str, details: str) -> None:
    with pytest.raises(UnusableUri, match=details):
        await MongoStore(uri, "name").open()


@pytest.mark.parametrize(
    "uri",
    ["mongodb://me:12/Secret$@127.0.0.1", "mongodb://me:Secret@h:p", "mongodb://me:%Secret@h", "http://me:Secret@h"],
)
async def test_a_malformed_uri_does_not_show_its_password(uri: str) -> None:
    with pytest.raises(UnusableUri) as caught:
        await MongoStore(uri, "name").open()
    assert "Secret" not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "$a"])
async def test_a_bad_database_name_fails_the_start(name: str) -> None:
    with pytest.raises(UnusableDatabaseName):
        await MongoStore("mongodb://127.0.0.1:1", name).open()


# Errors


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (errors.ServerSelectionTimeoutError("no server"), StoreUnavailable),
        (errors.WaitQueueTimeoutError("pool"), StoreUnavailable),
        (errors.OperationFailure("auth", 18), StoreUnavailable),
        (errors.OperationFailure("not allowed", 13), StoreUnavailable),
        (errors.AutoReconnect("reset"), StoreUncertain),
        (errors.NetworkTimeout("slow"), StoreUncertain),
        (errors.ConnectionFailure("gone"), StoreUncertain),
        (errors.NotPrimaryError("stepped down"), StoreUncertain),
        (errors.WTimeoutError("majority", 64), StoreUncertain),
        (errors.WriteConcernError("majority", 100), StoreUncertain),
        (errors.ExecutionTimeout("late", 50), StoreUncertain),
        (errors.OperationFailure("shutting down", 91), StoreUncertain),
        (errors.OperationFailure("interrupted", 11602), StoreUncertain),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_are_translated(exc: Exception, expected: type[StoreUnavailable]) -> None:
    with pytest.raises(StoreUnavailable) as caught, _translated(StoreUncertain):
        raise exc
    assert type(caught.value) is expected
    assert caught.value.__cause__ is exc


@pytest.mark.parametrize(
    "exc",
    [
        errors.OperationFailure("bad command", 9),
        errors.OperationFailure("no such command", 59),
        errors.DuplicateKeyError("taken", 11000),
        errors.DocumentTooLarge("16 MiB"),
        errors.InvalidOperation("wrong use"),
        KeyError("bug"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_faults_of_ours_are_not_masked(exc: Exception) -> None:
    with pytest.raises(type(exc)), _translated(StoreUncertain):
        raise exc


# Causality. The Java server has no sessions, so the proxy pretends that it has.


def _as_replica_set(piece: bytes, operation_time: bson.Timestamp) -> bytes:
    """Return a server's answer with what a server with sessions adds to it."""
    _, request_id, response_to, opcode = struct.unpack_from("<iiii", piece)
    head = {1: 36, 2013: 21}[opcode]
    doc = bson.decode(piece[head:])
    doc |= {"operationTime": operation_time, "logicalSessionTimeoutMinutes": 30}
    body = piece[16:head] + bson.encode(doc)
    return struct.pack("<iiii", 16 + len(body), request_id, response_to, opcode) + body


async def test_a_read_waits_for_whatever_was_seen_before(proxy: Proxy, mongo_database: str) -> None:
    clock = 100
    requests: list[dict[str, Any]] = []

    def answer(piece: bytes) -> bytes:
        return _as_replica_set(piece, bson.Timestamp(clock, 1))

    def record(piece: bytes) -> bool:
        if struct.unpack_from("<i", piece, 12) == (2013,):
            requests.append(bson.decode(piece[21 : 21 + struct.unpack_from("<i", piece, 21)[0]]))
        return False

    proxy.rewrite_response, proxy.on_request = answer, record
    store = _store(proxy, mongo_database)
    await store.open()
    await store.ping()

    requests.clear()
    clock = 200
    assert await store.insert_session(IDLE)
    # Several at once take several sessions; all of them know what the insert has seen.
    assert await asyncio.gather(*(store.turn_by_id(IDLE.key, f"turn{n}") for n in range(4))) == [None] * 4
    assert len(await store.running_sessions(9)) == 0
    await store.close()

    [insert] = [request for request in requests if "insert" in request]
    finds = [request for request in requests if "find" in request]
    assert insert["writeConcern"] == {"w": "majority", "j": True}
    assert "lsid" in insert
    assert "txnNumber" not in insert
    assert len(finds) == 5
    for find in finds:
        assert find["readConcern"] == {"level": "majority", "afterClusterTime": bson.Timestamp(200, 1)}
        assert "lsid" in find


async def test_an_expiry_is_compared_to_the_millisecond(store: MongoStore) -> None:
    session = a_session(expire_time=NOW + MILLISECOND)
    assert await store.insert_session(session)
    assert not await store.accept(session, NOW + MILLISECOND, an_active())
    assert await store.accept(session, NOW, an_active())


# Many calls as one command


async def test_a_write_that_cannot_be_made_fails_alone(store: MongoStore) -> None:
    sessions = [replace(SESSION, session_id=f"together{n}", uid=f"uid{n}", active=None, fence=0) for n in range(6)]
    for session in sessions:
        assert await store.insert_session(session)
    good, bad = an_active(fence=1), an_active(fence=2**70)  # no number of BSON
    answers = await asyncio.gather(
        *(store.accept(s, NOW, bad if n == 3 else good) for n, s in enumerate(sessions)),
        return_exceptions=True,
    )
    assert isinstance(answers[3], OverflowError)
    assert [answer for n, answer in enumerate(answers) if n != 3] == [True] * 5


async def test_of_many_writes_whose_answer_is_lost_each_is_uncertain(store: MongoStore, proxy: Proxy) -> None:
    sessions = [replace(SESSION, session_id=f"lost{n}", uid=f"uid{n}", active=None, fence=0) for n in range(6)]
    for session in sessions:
        assert await store.insert_session(session)
    _LostAnswer(proxy, "update")
    answers = await asyncio.gather(*(store.accept(s, NOW, an_active()) for s in sessions), return_exceptions=True)
    assert all(isinstance(answer, StoreUncertain) for answer in answers)
    await _until_it_answers(store)
    found = [await store.session(session.owner, session.session_id) for session in sessions]
    assert [session.active for session in found if session] == [an_active()] * 6


@pytest.mark.parametrize("left_s", [None, 2.0], ids=["any time", "a deadline"])
async def test_many_looks_are_one_command(store: MongoStore, proxy: Proxy, left_s: float | None) -> None:
    finds = 0

    def count(piece: bytes) -> bool:
        nonlocal finds
        finds += _is("find")(piece)
        return False

    proxy.on_request = count
    asked = [SESSION, IDLE, DELETED, IDLE, PURGING]
    with deadline.scope(left_s and asyncio.get_running_loop().time() + left_s):
        assert await asyncio.gather(*(store.session(OWNER, session.session_id) for session in asked)) == asked
    assert finds == 1


async def test_of_many_looks_each_ends_with_its_own_deadline(store: MongoStore, proxy: Proxy) -> None:
    proxy.hold()

    async def look(left_s: float) -> None:
        with deadline.scope(asyncio.get_running_loop().time() + left_s), pytest.raises(StoreUnavailable):
            await store.session(OWNER, IDLE.session_id)

    later, soon = (asyncio.create_task(look(left_s)) for left_s in (0.9, 0.1))
    done, _ = await asyncio.wait((later, soon), return_when=asyncio.FIRST_COMPLETED)
    assert done == {soon}
    await asyncio.gather(later, soon)
    proxy.let_go()


async def test_a_session_that_cannot_be_asked_for_fails_alone(store: MongoStore) -> None:
    ids = [IDLE.session_id, "\ud800", SESSION.session_id]  # no text of BSON
    first, bad, last = await asyncio.gather(*(store.session(OWNER, id_) for id_ in ids), return_exceptions=True)
    assert (first, last) == (IDLE, SESSION)
    assert isinstance(bad, UnicodeError)


async def test_many_looks_at_a_database_that_is_away_are_unavailable(store: MongoStore, proxy: Proxy) -> None:
    proxy.on_request = _is("find")
    answers = await asyncio.gather(*(store.session(OWNER, f"s{n}") for n in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
