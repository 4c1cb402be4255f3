"""Entities for the tests of the stores, and the ids that one test uses."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.domain.entities import (
    Active,
    Ending,
    Failure,
    FinishReason,
    ModelSettings,
    OnDisconnect,
    Principal,
    Session,
    SessionKey,
    Turn,
    TurnState,
    Usage,
)
from service.domain.ports import Lease

NOW = datetime(2026, 3, 1, 12, 30, 0, 123000, tzinfo=UTC)
OWNER = Principal("tenant", "subject")
# Each differs from OWNER in one part; neither may be taken for it.
OTHERS = (Principal("tenant", "other"), Principal("other", "subject"))
MILLISECOND = timedelta(milliseconds=1)
FULL_SETTINGS = ModelSettings("some-model", 0.5, 1.0, 100, 7, ("stop", "¶"))

# Texts that broke one database or another.
TEXTS = {
    "empty": "",
    "nul": "a\x00b\x00",
    "astral": "😀 \U0010ffff \U00010000",
    "separators": "line\nline\r\nline\u2028line\u2029line\x85line\x0b\x0c\x1c",
    "noncharacters": "\ufffe\uffff\ufeff",
    "quotes": "\"'`\\\\u0000 $ . % ? --",
    "combining": "e\u0301 é \u200d\u202e",
    "256 KiB": "ä" * (128 * 1024),
}


def new_id() -> str:
    """Return an id that no other test uses."""
    return uuid.uuid4().hex


def a_session(**fields: Any) -> Session:
    """Return a plain session of its own."""
    return replace(Session(new_id(), new_id(), OWNER, NOW, NOW), **fields)


def a_key(**fields: Any) -> SessionKey:
    """Return the key of a session of its own."""
    return SessionKey(OWNER, new_id(), new_id())._replace(**fields)


def a_turn(number: int = 1, **fields: Any) -> Turn:
    """Return a running turn whose ids name its number."""
    turn = Turn(
        turn_id=f"turn{number}",
        request_key=f"c:request{number}",
        user_text=f"question {number}",
        sent_settings=ModelSettings(temperature=0.5),
        settings=FULL_SETTINGS,
        first_seq=number,
        attempt=1,
        create_time=NOW,
    )
    return replace(turn, **fields)


def an_ending(**fields: Any) -> Ending:
    """Return the ending of a turn that went well."""
    ending = Ending(
        state=TurnState.COMPLETED,
        text="answer",
        message_count=2,
        last_seq=2,
        fence=1,
        end_time=NOW + MILLISECOND,
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=1, output_tokens=2),
        model="some-model-1",
    )
    return replace(ending, **fields)


ENDINGS = {
    "completed": an_ending(),
    "completed without text": an_ending(text=""),
    "incomplete": an_ending(
        state=TurnState.INCOMPLETE, finish_reason=FinishReason.PROVIDER_CUT, usage=Usage(estimated=True), model=None
    ),
    "cancelled": an_ending(state=TurnState.CANCELLED, text="", message_count=1, last_seq=1, usage=None),
    "failed": an_ending(
        state=TurnState.FAILED,
        text="",
        message_count=1,
        last_seq=1,
        finish_reason=None,
        failure=Failure("MODEL_TIMEOUT", "it took too long"),
        usage=Usage(0, 0, 0, 0),
    ),
}


def an_active(turn: Turn | None = None, **fields: Any) -> Active:
    """Return a running turn with its lease, as accepted over fence 0."""
    active = Active(
        turn=turn or a_turn(),
        on_disconnect=OnDisconnect.CONTINUE,
        deadline=NOW + timedelta(minutes=5),
        lease_id="lease1",
        fence=1,
    )
    return replace(active, **fields)


def a_running_session(**active_fields: Any) -> Session:
    """Return a session with a RUNNING turn."""
    active = an_active(**active_fields)
    return a_session(fence=active.fence, active=active)


def the_lease(session: Session) -> Lease:
    """Return the lease by which a session's turn is held."""
    assert session.active
    return Lease(session.key, session.active.turn.turn_id, session.active.lease_id)
