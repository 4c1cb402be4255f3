"""Random calls: every store answers, and keeps, what the model does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.entities import Session
from service.domain.ports import Lease, SessionStore
from tests.contract.build import ENDINGS, NOW, a_session, a_turn, an_active, new_id
from tests.contract.model import ModelStore

# Few values, so that conditions match about as often as they refuse.
_sessions = st.sampled_from("ab")
_uids = st.sampled_from(["u1", "u1", "u1", "u2"])
_turn_numbers = st.integers(1, 2)
_leases = st.sampled_from(["lease1", "lease1", "lease2"])
_beats = st.integers(0, 2)
_fences = st.integers(0, 2)
_moments = st.sampled_from([NOW, NOW + timedelta(seconds=1)])
_parts = st.sampled_from(["", "a", "b\n\x00\u2028"])
_endings = st.sampled_from(list(ENDINGS.values()))

_held = st.tuples(_sessions, _uids, _turn_numbers, _leases)
_calls = st.one_of(
    st.tuples(st.just("insert"), _sessions, _uids, st.sampled_from([None, NOW]), st.sampled_from([None, NOW])),
    st.tuples(st.just("accept"), _sessions, _uids, _fences, _moments, _turn_numbers, _leases),
    st.tuples(st.just("accept"), _sessions, st.just("u1"), _fences, _moments, _turn_numbers, _leases),
    st.tuples(st.just("checkpoint"), _held, _beats, _parts),
    st.tuples(st.just("release"), _held, _beats, _parts),
    st.tuples(st.just("end"), _held, _endings),
    st.tuples(st.just("take_over"), _sessions, st.booleans(), _held, _beats, _fences),
    st.tuples(st.just("cancel"), _sessions, _uids, _turn_numbers),
    st.tuples(st.just("archive"), _uids, _turn_numbers, _turn_numbers, _turn_numbers, _endings),
)


class _Caller:
    """Makes the calls on one store; ids of one example are its own, as all examples share the database."""

    def __init__(self, store: SessionStore, example: str) -> None:
        self._store = store
        self._example = example

    async def call(self, name: str, *arguments: Any) -> object:
        return await getattr(self, f"_{name}")(*arguments)

    async def everything(self) -> list[object]:
        found: list[object] = [await self._store.session(self._id(name)) for name in "ab"]
        for uid in ("u1", "u2"):
            found += await self._store.turns(self._id(uid), first_seq_from=0, first_seq_to=9, limit=9)
        return found

    def _id(self, name: str) -> str:
        return f"{self._example}-{name}"

    def _lease(self, session: str, uid: str, number: int, lease_id: str) -> Lease:
        return Lease(self._id(session), self._id(uid), f"turn{number}", lease_id)

    async def _insert(self, session: str, uid: str, deleted_at: Any, expire_time: Any) -> object:
        new = a_session(
            session_id=self._id(session),
            uid=self._id(uid),
            deleted_at=deleted_at,
            expire_time=expire_time and expire_time + timedelta(milliseconds=500),
        )
        return await self._store.insert_session(new)

    async def _accept(self, session: str, uid: str, fence: int, now: Any, number: int, lease_id: str) -> object:
        active = an_active(a_turn(number), fence=fence + 1, lease_id=lease_id)
        return await self._store.accept(self._id(session), self._id(uid), fence, now, active)

    async def _checkpoint(self, held: Any, beat: int, part: str) -> object:
        active = await self._store.checkpoint(self._lease(*held), beat, part)
        return active and replace(active, parts=())

    async def _release(self, held: Any, beat: int, part: str) -> object:
        return await self._store.release(self._lease(*held), beat, part)

    async def _end(self, held: Any, ending: Any) -> object:
        return await self._store.end(self._lease(*held), ending)

    async def _take_over(self, session: str, as_it_is: bool, held: Any, beat: int, fence: int) -> object:
        read: Session | None = await self._store.session(self._id(session))
        if not as_it_is or not read:
            lease = self._lease(*held)
            active = an_active(a_turn(turn_id=lease.turn_id), lease_id=lease.lease_id, beat=beat, fence=fence)
            read = a_session(session_id=lease.session_id, uid=lease.uid, fence=fence, active=active)
        return await self._store.take_over(read, "lease2")

    async def _cancel(self, session: str, uid: str, number: int) -> object:
        return await self._store.request_cancel(self._id(session), self._id(uid), f"turn{number}")

    async def _archive(self, uid: str, number: int, first_seq: int, key: int, ending: Any) -> object:
        turn = a_turn(number, first_seq=first_seq, request_key=f"c:{key}", ending=ending)
        return await self._store.archive(self._id(uid), turn)


@given(calls=st.lists(_calls, min_size=5, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_store_does_what_the_model_does(store: SessionStore, calls: list[Any]) -> None:
    example = new_id()
    model, real = _Caller(ModelStore(), example), _Caller(store, example)
    for call in calls:
        assert await real.call(*call) == await model.call(*call), call
    assert await real.everything() == await model.everything()
