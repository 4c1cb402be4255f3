"""The database that all simulated processes share: the conditional writes of the port, each in one step.

Written anew, as plainly as the port's words, and apart from `ports.py`'s stores: what is here is what is expected of
them. A mutation overrides one method. Whoever watches is told of each change, and knows no mutation.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from service.domain.entities import Active, Ending, Principal, PurgeRecord, Session, SessionKey, Turn
from service.domain.ports import Lease, TurnKey


class Observer(Protocol):
    """Is told of every change."""

    def session_changed(self, before: Session, after: Session) -> None:
        """A write was applied to a session's document."""

    def session_removed(self, session: Session) -> None:
        """A session's document was deleted."""

    def turn_archived(self, key: SessionKey, turn: Turn) -> None:
        """A turn's copy was inserted."""

    def turns_deleted(self, session: Session | None) -> None:
        """Turns' copies were deleted, of this session, or of one that is not there any more."""


class World:
    """Sessions by id, turns by uid and first_seq, purge records by uid."""

    def __init__(self, observer: Observer) -> None:
        self.sessions: dict[str, Session] = {}
        self.archived: dict[str, dict[int, Turn]] = {}
        self.records: dict[str, PurgeRecord] = {}
        self._observer = observer

    # Reads

    def session(self, owner: Principal, session_id: str) -> Session | None:
        session = self.sessions.get(session_id)
        return session if session and session.owner == owner else None

    def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        return next((turn for turn in self._turns_of(key) if turn.request_key == request_key), None)

    def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        return next((turn for turn in self._turns_of(key) if turn.turn_id == turn_id), None)

    def turns(
        self, key: SessionKey, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool
    ) -> Sequence[Turn]:
        found = [turn for turn in self._turns_of(key) if first_seq_from <= turn.first_seq <= first_seq_to]
        return sorted(found, key=lambda turn: turn.first_seq, reverse=newest_first)[:limit]

    def running_sessions(self, limit: int, but: Collection[TurnKey]) -> Sequence[Session]:
        found = [s for s in self.sessions.values() if s.running and (s.uid, s.running.turn.turn_id) not in but]
        return found[:limit]

    # Writes

    def insert_session(self, session: Session) -> bool:
        if session.session_id in self.sessions:
            return False
        self.sessions[session.session_id] = session
        return True

    def accept(self, read: Session, now: datetime, active: Active) -> bool:
        session = self._find(read.key)
        if session is None or not self.may_accept(session, read, now):
            return False
        self._put(session, replace(session, fence=active.fence, update_time=now, active=active))
        return True

    def may_accept(self, session: Session, read: Session, now: datetime) -> bool:
        is_expired = session.expire_time is not None and session.expire_time <= now
        return (
            session.fence == read.fence and self.is_same_version(session, read) and is_there(session) and not is_expired
        )

    def is_same_version(self, session: Session, read: Session) -> bool:
        return session.settings_version == read.settings_version

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
        self.put_ended(session, session.active.ended(ending), ending)
        return True

    def put_ended(self, session: Session, ended: Active, ending: Ending) -> None:
        end = ending.end_time
        self._put(session, replace(session, last_seq=ending.last_seq, update_time=end, idle_since=end, active=ended))

    def archive(self, key: SessionKey, turn: Turn) -> bool:
        turns = self.archived.setdefault(key.uid, {})
        is_taken = turn.first_seq in turns or self.turn_by_request(key, turn.request_key)
        if is_taken or self.turn_by_id(key, turn.turn_id):
            return False
        turns[turn.first_seq] = turn
        self._observer.turn_archived(key, turn)
        return True

    def take_over(self, read: Session, lease_id: str) -> Session | None:
        session = self._find(read.key)
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

    def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        session = self._find(key)
        if session is None or session.running is None or not self.is_to_cancel(session.running, turn_id):
            return False
        self._put(session, replace(session, active=replace(session.running, cancel=True)))
        return True

    def is_to_cancel(self, running: Active, turn_id: str) -> bool:
        return running.turn.turn_id == turn_id

    # Writes of those who manage sessions

    def update_session(self, read: Session, changed: Session) -> Session | None:
        session = self._find(read.key)
        if session is None or not is_there(session) or session.settings_version != read.settings_version:
            return None
        kept = ("last_seq", "fence", "deleted_at", "purging", "active")
        return self._put(session, replace(changed, **{name: getattr(session, name) for name in kept}))

    def delete(self, read: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        session = self._find(read.key)
        if session is None or not is_there(session) or session.settings_version != read.settings_version:
            return None
        if session.fence != read.fence or (session.running is None) != (read.running is None):
            return None
        active = replace(session.running, cancel=True) if session.running else session.active
        return self._put(session, replace(session, deleted_at=deleted_at, look_at=look_at, active=active))

    def undelete(self, read: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        session = self._find(read.key)
        if session is None or session.purging or read.deleted_at is None or session.deleted_at != read.deleted_at:
            return None
        return self._put(session, replace(session, deleted_at=None, idle_since=idle_since, look_at=look_at))

    # Writes of the purger

    def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        due = [session for session in self.sessions.values() if session.look_at and session.look_at <= now]
        return sorted(due, key=lambda session: session.look_at or now)[:limit]

    def postpone(self, read: Session, look_at: datetime | None) -> bool:
        session = self._find(read.key)
        as_read = ("look_at", "settings_version", "deleted_at", "purging")
        if session is None or any(getattr(session, name) != getattr(read, name) for name in as_read):
            return False
        self._put(session, replace(session, look_at=look_at))
        return True

    def start_purge(self, read: Session, look_at: datetime) -> bool:
        session = self._find(read.key)
        if session is None or session.purging or not self.may_purge(session, read):
            return False
        self._put(session, replace(session, purging=True, fence=session.fence + 1, look_at=look_at, active=None))
        return True

    def may_purge(self, session: Session, read: Session) -> bool:
        as_read = ("fence", "settings_version", "deleted_at", "idle_since")
        return all(getattr(session, name) == getattr(read, name) for name in as_read)

    def delete_turns(self, key: SessionKey, limit: int) -> int:
        gone = self._turns_of(key)[:limit]
        for turn in gone:
            del self.archived[key.uid][turn.first_seq]
        if gone:
            self._observer.turns_deleted(self._find(key))
        return len(gone)

    def delete_session(self, key: SessionKey) -> bool:
        session = self._find(key)
        if session is None or not session.purging:
            return False
        del self.sessions[key.session_id]
        self._observer.session_removed(session)
        return True

    def put_purge_record(self, record: PurgeRecord) -> None:
        self.records[record.key.uid] = record

    def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        return sorted((r for r in self.records.values() if r.due <= now), key=lambda record: record.due)[:limit]

    def delete_purge_record(self, record: PurgeRecord) -> bool:
        if self.records.get(record.key.uid) != record:
            return False
        del self.records[record.key.uid]
        return True

    # Conditions

    def held(self, lease: Lease) -> Session | None:
        """The session, if its turn runs under this lease."""
        session = self._find(lease.key)
        active = session.running if session else None
        is_held = active is not None and (active.turn.turn_id, active.lease_id) == (lease.turn_id, lease.lease_id)
        return session if is_held else None

    def _find(self, key: SessionKey) -> Session | None:
        session = self.sessions.get(key.session_id)
        return session if session and self.is_same(session, key) else None

    def is_same(self, session: Session, key: SessionKey) -> bool:
        return session.key == key

    def _turns_of(self, key: SessionKey) -> list[Turn]:
        return list(self.archived.get(key.uid, {}).values())

    def _push(self, session: Session, active: Active, beat: int, part: str, *, released: bool) -> Active:
        parts = (*active.parts, part) if part else active.parts
        new = replace(active, beat=beat + 1, parts=parts, released=released)
        self._put(session, replace(session, active=new))
        return new

    def _put(self, before: Session, after: Session) -> Session:
        self.sessions[after.session_id] = after
        self._observer.session_changed(before, after)
        return after


def is_there(session: Session) -> bool:
    """Whether a session is neither deleted nor being removed."""
    return session.deleted_at is None and not session.purging
