"""One store of very many sessions with the service on it, and the calls that are measured there."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1.chat_session_pb2_grpc import ChatSessionServiceStub

from benchmarks import filling, measure, processes
from service.domain.entities import utc_now

_DEEP_PAGE = 1000
_TIMEOUT_S = 60.0
# mongo-java-server goes through all documents for a range.
_STORE_TIMEOUT_S = "60"
# For what a start leaves to do behind it.
_SETTLE_S = 3.0
_IDLE_S = 2.0


class Side:
    """A store, and a service that is started and stopped. idle_share: of a core, used when nobody calls."""

    idle_share = 0.0

    def __init__(self, place: filling.Place, folder: Path) -> None:
        self.place = place
        self.count = place.sessions_left()
        self._newest = place.newest()
        self._folder = folder
        self._server: processes.Server | None = None
        self._tokens: dict[str, str] = {}

    def start(self, *, settles: bool = True, **settings: str) -> None:
        """Start the service, anew if it runs."""
        self.stop()
        settings = {"STORE_TIMEOUT_SECONDS": _STORE_TIMEOUT_S, **self.place.settings, **settings}
        self._server = processes.start_service(self._folder, **settings)
        self._channel = grpc.insecure_channel(self._server.grpc)
        self._stub = ChatSessionServiceStub(self._channel)
        if not settles:
            return
        time.sleep(_SETTLE_S)
        used = self.cpu_s()
        time.sleep(_IDLE_S)
        self.idle_share = (self.cpu_s() - used) / _IDLE_S

    def stop(self) -> None:
        """Stop the service, if it runs."""
        if self._server is not None:
            self._channel.close()
            self._server.stop()
            self._server = None

    def cpu_s(self) -> float:
        """Return the CPU that the service has used."""
        assert self._server is not None
        return measure.cpu_s(self._server.pid)

    def call(self, method: str, request: Any) -> Any:
        """Call a method."""
        return getattr(self._stub, method)(request, timeout=_TIMEOUT_S)

    def list(self, **asked: Any) -> pb.ListSessionsResponse:
        """Return a page of a list."""
        page: pb.ListSessionsResponse = self.call("ListSessions", pb.ListSessionsRequest(**asked))
        return page

    def pages(self, **asked: Any) -> Iterator[pb.ListSessionsResponse]:
        """Yield all pages of a list."""
        token = ""
        while True:
            page = self.list(page_token=token, **asked)
            yield page
            if not (token := page.next_page_token):
                return

    def deep_token(self, order_by: str) -> str:
        """Return the token of page 1,000, or of the last full page where there are fewer."""
        if order_by not in self._tokens:
            pages = self.pages(order_by=order_by)
            for _ in range(min(_DEEP_PAGE, self.count // 60) - 1):
                self._tokens[order_by] = next(pages).next_page_token
        return self._tokens[order_by]

    def some_id(self) -> str:
        """Return the id of a session."""
        if "id" not in self._tokens:
            self._tokens["id"] = self.list(page_size=1).sessions[0].session_id
        return self._tokens["id"]

    def moment(self, share: float, later: timedelta = timedelta()) -> str:
        """Return the time at which this share of the sessions was there, for a filter."""
        return f'"{(self._at(share) + later).isoformat()}"'

    def expire(self, share: float, ago: timedelta, grace: timedelta) -> None:
        """Let the newest sessions end; the service is stopped for that."""
        self.stop()
        ended = utc_now() - ago
        self.place.expire(ended, ended + grace, self._at(1 - share))

    def _at(self, share: float) -> datetime:
        return self._newest - self.count * (1 - share) * filling.BETWEEN


Call = Callable[[Side], Any]


def _get(side: Side) -> pb.Session:
    session: pb.Session = side.call("GetSession", pb.GetSessionRequest(session_id=side.some_id()))
    return session


def _list(**asked: Any) -> Call:
    return lambda side: side.list(**asked)


def _search(query: str) -> Call:
    return lambda side: side.call("SearchMessages", pb.SearchMessagesRequest(query=query))


def _deep(order_by: str) -> Call:
    return lambda side: side.list(page_token=side.deep_token(order_by), order_by=order_by)


def _within(order_by: str) -> Call:
    return lambda side: side.list(
        order_by=order_by,
        filter=f"create_time >= {side.moment(0.4)} AND create_time < {side.moment(0.4, timedelta(minutes=2))}",
    )


FIRST_PAGE = "list, first page of 50"
CALLS: dict[str, Call] = {
    "`GetSession`, to compare": _get,
    FIRST_PAGE: _list(),
    "… by `update_time`": _list(order_by="update_time"),
    "… by `create_time desc`": _list(order_by="create_time desc"),
    "… by `create_time`": _list(order_by="create_time"),
    "… with `show_deleted`": _list(show_deleted=True),
    "page 1,000": _deep(""),
    "page 1,000 by `create_time`": _deep("create_time"),
    "`labels.tier = gold`: every fourth": _list(filter="labels.tier = gold"),
    "`labels.project = p5`: 100": _list(filter="labels.project = p5"),
    "`labels:needle`: one": _list(filter="labels:needle"),
    "`NOT labels:needle`: all but one": _list(filter="NOT labels:needle"),
    "`title:talk`: all but one": _list(filter="title:talk"),
    "created within 2 minutes, by `create_time`: 50": _within("create_time"),
    "created within 2 minutes, by `update_time`: 50": _within("update_time"),
    "`labels.tier = gold AND labels.project = p5`: 25": _list(filter="labels.tier = gold AND labels.project = p5"),
    "`title:oldest`: one, the last": _list(filter="title:oldest"),
    "`title:nothing`: none": _list(filter="title:nothing"),
    "`labels.tier = gold AND title:nothing`: none": _list(filter="labels.tier = gold AND title:nothing"),
    "search: a word of one turn": _search("zanzibar"),
    "search: no such word": _search("xyzzy"),
    "search: a word of half of the turns": _search("oddly"),
    "search: a common and a rare word": _search("oddly evenly zanzibar"),
    "search: two common words that are never together": _search("oddly evenly"),
    "search: a phrase of two common words, nowhere": _search('"question oddly"'),
}
EXPIRED_CALLS = [FIRST_PAGE, "… by `create_time desc`", "… by `create_time`", "`labels.tier = gold`: every fourth"]
"""Those that are measured again when most sessions have expired."""
WHILE_REMOVING = "… by `create_time`"
"""The one that is made again and again while sessions are removed: of the oldest, which have not expired."""
