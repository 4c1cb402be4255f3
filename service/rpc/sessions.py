"""Between the contract's sessions and the domain's."""

from datetime import UTC, datetime, timedelta

from chatsession.v1 import chat_session_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.entities import Session
from service.domain.errors import InvalidField
from service.domain.fields import SessionFields
from service.domain.updates import SessionUpdate
from service.rpc.convert import settings_from, settings_to, timestamp_to

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PLAIN = ("title", "labels", "instructions", "expire_time", "ttl", "idle_ttl")


def fields_from(session_pb: pb.Session) -> SessionFields:
    """Read what a caller may set; raises InvalidField for a time that is none."""
    return SessionFields(
        title=session_pb.title,
        labels=dict(session_pb.labels),
        instructions=session_pb.instructions,
        settings=settings_from(session_pb.settings),
        expire_time=_time_from("session.expire_time", session_pb.expire_time)
        if session_pb.HasField("expire_time")
        else None,
        ttl=_duration_from("session.ttl", session_pb.ttl) if session_pb.HasField("ttl") else None,
        idle_ttl=_duration_from("session.idle_ttl", session_pb.idle_ttl) if session_pb.HasField("idle_ttl") else None,
    )


def update_from(request: pb.UpdateSessionRequest) -> SessionUpdate:
    """Read an update; without a mask all fields count that are set."""
    check_session_id(request.session, request.session_id)
    # An empty mask is none: many callers cannot tell the two apart, and to change nothing would help nobody.
    paths = list(request.update_mask.paths) or _set_paths(request.session)
    return SessionUpdate(fields_from(request.session), paths, request.session.etag)


def _set_paths(session_pb: pb.Session) -> list[str]:
    paths = [field.name for field, _ in session_pb.ListFields() if field.name in _PLAIN]
    return paths + [f"settings.{field.name}" for field, _ in session_pb.settings.ListFields()]


def check_session_id(session_pb: pb.Session, session_id: str) -> None:
    """Refuse a session that names another id than its request does."""
    if session_pb.session_id and session_pb.session_id != session_id:
        raise InvalidField("session.session_id", "differs from session_id")


def session_to(session: Session, purge_time: datetime | None) -> pb.Session:
    """Return a session in full."""
    session_pb = pb.Session(
        session_id=session.session_id,
        title=session.title,
        labels=session.labels,
        instructions=session.instructions,
        settings=settings_to(session.settings),
        last_seq=session.last_seq,
        create_time=timestamp_to(session.create_time),
        update_time=timestamp_to(session.update_time),
        etag=session.etag,
        settings_version=session.settings_version,
    )
    for name, time in (
        ("expire_time", session.expire_time),
        ("delete_time", session.deleted_at),
        ("purge_time", purge_time),
    ):
        if time is not None:
            getattr(session_pb, name).CopyFrom(timestamp_to(time))
    if session.idle_ttl is not None:
        session_pb.idle_ttl.FromTimedelta(session.idle_ttl)
    if session.running is not None:
        session_pb.active_turn_id = session.running.turn.turn_id
    return session_pb


def _time_from(field: str, time: Timestamp) -> datetime:
    """Read a time, cut to milliseconds."""
    try:
        return _EPOCH + time.ToMilliseconds() * _MILLISECOND
    except (ValueError, OverflowError):
        raise InvalidField(field, "is not a time") from None


def _duration_from(field: str, duration: Duration) -> timedelta:
    """Read a duration, cut to milliseconds."""
    try:
        duration.ToJsonString()  # raises ValueError for what is none, such as +1 s and -1 ns
        return duration.ToMilliseconds() * _MILLISECOND
    except (ValueError, OverflowError):
        raise InvalidField(field, "is not a duration") from None
