"""Documents as rows of tables and back.

What conditions test and what changes during a turn are columns, small ones first, so that a row's long texts are read
only when asked for. `doc` and `active` hold the rest of the documents as JSON. Times are Unix milliseconds; an owner is
the JSON of [tenant, subject].
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from service.domain.entities import Active, Principal, Session, SessionKey, Turn
from service.domain.titles import fold_title
from service.domain.words import word_texts
from service.store.documents import (
    active_to_doc,
    label_index,
    session_from_doc,
    session_to_doc,
    turn_fields,
    turn_from_doc,
)

COLUMNS: Final = (
    "session_id, uid, owner, fence, last_seq, settings_version, create_time, update_time, expire_time, idle_ttl,"
    " idle_since, deleted_at, purging, look_at, title, active_turn_id, active_state, active_lease_id, active_fence,"
    " active_attempt, active_beat, active_released, active_cancel, doc, active, active_ending, active_parts"
)
# Filled in by session_row.
INSERT_SESSION: Final = (
    f"INSERT INTO sessions ({COLUMNS}, labels, folded_title) VALUES (?{', ?' * (COLUMNS.count(',') + 2)})"
)
# Which session; filled in by key_row.
KEY: Final = "session_id = ? AND uid = ? AND owner = ?"
COLUMNS_BUT_PARTS: Final = COLUMNS.replace("active_parts", "''")
# Documents hold these under the names of columns; the stores' other names for them are `_id` and `idle_ttl_ms`.
_IN_COLUMNS: Final = (
    "_id", "uid", "owner", "fence", "last_seq", "settings_version", "create_time", "update_time", "expire_time",
    "idle_ttl_ms", "idle_since", "deleted_at", "purging", "look_at", "title", "title_index", "label_index",
    "active",
)  # fmt: skip
_OF_ACTIVE: Final = ("turn_id", "state", "lease_id", "fence", "attempt", "beat", "released", "cancel")
# Rows of one statement do not see each other's ids, hence `nth`.
_TURN: Final = "(coalesce((SELECT max(id) FROM turns WHERE id BETWEEN ? AND ?), ?) + ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FAR_MS: Final = (1 << 43) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def session_row(session: Session) -> tuple[Any, ...]:
    """Return the parameters of INSERT_SESSION."""
    *flat, active, ending, parts = active_row(session.active) if session.active else (None,) * 11
    return (
        session.session_id,
        session.uid,
        owner_column(session.owner),
        session.fence,
        session.last_seq,
        session.settings_version,
        to_ms(session.create_time),
        to_ms(session.update_time),
        optional_ms(session.expire_time),
        duration_ms(session.idle_ttl),
        optional_ms(session.idle_since),
        optional_ms(session.deleted_at),
        session.purging,
        optional_ms(session.look_at),
        session.title,
        *flat,
        session_column(session),
        active,
        ending,
        parts,
        labels_column(session),
        folded_column(session),
    )


def labels_column(session: Session) -> str | None:
    """Return the column `labels`, of which triggers keep the index; None if there are none."""
    return to_json(label_index(session.labels)) if session.labels else None


def folded_column(session: Session) -> str | None:
    """Return the title as triggers take its pieces; None if SQLite can fold it by itself."""
    return None if session.title.isascii() and "\0" not in session.title else fold_title(session.title)


def session_column(session: Session) -> str:
    """Return the column `doc` of a session."""
    doc = session_to_doc(session)
    for name in _IN_COLUMNS:
        doc.pop(name, None)
    return to_json(doc)


def active_row(active: Active) -> tuple[Any, ...]:
    """Return the columns of a session's newest turn."""
    doc = active_to_doc(active)
    flat = [doc.pop(name) for name in _OF_ACTIVE]
    ending = doc.pop("ending", None)
    parts = "".join(map(part_line, doc.pop("parts", ())))
    return (*flat, to_json(doc), ending and to_json(ending), parts)


def session_of(row: Sequence[Any]) -> Session:
    """Return the session of a row with COLUMNS."""
    session_id, uid, owner, fence, last_seq, version, create_ms, update_ms, expire_ms, idle_ttl_ms, *rest = row
    idle_since_ms, deleted_ms, purging, look_ms, title, *flat, doc, active, ending, parts = rest
    fields = orjson.loads(doc)
    tenant, subject = orjson.loads(owner)
    fields |= {
        "_id": session_id,
        "uid": uid,
        "owner": {"tenant": tenant, "subject": subject},
        "fence": fence,
        "last_seq": last_seq,
        "settings_version": version,
        "create_time": from_ms(create_ms),
        "update_time": from_ms(update_ms),
        "expire_time": optional_time(expire_ms),
        "idle_ttl_ms": idle_ttl_ms,
        "idle_since": optional_time(idle_since_ms),
        "deleted_at": optional_time(deleted_ms),
        "purging": bool(purging),
        "look_at": optional_time(look_ms),
        "title": title,
        "active": active and active_document(flat, active, ending, parts),
    }
    return session_from_doc(fields)


def active_document(flat: Sequence[Any], active: str, ending: str | None, parts: str) -> dict[str, Any]:
    """Return the sub-document of a session's newest turn; `flat` are the columns of _OF_ACTIVE."""
    doc: dict[str, Any] = orjson.loads(active)
    doc |= dict(zip(_OF_ACTIVE, flat, strict=True))
    doc |= {
        "released": bool(doc["released"]),
        "cancel": bool(doc["cancel"]),
        "ending": ending and orjson.loads(ending),
        "parts": [orjson.loads(line) for line in parts.split("\n") if line],
    }
    return doc


def key_row(key: SessionKey) -> tuple[str, str, str]:
    """Return the parameters of KEY."""
    return key.session_id, key.uid, owner_column(key.owner)


def insert_turns(count: int) -> str:
    """Return the statement that inserts so many turns, but for those that are there already."""
    # No DO NOTHING for an id that is taken: ids are chosen to be free, and a turn must not be dropped for one.
    return (
        "INSERT INTO turns (id, uid, first_seq, turn_id, request_key, owner, session_id, create_time, doc, question,"
        f" answer) VALUES {', '.join([_TURN] * count)} ON CONFLICT (uid, first_seq) DO NOTHING"
        " ON CONFLICT (uid, turn_id) DO NOTHING ON CONFLICT (uid, request_key) DO NOTHING RETURNING 1"
    )


def turn_row(key: SessionKey, turn: Turn, *, nth: int = 1) -> tuple[Any, ...]:
    """Return the parameters of insert_turns for the nth turn of the statement.

    Ids are in order of create_time: milliseconds (as far as 64 bits reach), then the next free one of these 2**20.
    """
    first_id = max(-_FAR_MS, min(to_ms(turn.create_time), _FAR_MS)) << 20
    place = (first_id, first_id + (1 << 20) - 1, first_id - 1, nth)
    named = (key.uid, turn.first_seq, turn.turn_id, turn.request_key, owner_column(key.owner), key.session_id)
    answer = turn.ending.text if turn.ending else ""
    texts = (to_json(turn_fields(turn)), _words_column(turn.user_text), _words_column(answer))
    return (*place, *named, to_ms(turn.create_time), *texts)


def _words_column(text: str) -> str | None:
    """Return the words of a text for the index; None if the index can find them in the text by itself."""
    # SQLite's JSON functions end a text at a NUL.
    return None if text.isascii() and "\0" not in text else " ".join(word_texts(text))


def turn_of(row: Sequence[Any]) -> Turn:
    """Return the turn of a row whose first column is `doc`."""
    return turn_from_doc(orjson.loads(row[0]))


def owner_column(owner: Principal) -> str:
    """Return the column that names an owner."""
    return to_json([owner.tenant, owner.subject])


def owner_of(column: str) -> Principal:
    """Return the owner that a column names."""
    return Principal(*orjson.loads(column))


def part_line(part: str) -> str:
    """Return a part of an answer as one line of JSON, so that it can be appended; an empty one is none."""
    return to_json(part) + "\n" if part else ""


def to_json(value: Any) -> str:
    """Return a value as JSON."""
    return orjson.dumps(value).decode()


def to_ms(moment: datetime) -> int:
    """Return a time as a column has it."""
    return (moment - _EPOCH) // _MILLISECOND


def optional_ms(moment: datetime | None) -> int | None:
    """Return a time, if there is one, as a column has it."""
    return None if moment is None else to_ms(moment)


def duration_ms(duration: timedelta | None) -> int | None:
    """Return a duration, if there is one, as a column has it."""
    return None if duration is None else duration // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """Return the time in a column."""
    return _EPOCH + ms * _MILLISECOND


def optional_time(ms: int | None) -> datetime | None:
    """Return the time in a column that may be empty."""
    return None if ms is None else from_ms(ms)
