"""What the use cases need from outside: a store of sessions and a model.

Each write of the store is one conditional write to one document. It answers matched (True, or the document) or
refused (False, or None); an answer that was lost raises StoreUncertain, and a write that surely did not happen
StoreUnavailable. Reads raise StoreUnavailable. All are bounded by the call's deadline (`deadline.py`) and the store's
own limit. Every write but `insert_session` filters on {session_id, uid}.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.domain.entities import (
    Active,
    Ending,
    FinishReason,
    ModelSettings,
    Role,
    Session,
    Turn,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one process to run a turn: names the turn, and the grant."""

    session_id: str
    uid: str
    turn_id: str
    lease_id: str


class SessionStore(Protocol):
    """Sessions and their turns, kept."""

    async def ping(self) -> None:
        """Return if the store answers and may be written; raises StoreUnavailable."""

    async def insert_session(self, session: Session) -> bool:
        """Insert a new session; False if the id is taken."""

    async def session(self, session_id: str) -> Session | None:
        """Return the session as it is now, deleted and expired ones too."""

    async def turn_by_request(self, uid: str, request_key: str) -> Turn | None:
        """Return the archived turn with this request key."""

    async def turn_by_id(self, uid: str, turn_id: str) -> Turn | None:
        """Return the archived turn with this id."""

    async def turns(
        self, uid: str, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Return archived turns with first_seq_from <= first_seq <= first_seq_to, by first_seq, at most `limit`."""

    async def accept(self, session_id: str, uid: str, fence: int, now: datetime, active: Active) -> bool:
        """Make `active` the session's turn: if its fence is `fence` and it is not deleted or purging, nor expired.

        Expired: expire_time <= now. Sets the session's fence to `active.fence` (= fence + 1) and update_time to now.
        """

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        """Append `part` and set the beat to beat + 1: if turn and lease are as said, it is RUNNING, and at `beat`.

        An empty part is not kept. The answer carries the cancel flag; its parts may be left out.
        """

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        """As `checkpoint`, and give the lease up."""

    async def end(self, lease: Lease, ending: Ending) -> bool:
        """End the turn: if turn and lease are as said and it is RUNNING. Sets last_seq as the ending says."""

    async def archive(self, uid: str, turn: Turn) -> bool:
        """Insert the turn's immutable copy; False if one with its first_seq, id or request key is there already."""

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        """Grant a new lease: if turn, lease and beat are as in `session` and it is RUNNING.

        Sets fence and active.fence to session.fence + 1, attempt + 1, beat 0, not released. Returns the new document.
        """

    async def request_cancel(self, session_id: str, uid: str, turn_id: str) -> bool:
        """Set the cancel flag: if this turn is RUNNING."""

    async def running_sessions(self, limit: int) -> Sequence[Session]:
        """Return sessions that have a RUNNING turn, at most `limit`, in no order."""


@dataclass(frozen=True, slots=True)
class ContextMessage:
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
