"""Reads a session's history in pages, with no hole and no doubles while turns end (docs/turns.md, READERS)."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from service.domain.access import look
from service.domain.checks import MAX_PAGE_SIZE
from service.domain.entities import Message, Principal, Session, Turn, messages_of
from service.domain.errors import InvalidField
from service.domain.pagetoken import read_token, write_token
from service.domain.ports import TurnStore

MAX_PAGE_BYTES = 1_048_576
_BATCH_TURNS = 50
_ORDERS = {"": False, "seq": False, "seq asc": False, "seq desc": True}
# What stands beside the content of so many short messages fits on a page as well.
MAX_PAGE_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """What a caller asks of a history. page_size 0 = as many as fit; order_by as in the contract."""

    page_size: int = 0
    after_seq: int = 0
    page_token: str = ""
    order_by: str = ""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages in the order asked for. next_page_token None = nothing follows. last_seq counts the running turn."""

    session: Session
    messages: Sequence[Message]
    next_page_token: str | None
    last_seq: int


class History:
    """Reads histories."""

    def __init__(self, store: TurnStore, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def page(self, principal: Principal, session_id: str, query: HistoryQuery) -> HistoryPage:
        """Return one page; raises InvalidField, SessionNotFound, SessionExpired or StoreUnavailable."""
        if query.page_size < 0:
            raise InvalidField("page_size", "must not be negative")
        if query.after_seq < 0:
            raise InvalidField("after_seq", "must not be negative")
        if query.order_by not in _ORDERS:
            raise InvalidField("order_by", "must be `seq` or `seq desc`")
        newest_first = _ORDERS[query.order_by]
        session = await look(self._store, principal, session_id, self._now())
        last_seq = max(session.last_seq, session.active.turn.last_seq if session.active else 0)
        low, high = query.after_seq + 1, last_seq
        if query.page_token:
            (seen,) = read_token(query.page_token, _bound(query, session), (int,))
            low, high = (low, min(high, seen - 1)) if newest_first else (max(low, seen + 1), high)
        messages, more = await self._collect(session, low, high, newest_first, query.page_size)
        first, last = (high, low) if newest_first else (low, high)
        seqs = [first, *(message.seq for message in messages), *([] if more else [last])]
        if any(abs(after - before) > 1 for before, after in pairwise(seqs)):
            # It may have been removed since it was read, the turns before it.
            await look(self._store, principal, session_id, self._now())
        token = write_token(_bound(query, session), (messages[-1].seq,)) if more else None
        return HistoryPage(session, messages, token, last_seq)

    async def _collect(
        self, session: Session, low: int, high: int, newest_first: bool, page_size: int
    ) -> tuple[list[Message], bool]:
        """Return the messages with low <= seq <= high that fit on a page, and whether there are more."""
        limit = min(page_size, MAX_PAGE_SIZE) or MAX_PAGE_MESSAGES
        last_seq = low if newest_first else high
        messages: list[Message] = []
        size_bytes = 0
        async for turn in self._turns(session, low, high, newest_first, limit):
            of_turn = messages_of(turn)
            for message in reversed(of_turn) if newest_first else of_turn:
                if not low <= message.seq <= high:
                    continue
                size_bytes += len(message.content.encode())
                if messages and size_bytes > MAX_PAGE_BYTES:
                    return messages, True
                messages.append(message)
                if len(messages) == limit:
                    return messages, message.seq != last_seq
        return messages, False

    async def _turns(
        self, session: Session, low: int, high: int, newest_first: bool, page_size: int
    ) -> AsyncGenerator[Turn, None]:
        """Yield the turns that may hold messages low to high: the archived ones, and the newest from `active`."""
        latest = session.active.turn if session.active else None
        archived_to = min(high, latest.first_seq - 1 if latest else session.last_seq)
        if newest_first and latest:
            yield latest
        # A turn's first message may lie one before `low`: its answer is then the first of the page. Most turns have two
        # messages, so half as many turns as messages will do, and one more where another may be cut in two.
        of_latest = len(messages_of(latest)) if newest_first and latest and latest.first_seq <= high else 0
        is_cut = low > 1 or high < (latest.last_seq if latest else session.last_seq)
        first, batch = max(1, low - 1), max(1, min((page_size - of_latest + 1 + is_cut) // 2, _BATCH_TURNS))
        while first <= archived_to:
            turns = await self._store.turns(
                session.key, first_seq_from=first, first_seq_to=archived_to, limit=batch, newest_first=newest_first
            )
            for turn in turns:
                yield turn
            if len(turns) < batch:
                break
            first, archived_to = (
                (first, turns[-1].first_seq - 1) if newest_first else (turns[-1].first_seq + 1, archived_to)
            )
        if not newest_first and latest:
            yield latest


def _bound(query: HistoryQuery, session: Session) -> Sequence[object]:
    """Return what a page token of a history holds for."""
    return session.uid, query.after_seq, _ORDERS[query.order_by]
