"""Sessions in MongoDB; the only module that knows Motor and PyMongo. Any number of processes may share the database.

Writes are acknowledged by a majority, with journal; reads see what a majority has, at the primary. Where the server has
sessions, each read also waits for whatever this process has seen before, also across a change of primaries.

The driver repeats nothing by itself (retryWrites, retryReads off). A repeat of ours is the same write again, its
filter decides, and that works on every server; the driver's would need sessions, would have the server keep an image of
each document it returns, and would blur which attempt an error is about.
"""

import asyncio
import contextvars
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import uuid4

# Read by Motor when it is imported. Each call holds a thread while it waits for the network, so calls per second are at
# most threads / round trip: with a database 3 ms away, 2 threads carry 68 turns a second, 8 carry 270, 16 carry 430
# (measured). Threads start on demand; more than needed cost CPU in switches.
os.environ.setdefault("MOTOR_MAX_WORKERS", "8")

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, IndexModel, ReadPreference, ReturnDocument, UpdateOne
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from service.domain.deadline import remaining_s
from service.domain.entities import Active, Ending, Session, Turn
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.ports import Lease
from service.store.batching import Batcher
from service.store.documents import (
    ENDED,
    RUNNING,
    active_from_doc,
    active_to_doc,
    ending_to_doc,
    session_from_doc,
    session_to_doc,
    turn_from_doc,
    turn_key,
    turn_to_doc,
)

_T = TypeVar("_T")
_Doc = dict[str, Any]

_SESSION_INDEXES: Final = [
    # Holds running sessions only: one small entry made and one dropped per turn.
    IndexModel([("active.state", ASCENDING)], name="running", partialFilterExpression={"active.state": RUNNING}),
]
_TURN_INDEXES: Final = [
    IndexModel([("uid", ASCENDING), ("request_key", ASCENDING)], name="request", unique=True),
    IndexModel([("uid", ASCENDING), ("turn_id", ASCENDING)], name="turn", unique=True),
]
_INDEXES_TIMEOUT_S: Final = 30.0
_CLIENT_OPTIONS: Final[dict[str, Any]] = {
    "appname": "chatsession",
    "retryWrites": False,
    "retryReads": False,
    "tz_aware": False,
    "connectTimeoutMS": 2000,
    "heartbeatFrequencyMS": 1000,
}
# How long calls wait for a primary after the first of them missed it; those after that fail at once.
_PATIENCE_S: Final = 2.5
_CLOSE_TIMEOUT_S: Final = 1.0
_SCAN_BATCH: Final = 200

_DUPLICATE_KEY: Final = 11000
_REFUSED: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed, AtlasError."""
_PASSING: Final = frozenset(
    {6, 7, 50, 64, 89, 91, 112, 134, 189, 262, 462, 9001, 10107, 11600, 11602, 13435, 13436, 14031}
)
"""Host or network away, time limits, write concern, shutdown, conflict, change of primary, overload, disk full."""


_Update = tuple[_Doc, _Doc]
_UNREAD_BY_CHECKPOINT: Final = {"active.parts": 0, "instructions": 0, "labels": 0}


class UnusableUri(ValueError):
    """The URI is malformed; the message says why as far as that cannot show a password. Raised at start only."""


class UnusableDatabaseName(ValueError):
    """MongoDB does not take this name; the message says why. Raised at start only."""


class MongoStore:
    """A SessionStore in a MongoDB database."""

    def __init__(self, uri: str, database: str, *, operation_timeout_s: float = 5.0) -> None:
        if operation_timeout_s <= 0:
            raise ValueError("operation_timeout_s must be positive")
        self._uri = uri
        self._database = database
        self._operation_timeout_s = operation_timeout_s
        self._client: Any = None
        self._admin: Any = None
        self._sessions: Any = None
        self._turns: Any = None
        self._updates = Batcher(
            self._flush_updates, key=lambda update: update[0]["_id"], patience_s=operation_timeout_s
        )
        self._checkpoints = Batcher(
            self._flush_checkpoints, key=lambda checkpoint: checkpoint.lease.session_id, patience_s=operation_timeout_s
        )
        self._archives = Batcher(self._flush_archives, key=lambda doc: doc["_id"], patience_s=operation_timeout_s)
        self._causality: _Causality | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._is_prepared = False
        self._seen_topology: Any = None
        self._away_since_s: float | None = None

    async def open(self) -> None:
        """Connect behind the caller's back: a database that is away is no error here.

        Raises UnusableUri or UnusableDatabaseName.
        """
        client = _client(self._uri)
        try:
            database = client.get_database(
                self._database,
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=WriteConcern("majority", j=True),
            )
        except InvalidName as exc:
            client.close()
            raise UnusableDatabaseName(str(exc)) from exc
        self._client = client
        self._admin = client.admin
        self._sessions = database.get_collection("sessions")
        self._turns = database.get_collection("turns")
        self._prepare()

    async def close(self) -> None:
        """Close the connections; calls under way fail. May be called twice."""
        client, self._client = self._client, None
        if self._preparing:
            self._preparing.cancel()
        if client is not None:
            with pymongo.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.to_thread(client.delegate.close)
        for batcher in (self._updates, self._checkpoints, self._archives):
            await batcher.close()

    async def ping(self) -> None:
        """Return if the store answers and may be written; raises StoreUnavailable."""
        await self._read(self._admin.command, "ping")

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken."""
        return await self._insert(self._sessions, session_to_doc(session))

    async def session(self, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""
        doc = await self._read(self._sessions.find_one, {"_id": session_id})
        return session_from_doc(doc) if doc else None

    async def running_sessions(self, limit: int) -> Sequence[Session]:
        """Return sessions that have a RUNNING turn, at most `limit`, in no order."""
        # They may be thousands: in parts, so that other work goes on meanwhile.
        docs = await self._find(self._sessions, {"active.state": RUNNING}, limit=limit, batch_size=_SCAN_BATCH)
        sessions: list[Session] = []
        for start in range(0, len(docs), _SCAN_BATCH):
            sessions += map(session_from_doc, docs[start : start + _SCAN_BATCH])
            await asyncio.sleep(0)
        return sessions

    async def turn_by_request(self, uid: str, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""
        doc = await self._read(self._turns.find_one, {"uid": uid, "request_key": request_key})
        return turn_from_doc(doc) if doc else None

    async def turn_by_id(self, uid: str, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""
        doc = await self._read(self._turns.find_one, {"uid": uid, "turn_id": turn_id})
        return turn_from_doc(doc) if doc else None

    async def turns(
        self, uid: str, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to in order of first_seq."""
        keys = {"$gte": turn_key(uid, first_seq_from), "$lte": turn_key(uid, first_seq_to)}
        order = [("_id", DESCENDING if newest_first else ASCENDING)]
        docs = await self._find(self._turns, {"_id": keys, "uid": uid}, sort=order, limit=limit, hint="_id_")
        return [turn_from_doc(doc) for doc in docs]

    async def accept(self, session_id: str, uid: str, fence: int, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if its fence is `fence` and it is not deleted, purging or expired."""
        condition = {
            "_id": session_id,
            "uid": uid,
            "fence": fence,
            "deleted_at": None,
            "purging": {"$ne": True},
            "expire_time": {"$not": {"$lte": now}},
        }
        change = {"fence": active.fence, "update_time": now, "active": active_to_doc(active)}
        return await self._update(condition, {"$set": change})

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1; the answer's parts are left out."""
        checkpoint = _Checkpoint(lease, beat, part)
        if self._is_short_of_time():
            return await self._checkpoint_alone(checkpoint)
        return await self._checkpoints.do(checkpoint)

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""
        change = _beat(beat, part)
        change["$set"]["active.released"] = True
        return await self._update({**_held(lease), "active.beat": beat}, change)

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING."""
        change = {
            "$set": {"active.state": ENDED, "active.ending": ending_to_doc(ending), "last_seq": ending.last_seq},
            "$unset": {"active.parts": ""},
        }
        return await self._update(_held(lease), change)

    async def archive(self, uid: str, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if a turn with this first_seq, id or request key is there already."""
        doc = turn_to_doc(uid, turn)
        return await (self._insert(self._turns, doc) if self._is_short_of_time() else self._archives.do(doc))

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING."""
        active = session.active
        if active is None:
            return None
        held = Lease(session.session_id, session.uid, active.turn.turn_id, active.lease_id)
        change = {
            "fence": session.fence + 1,
            "active.fence": session.fence + 1,
            "active.lease_id": lease_id,
            "active.attempt": active.turn.attempt + 1,
            "active.beat": 0,
            "active.released": False,
        }
        doc = await self._update_and_return({**_held(held), "active.beat": active.beat}, {"$set": change})
        return session_from_doc(doc) if doc else None

    async def request_cancel(self, session_id: str, uid: str, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""
        condition = {"_id": session_id, "uid": uid, "active.turn_id": turn_id, "active.state": RUNNING}
        return await self._update(condition, {"$set": {"active.cancel": True}})

    async def _insert(self, collection: Any, doc: _Doc) -> bool:
        try:
            await self._write(collection.insert_one, doc)
        except DuplicateKeyError:
            return False
        return True

    async def _update(self, condition: _Doc, change: _Doc) -> bool:
        if self._is_short_of_time():
            return await self._update_alone(condition, change)
        return await self._updates.do((condition, change))

    def _is_short_of_time(self) -> bool:
        """Whether a call has a deadline of its own, so that it cannot go with others."""
        return remaining_s(self._operation_timeout_s) < self._operation_timeout_s

    async def _update_alone(self, condition: _Doc, change: _Doc) -> bool:
        result = await self._write(self._sessions.update_one, condition, change)
        return bool(result.matched_count)

    async def _flush_updates(self, updates: Sequence[_Update]) -> Sequence[bool | Exception]:
        """Make updates of sessions as one command. Each is a conditional write of its own, in no order.

        The server only says how many matched. If not all did, each carries a mark by which its document is known: those
        found have matched; if as many are found as matched, the others are surely refused, else it is not known.
        """
        if len(updates) == 1:
            return [await _outcome(self._update_alone(*updates[0]))]
        marks = [uuid4().hex for _ in updates]
        writes = [
            UpdateOne(condition, {**change, "$set": {**change["$set"], "mark": mark}})
            for (condition, change), mark in zip(updates, marks, strict=True)
        ]
        try:
            matched = (await self._write(self._sessions.bulk_write, writes, ordered=False)).matched_count
        except Exception as exc:
            return await self._one_by_one(exc, [partial(self._update_alone, *update) for update in updates])
        if matched == len(updates):
            return [True] * matched
        ids = [condition["_id"] for condition, _ in updates]
        docs = await _outcome(self._find(self._sessions, {"_id": {"$in": ids}}, limit=len(ids), projection={"mark": 1}))
        if isinstance(docs, Exception):
            return [StoreUncertain() for _ in updates]
        found = {doc.get("mark") for doc in docs}.intersection(marks)
        return [mark in found or (len(found) != matched and StoreUncertain()) for mark in marks]

    async def _flush_checkpoints(self, checkpoints: "Sequence[_Checkpoint]") -> Sequence[Active | Exception | None]:
        """Make checkpoints as one command, and read what became of them with another."""
        if len(checkpoints) == 1:
            return [await _outcome(self._checkpoint_alone(checkpoints[0]))]
        writes = [UpdateOne(checkpoint.condition, checkpoint.change) for checkpoint in checkpoints]
        try:
            await self._write(self._sessions.bulk_write, writes, ordered=False)
        except Exception as exc:
            return await self._one_by_one(
                exc, [partial(self._checkpoint_alone, checkpoint) for checkpoint in checkpoints]
            )
        ids = [checkpoint.lease.session_id for checkpoint in checkpoints]
        docs = await _outcome(
            self._find(self._sessions, {"_id": {"$in": ids}}, limit=len(ids), projection=_UNREAD_BY_CHECKPOINT)
        )
        if isinstance(docs, Exception):
            return [StoreUncertain() for _ in checkpoints]
        by_id = {doc["_id"]: doc for doc in docs}
        return [checkpoint.found_in(by_id.get(checkpoint.lease.session_id)) for checkpoint in checkpoints]

    async def _checkpoint_alone(self, checkpoint: "_Checkpoint") -> Active | None:
        doc = await self._update_and_return(checkpoint.condition, checkpoint.change, projection=_UNREAD_BY_CHECKPOINT)
        return active_from_doc(doc["active"]) if doc else None

    async def _flush_archives(self, docs: Sequence[_Doc]) -> Sequence[bool | Exception]:
        """Insert turns as one command."""
        if len(docs) == 1:
            return [await _outcome(self._insert(self._turns, docs[0]))]
        try:
            await self._write(self._turns.insert_many, docs, ordered=False)
        except BulkWriteError as exc:
            others = StoreUncertain if exc.details["writeConcernErrors"] else None
            errors = _write_errors(exc)
            return [_inserted(errors.get(index), others) for index in range(len(docs))]
        except Exception as exc:
            return await self._one_by_one(exc, [partial(self._insert, self._turns, doc) for doc in docs])
        return [True] * len(docs)

    async def _one_by_one(
        self, exc: Exception, writes: Sequence[Callable[[], Awaitable[_T]]]
    ) -> Sequence[_T | Exception]:
        """After a command failed as a whole: what that means for each of its writes."""
        if isinstance(exc, StoreUnavailable):
            return [type(exc)(str(exc)) for _ in writes]
        if isinstance(exc, BulkWriteError):
            errors = _write_errors(exc)
            return [errors.get(index) or StoreUncertain() for index in range(len(writes))]
        # One of them cannot be made at all; it alone is to fail.
        return [await _outcome(write()) or StoreUncertain() for write in writes]

    async def _update_and_return(self, condition: _Doc, change: _Doc, **options: Any) -> _Doc | None:
        call = self._sessions.find_one_and_update
        doc: _Doc | None = await self._write(call, condition, change, return_document=ReturnDocument.AFTER, **options)
        return doc

    async def _find(self, collection: Any, condition: _Doc, *, limit: int, **options: Any) -> list[_Doc]:
        async def find(session: Any) -> list[_Doc]:
            cursor = collection.find(condition, limit=limit, session=session, **{"batch_size": limit, **options})
            docs: list[_Doc] = await cursor.to_list(limit)
            return docs

        return await self._read(find) if limit > 0 else []

    async def _read(self, call: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Make a call that may be repeated, once, if its connection breaks."""
        due_s = time.monotonic() + remaining_s(self._operation_timeout_s)
        try:
            return await self._run(StoreUnavailable, due_s, call, *args)
        except StoreUnavailable as exc:
            if not isinstance(exc.__cause__, AutoReconnect):
                raise
            return await self._run(StoreUnavailable, due_s, call, *args)

    async def _write(self, call: Callable[..., Awaitable[_T]], *args: Any, **options: Any) -> _T:
        due_s = time.monotonic() + remaining_s(self._operation_timeout_s)
        return await self._run(StoreUncertain, due_s, call, *args, **options)

    async def _run(
        self,
        lost: type[StoreUnavailable],
        due_s: float,
        call: Callable[..., Awaitable[_T]],
        *args: Any,
        **options: Any,
    ) -> _T:
        await self._reach(due_s)
        causality = self._causality
        session = causality.take() if causality else None
        try:
            # The time counts in Motor's queue as well, as the context is taken along.
            with _translated(lost), pymongo.timeout(_left_s(due_s)):
                result = await call(*args, session=session, **options)
        except Exception as exc:
            # Not on CancelledError: Motor's thread goes on with the session then.
            if causality:
                causality.give_back(session)
            if isinstance(exc.__cause__, ConnectionFailure):
                self._is_prepared, self._seen_topology = False, None
            if isinstance(exc, InvalidOperation) and self._client is None:
                # Closed before the command was sent.
                raise StoreUnavailable("the database is closed") from exc
            raise
        if causality:
            causality.give_back(session)
        return result

    async def _reach(self, due_s: float) -> None:
        """Return when there is a primary with our indexes; raises StoreUnavailable.

        The first calls in an outage wait for its end together, later ones fail at once.
        """
        if self._client is None:
            raise StoreUnavailable("the database is closed")
        topology = self._client.topology_description
        if topology is self._seen_topology:
            return
        left_s = _left_s(due_s)
        if any(server.is_writable for server in topology.server_descriptions().values()):
            self._away_since_s = None
            if self._is_prepared:
                self._seen_topology = topology
                return
        else:
            self._is_prepared = False
            left_s = min(left_s, self._patience_s())
        preparing = self._prepare()
        await asyncio.wait((preparing,), timeout=left_s)
        if not preparing.done() or preparing.cancelled():
            raise StoreUnavailable
        if exc := preparing.exception():
            raise StoreUnavailable(str(exc)) if isinstance(exc, StoreUnavailable) else exc

    def _patience_s(self) -> float:
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        left_s = self._away_since_s + _PATIENCE_S - now_s
        if left_s <= 0:
            raise StoreUnavailable
        return left_s

    def _prepare(self) -> asyncio.Task[None]:
        """Return the one task that waits for the database and makes its indexes, started if it is not under way."""
        if self._preparing is None or self._preparing.done():
            # In a context of its own: no caller's deadline is its deadline.
            task = asyncio.create_task(self._make_ready(), context=contextvars.Context())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._preparing = task
        return self._preparing

    async def _make_ready(self) -> None:
        with _translated(StoreUnavailable):
            with pymongo.timeout(_PATIENCE_S):
                await self._admin.command("ping")
            with pymongo.timeout(_INDEXES_TIMEOUT_S):
                await self._sessions.create_indexes(_SESSION_INDEXES)
                await self._turns.create_indexes(_TURN_INDEXES)
        # mongo-java-server and others that have no sessions do not name a time-out for them.
        if self._causality is None and self._client.topology_description.logical_session_timeout_minutes is not None:
            self._causality = _Causality(self._client.delegate)
        self._away_since_s = None
        self._is_prepared = True


class _Causality:
    """Driver sessions, one for each call under way, each knowing the newest operation time that any of them saw.

    A majority read alone may fall behind an acknowledged write for a moment after a change of primaries.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._idle: list[Any] = []
        self._operation_time: Any = None

    def take(self) -> Any:
        """Return a session to use for one call."""
        session = self._idle.pop() if self._idle else self._client.start_session(causal_consistency=True)
        if self._operation_time is not None:
            session.advance_operation_time(self._operation_time)
        return session

    def give_back(self, session: Any) -> None:
        """Take a session back from a call that is over."""
        seen = session.operation_time
        if seen is not None and (self._operation_time is None or seen > self._operation_time):
            self._operation_time = seen
        self._idle.append(session)


def _client(uri: str) -> Any:
    try:
        with warnings.catch_warnings():
            # An option that PyMongo does not know, or whose value it drops, is only worth a warning to it.
            warnings.simplefilter("error", UserWarning)
            return AsyncIOMotorClient(uri, io_loop=asyncio.get_running_loop(), **_CLIENT_OPTIONS)
    except (ConfigurationError, ValueError, UserWarning) as exc:
        # PyMongo quotes the part that it does not understand, which may be one of the password.
        details = "it holds credentials, so no details" if "@" in uri else str(exc)
        raise UnusableUri(f"not a MongoDB URI: {details}") from None


def _left_s(due_s: float) -> float:
    """Return the time left, which is more than nothing: PyMongo takes zero for no limit."""
    left_s = due_s - time.monotonic()
    if left_s <= 0:
        raise StoreUnavailable("no time left to ask the database")
    return left_s


@contextmanager
def _translated(lost: type[StoreUnavailable]) -> Iterator[None]:
    """Raise what PyMongo's errors mean; `lost` is for a command that may have been carried out.

    Anything else is a fault of ours and stays as it is.
    """
    try:
        yield
    except (ServerSelectionTimeoutError, WaitQueueTimeoutError) as exc:
        raise StoreUnavailable from exc
    except ConnectionFailure as exc:
        raise lost("the connection to the database was lost") from exc
    except WriteConcernError as exc:
        raise lost("the database could not confirm the write") from exc
    except OperationFailure as exc:
        if exc.code in _REFUSED:
            raise StoreUnavailable("the database refuses the service's credentials") from exc
        if exc.code in _PASSING:
            raise lost("the database did not carry the command out in time") from exc
        raise
    except ConfigurationError as exc:
        # Found out when connecting: a name without servers, a server too old for the driver.
        raise StoreUnavailable("the database's address or version is of no use") from exc


async def _outcome(write: Awaitable[_T]) -> _T | Exception:
    """Return what a call returns or raises."""
    try:
        return await write
    except Exception as exc:
        return exc


def _write_errors(exc: BulkWriteError) -> dict[int, Exception]:
    """Return the errors of single writes within a command, by their place."""
    return {error["index"]: _write_error(error) for error in exc.details["writeErrors"]}


def _write_error(error: _Doc) -> Exception:
    code, message = error["code"], error["errmsg"]
    if code == _DUPLICATE_KEY:
        return DuplicateKeyError(message, code)
    return StoreUncertain() if code in _PASSING else OperationFailure(message, code)


def _inserted(error: Exception | None, others: type[StoreUncertain] | None) -> bool | Exception:
    """Return the result of one insert of many; `others`: what stands for those without an error of their own."""
    if error is None:
        return others() if others else True
    return False if isinstance(error, DuplicateKeyError) else error


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """One call of `checkpoint`."""

    lease: Lease
    beat: int
    part: str

    @property
    def condition(self) -> _Doc:
        return {**_held(self.lease), "active.beat": self.beat}

    @property
    def change(self) -> _Doc:
        return _beat(self.beat, self.part)

    def found_in(self, doc: _Doc | None) -> Active | None:
        """Return the active turn if the checkpoint was made: nobody else counts beats under this lease."""
        active = doc.get("active") if doc else None
        if doc is None or active is None or doc["uid"] != self.lease.uid or active["state"] != RUNNING:
            return None
        told = self.lease.turn_id, self.lease.lease_id, self.beat + 1
        return active_from_doc(active) if (active["turn_id"], active["lease_id"], active["beat"]) == told else None


def _held(lease: Lease) -> _Doc:
    return {
        "_id": lease.session_id,
        "uid": lease.uid,
        "active.turn_id": lease.turn_id,
        "active.lease_id": lease.lease_id,
        "active.state": RUNNING,
    }


def _beat(beat: int, part: str) -> _Doc:
    change: _Doc = {"$set": {"active.beat": beat + 1}}
    if part:
        change["$push"] = {"active.parts": part}
    return change
