"""What the use cases need from outside: a store of sessions and a model.

Each write of the store is one conditional write to one document. It answers matched (True, or the document) or
refused (False, or None); an answer that was lost raises StoreUncertain, and a write that surely did not happen
StoreUnavailable. Reads raise StoreUnavailable. All are bounded by the call's deadline (`deadline.py`) and the store's
own limit.

Whatever is done for a caller names the owner: by itself, in a SessionKey, a Lease or a Session. What belongs to another
owner is as if it were not there. Every write but `insert_session` filters on the whole SessionKey {owner, id, uid}.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from service.domain.entities import (
    Active,
    Ending,
    Erasure,
    FinishReason,
    ModelSettings,
    Principal,
    PurgeRecord,
    Role,
    Session,
    SessionKey,
    Turn,
    TurnTexts,
    Usage,
)
from service.domain.ranges import Place, SessionRange, Unlisted

TurnKey = tuple[str, str]
"""A turn anywhere: uid of its session, turn id."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one process to run a turn: names the turn, and the grant."""

    key: SessionKey
    turn_id: str
    lease_id: str


class TurnStore(Protocol):
    """What turns need: the steps of docs/turns.md."""

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""

    async def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to, by first_seq, at most `limit`."""

    async def turn_texts(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int
    ) -> Sequence[TurnTexts]:
        """Return what was said in archived turns, newest first; a range as in `turns`."""

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if fence and settings_version are as in `session`, and it is neither
        deleted nor purging, nor past its expire_time (expire_time <= now).

        Sets the session's fence to `active.fence` (= fence + 1) and update_time to now.
        """

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1: if turn and lease are as said, it is RUNNING, and at `beat`.

        An empty part is not kept. The answer carries the cancel flag; its parts may be left out.
        """

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING.

        Sets last_seq as the ending says, and update_time and idle_since to its end_time.
        """

    async def archive(self, key: SessionKey, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if one with its first_seq, id or request key is there already."""

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING.

        Sets fence and active.fence to session.fence + 1, attempt + 1, beat 0, not released. Returns the new document.
        """

    async def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""

    async def running_sessions(self, limit: int, *, but: Collection[TurnKey] = ()) -> Sequence[Session]:
        """Return sessions of all owners that have a RUNNING turn, but not those turns, at most `limit`, in no order."""


class PurgeStore(Protocol):
    """What removing sessions for good needs (docs/sessions.md). It serves no caller, so sessions are of all owners."""

    async def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        """Return sessions whose look_at has come (<= now), the longest due first, at most `limit`."""

    async def postpone(self, session: Session, look_at: datetime | None) -> bool:
        """Set look_at: if look_at, settings_version, deleted_at and purging are as in `session`."""

    async def start_purge(self, session: Session, look_at: datetime) -> bool:
        """Begin to remove a session: if fence, settings_version, deleted_at and idle_since are as in `session`, and it
        is not purging yet.

        Sets purging, fence + 1, look_at, and no active turn: from now on no write of a turn is matched any more.
        """

    async def delete_turns(self, key: SessionKey, limit: int) -> int:
        """Delete at most `limit` archived turns of a session, and return how many; 0 = there are none."""

    async def delete_session(self, key: SessionKey) -> bool:
        """Delete the document of a session: if it is purging."""

    async def put_purge_record(self, record: PurgeRecord) -> None:
        """Insert the record; one of the same session that is there already is replaced."""

    async def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        """Return records whose time has come (due <= now), the longest due first, at most `limit`."""

    async def delete_purge_record(self, record: PurgeRecord) -> bool:
        """Delete the record: if it is as given, its `due` too."""


class ImportStore(Protocol):
    """What importing needs beside the rest."""

    async def insert_turns(self, key: SessionKey, turns: Sequence[Turn]) -> None:
        """Insert archived turns of a session that nobody knows yet; those that are there already stay as they are."""


class ErasureStore(Protocol):
    """What erasing needs beside the rest."""

    async def insert_erasure(self, erasure: Erasure) -> bool:
        """Insert a new erasure; False if the owner has one of this number."""

    async def erasure(self, owner: Principal, erasure_id: str) -> Erasure | None:
        """Return an erasure."""

    async def latest_erasure(self, owner: Principal) -> Erasure | None:
        """Return the owner's erasure with the highest number."""

    async def due_erasures(self, now: datetime, limit: int) -> Sequence[Erasure]:
        """Return erasures of all owners whose time has come (due <= now), the longest due first, at most `limit`."""

    async def update_erasure(self, changed: Erasure) -> bool:
        """Replace an erasure: if it is the version before `changed.version`."""

    async def count_sessions(self, owner: Principal, created_to: datetime) -> int:
        """Count the sessions with create_time <= created_to, deleted and expired ones too."""

    async def sessions_before(
        self, owner: Principal, created_to: datetime, *, after: Session | None, limit: int
    ) -> Sequence[Session]:
        """Return the sessions with create_time <= created_to, by create_time and id, those behind `after`; also those
        that are deleted, expired or purging.
        """

    async def count_turns(self, key: SessionKey) -> int:
        """Count the archived turns of a session."""


class ListStore(Protocol):
    """What lists need. A listed session is whole but for its newest turn: `active` is there while it runs, without
    texts.
    """

    async def list_sessions(
        self, owner: Principal, wanted: SessionRange, limit: int, unlisted: Unlisted | None = None
    ) -> Sequence[Session | Place]:
        """Return the first sessions of a range, at most `limit`; deleted, expired and purging ones too.

        Reads no more than these from an index, however many sessions there are. Of those that are `unlisted` it may
        return the places only, which is less work.
        """

    async def count_listed(self, owner: Principal, wanted: SessionRange, limit: int) -> int:
        """Count the sessions of a range, up to `limit`; deleted, expired and purging ones too."""

    async def titled_ids(self, owner: Principal, piece: str, limit: int) -> Sequence[str]:
        """Return the ids of sessions whose title has this piece (titles.py), in order, at most `limit`; deleted,
        expired and purging ones too.
        """

    async def listed_sessions(self, owner: Principal, session_ids: Sequence[str]) -> Sequence[Session]:
        """Return those of these sessions that are there; deleted, expired and purging ones too."""


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """An archived turn that a search has come upon. place: for the search to go on behind it; the store's own."""

    key: SessionKey
    turn: Turn
    place: str


class UnknownPlace(Exception):
    """A place to go on from that the store has never answered."""


class SearchStore(Protocol):
    """What searches need."""

    async def find_turns(
        self, owner: Principal, phrases: Sequence[Sequence[str]], *, uid: str, after: str, limit: int
    ) -> tuple[Sequence[FoundTurn], str]:
        """Return archived turns that may have all phrases in one of their messages, newest first, at most `limit`, and
        the place to go on from; empty = nothing follows. Every turn that has them is among those.

        uid: only of this session; empty = of all. after: a place that was answered before; empty = from the newest.
        Raises UnknownPlace.
        """


class SessionStore(TurnStore, PurgeStore, ImportStore, ErasureStore, ListStore, SearchStore, Protocol):
    """Sessions and their turns, kept."""

    async def ping(self) -> None:
        """Return if the store answers and may be written; raises StoreUnavailable."""

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken, by whomever."""

    async def update_session(self, session: Session, changed: Session) -> Session | None:
        """Set title, labels, instructions, settings, expire_time, idle_ttl, idle_since, settings_version, update_time
        and look_at as in `changed`: if settings_version is as in `session`, and it is neither deleted nor purging.

        Returns the new document.
        """

    async def delete(self, session: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        """Set deleted_at and look_at, and the cancel flag of the running turn, if one runs: if fence, settings_version
        and whether a turn runs are as in `session`, and it is neither deleted nor purging. Returns the new document.
        """

    async def undelete(self, session: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        """Unset deleted_at and set idle_since and look_at: if deleted_at is as in `session`, and it is not purging.

        Returns the new document.
        """


class ContextMessage(NamedTuple):
    """One message of what the model is given."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call to the model: the context, oldest first, and resolved settings (model None = the default one)."""

    messages: Sequence[ContextMessage]
    settings: ModelSettings


@dataclass(frozen=True, slots=True)
class Finish:
    """The regular end of an answer."""

    finish_reason: FinishReason
    model: str
    usage: Usage | None = None


class ChatModel(Protocol):
    """A language model."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[str | Finish, None]:
        """Yield pieces of text, none of them empty, and one Finish last.

        Raises ModelError, before or after text. Closing the generator closes the provider's connection at once.
        """
