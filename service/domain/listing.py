"""Lists an owner's sessions in pages. A page costs the same, however many sessions there are (docs/sessions.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final

from service.domain.access import is_expired
from service.domain.checks import MAX_PAGE_SIZE, check_id
from service.domain.entities import Principal, Session
from service.domain.errors import InvalidField
from service.domain.filters import Filter, parse_filter
from service.domain.pagetoken import malformed, read_token, write_token
from service.domain.ports import ListStore
from service.domain.ranges import Place, SessionRange, TimeField, Unlisted

MAX_PAGE_BYTES: Final = 1_048_576
MAX_EXAMINED: Final = 2000
# So many are passed over for one that is looked at, where the store knows that they are gone.
_PASSED_OVER: Final = 5
_PAGE_SIZE: Final = 50
_MAX_BATCH: Final = 250
_MAX_PIECES: Final = 8
# To read so many costs no more than to find out whether there are fewer.
_FEW: Final = 50
_ORDERS: Final[dict[str, tuple[TimeField, bool]]] = {
    "": ("update_time", True),
    "update_time": ("update_time", False),
    "update_time asc": ("update_time", False),
    "update_time desc": ("update_time", True),
    "create_time": ("create_time", False),
    "create_time asc": ("create_time", False),
    "create_time desc": ("create_time", True),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a caller asks of a list, as in the contract. page_size 0 = 50."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions in the order asked for. An empty token = nothing follows."""

    sessions: Sequence[Session]
    next_page_token: str


class SessionLister:
    """Lists sessions."""

    def __init__(self, store: ListStore, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def page(self, principal: Principal, query: ListQuery) -> SessionPage:
        """Return one page; raises InvalidField or StoreUnavailable."""
        if query.page_size < 0:
            raise InvalidField("page_size", "must not be negative")
        limit = min(query.page_size, MAX_PAGE_SIZE) or _PAGE_SIZE
        time_field, newest_first = _read_order(query.order_by)
        wanted = parse_filter(query.filter)
        whole = SessionRange(time_field, newest_first, *wanted.bounds(time_field))
        bound = (principal.tenant, principal.subject, "sessions", query.filter, query.order_by, query.show_deleted)
        if query.page_token:
            whole = whole.after(_read_place(query.page_token, bound))
        whole = await self._with_label(principal, whole, wanted.labels())
        sessions, last = await self._collect(principal, whole, wanted, query.show_deleted, limit)
        return SessionPage(sessions, write_token(bound, _fields(last)) if last else "")

    async def _with_label(
        self, principal: Principal, whole: SessionRange, labels: Sequence[tuple[str, ...]]
    ) -> SessionRange:
        """Return the part of a range with one of these labels, the one that fewest sessions have."""
        parts = [replace(whole, label=label) for label in labels]
        if len(parts) < 2:
            return parts[0] if parts else whole
        least = MAX_EXAMINED
        for part in parts:
            count = await self._store.count_listed(principal, part, least)
            if count < least:
                least, whole = count, part
        return whole if whole.label else parts[0]

    async def _collect(
        self, principal: Principal, rest: SessionRange, wanted: Filter, show_deleted: bool, limit: int
    ) -> tuple[list[Session], Place | None]:
        """Return the sessions of a page, and the place of the last one that was looked at unless nothing follows."""
        now = self._now()

        def is_wanted(session: Session) -> bool:
            return _is_there(session, now, show_deleted) and wanted.matches(session)

        page = _Page(limit)
        pieces = wanted.title_pieces()
        work = looked_at = 0
        last: Place | None = None
        batch = min(limit + 1, _MAX_BATCH)
        while (left := MAX_EXAMINED - work // _PASSED_OVER) > 0:
            batch = min(batch, left)
            sessions = await self._store.list_sessions(principal, rest, batch, Unlisted(now, not show_deleted))
            for session in sessions:
                if isinstance(session, Place):
                    last = session
                    work += 1
                    continue
                work += _PASSED_OVER
                if is_wanted(session) and not page.take(session):
                    return page.sessions, last
                last = rest.place_of(session)
            if len(sessions) < batch:
                return page.sessions, None
            assert last is not None
            rest = rest.after(last)
            looked_at += batch
            if pieces:
                left = MAX_EXAMINED - work // _PASSED_OVER
                to_come = min(_to_come(looked_at, page), left)
                ids = await self._titled(principal, rest, pieces, to_come)
                if ids is not None:
                    return await self._look_up(principal, rest, ids, is_wanted, page, last)
                if to_come == left:
                    pieces = ()  # all are too common
            batch = min(2 * batch, _MAX_BATCH)
        return page.sessions, last

    async def _titled(
        self, principal: Principal, rest: SessionRange, pieces: Sequence[str], to_come: int
    ) -> Sequence[str] | None:
        """Return the ids of all sessions that have one of these pieces, the one that fewest have; None if those are not
        fewer than what is left of a range, or than `to_come`.
        """
        least = await self._store.count_listed(principal, rest, to_come)
        rarest: Sequence[str] | None = None
        for piece in _some(pieces):
            if least <= _FEW:
                break
            ids = await self._store.titled_ids(principal, piece, least)
            if len(ids) < least:
                least, rarest = len(ids), ids
        return rarest

    async def _look_up(
        self,
        principal: Principal,
        rest: SessionRange,
        ids: Sequence[str],
        is_wanted: Callable[[Session], bool],
        page: "_Page",
        last: Place,
    ) -> tuple[list[Session], Place | None]:
        """Fill a page with those of these sessions that are in the rest of a range, as `_collect` would."""
        found: list[Session] = []
        is_over = True
        for start in range(0, len(ids), _MAX_BATCH):
            sessions = await self._store.listed_sessions(principal, ids[start : start + _MAX_BATCH])
            found += [session for session in sessions if rest.has(session) and is_wanted(session)]
            found.sort(key=rest.place_of, reverse=rest.newest_first)
            # What does not fit now does not fit with more either, and need not be kept.
            fitting = list(takewhile(page.copy().take, found))
            is_over = is_over and len(fitting) == len(found)
            found = fitting
        if found:
            last = rest.place_of(found[-1])
        return [*page.sessions, *found], None if is_over else last


class _Page:
    """The sessions of a page, as far as they fit; the first one always does."""

    def __init__(self, limit: int, sessions: Sequence[Session] = (), size_bytes: int = 0) -> None:
        self.sessions = list(sessions)
        self.limit = limit
        self._size_bytes = size_bytes

    def take(self, session: Session) -> bool:
        """Add a session; False if it does not fit."""
        size_bytes = self._size_bytes + _size(session)
        if self.sessions and (len(self.sessions) == self.limit or size_bytes > MAX_PAGE_BYTES):
            return False
        self.sessions.append(session)
        self._size_bytes = size_bytes
        return True

    def copy(self) -> "_Page":
        """Return the same page, to be filled by itself."""
        return _Page(self.limit, self.sessions, self._size_bytes)


def _to_come(looked_at: int, page: _Page) -> int:
    """Guess how many more sessions are to be looked at until a page is full, if it goes on as it began."""
    found = len(page.sessions)
    return looked_at * (page.limit + 1 - found) // found if found else MAX_EXAMINED


def _some(pieces: Sequence[str]) -> Sequence[str]:
    """Return a few of many pieces, evenly: those that are side by side are much the same."""
    return pieces[:: -(-len(pieces) // _MAX_PIECES)]


def _is_there(session: Session, now: datetime, show_deleted: bool) -> bool:
    is_hidden = session.purging or (session.deleted_at is not None and not show_deleted)
    return not is_hidden and not is_expired(session, now)


def _size(session: Session) -> int:
    texts = (session.title, session.instructions, *session.labels, *session.labels.values())
    return sum(len(text.encode()) for text in texts)


def _read_order(order_by: str) -> tuple[TimeField, bool]:
    """Return the time to order by, and whether the newest is first."""
    order = _ORDERS.get(" ".join(order_by.split()))
    if order is None:
        raise InvalidField("order_by", "must be `update_time` or `create_time`, with or without `desc`")
    return order


def _fields(place: Place) -> tuple[int, str]:
    return (place.time - _EPOCH) // _MILLISECOND, place.session_id


def _read_place(token: str, bound: Sequence[object]) -> Place:
    ms, session_id = read_token(token, bound, (int, str))
    try:
        check_id("page_token", session_id)
        return Place(_EPOCH + ms * _MILLISECOND, session_id)
    except (InvalidField, OverflowError):
        raise malformed() from None
