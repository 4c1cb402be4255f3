"""The port's words as the plainest code: what every store has to do, without a database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.entities import Active, Ending, Session, Turn
from service.domain.ports import Lease


class ModelStore:
    """A SessionStore in dictionaries."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._turns: dict[tuple[str, int], Turn] = {}

    async def ping(self) -> None:
        """Do nothing."""

    async def insert_session(self, session: Session) -> bool:
        if session.session_id in self._sessions:
            return False
        self._sessions[session.session_id] = session
        return True

    async def session(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    async def running_sessions(self, limit: int) -> Sequence[Session]:
        return [session for session in self._sessions.values() if session.running][:limit]

    async def turn_by_request(self, uid: str, request_key: str) -> Turn | None:
        return next((t for (u, _), t in self._turns.items() if (u, t.request_key) == (uid, request_key)), None)

    async def turn_by_id(self, uid: str, turn_id: str) -> Turn | None:
        return next((t for (u, _), t in self._turns.items() if (u, t.turn_id) == (uid, turn_id)), None)

    async def turns(
        self, uid: str, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        keys = [key for key in self._turns if key[0] == uid and first_seq_from <= key[1] <= first_seq_to]
        return [self._turns[key] for key in sorted(keys, reverse=newest_first)][:limit]

    async def accept(self, session_id: str, uid: str, fence: int, now: datetime, active: Active) -> bool:
        session = self._sessions.get(session_id)
        if session is None or (session.uid, session.fence) != (uid, fence):
            return False
        if session.deleted_at or session.purging or (session.expire_time and session.expire_time <= now):
            return False
        self._sessions[session_id] = replace(session, fence=active.fence, update_time=now, active=active)
        return True

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        session, active = self._held(lease)
        if active is None or active.beat != beat:
            return None
        parts = (*active.parts, part) if part else active.parts
        return self._put(session, replace(active, beat=beat + 1, parts=parts))

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        if not await self.checkpoint(lease, beat, part):
            return False
        session, active = self._held(lease)
        assert active
        self._put(session, replace(active, released=True))
        return True

    async def end(self, lease: Lease, ending: Ending) -> bool:
        session, active = self._held(lease)
        if active is None:
            return False
        self._put(replace(session, last_seq=ending.last_seq), active.ended(ending))
        return True

    async def archive(self, uid: str, turn: Turn) -> bool:
        taken = (uid, turn.first_seq) in self._turns
        if taken or await self.turn_by_request(uid, turn.request_key) or await self.turn_by_id(uid, turn.turn_id):
            return False
        self._turns[uid, turn.first_seq] = turn
        return True

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        if session.active is None:
            return None
        read, fence = session.active, session.fence + 1
        found, active = self._held(Lease(session.session_id, session.uid, read.turn.turn_id, read.lease_id))
        if active is None or active.beat != read.beat:
            return None
        turn = replace(active.turn, attempt=read.turn.attempt + 1)
        new = replace(active, turn=turn, fence=fence, lease_id=lease_id, beat=0, released=False)
        self._put(replace(found, fence=fence), new)
        return self._sessions[session.session_id]

    async def request_cancel(self, session_id: str, uid: str, turn_id: str) -> bool:
        session = self._sessions.get(session_id)
        active = session and session.running
        if not session or not active or (session.uid, active.turn.turn_id) != (uid, turn_id):
            return False
        self._put(session, replace(active, cancel=True))
        return True

    def _held(self, lease: Lease) -> tuple[Session, Active | None]:
        session = self._sessions.get(lease.session_id)
        if session is None or session.uid != lease.uid:
            return _NOBODY, None
        active = session.running
        held = active and (active.turn.turn_id, active.lease_id) == (lease.turn_id, lease.lease_id)
        return session, active if held else None

    def _put(self, session: Session, active: Active) -> Active:
        self._sessions[session.session_id] = replace(session, active=active)
        return active


_NOBODY = Session.__new__(Session)
