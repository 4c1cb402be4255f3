"""Small values for tests of the domain."""

from datetime import UTC, datetime
from itertools import count

from service.domain.entities import (
    ANONYMOUS,
    Active,
    Ending,
    FinishReason,
    ModelSettings,
    OnDisconnect,
    Session,
    Turn,
    TurnState,
)
from service.store.sqlite import SqliteStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
_numbers = count()


def a_turn(
    first_seq: int, user_text: str = "q", answer: str | None = "a", state: TurnState = TurnState.COMPLETED
) -> Turn:
    """A turn that is over; answer None = it has none."""
    messages = 1 if answer is None else 2
    ending = Ending(
        state, answer or "", messages, first_seq + messages - 1, 1, NOW, FinishReason.STOP if answer else None
    )
    turn_id = f"t{next(_numbers)}"
    return Turn(turn_id, f"s:{turn_id}", user_text, ModelSettings(), ModelSettings(), first_seq, 1, NOW, ending)


def running(turn: Turn) -> Active:
    """The turn, not over yet."""
    turn = Turn(
        turn.turn_id, turn.request_key, turn.user_text, turn.sent_settings, turn.settings, turn.first_seq, 1, NOW
    )
    return Active(turn, OnDisconnect.CONTINUE, NOW.replace(year=2031), "lease", 1)


async def a_session(store: SqliteStore, turns: list[Turn], active: Active | None = None) -> Session:
    """A session with archived turns, and maybe a newest one in its document."""
    last_seq = turns[-1].last_seq if turns else 0
    if active is not None and active.turn.ending is not None:
        last_seq = active.turn.last_seq
    session_id = f"s{next(_numbers)}"
    session = Session(session_id, f"u{session_id}", ANONYMOUS, NOW, NOW, last_seq=last_seq, fence=1, active=active)
    assert await store.insert_session(session)
    for turn in turns:
        assert await store.archive(session.key, turn)
    return session
