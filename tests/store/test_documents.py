"""Whatever an entity holds survives its document, as BSON and as JSON."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import bson
import orjson
from hypothesis import given
from hypothesis import strategies as st

from service.domain.entities import (
    Active,
    Ending,
    Failure,
    FinishReason,
    ModelSettings,
    OnDisconnect,
    Principal,
    PurgeRecord,
    Session,
    SessionKey,
    Turn,
    TurnState,
    Usage,
)
from service.store.documents import (
    purge_record_from_doc,
    purge_record_to_doc,
    session_from_doc,
    session_to_doc,
    turn_from_doc,
    turn_key,
    turn_to_doc,
)

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_int32s = st.integers(0, 2**31 - 1)
_int64s = st.integers(0, 2**62)
_floats = st.floats(0, 2)
_times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)


def _maybe(strategy: Any) -> Any:
    return st.none() | strategy


_settings = st.builds(
    ModelSettings,
    model=_maybe(_texts),
    temperature=_maybe(_floats),
    top_p=_maybe(_floats),
    max_output_tokens=_maybe(_int32s),
    seed=_maybe(_int32s),
    stop_sequences=st.lists(_texts, max_size=3).map(tuple),
)
_usages = st.builds(Usage, *[_maybe(_int32s)] * 4, estimated=st.booleans())
_endings = st.builds(
    Ending,
    state=st.sampled_from([state for state in TurnState if state is not TurnState.RUNNING]),
    text=_texts,
    message_count=st.integers(1, 2),
    last_seq=_int32s,
    fence=_int64s,
    end_time=_times,
    finish_reason=_maybe(st.sampled_from(FinishReason)),
    failure=_maybe(st.builds(Failure, _texts, _texts)),
    usage=_maybe(_usages),
    model=_maybe(_texts),
)
_turns = st.builds(
    Turn,
    turn_id=_texts,
    request_key=_texts,
    user_text=_texts,
    sent_settings=_settings,
    settings=_settings,
    first_seq=_int32s,
    attempt=_int32s,
    create_time=_times,
    ending=_maybe(_endings),
    settings_version=_int32s,
)
_actives = st.builds(
    Active,
    turn=_turns,
    on_disconnect=st.sampled_from(OnDisconnect),
    deadline=_times,
    lease_id=_texts,
    fence=_int64s,
    beat=_int64s,
    released=st.booleans(),
    cancel=st.booleans(),
    parts=st.lists(_texts, max_size=3).map(tuple),
).map(lambda active: active if active.is_running else replace(active, parts=()))
_sessions = st.builds(
    Session,
    session_id=_texts,
    uid=_texts,
    owner=st.builds(Principal, _texts, _texts),
    create_time=_times,
    update_time=_times,
    title=_texts,
    labels=st.dictionaries(_texts, _texts, max_size=3),
    instructions=_texts,
    settings=_settings,
    expire_time=_maybe(_times),
    idle_ttl=_maybe(st.integers(0, 2**40).map(lambda ms: timedelta(milliseconds=ms))),
    last_seq=_int32s,
    fence=_int64s,
    settings_version=_int32s,
    deleted_at=_maybe(_times),
    purging=st.booleans(),
    active=_maybe(_actives),
    idle_since=_maybe(_times),
    fingerprint=_texts,
    look_at=_maybe(_times),
)


@given(session=_sessions)
def test_a_session_survives_bson(session: Session) -> None:
    assert session_from_doc(bson.decode(bson.encode(session_to_doc(session)))) == session


@given(session=_sessions)
def test_a_session_survives_json(session: Session) -> None:
    assert session_from_doc(orjson.loads(orjson.dumps(session_to_doc(session)))) == session


@given(turn=_turns)
def test_a_turn_survives_bson_and_json(turn: Turn) -> None:
    doc = turn_to_doc(SessionKey(Principal("t", "s"), "id", "uid"), turn)
    assert turn_from_doc(bson.decode(bson.encode(doc))) == turn
    assert turn_from_doc(orjson.loads(orjson.dumps(doc))) == turn


@given(session=_sessions, due=_times)
def test_a_purge_record_survives_bson(session: Session, due: datetime) -> None:
    record = PurgeRecord(session.key, due)
    assert purge_record_from_doc(bson.decode(bson.encode(purge_record_to_doc(record)))) == record


@given(session=_sessions)
def test_what_is_absent_is_left_out(session: Session) -> None:
    assert None not in _values(session_to_doc(session))


@given(first_seq=_int32s, other=_int32s)
def test_keys_of_turns_sort_as_their_numbers(first_seq: int, other: int) -> None:
    assert (turn_key("uid", first_seq) < turn_key("uid", other)) == (first_seq < other)


@given(moment=_times, hours=st.integers(-12, 12))
def test_times_come_back_in_utc(moment: datetime, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    session = Session("id", "uid", Principal("", ""), moment, moment, expire_time=_in(moment, zone))
    for doc in (bson.decode(bson.encode(session_to_doc(session))), session_to_doc(session)):
        found = session_from_doc(doc).expire_time
        assert found == moment
        assert found.tzinfo is UTC


def _in(moment: datetime, zone: timezone) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def _values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _values(item)]
    return [leaf for item in value for leaf in _values(item)] if isinstance(value, list) else [value]
