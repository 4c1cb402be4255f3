"""The port's words as the plainest code: what every store has to do, without a database."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.entities import (
    Active,
    Ending,
    Erasure,
    Principal,
    PurgeRecord,
    Session,
    SessionKey,
    Turn,
    TurnTexts,
)
from service.domain.ports import Lease, TurnKey
from service.domain.ranges import SessionRange, Unlisted
from service.domain.titles import title_pieces


class ModelStore:
    """A SessionStore in dictionaries."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._turns: dict[tuple[str, int], tuple[Principal, Turn]] = {}
        self._records: dict[str, PurgeRecord] = {}
        self._erasures: dict[str, Erasure] = {}

    async def ping(self) -> None:
        """Do nothing."""

    # Sessions

    async def insert_session(self, session: Session) -> bool:
        if session.session_id in self._sessions:
            return False
        self._sessions[session.session_id] = session
        return True

    async def session(self, owner: Principal, session_id: str) -> Session | None:
        session = self._sessions.get(session_id)
        return session if session and session.owner == owner else None

    async def running_sessions(self, limit: int, *, but: Collection[TurnKey] = ()) -> Sequence[Session]:
        found = [s for s in self._sessions.values() if s.running and (s.uid, s.running.turn.turn_id) not in but]
        return found[:limit]

    async def update_session(self, session: Session, changed: Session) -> Session | None:
        found = self._there(session.key)
        if found is None or found.settings_version != session.settings_version:
            return None
        return self._put(
            replace(
                found,
                title=changed.title,
                labels=changed.labels,
                instructions=changed.instructions,
                settings=changed.settings,
                expire_time=changed.expire_time,
                idle_ttl=changed.idle_ttl,
                idle_since=changed.idle_since,
                settings_version=changed.settings_version,
                update_time=changed.update_time,
                look_at=changed.look_at,
            )
        )

    async def delete(self, session: Session, deleted_at: datetime, look_at: datetime) -> Session | None:
        found = self._there(session.key)
        if found is None or (found.fence, found.settings_version) != (session.fence, session.settings_version):
            return None
        if (session.running is None) != (found.running is None):
            return None
        active = replace(found.running, cancel=True) if found.running else found.active
        return self._put(replace(found, deleted_at=deleted_at, look_at=look_at, active=active))

    async def undelete(self, session: Session, idle_since: datetime, look_at: datetime | None) -> Session | None:
        found = self._find(session.key)
        if found is None or found.purging or found.deleted_at is None or found.deleted_at != session.deleted_at:
            return None
        return self._put(replace(found, deleted_at=None, idle_since=idle_since, look_at=look_at))

    # Turns

    async def turn_by_request(self, key: SessionKey, request_key: str) -> Turn | None:
        return next((turn for turn in self._turns_of(key) if turn.request_key == request_key), None)

    async def turn_by_id(self, key: SessionKey, turn_id: str) -> Turn | None:
        return next((turn for turn in self._turns_of(key) if turn.turn_id == turn_id), None)

    async def turns(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int, newest_first: bool = False
    ) -> Sequence[Turn]:
        found = [turn for turn in self._turns_of(key) if first_seq_from <= turn.first_seq <= first_seq_to]
        return sorted(found, key=lambda turn: turn.first_seq, reverse=newest_first)[:limit]

    async def turn_texts(
        self, key: SessionKey, *, first_seq_from: int, first_seq_to: int, limit: int
    ) -> Sequence[TurnTexts]:
        turns = await self.turns(
            key, first_seq_from=first_seq_from, first_seq_to=first_seq_to, limit=limit, newest_first=True
        )
        return [turn.texts for turn in turns]

    async def accept(self, session: Session, now: datetime, active: Active) -> bool:
        found = self._there(session.key)
        if found is None or (found.fence, found.settings_version) != (session.fence, session.settings_version):
            return False
        if found.expire_time and found.expire_time <= now:
            return False
        self._put(replace(found, fence=active.fence, update_time=now, active=active))
        return True

    async def checkpoint(self, lease: Lease, beat: int, part: str) -> Active | None:
        session, active = self._held(lease)
        if active is None or active.beat != beat:
            return None
        parts = (*active.parts, part) if part else active.parts
        return self._put_active(session, replace(active, beat=beat + 1, parts=parts))

    async def release(self, lease: Lease, beat: int, part: str) -> bool:
        if not await self.checkpoint(lease, beat, part):
            return False
        session, active = self._held(lease)
        assert active
        self._put_active(session, replace(active, released=True))
        return True

    async def end(self, lease: Lease, ending: Ending) -> bool:
        session, active = self._held(lease)
        if active is None:
            return False
        moved = replace(session, last_seq=ending.last_seq, update_time=ending.end_time, idle_since=ending.end_time)
        self._put_active(moved, active.ended(ending))
        return True

    async def archive(self, key: SessionKey, turn: Turn) -> bool:
        there = [other for (uid, _), (_, other) in self._turns.items() if uid == key.uid]
        if any(
            other.first_seq == turn.first_seq or other.request_key == turn.request_key or other.turn_id == turn.turn_id
            for other in there
        ):
            return False
        self._turns[key.uid, turn.first_seq] = key.owner, turn
        return True

    async def take_over(self, session: Session, lease_id: str) -> Session | None:
        if session.active is None:
            return None
        read, fence = session.active, session.fence + 1
        found, active = self._held(Lease(session.key, read.turn.turn_id, read.lease_id))
        if active is None or active.beat != read.beat:
            return None
        turn = replace(active.turn, attempt=read.turn.attempt + 1)
        new = replace(active, turn=turn, fence=fence, lease_id=lease_id, beat=0, released=False)
        return self._put(replace(found, fence=fence, active=new))

    async def request_cancel(self, key: SessionKey, turn_id: str) -> bool:
        session = self._find(key)
        active = session and session.running
        if not session or not active or active.turn.turn_id != turn_id:
            return False
        self._put_active(session, replace(active, cancel=True))
        return True

    # Purging

    async def due_sessions(self, now: datetime, limit: int) -> Sequence[Session]:
        due = [session for session in self._sessions.values() if session.look_at and session.look_at <= now]
        return sorted(due, key=lambda session: session.look_at or now)[:limit]

    async def postpone(self, session: Session, look_at: datetime | None) -> bool:
        found = self._find(session.key)
        if found is None or _hint(found) != _hint(session):
            return False
        self._put(replace(found, look_at=look_at))
        return True

    async def start_purge(self, session: Session, look_at: datetime) -> bool:
        found = self._find(session.key)
        if found is None or found.purging or _life(found) != _life(session):
            return False
        self._put(replace(found, purging=True, fence=found.fence + 1, look_at=look_at, active=None))
        return True

    async def delete_turns(self, key: SessionKey, limit: int) -> int:
        gone = [turn.first_seq for turn in self._turns_of(key)][:limit]
        for first_seq in gone:
            del self._turns[key.uid, first_seq]
        return len(gone)

    async def delete_session(self, key: SessionKey) -> bool:
        found = self._find(key)
        if found is None or not found.purging:
            return False
        del self._sessions[key.session_id]
        return True

    async def put_purge_record(self, record: PurgeRecord) -> None:
        self._records[record.key.uid] = record

    async def due_purge_records(self, now: datetime, limit: int) -> Sequence[PurgeRecord]:
        due = [record for record in self._records.values() if record.due <= now]
        return sorted(due, key=lambda record: record.due)[:limit]

    async def delete_purge_record(self, record: PurgeRecord) -> bool:
        if self._records.get(record.key.uid) != record:
            return False
        del self._records[record.key.uid]
        return True

    # Importing and erasing

    async def insert_turns(self, key: SessionKey, turns: Sequence[Turn]) -> None:
        for turn in turns:
            await self.archive(key, turn)

    async def insert_erasure(self, erasure: Erasure) -> bool:
        if any((e.owner, e.number) == (erasure.owner, erasure.number) for e in self._erasures.values()):
            return False
        self._erasures[erasure.erasure_id] = erasure
        return True

    async def erasure(self, owner: Principal, erasure_id: str) -> Erasure | None:
        found = self._erasures.get(erasure_id)
        return found if found and found.owner == owner else None

    async def latest_erasure(self, owner: Principal) -> Erasure | None:
        mine = [erasure for erasure in self._erasures.values() if erasure.owner == owner]
        return max(mine, key=lambda erasure: erasure.number, default=None)

    async def due_erasures(self, now: datetime, limit: int) -> Sequence[Erasure]:
        due = [erasure for erasure in self._erasures.values() if erasure.due and erasure.due <= now]
        return sorted(due, key=lambda erasure: erasure.due or now)[:limit]

    async def update_erasure(self, changed: Erasure) -> bool:
        found = await self.erasure(changed.owner, changed.erasure_id)
        if found is None or found.version != changed.version - 1:
            return False
        self._erasures[changed.erasure_id] = changed
        return True

    async def count_sessions(self, owner: Principal, created_to: datetime) -> int:
        return len(await self.sessions_before(owner, created_to, after=None, limit=10**9))

    async def sessions_before(
        self, owner: Principal, created_to: datetime, *, after: Session | None, limit: int
    ) -> Sequence[Session]:
        found = [s for s in self._sessions.values() if s.owner == owner and s.create_time <= created_to]
        found.sort(key=_created)
        return [session for session in found if after is None or _created(session) > _created(after)][:limit]

    async def count_turns(self, key: SessionKey) -> int:
        return len(self._turns_of(key))

    # Lists and searches

    async def list_sessions(
        self, owner: Principal, wanted: SessionRange, limit: int, _unlisted: Unlisted | None = None
    ) -> Sequence[Session]:
        found = [
            session
            for session in self._sessions.values()
            if session.owner == owner
            and wanted.low < wanted.place_of(session) < wanted.high
            and wanted.label in {(), *((key,) for key in session.labels), *session.labels.items()}
        ]
        found.sort(key=wanted.place_of, reverse=wanted.newest_first)
        return list(map(_listed, found[:limit]))

    async def count_listed(self, owner: Principal, wanted: SessionRange, limit: int) -> int:
        return len(await self.list_sessions(owner, wanted, limit))

    async def titled_ids(self, owner: Principal, piece: str, limit: int) -> Sequence[str]:
        found = [s.session_id for s in self._sessions.values() if s.owner == owner and piece in title_pieces(s.title)]
        return sorted(found)[:limit]

    async def listed_sessions(self, owner: Principal, session_ids: Sequence[str]) -> Sequence[Session]:
        found = [self._sessions[session_id] for session_id in session_ids if session_id in self._sessions]
        return [_listed(session) for session in found if session.owner == owner]

    # Conditions

    def _find(self, key: SessionKey) -> Session | None:
        session = self._sessions.get(key.session_id)
        return session if session and session.key == key else None

    def _there(self, key: SessionKey) -> Session | None:
        session = self._find(key)
        return session if session and session.deleted_at is None and not session.purging else None

    def _held(self, lease: Lease) -> tuple[Session, Active | None]:
        session = self._find(lease.key)
        if session is None:
            return _NOBODY, None
        active = session.running
        held = active and (active.turn.turn_id, active.lease_id) == (lease.turn_id, lease.lease_id)
        return session, active if held else None

    def _turns_of(self, key: SessionKey) -> list[Turn]:
        return [turn for (uid, _), (owner, turn) in self._turns.items() if (uid, owner) == (key.uid, key.owner)]

    def _put(self, session: Session) -> Session:
        self._sessions[session.session_id] = session
        return session

    def _put_active(self, session: Session, active: Active) -> Active:
        self._put(replace(session, active=active))
        return active


def _hint(session: Session) -> tuple[object, ...]:
    return session.look_at, session.settings_version, session.deleted_at, session.purging


def _created(session: Session) -> tuple[datetime, str]:
    return session.create_time, session.session_id


def _life(session: Session) -> tuple[object, ...]:
    return session.fence, session.settings_version, session.deleted_at, session.idle_since


def _listed(session: Session) -> Session:
    running = session.running
    return replace(session, active=running and replace(running, turn=replace(running.turn, user_text=""), parts=()))


_NOBODY = Session.__new__(Session)
