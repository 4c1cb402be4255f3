"""Use cases of the session itself."""

from collections.abc import Callable
from datetime import datetime

from service.domain.checks import check_session_settings, check_settings
from service.domain.entities import ModelSettings, Principal, Session
from service.domain.errors import InternalError
from service.domain.ports import SessionStore

_TRIES = 3


class Sessions:
    """Creates sessions."""

    def __init__(self, store: SessionStore, *, now: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._store = store
        self._now = now
        self._new_id = new_id

    async def create(
        self,
        principal: Principal,
        *,
        title: str = "",
        labels: dict[str, str] | None = None,
        instructions: str = "",
        settings: ModelSettings | None = None,
    ) -> Session:
        """Create a session with an id of the server's choice.

        Raises InvalidField, or StoreUnavailable: a repeat then makes another session, and the first stays empty.
        """
        labels = labels or {}
        settings = settings or ModelSettings()
        check_session_settings(title, labels, instructions)
        check_settings("session.settings", settings)
        now = self._now()
        for _ in range(_TRIES):
            session = Session(
                session_id=self._new_id(),
                uid=self._new_id(),
                owner=principal,
                create_time=now,
                update_time=now,
                title=title,
                labels=labels,
                instructions=instructions,
                settings=settings,
            )
            if await self._store.insert_session(session):
                return session
        raise InternalError
