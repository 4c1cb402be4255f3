"""The connection to one MongoDB database; every command of the store goes through here."""

import asyncio
import contextvars
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

# Read by Motor when it is imported. Each call holds a thread while it waits for the network, so calls per second are at
# most threads / round trip: with a database 3 ms away, 2 threads carry 68 turns a second, 8 carry 270, 16 carry 430
# (measured). Threads start on demand; more than needed cost CPU in switches.
os.environ.setdefault("MOTOR_MAX_WORKERS", "8")

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference, ReturnDocument
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidName,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from service.domain.deadline import remaining_s
from service.domain.entities import SessionKey
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.store.documents import owner_to_doc
from service.store.mongo.schema import ERASURE_INDEXES, PURGE_INDEXES, SESSION_INDEXES, TURN_INDEXES, upgrade

_T = TypeVar("_T")
Doc = dict[str, Any]

# What a session is found by is of no use to those who read it.
BUT_INDEXED: Final[Doc] = {"label_index": 0, "title_index": 0}
_INDEXES_TIMEOUT_S: Final = 30.0
_UPGRADE_TIMEOUT_S: Final = 3600.0
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

_REFUSED: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed, AtlasError."""
PASSING: Final = frozenset(
    {6, 7, 50, 64, 89, 91, 112, 134, 189, 262, 462, 9001, 10107, 11600, 11602, 13435, 13436, 14031}
)
"""Host or network away, time limits, write concern, shutdown, conflict, change of primary, overload, disk full."""


class UnusableUri(ValueError):
    """The URI is malformed; the message says why as far as that cannot show a password. Raised at start only."""


class UnusableDatabaseName(ValueError):
    """MongoDB does not take this name; the message says why. Raised at start only."""


class MongoDatabase:
    """A database, its collections, and how they are read and written."""

    def __init__(self, uri: str, database: str, *, operation_timeout_s: float = 5.0) -> None:
        if operation_timeout_s <= 0:
            raise ValueError("operation_timeout_s must be positive")
        self._uri = uri
        self._database = database
        self._operation_timeout_s = operation_timeout_s
        self._client: Any = None
        self._admin: Any = None
        self._db: Any = None
        self._sessions: Any = None
        self._turns: Any = None
        self._purges: Any = None
        self._erasures: Any = None
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
        self._db = database
        self._admin = client.admin
        self._sessions = database.get_collection("sessions")
        self._turns = database.get_collection("turns")
        self._purges = database.get_collection("purges")
        self._erasures = database.get_collection("erasures")
        self._prepare()

    async def close(self) -> None:
        """Close the connections; calls under way fail. May be called twice."""
        client, self._client = self._client, None
        if self._preparing:
            self._preparing.cancel()
        if client is not None:
            with pymongo.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.to_thread(client.delegate.close)

    async def ping(self) -> None:
        """Return if the store answers and may be written; raises StoreUnavailable."""
        await self._read(self._admin.command, "ping")

    def _is_short_of_time(self) -> bool:
        """Whether a call has a deadline of its own, which is not that of others that it may go with."""
        return remaining_s(self._operation_timeout_s) < self._operation_timeout_s

    async def _insert(self, collection: Any, doc: Doc) -> bool:
        try:
            await self._write(collection.insert_one, doc)
        except DuplicateKeyError:
            return False
        return True

    async def _update(self, condition: Doc, change: Doc) -> bool:
        result = await self._write(self._sessions.update_one, condition, change)
        return bool(result.matched_count)

    async def _update_and_return(self, condition: Doc, change: Doc, **options: Any) -> Doc | None:
        call = self._sessions.find_one_and_update
        doc: Doc | None = await self._write(call, condition, change, return_document=ReturnDocument.AFTER, **options)
        return doc

    async def _find(self, collection: Any, condition: Doc, *, limit: int, **options: Any) -> list[Doc]:
        async def find(session: Any) -> list[Doc]:
            cursor = collection.find(condition, limit=limit, session=session, **{"batch_size": limit, **options})
            docs: list[Doc] = await cursor.to_list(limit)
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
        sent_s = time.monotonic()
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
            waited_s = time.monotonic() - sent_s
            if isinstance(exc.__cause__, NetworkTimeout) and waited_s > self._operation_timeout_s / 2:
                self._drop_idle_connections()
            if isinstance(exc, InvalidOperation) and self._client is None:
                # Closed before the command was sent.
                raise StoreUnavailable("the database is closed") from exc
            raise
        if causality:
            causality.give_back(session)
        return result

    def _drop_idle_connections(self) -> None:
        """Have the next calls make new connections: one has been silent for as long as the service waits.

        What made it so, such as a firewall that lost its state, has often done so to all. PyMongo takes the silence for
        a slow command, keeps the others, and a write would be repeated through each of them in turn.
        """
        if self._client is not None:
            for server in list(self._client.delegate._topology._servers.values()):
                server.pool.reset_without_pause()

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
                await asyncio.gather(
                    self._sessions.create_indexes(SESSION_INDEXES),
                    self._turns.create_indexes(TURN_INDEXES),
                    self._purges.create_indexes(PURGE_INDEXES),
                    self._erasures.create_indexes(ERASURE_INDEXES),
                )
            with pymongo.timeout(_UPGRADE_TIMEOUT_S):
                await upgrade(self._db)
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
        if exc.code in PASSING:
            raise lost("the database did not carry the command out in time") from exc
        raise
    except ConfigurationError as exc:
        # Found out when connecting: a name without servers, a server too old for the driver.
        raise StoreUnavailable("the database's address or version is of no use") from exc


def of_key(key: SessionKey) -> Doc:
    """Return the condition that names one session for good."""
    return {"_id": key.session_id, "uid": key.uid, "owner": owner_to_doc(key.owner)}


def change_of(fields: Doc) -> Doc:
    """Return the update that sets fields, and takes away those that are None."""
    new = {name: value for name, value in fields.items() if value is not None}
    gone = {name: "" for name, value in fields.items() if value is None}
    return {operator: values for operator, values in (("$set", new), ("$unset", gone)) if values}
