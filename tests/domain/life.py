"""Sessions and their purger over a store, on a clock that stands still until it is moved."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from service.domain.entities import Active, Principal, Session, Turn
from service.domain.errors import StoreUnavailable, StoreUncertain
from service.domain.fields import SessionFields
from service.domain.lifetime import Lifetimes
from service.domain.purger import Purger
from service.domain.sessions import Sessions
from tests.domain.builders import NOW

GRACE = timedelta(days=7)
ANNA, BERT = Principal("t", "anna"), Principal("t", "bert")
MILLISECOND = timedelta(milliseconds=1)


class NoLog:
    """Takes what is logged."""

    def debug(self, event: str, **fields: Any) -> None:
        """Nothing."""

    info = warning = error = debug

    def exception(self, event: str, **fields: Any) -> None:
        raise AssertionError(event)


class Interfering:
    """A store before one of whose methods something else happens, or whose answers are lost."""

    def __init__(self, store: Any) -> None:
        self.inner = store
        self.before: dict[str, Callable[[], Any]] = {}
        self.lost: dict[str, str] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)

        async def interfered(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if name in self.before:
                await self.before.pop(name)()
            how = self.lost.pop(name, "")
            if how == "before":
                raise StoreUncertain
            if how == "away":
                raise StoreUnavailable
            answer = await call(*args, **options)
            if how == "after":
                raise StoreUncertain
            return answer

        return interfered


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A store whose process dies at a write: before it, or after it, without having heard of it."""

    def __init__(self, store: Any, at: int, *, is_applied: bool) -> None:
        self._store = store
        self._left = at
        self._is_applied = is_applied

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        async def do(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                if self._is_applied:
                    await call(*args, **options)
                raise Killed
            return await call(*args, **options)

        return do


class Life:
    """The use cases, and the time."""

    def __init__(self, store: Any, **limits: Any) -> None:
        self.now = NOW
        self.store = Interfering(store)
        self.lifetimes = Lifetimes(**{"grace": GRACE, **limits})
        self.deleted: list[Session] = []
        numbers = count()
        port: Any = self.store
        self.sessions = Sessions(
            port,
            lifetimes=self.lifetimes,
            now=self.time,
            new_id=lambda: f"id{next(numbers)}",
            on_delete=self.deleted.append,
        )
        self.purger = self.new_purger()

    def time(self) -> datetime:
        return self.now

    def new_purger(self, store: Any = None) -> Purger:
        """Return one more purger, as another process has."""
        return Purger(
            store or self.store, lifetimes=self.lifetimes, interval_s=60, rate=100_000, now=self.time, log=NoLog()
        )

    async def create(self, owner: Principal = ANNA, session_id: str = "", **fields: Any) -> Session:
        """Create a session."""
        return await self.sessions.create(owner, SessionFields(**fields), session_id=session_id)

    async def read(self, session: Session) -> Session | None:
        """Return what the store has of a session."""
        return await self.store.session(session.owner, session.session_id)

    async def purge(self) -> None:
        """Sweep until there is nothing due."""
        while await self.purger.sweep():
            pass

    async def run_turn(self, session: Session, active: Active) -> Session:
        """Make a running turn the session's turn, and return the session."""
        assert await self.store.accept(session, self.now, replace(active, fence=session.fence + 1))
        found = await self.read(session)
        assert found is not None
        return found

    async def archive(self, session: Session, *turns: Turn) -> None:
        """Add turns to the archive."""
        for turn in turns:
            assert await self.store.archive(session.key, turn)

    async def turns(self, session: Session) -> int:
        """Count the archived turns of a session."""
        return len(await self.store.turns(session.key, first_seq_from=0, first_seq_to=10_000, limit=10_000))
