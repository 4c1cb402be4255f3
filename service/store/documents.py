"""Entities as plain documents and back: what both stores keep.

A document holds str, int, float, bool, datetimes, lists and dicts; a field that is None is left out. Fields of later
releases are ignored. A session document holds its newest turn as `active`, whose `state` is RUNNING or ENDED (how it
ended is its ending's `state`); a turn document is the immutable copy of an ended turn.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from service.domain.entities import (
    Active,
    CountedSession,
    Ending,
    Erasure,
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
from service.domain.titles import title_pieces
from service.domain.words import word_texts

RUNNING = "RUNNING"
ENDED = "ENDED"
MAX_INDEXED_CHARS = 100
_MILLISECOND = timedelta(milliseconds=1)
_SETTINGS = ("model", "temperature", "top_p", "max_output_tokens", "seed")
_USAGE = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")


def turn_key(uid: str, first_seq: int) -> str:
    """Return the _id of a turn document; padded, so that the order of keys is the order of seqs."""
    return f"{uid}:{first_seq:010d}"


def session_to_doc(session: Session) -> dict[str, Any]:
    """Return the document of a session."""
    return _present(
        _id=session.session_id,
        uid=session.uid,
        owner=owner_to_doc(session.owner),
        create_time=session.create_time,
        update_time=session.update_time,
        title=session.title or None,
        # Pairs: a key may hold dots and dollar signs, which field names had better not.
        labels=[[key, value] for key, value in session.labels.items()] or None,
        **session_index(session.title, session.labels),
        instructions=session.instructions or None,
        settings=settings_to_doc(session.settings),
        expire_time=session.expire_time,
        idle_ttl_ms=None if session.idle_ttl is None else session.idle_ttl // _MILLISECOND,
        idle_since=session.idle_since,
        last_seq=session.last_seq,
        fence=session.fence,
        settings_version=session.settings_version,
        deleted_at=session.deleted_at,
        purging=session.purging or None,
        look_at=session.look_at,
        fingerprint=session.fingerprint or None,
        import_time=session.import_time,
        active=active_to_doc(session.active) if session.active else None,
    )


def session_from_doc(doc: Mapping[str, Any]) -> Session:
    """Return the session that a document describes."""
    idle_ttl_ms, active = doc.get("idle_ttl_ms"), doc.get("active")
    return Session(
        session_id=doc["_id"],
        uid=doc["uid"],
        owner=owner_from_doc(doc["owner"]),
        create_time=_time(doc["create_time"]),
        update_time=_time(doc["update_time"]),
        title=doc.get("title", ""),
        labels=dict(doc.get("labels", ())),
        instructions=doc.get("instructions", ""),
        settings=settings_from_doc(doc.get("settings", {})),
        expire_time=_optional_time(doc.get("expire_time")),
        idle_ttl=None if idle_ttl_ms is None else timedelta(milliseconds=idle_ttl_ms),
        last_seq=doc["last_seq"],
        fence=doc["fence"],
        settings_version=doc.get("settings_version", 1),
        deleted_at=_optional_time(doc.get("deleted_at")),
        purging=doc.get("purging", False),
        active=active_from_doc(active) if active else None,
        idle_since=_optional_time(doc.get("idle_since")),
        fingerprint=doc.get("fingerprint", ""),
        import_time=_optional_time(doc.get("import_time")),
        look_at=_optional_time(doc.get("look_at")),
    )


def session_index(title: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a session's document that lists find it by."""
    return _present(title_index=title_pieces(title) or None, label_index=label_index(labels) or None)


def label_index(labels: Mapping[str, str]) -> list[str]:
    """Return what sessions with these labels are found by: each key, and each key with its value."""
    return [label_entry(entry) for key, value in labels.items() for entry in ((key,), (key, value))]


def label_entry(label: Sequence[str]) -> str:
    """Return the entry of the index for a key, or a key and its value."""
    return json.dumps(label, ensure_ascii=False)


def owner_to_doc(owner: Principal) -> dict[str, Any]:
    """Return the sub-document of an owner; its fields always come in this order, so that it can be compared."""
    return {"tenant": owner.tenant, "subject": owner.subject}


def owner_from_doc(doc: Mapping[str, Any]) -> Principal:
    """Return the owner that a sub-document names."""
    return Principal(doc["tenant"], doc["subject"])


def active_to_doc(active: Active) -> dict[str, Any]:
    """Return the sub-document of a session's newest turn."""
    ending = active.turn.ending
    doc = turn_fields(active.turn)
    doc |= {
        "on_disconnect": active.on_disconnect.value,
        "deadline": active.deadline,
        "state": ENDED if ending else RUNNING,
        "lease_id": active.lease_id,
        "fence": active.fence,
        "beat": active.beat,
        "released": active.released,
        "cancel": active.cancel,
    }
    if ending is None:
        doc["parts"] = list(active.parts)
    return doc


def active_from_doc(doc: Mapping[str, Any]) -> Active:
    """Return a session's newest turn; parts that were left out are none."""
    return Active(
        turn=turn_from_doc(doc),
        on_disconnect=OnDisconnect(doc["on_disconnect"]),
        deadline=_time(doc["deadline"]),
        lease_id=doc["lease_id"],
        fence=doc["fence"],
        beat=doc["beat"],
        released=doc["released"],
        cancel=doc["cancel"],
        parts=tuple(doc.get("parts", ())),
    )


def turn_to_doc(key: SessionKey, turn: Turn) -> dict[str, Any]:
    """Return the document of an archived turn."""
    return {
        "_id": turn_key(key.uid, turn.first_seq),
        "uid": key.uid,
        "owner": owner_to_doc(key.owner),
        "session_id": key.session_id,
        "words": turn_words(turn.user_text, turn.ending.text if turn.ending else ""),
        **turn_fields(turn),
    }


def turn_words(*texts: str) -> list[str]:
    """Return what a turn is found by: the beginning of each of its words, which is all that an index can hold."""
    words = set(chain.from_iterable(map(word_texts, texts)))
    if max(map(len, words), default=0) > MAX_INDEXED_CHARS:
        words = {word[:MAX_INDEXED_CHARS] for word in words}
    return sorted(words)


def turn_from_doc(doc: Mapping[str, Any]) -> Turn:
    """Return the turn that a turn document, or the `active` of a session, describes."""
    ending = doc.get("ending")
    return Turn(
        turn_id=doc["turn_id"],
        request_key=doc["request_key"],
        user_text=doc["user_text"],
        sent_settings=settings_from_doc(doc["sent_settings"]),
        settings=settings_from_doc(doc["settings"]),
        first_seq=doc["first_seq"],
        attempt=doc["attempt"],
        create_time=_time(doc["create_time"]),
        ending=ending_from_doc(ending) if ending else None,
        settings_version=doc.get("settings_version", 1),
    )


def turn_fields(turn: Turn) -> dict[str, Any]:
    """Return what a turn is by itself, without whose it is."""
    return _present(
        turn_id=turn.turn_id,
        request_key=turn.request_key,
        user_text=turn.user_text,
        sent_settings=settings_to_doc(turn.sent_settings),
        settings=settings_to_doc(turn.settings),
        first_seq=turn.first_seq,
        attempt=turn.attempt,
        create_time=turn.create_time,
        settings_version=turn.settings_version,
        ending=ending_to_doc(turn.ending) if turn.ending else None,
    )


def ending_to_doc(ending: Ending) -> dict[str, Any]:
    """Return the sub-document of an ending; `n` counts its messages, `status` is a failure's reason and message."""
    failure, usage = ending.failure, ending.usage
    return _present(
        state=ending.state.value,
        text=ending.text,
        n=ending.message_count,
        last_seq=ending.last_seq,
        fence=ending.fence,
        end_time=ending.end_time,
        finish_reason=ending.finish_reason.value if ending.finish_reason else None,
        status={"reason": failure.reason, "message": failure.message} if failure else None,
        usage=_usage_to_doc(usage) if usage else None,
        model=ending.model,
    )


def ending_from_doc(doc: Mapping[str, Any]) -> Ending:
    """Return the ending that a sub-document describes."""
    finish_reason, status, usage = doc.get("finish_reason"), doc.get("status"), doc.get("usage")
    return Ending(
        state=TurnState(doc["state"]),
        text=doc["text"],
        message_count=doc["n"],
        last_seq=doc["last_seq"],
        fence=doc["fence"],
        end_time=_time(doc["end_time"]),
        finish_reason=FinishReason(finish_reason) if finish_reason else None,
        failure=Failure(status["reason"], status["message"]) if status else None,
        usage=_usage_from_doc(usage) if usage is not None else None,
        model=doc.get("model"),
    )


def purge_record_to_doc(record: PurgeRecord) -> dict[str, Any]:
    """Return the document of a purge record."""
    key = record.key
    return {"_id": key.uid, "owner": owner_to_doc(key.owner), "session_id": key.session_id, "due": record.due}


def purge_record_from_doc(doc: Mapping[str, Any]) -> PurgeRecord:
    """Return the purge record that a document describes."""
    return PurgeRecord(SessionKey(owner_from_doc(doc["owner"]), doc["session_id"], doc["_id"]), _time(doc["due"]))


def erasure_to_doc(erasure: Erasure) -> dict[str, Any]:
    """Return the document of an erasure."""
    return _present(
        _id=erasure.erasure_id,
        owner=owner_to_doc(erasure.owner),
        number=erasure.number,
        create_time=erasure.create_time,
        sessions_total=erasure.sessions_total,
        due=erasure.due,
        version=erasure.version,
        sessions_erased=erasure.sessions_erased,
        turns_erased=erasure.turns_erased,
        pending=[[key.session_id, key.uid, turns] for key, turns in erasure.pending],
        end_time=erasure.end_time,
    )


def erasure_from_doc(doc: Mapping[str, Any]) -> Erasure:
    """Return the erasure that a document describes."""
    owner = owner_from_doc(doc["owner"])
    return Erasure(
        erasure_id=doc["_id"],
        owner=owner,
        number=doc["number"],
        create_time=_time(doc["create_time"]),
        sessions_total=doc["sessions_total"],
        due=_optional_time(doc.get("due")),
        version=doc["version"],
        sessions_erased=doc["sessions_erased"],
        turns_erased=doc["turns_erased"],
        pending=tuple(
            CountedSession(SessionKey(owner, session_id, uid), turns) for session_id, uid, turns in doc["pending"]
        ),
        end_time=_optional_time(doc.get("end_time")),
    )


def settings_to_doc(settings: ModelSettings) -> dict[str, Any]:
    """Return the settings that are set."""
    doc = {name: value for name in _SETTINGS if (value := getattr(settings, name)) is not None}
    if settings.stop_sequences:
        doc["stop_sequences"] = list(settings.stop_sequences)
    return doc


def settings_from_doc(doc: Mapping[str, Any]) -> ModelSettings:
    """Return settings; what is absent is open."""
    if not doc:
        return _NO_SETTINGS
    return ModelSettings(
        **{name: doc[name] for name in _SETTINGS if name in doc}, stop_sequences=tuple(doc.get("stop_sequences", ()))
    )


_NO_SETTINGS = ModelSettings()


def _usage_to_doc(usage: Usage) -> dict[str, Any]:
    doc = {name: value for name in _USAGE if (value := getattr(usage, name)) is not None}
    if usage.estimated:
        doc["estimated"] = True
    return doc


def _usage_from_doc(doc: Mapping[str, Any]) -> Usage:
    return Usage(**{name: doc[name] for name in _USAGE if name in doc}, estimated=doc.get("estimated", False))


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _time(value: datetime | str) -> datetime:
    """Return a time in UTC: a document from BSON has it without a zone, one from JSON as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _optional_time(value: datetime | str | None) -> datetime | None:
    return None if value is None else _time(value)
