"""What the model is given: instructions, the newest whole turns that fit a token budget, and the new message.

A turn without any answer text is left out, its user message too, so that user and assistant always alternate;
what a cancelled or incomplete turn said is kept. Instructions and the new message are always in: if they alone are
too long, the provider says so (CONTEXT_TOO_LONG).

Tokens are estimated, not counted: the vocabulary of a tokenizer would have to be fetched at run time. The estimate is
one token for three bytes of UTF-8 and four for the frame of a message, which is above the count for English
(about four bytes a token) and near it for scripts with three bytes a character.
"""

from collections.abc import Sequence

from service.domain.entities import Role, Session, Turn
from service.domain.ports import ContextMessage, TurnStore

_BYTES_PER_TOKEN = 3
_FRAME_TOKENS = 4
_BATCH_TURNS = 50


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a message with this text takes; an upper guess for most text."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1 + _FRAME_TOKENS


class ContextBuilder:
    """Builds contexts from a store, within a budget of estimated tokens."""

    def __init__(self, store: TurnStore, *, budget_tokens: int) -> None:
        self._store = store
        self._budget_tokens = budget_tokens

    async def history_of(self, session: Session) -> list[ContextMessage]:
        """Return the messages of the newest whole turns that fit beside the instructions, oldest first.

        Those before a running turn; of an idle session, all.
        """
        budget = self._budget_tokens - (estimate_tokens(session.instructions) if session.instructions else 0)
        newest_first: list[ContextMessage] = []
        upper = session.last_seq
        if session.active is not None:
            upper = session.active.turn.first_seq - 1
            budget = _take(session.active.turn, budget, newest_first)
        while upper > 0 and budget > 0:
            turns = await self._store.turns(
                session.key, first_seq_from=1, first_seq_to=upper, limit=_BATCH_TURNS, newest_first=True
            )
            budget = _take_all(turns, budget, newest_first)
            if len(turns) < _BATCH_TURNS:
                break
            upper = turns[-1].first_seq - 1
        newest_first.reverse()
        return newest_first


def build_context(session: Session, history: Sequence[ContextMessage], user_text: str) -> list[ContextMessage]:
    """Join instructions, history and the new message."""
    head = [ContextMessage(Role.SYSTEM, session.instructions)] if session.instructions else []
    return [*head, *history, ContextMessage(Role.USER, user_text)]


def _take_all(turns: Sequence[Turn], budget: int, newest_first: list[ContextMessage]) -> int:
    for turn in turns:
        budget = _take(turn, budget, newest_first)
        if budget <= 0:
            break
    return budget


def _take(turn: Turn, budget: int, newest_first: list[ContextMessage]) -> int:
    """Add a turn if it fits, and return the budget left; 0 or less ends the search, so that no gap arises."""
    if turn.ending is None or not turn.ending.text:
        return budget
    cost = estimate_tokens(turn.user_text) + estimate_tokens(turn.ending.text)
    if cost <= budget:
        newest_first.append(ContextMessage(Role.ASSISTANT, turn.ending.text))
        newest_first.append(ContextMessage(Role.USER, turn.user_text))
        return budget - cost
    return 0
