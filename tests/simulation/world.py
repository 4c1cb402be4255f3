"""The database that all simulated processes share: the conditional writes of the port, each in one step.

Written anew, as plainly as the port's words, and apart from `ports.py`'s stores: what is here is what is expected of
them. A mutation overrides one method. Whoever watches is told of each change, and knows no mutation.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from service.domain.entities import Active, Ending, Session, Turn
from service.domain.ports import Lease


class Observer(Protocol):
    """Is told of every change."""

    def session_changed(self, before: Session, after: Session) -> None:
        """A write was applied to a session's document."""

    def turn_archived(self, uid: str, turn: Turn) -> None:
        """A turn's copy was inserted."""


class World:
    """Sessions by id, turns by (uid, first_seq)."""

    def __init__(self, observer: Observer) -> None:
        self.sessions: dict[str, Session] = {}
        self.archived: dict[str, dict[int, Turn]] = {}
        self._observer = observer

    # Reads

    def session(self, session_id: str) -> Session | None:
        return self.sessions.get(session_id)

    def turn_by_request(self, uid: str, request_key: str) -> Turn | None:
        return next((turn for turn in self._turns_of(uid) if turn.request_key == request_key), None)

    def turn_by_id(self, uid: str, turn_id: str) -> Turn | None:
        return next((turn for turn in self._turns_of(uid) if turn.turn_id == turn_id), None)

    def turns(self, uid: str, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool) -> Sequence[Turn]:
        found = [turn for turn in self._turns_of(uid) if first_seq_from <= turn.first_seq <= first_seq_to]
        return sorted(found, key=lambda turn: turn.first_seq, reverse=newest_first)[:limit]

    def running_sessions(self, limit: int) -> Sequence[Session]:
        return [session for session in self.sessions.values() if session.running][:limit]

    # Writes

    def insert_session(self, session: Session) -> bool:
        if session.session_id in self.sessions:
            return False
        self.sessions[session.session_id] = session
        return True

    def accept(self, session_id: str, uid: str, fence: int, now: datetime, active: Active) -> bool:
        session = self._find(session_id, uid)
        if session is None or not self.may_accept(session, fence, now):
            return False
        self._put(session, replace(session, fence=active.fence, update_time=now, active=active))
        return True

    def may_accept(self, session: Session, fence: int, now: datetime) -> bool:
        is_expired = session.expire_time is not None and session.expire_time <= now
        return session.fence == fence and session.deleted_at is None and not session.purging and not is_expired

    def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        session = self.held(lease)
        if session is None or session.active is None or not self.is_beat(session.active, beat):
            return None
        return self._push(session, session.active, beat, part, released=False)

    def release(self, lease: Lease, beat: int, part: str) -> bool:
        session = self.held(lease)
        if session is None or session.active is None or not self.is_beat(session.active, beat):
            return False
        self._push(session, session.active, beat, part, released=True)
        return True

    def is_beat(self, active: Active, beat: int) -> bool:
        return active.beat == beat

    def end(self, lease: Lease, ending: Ending) -> bool:
        session = self.held(lease)
        if session is None or session.active is None:
            return False
        self._put(session, replace(session, last_seq=ending.last_seq, active=session.active.ended(ending)))
        return True

    def archive(self, uid: str, turn: Turn) -> bool:
        turns = self.archived.setdefault(uid, {})
        is_taken = turn.first_seq in turns or self.turn_by_request(uid, turn.request_key)
        if is_taken or self.turn_by_id(uid, turn.turn_id):
            return False
        turns[turn.first_seq] = turn
        self._observer.turn_archived(uid, turn)
        return True

    def take_over(self, read: Session, lease_id: str) -> Session | None:
        session = self._find(read.session_id, read.uid)
        if session is None or session.active is None or read.active is None or not self.may_take(session, read):
            return None
        fence = read.fence + 1
        turn = replace(session.active.turn, attempt=read.active.turn.attempt + 1)
        active = replace(session.active, turn=turn, fence=fence, lease_id=lease_id, beat=0, released=False)
        return self._put(session, replace(session, fence=fence, active=active))

    def may_take(self, session: Session, read: Session) -> bool:
        now, then = session.running, read.active
        if now is None or then is None:
            return False
        return (now.turn.turn_id, now.lease_id, now.beat) == (then.turn.turn_id, then.lease_id, then.beat)

    def request_cancel(self, session_id: str, uid: str, turn_id: str) -> bool:
        session = self._find(session_id, uid)
        if session is None or session.running is None or not self.is_to_cancel(session.running, turn_id):
            return False
        self._put(session, replace(session, active=replace(session.running, cancel=True)))
        return True

    def is_to_cancel(self, running: Active, turn_id: str) -> bool:
        return running.turn.turn_id == turn_id

    # What is not built in the service yet: steps of DELETE and PURGE

    def delete(self, session_id: str, uid: str, now: datetime) -> bool:
        session = self._find(session_id, uid)
        if session is None or session.deleted_at is not None:
            return False
        active = replace(session.active, cancel=True) if session.active and session.running else session.active
        self._put(session, replace(session, deleted_at=now, active=active))
        return True

    def start_purge(self, session_id: str, uid: str) -> bool:
        session = self._find(session_id, uid)
        if session is None or session.deleted_at is None:
            return False
        self._put(session, replace(session, purging=True, fence=session.fence + 1, active=None))
        return True

    def finish_purge(self, session_id: str, uid: str) -> None:
        self.archived.pop(uid, None)
        session = self._find(session_id, uid)
        if session and session.purging:
            del self.sessions[session_id]

    # Conditions

    def held(self, lease: Lease) -> Session | None:
        """The session, if its turn runs under this lease."""
        session = self._find(lease.session_id, lease.uid)
        active = session.running if session else None
        is_held = active is not None and (active.turn.turn_id, active.lease_id) == (lease.turn_id, lease.lease_id)
        return session if is_held else None

    def _find(self, session_id: str, uid: str) -> Session | None:
        session = self.sessions.get(session_id)
        return session if session and self.is_same(session, uid) else None

    def is_same(self, session: Session, uid: str) -> bool:
        return session.uid == uid

    def _turns_of(self, uid: str) -> list[Turn]:
        return list(self.archived.get(uid, {}).values())

    def _push(self, session: Session, active: Active, beat: int, part: str, *, released: bool) -> Active:
        parts = (*active.parts, part) if part else active.parts
        new = replace(active, beat=beat + 1, parts=parts, released=released)
        self._put(session, replace(session, active=new))
        return new

    def _put(self, before: Session, after: Session) -> Session:
        self.sessions[after.session_id] = after
        self._observer.session_changed(before, after)
        return after
