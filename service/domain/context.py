"""What the model is given: instructions, the newest whole turns that fit a token budget, and the new message.

A turn without any answer text is left out, its user message too, so that user and assistant always alternate;
what a cancelled or incomplete turn said is kept. Instructions and the new message are always in: if they alone are
too long, the provider says so (CONTEXT_TOO_LONG).

Tokens are estimated, not counted: the vocabulary of a tokenizer would have to be fetched at run time. The estimate is
one token for three bytes of UTF-8 and four for the frame of a message, which is above the count for English
(about four bytes a token) and near it for scripts with three bytes a character.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from service.domain.entities import Role, Session, SessionKey, TurnTexts
from service.domain.ports import ContextMessage, TurnStore

_BYTES_PER_TOKEN = 3
_FRAME_TOKENS = 4
_BATCH_TURNS = 64
_MOST_KEYS = 256


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a message with this text takes; an upper guess for most text."""
    size_bytes = len(text) if text.isascii() else len(text.encode())
    return size_bytes // _BYTES_PER_TOKEN + 1 + _FRAME_TOKENS


class Exchange(NamedTuple):
    """One turn that has an answer, as the model is told of it."""

    said: tuple[ContextMessage, ContextMessage]
    tokens: int


@dataclass(frozen=True, slots=True)
class Past:
    """The newest exchanges of a session that fit a budget, oldest first, up to the message `last_seq`.

    is_cut: an older exchange did not fit. None is then taken in any more, so that no gap arises.
    archived_turn_id: the newest turn that was read from the archive, and so is in it for good; empty if none was.
    request_keys: those of all turns of the session, be they in the past or cut off, whose callers gave them an id; None
    if they are not known, or too many.
    """

    last_seq: int
    budget_tokens: int
    exchanges: tuple[Exchange, ...] = ()
    tokens: int = 0
    is_cut: bool = False
    archived_turn_id: str = ""
    request_keys: frozenset[str] | None = None

    @property
    def messages(self) -> list[ContextMessage]:
        """All that was said, oldest first."""
        return [message for exchange in self.exchanges for message in exchange.said]

    def after(self, turns: Iterable[TurnTexts], last_seq: int) -> "Past":
        """Return the past after further turns, oldest first, whose newest message is `last_seq`."""
        turns = list(turns)
        newer = tuple(_exchanges(turns))
        exchanges, is_cut = self.exchanges + newer, self.is_cut
        tokens, first = self.tokens + sum(exchange.tokens for exchange in newer), 0
        while tokens > self.budget_tokens:
            tokens -= exchanges[first].tokens
            first, is_cut = first + 1, True
        keys = _with_keys(self.request_keys, turns)
        return Past(last_seq, self.budget_tokens, exchanges[first:], tokens, is_cut, request_keys=keys)

    def before(self, turns: Iterable[TurnTexts]) -> "Past":
        """Return the past with older turns, newest first, as far as they fit."""
        older: list[Exchange] = []
        tokens, is_cut = self.tokens, self.is_cut
        for exchange in _exchanges(turns):
            is_cut = is_cut or tokens + exchange.tokens > self.budget_tokens
            if is_cut:
                break
            older.append(exchange)
            tokens += exchange.tokens
        return replace(self, exchanges=(*reversed(older), *self.exchanges), tokens=tokens, is_cut=is_cut)


class ContextBuilder:
    """Reads pasts from a store, within a budget of estimated tokens."""

    def __init__(self, store: TurnStore, *, budget_tokens: int) -> None:
        self._store = store
        self._budget_tokens = budget_tokens

    async def past_of(self, session: Session, known: Past | None = None) -> Past:
        """Return what was said before a running turn; of an idle session, all.

        known: an earlier past of the session; only what has come since is read then.
        """
        past = Past(session.last_seq, self._left_by(session.instructions))
        latest = session.active.turn.texts if session.active else None
        newest = [latest] if latest else []
        if known is not None and known.budget_tokens == past.budget_tokens and known.last_seq <= session.last_seq:
            turns = await self._newest(session.key, known.last_seq + 1, session.last_seq)
            if len(turns) < _BATCH_TURNS:
                newer = [*reversed(_older(turns, latest)), *newest]
                since = (turn for turn in newer if turn.first_seq > known.last_seq)
                return replace(known.after(since, past.last_seq), archived_turn_id=_first_id(turns))
        past = past.after(newest, past.last_seq)
        # The copy of `latest` is among them if it is archived.
        turns = await self._newest(session.key, 1, session.last_seq)
        keys = _with_keys(frozenset(), [*turns, *newest]) if len(turns) < _BATCH_TURNS else None
        past = replace(past.before(_older(turns, latest)), archived_turn_id=_first_id(turns), request_keys=keys)
        while len(turns) == _BATCH_TURNS and not past.is_cut:
            turns = await self._newest(session.key, 1, turns[-1].first_seq - 1)
            past = past.before(turns)
        return past

    async def _newest(self, key: SessionKey, first_seq_from: int, first_seq_to: int) -> Sequence[TurnTexts]:
        if first_seq_from > first_seq_to:
            return ()
        return await self._store.turn_texts(
            key, first_seq_from=first_seq_from, first_seq_to=first_seq_to, limit=_BATCH_TURNS
        )

    def _left_by(self, instructions: str) -> int:
        return max(0, self._budget_tokens - (estimate_tokens(instructions) if instructions else 0))


def build_context(session: Session, past: Past, user_text: str) -> list[ContextMessage]:
    """Join instructions, what was said, and the new message."""
    head = [ContextMessage(Role.SYSTEM, session.instructions)] if session.instructions else []
    return [*head, *past.messages, ContextMessage(Role.USER, user_text)]


def _older(turns: Sequence[TurnTexts], latest: TurnTexts | None) -> Sequence[TurnTexts]:
    return turns if latest is None else [turn for turn in turns if turn.first_seq < latest.first_seq]


def _first_id(turns: Sequence[TurnTexts]) -> str:
    return turns[0].turn_id if turns else ""


def _with_keys(keys: frozenset[str] | None, turns: Iterable[TurnTexts]) -> frozenset[str] | None:
    """Return the request keys with those of further turns."""
    if keys is None:
        return None
    keys = keys.union(turn.request_key for turn in turns if turn.request_key.startswith("c:"))
    return keys if len(keys) <= _MOST_KEYS else None


def _exchanges(turns: Iterable[TurnTexts]) -> Iterator[Exchange]:
    """Return those turns that have an answer."""
    for _, _, _, question, answer in turns:
        if answer:
            yield Exchange(
                (ContextMessage(Role.USER, question), ContextMessage(Role.ASSISTANT, answer)),
                estimate_tokens(question) + estimate_tokens(answer),
            )
