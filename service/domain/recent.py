"""What this process knows of the sessions that it ran a turn of last, so that the next turn needs fewer reads.

How a session was left is a guess: another process may have gone on with it, or deleted it. ACCEPT checks it: its
fence is the session's as long as no other turn was accepted, so a guess that is wrong is refused, and the session read.
What was said is no guess: turns never change, and what has come since is read. Nor are the request ids that were used,
as long as the guess holds: each turn moves the fence.
"""

from collections import OrderedDict
from dataclasses import dataclass

from service.domain.context import Past
from service.domain.entities import Session

_OVERHEAD_TOKENS = 1000
# A request id has at most 128 characters.
_KEY_TOKENS = 60
# A refused guess costs a write, one that holds saves a read: below this share of good ones, guessing does not pay.
_LEAST_TRUST = 0.6
_WEIGHT_OF_NEWEST = 0.05


@dataclass(slots=True)
class _Entry:
    session: Session
    past: Past
    size_tokens: int
    is_used: bool = False


class RecentSessions:
    """Sessions by id, those used last; `budget_tokens` bounds their text (estimated tokens, three bytes each)."""

    def __init__(self, *, budget_tokens: int) -> None:
        self._budget_tokens = budget_tokens
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size_tokens = 0
        self._trust = 1.0

    def leave(self, session: Session, past: Past) -> None:
        """Remember how a session stands after the end of a turn that ran here."""
        self._drop(session.session_id)
        size_tokens = past.tokens + _left_text(session) // 3 + _OVERHEAD_TOKENS
        size_tokens += _KEY_TOKENS * len(past.request_keys or ())
        self._entries[session.session_id] = _Entry(session, past, size_tokens)
        self._size_tokens += size_tokens
        while self._size_tokens > self._budget_tokens:
            self._drop(next(iter(self._entries)))

    def guess(self, session_id: str) -> tuple[Session, Past] | None:
        """Return how a session was left, once; None if that is not known, or if guesses fail too often here."""
        entry = self._entries.get(session_id)
        if entry is None or entry.is_used or self._trust < _LEAST_TRUST:
            return None
        entry.is_used = True
        return entry.session, entry.past

    def past_of(self, session: Session) -> Past | None:
        """Return what was said in a session when it was left here. `session` as it was just read."""
        entry = self._entries.get(session.session_id)
        if entry is None or entry.session.uid != session.uid:
            return None
        if not entry.is_used:
            entry.is_used = True
            self.learn(entry.session.fence == session.fence)
        return entry.past

    def learn(self, was_right: bool) -> None:
        """Count a guess that held, or one that did not."""
        self._trust += (was_right - self._trust) * _WEIGHT_OF_NEWEST

    def _drop(self, session_id: str) -> None:
        if (entry := self._entries.pop(session_id, None)) is not None:
            self._size_tokens -= entry.size_tokens


def _left_text(session: Session) -> int:
    """Characters of the session document's long texts."""
    turn = session.active.turn if session.active else None
    newest = len(turn.user_text) + (len(turn.ending.text) if turn.ending else 0) if turn else 0
    return len(session.instructions) + newest
