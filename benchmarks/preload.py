"""Puts sessions with a past into the database, as the service and as the seed-style app keep them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pymongo
from pymongo.database import Database

from benchmarks import data
from service.domain.entities import (
    ANONYMOUS,
    Active,
    Ending,
    FinishReason,
    ModelSettings,
    OnDisconnect,
    Session,
    Turn,
    TurnState,
    Usage,
    utc_now,
)
from service.store.documents import session_to_doc, turn_to_doc

MODEL = "gpt-3.5-turbo"
_BATCH = 1000


def connect(uri: str, name: str) -> Database[dict[str, Any]]:
    """Return a database, to look behind the servers' backs."""
    return pymongo.MongoClient[dict[str, Any]](uri)[name]


def sessions(database: Database[dict[str, Any]], count: int, turns: int) -> list[str]:
    """Insert sessions of so many turns as the service would have left them; return their ids."""
    made = [_session(turns) for _ in range(count)]
    _insert(database.sessions, (session_to_doc(session) for session, _ in made))
    _insert(database.turns, (turn_to_doc(session.key, turn) for session, past in made for turn in past))
    return [session.session_id for session, _ in made]


def seed_style(database: Database[dict[str, Any]], count: int, turns: int) -> list[str]:
    """Insert the same for the seed-style app: one document a session."""
    docs = [{"_id": uuid4().hex, "messages": messages(exchanges(turns))} for _ in range(count)]
    _insert(database.seed_sessions, iter(docs))
    return [doc["_id"] for doc in docs]


def exchanges(count: int) -> Iterator[tuple[str, str]]:
    """Yield questions with their answers, the same for every contender."""
    # Steps that share no factor with the counts, so that all come along before any comes again.
    for number in range(count):
        answer = data.answers()[number * 37 % len(data.answers())]
        yield data.questions()[number * 7 % len(data.questions())], "".join(answer)


def messages(said: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return exchanges as messages of OpenAI's API."""
    return [
        {"role": role, "content": text}
        for exchange in said
        for role, text in zip(("user", "assistant"), exchange, strict=True)
    ]


def _session(turns: int) -> tuple[Session, Sequence[Turn]]:
    now = utc_now()
    past = [_turn(number, *exchange) for number, exchange in enumerate(exchanges(turns))]
    active = Active(past[-1], OnDisconnect.CONTINUE, now + timedelta(minutes=10), uuid4().hex, turns) if past else None
    session = Session(
        session_id=uuid4().hex,
        uid=uuid4().hex,
        owner=ANONYMOUS,
        create_time=now,
        update_time=now,
        last_seq=2 * turns,
        fence=turns,
        active=active,
    )
    return session, past


def _turn(number: int, question: str, answer: str) -> Turn:
    turn_id, now = uuid4().hex, utc_now()
    ending = Ending(
        state=TurnState.COMPLETED,
        text=answer,
        message_count=2,
        last_seq=2 * number + 2,
        fence=number + 1,
        end_time=now,
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=100, output_tokens=127, cached_input_tokens=0, reasoning_tokens=0),
        model=MODEL,
    )
    return Turn(turn_id, f"s:{turn_id}", question, ModelSettings(), ModelSettings(), 2 * number + 1, 1, now, ending)


def _insert(collection: Any, docs: Iterator[dict[str, Any]]) -> None:
    while batch := list(itertools.islice(docs, _BATCH)):
        collection.insert_many(batch, ordered=False)
