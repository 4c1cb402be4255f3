"""The nouns of the service, as values. Times are aware datetimes in UTC, whole milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import time_ns
from typing import NamedTuple, Self


class TurnState(StrEnum):
    """How a turn stands; all but RUNNING are endings."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "STOP"
    MAX_OUTPUT_TOKENS = "MAX_OUTPUT_TOKENS"
    CONTENT_FILTER = "CONTENT_FILTER"
    PROVIDER_CUT = "PROVIDER_CUT"


class OnBusy(StrEnum):
    """What a send does when another turn runs."""

    QUEUE = "QUEUE"
    REJECT = "REJECT"
    INTERRUPT = "INTERRUPT"


class OnDisconnect(StrEnum):
    """What becomes of a turn when the last of its callers leaves."""

    CONTINUE = "CONTINUE"
    CANCEL = "CANCEL"


class Role(StrEnum):
    """Who said a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    tenant: str
    subject: str


ANONYMOUS = Principal("default", "anonymous")


class SessionKey(NamedTuple):
    """Names one session for good: whose it is, its id, and which creation under this id (see Session.uid)."""

    owner: Principal
    session_id: str
    uid: str


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of the model; None (or no stop sequence) leaves the decision to the next in line."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()

    def over(self, base: "ModelSettings") -> "ModelSettings":
        """Return these settings, with what they leave open taken from `base`."""
        if self == _NO_SETTINGS:
            return base
        mine = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, ())}
        return replace(base, **mine)


_NO_SETTINGS = ModelSettings()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the provider reported them; None = not reported."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn FAILED: the reason of its ChatError, and its message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn is over. Decided once; every repeat of the write carries the same values.

    message_count: 2 if the model completed or said anything, else 1 (the user message alone).
    fence: of the lease that decided it; cursors compare it.
    """

    state: TurnState
    text: str
    message_count: int
    last_seq: int
    fence: int
    end_time: datetime
    finish_reason: FinishReason | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    model: str | None = None


class TurnTexts(NamedTuple):
    """What was said in a turn. answer: empty if there is none."""

    turn_id: str
    request_key: str
    first_seq: int
    user_text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message and its answer: what is fixed at acceptance, and the ending once there is one.

    request_key: `c:` + the caller's request id, or `s:` + turn_id where there is none. Unique in a session.
    sent_settings: the settings as the caller sent them; with `user_text` they tell a repeat from another request.
    settings: those in force, resolved. settings_version: of the session's settings among them.
    """

    turn_id: str
    request_key: str
    user_text: str
    sent_settings: ModelSettings
    settings: ModelSettings
    first_seq: int
    attempt: int
    create_time: datetime
    ending: Ending | None = None
    settings_version: int = 1

    @property
    def request_id(self) -> str | None:
        """The caller's request id, or None."""
        return self.request_key[2:] if self.request_key.startswith("c:") else None

    @property
    def last_seq(self) -> int:
        """Number of the turn's newest message; the user message while it runs."""
        return self.ending.last_seq if self.ending else self.first_seq

    @property
    def texts(self) -> TurnTexts:
        """What was said in it so far."""
        answer = self.ending.text if self.ending else ""
        return TurnTexts(self.turn_id, self.request_key, self.first_seq, self.user_text, answer)

    def same_request(self, user_text: str, sent_settings: ModelSettings) -> bool:
        """Whether a send with these fields is a repeat of this turn's."""
        return self.user_text == user_text and self.sent_settings == sent_settings


@dataclass(frozen=True, slots=True)
class Active:
    """The newest turn of a session with its lease, as it stands in the session document.

    lease_id: random for each grant. beat: grows with each checkpoint. parts: saved pieces of the answer.
    released: the owner gave it up; anyone may take it at once. cancel: somebody asked for the end.
    """

    turn: Turn
    on_disconnect: OnDisconnect
    deadline: datetime
    lease_id: str
    fence: int
    beat: int = 0
    released: bool = False
    cancel: bool = False
    parts: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether the turn has no ending yet."""
        return self.turn.ending is None

    def ended(self, ending: Ending) -> Self:
        """Return this with its ending set and its parts gone."""
        return replace(self, turn=replace(self.turn, ending=ending), parts=())


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its document says.

    uid: random for each creation; a re-created id is another session.
    fence: grows with each lease; ACCEPT checks it.
    last_seq: number of the newest message of all ended turns.
    settings_version: grows with each change of the settings; the etag is made of it.
    idle_since: since when no turn has run, while none runs, or when idle_ttl was set; None = since it was created.
    fingerprint: of the request that created it, where that chose the id.
    import_time: when it was imported, if it was: create_time is then older than the session is here.
    look_at: when the purger has to look at it next; never later than when there is something to do; None = never.
    """

    session_id: str
    uid: str
    owner: Principal
    create_time: datetime
    update_time: datetime
    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    instructions: str = ""
    settings: ModelSettings = _NO_SETTINGS
    expire_time: datetime | None = None
    idle_ttl: timedelta | None = None
    last_seq: int = 0
    fence: int = 0
    settings_version: int = 1
    deleted_at: datetime | None = None
    purging: bool = False
    active: Active | None = None
    idle_since: datetime | None = None
    fingerprint: str = ""
    import_time: datetime | None = None
    look_at: datetime | None = None

    @property
    def key(self) -> SessionKey:
        """What names it for good."""
        return SessionKey(self.owner, self.session_id, self.uid)

    @property
    def etag(self) -> str:
        """Weak entity tag of the settings, with its quotes."""
        return f'W/"{self.uid[:8]}-{self.settings_version}"'

    @property
    def running(self) -> Active | None:
        """The running turn, or None."""
        return self.active if self.active and self.active.is_running else None


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """A promise to delete all turns of a session, kept apart from it, so that it outlives the session.

    due: when they are to be deleted (again): late enough for all writes that were on their way to have landed.
    """

    key: SessionKey
    due: datetime


class ErasureState(StrEnum):
    """How an erasure stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"


class CountedSession(NamedTuple):
    """A session that is being erased, and how many turns go with it."""

    key: SessionKey
    turns: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasing of all sessions that an owner had when it began. end_time None = under way.

    number: of the owner's erasures, from 1.
    pending: what is being erased, counted before; it counts once it is gone, whoever has seen to that.
    version: grows with each write. due: from when on any process may go on with it.
    """

    erasure_id: str
    owner: Principal
    number: int
    create_time: datetime
    sessions_total: int
    due: datetime | None
    version: int = 1
    sessions_erased: int = 0
    turns_erased: int = 0
    pending: tuple[CountedSession, ...] = ()
    end_time: datetime | None = None

    @property
    def state(self) -> ErasureState:
        """How it stands."""
        return ErasureState.RUNNING if self.end_time is None else ErasureState.DONE


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a session's history."""

    role: Role
    content: str
    seq: int
    turn_id: str
    create_time: datetime
    turn_state: TurnState


def messages_of(turn: Turn) -> list[Message]:
    """Return the messages that a turn has put into the history: the user's, and the answer once the turn is over."""
    ending = turn.ending
    state = ending.state if ending else TurnState.RUNNING
    messages = [Message(Role.USER, turn.user_text, turn.first_seq, turn.turn_id, turn.create_time, state)]
    if ending and ending.message_count > 1:
        messages.append(Message(Role.ASSISTANT, ending.text, ending.last_seq, turn.turn_id, ending.end_time, state))
    return messages


def utc_now() -> datetime:
    """Return the time in whole milliseconds, as every store keeps it."""
    # Rounded to the microsecond, so that milliseconds stay whole.
    return datetime.fromtimestamp(time_ns() // 1_000_000 / 1000, UTC)
