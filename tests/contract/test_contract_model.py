"""Random calls: every store answers, and keeps, what the model does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.entities import PurgeRecord, Session, SessionKey
from service.domain.ports import Lease, SessionStore
from tests.contract.build import ENDINGS, NOW, OTHERS, OWNER, a_session, a_turn, an_active, new_id
from tests.contract.model import ModelStore

# Few values, so that conditions match about as often as they refuse.
_sessions = st.sampled_from("ab")
_uids = st.sampled_from(["u1", "u1", "u1", "u2"])
_owners = st.sampled_from([OWNER, OWNER, OWNER, *OTHERS])
_turn_numbers = st.integers(1, 2)
_leases = st.sampled_from(["lease1", "lease1", "lease2"])
_beats = st.integers(0, 2)
_fences = st.integers(0, 2)
_versions = st.sampled_from([1, 1, 2])
_moments = st.sampled_from([NOW, NOW + timedelta(seconds=1)])
_maybe = st.sampled_from([None, None, NOW])
_parts = st.sampled_from(["", "a", "b\n\x00\u2028"])
_endings = st.sampled_from(list(ENDINGS.values()))

_keys = st.tuples(_sessions, _uids, _owners)
_held = st.tuples(_keys, _turn_numbers, _leases)
# A session as somebody may have read it: as it is now, or in another state of these fields.
_read = st.tuples(_keys, st.booleans(), _fences, _versions, _maybe)
_calls = st.one_of(
    st.tuples(st.just("insert"), _keys, _maybe, _maybe, _maybe),
    st.tuples(st.just("accept"), _read, _moments, _turn_numbers, _leases),
    st.tuples(st.just("accept"), _read, _moments, _turn_numbers, _leases),
    st.tuples(st.just("checkpoint"), _held, _beats, _parts),
    st.tuples(st.just("release"), _held, _beats, _parts),
    st.tuples(st.just("end"), _held, _endings),
    st.tuples(st.just("take_over"), _read, _held, _beats),
    st.tuples(st.just("cancel"), _keys, _turn_numbers),
    st.tuples(st.just("archive"), _keys, _turn_numbers, _turn_numbers, _turn_numbers, _endings),
    st.tuples(st.just("update"), _read, _versions, _maybe, _parts),
    st.tuples(st.just("delete"), _read, _moments),
    st.tuples(st.just("undelete"), _read, _moments, _maybe),
    st.tuples(st.just("postpone"), _read, _maybe),
    st.tuples(st.just("start_purge"), _read, _moments),
    st.tuples(st.just("delete_turns"), _keys, st.integers(1, 2)),
    st.tuples(st.just("delete_session"), _keys),
    st.tuples(st.just("put_record"), _keys, _moments),
    st.tuples(st.just("delete_record"), _keys, _moments),
)


class _Caller:
    """Makes the calls on one store; ids of one example are its own, as all examples share the database."""

    def __init__(self, store: SessionStore, example: str) -> None:
        self._store = store
        self._example = example

    async def call(self, name: str, *arguments: Any) -> object:
        return await getattr(self, f"_{name}")(*arguments)

    async def everything(self) -> list[object]:
        found: list[object] = []
        for owner in (OWNER, *OTHERS):
            found += [await self._store.session(owner, self._id(name)) for name in "ab"]
            for uid in ("u1", "u2"):
                key = self._key(("a", uid, owner))
                found += await self._store.turns(key, first_seq_from=0, first_seq_to=9, limit=9)
        for moment in (NOW, NOW + timedelta(days=1)):
            records = await self._store.due_purge_records(moment, 1000)
            found.append({record for record in records if self._is_mine(record.key)})
            sessions = await self._store.due_sessions(moment, 1000)
            found.append({session.session_id for session in sessions if self._is_mine(session.key)})
        return found

    def _id(self, name: str) -> str:
        return f"{self._example}-{name}"

    def _is_mine(self, key: SessionKey) -> bool:
        return key.uid.startswith(self._example)

    def _key(self, key: Any) -> SessionKey:
        session, uid, owner = key
        return SessionKey(owner, self._id(session), self._id(uid))

    def _lease(self, key: Any, number: int, lease_id: str) -> Lease:
        return Lease(self._key(key), f"turn{number}", lease_id)

    async def _as_read(self, key: Any, as_it_is: bool, fence: int, version: int, deleted_at: Any) -> Session:
        owner, session_id, uid = self._key(key)
        read = await self._store.session(owner, session_id)
        if as_it_is and read:
            return read
        fields = {"fence": fence, "settings_version": version, "deleted_at": deleted_at}
        return a_session(owner=owner, session_id=session_id, uid=uid, **fields)

    async def _insert(self, key: Any, deleted_at: Any, expire_time: Any, look_at: Any) -> object:
        owner, session_id, uid = self._key(key)
        new = a_session(
            owner=owner,
            session_id=session_id,
            uid=uid,
            deleted_at=deleted_at,
            expire_time=expire_time and expire_time + timedelta(milliseconds=500),
            look_at=look_at,
        )
        return await self._store.insert_session(new)

    async def _accept(self, read: Any, now: Any, number: int, lease_id: str) -> object:
        session = await self._as_read(*read)
        active = an_active(a_turn(number), fence=session.fence + 1, lease_id=lease_id)
        return await self._store.accept(session, now, active)

    async def _checkpoint(self, held: Any, beat: int, part: str) -> object:
        active = await self._store.checkpoint(self._lease(*held), beat, part)
        return active and replace(active, parts=())

    async def _release(self, held: Any, beat: int, part: str) -> object:
        return await self._store.release(self._lease(*held), beat, part)

    async def _end(self, held: Any, ending: Any) -> object:
        return await self._store.end(self._lease(*held), ending)

    async def _take_over(self, read: Any, held: Any, beat: int) -> object:
        session = await self._as_read(*read)
        if session.active is None:
            lease = self._lease(*held)
            active = an_active(a_turn(turn_id=lease.turn_id), lease_id=lease.lease_id, beat=beat, fence=session.fence)
            session = replace(session, active=active)
        return await self._store.take_over(session, "lease2")

    async def _cancel(self, key: Any, number: int) -> object:
        return await self._store.request_cancel(self._key(key), f"turn{number}")

    async def _archive(self, key: Any, number: int, first_seq: int, request: int, ending: Any) -> object:
        turn = a_turn(number, first_seq=first_seq, request_key=f"c:{request}", ending=ending)
        return await self._store.archive(self._key(key), turn)

    async def _update(self, read: Any, version: int, moment: Any, text: str) -> object:
        session = await self._as_read(*read)
        labels = {text: text} if text else {}
        changed = replace(
            session,
            title=text,
            labels=labels,
            instructions=text,
            expire_time=moment,
            idle_ttl=moment and timedelta(seconds=5),
            idle_since=moment,
            look_at=moment,
            settings_version=version,
            update_time=NOW,
        )
        return await self._store.update_session(session, changed)

    async def _delete(self, read: Any, moment: Any) -> object:
        return await self._store.delete(await self._as_read(*read), moment, moment)

    async def _undelete(self, read: Any, moment: Any, look_at: Any) -> object:
        return await self._store.undelete(await self._as_read(*read), moment, look_at)

    async def _postpone(self, read: Any, look_at: Any) -> object:
        return await self._store.postpone(await self._as_read(*read), look_at)

    async def _start_purge(self, read: Any, moment: Any) -> object:
        return await self._store.start_purge(await self._as_read(*read), moment)

    async def _delete_turns(self, key: Any, limit: int) -> object:
        deleted = [await self._store.delete_turns(self._key(key), limit)]
        while deleted[-1]:  # which of them go first is the store's own choice
            deleted.append(await self._store.delete_turns(self._key(key), limit))
        return deleted

    async def _delete_session(self, key: Any) -> object:
        return await self._store.delete_session(self._key(key))

    async def _put_record(self, key: Any, moment: Any) -> object:
        return await self._store.put_purge_record(PurgeRecord(self._key(("a", key[1], OWNER)), moment))

    async def _delete_record(self, key: Any, moment: Any) -> object:
        return await self._store.delete_purge_record(PurgeRecord(self._key(("a", *key[1:])), moment))


@given(calls=st.lists(_calls, min_size=5, max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_store_does_what_the_model_does(store: SessionStore, calls: list[Any]) -> None:
    example = new_id()
    model, real = _Caller(ModelStore(), example), _Caller(store, example)
    for call in calls:
        assert await real.call(*call) == await model.call(*call), call
    assert await real.everything() == await model.everything()
