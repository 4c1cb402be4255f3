"""Puts sessions with a past into the database, as the service and as the seed-style app keep them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
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
    made = [session(exchanges(turns), utc_now()) for _ in range(count)]
    _insert(database.sessions, (session_to_doc(one) for one, _ in made))
    _insert(database.turns, (turn_to_doc(one.key, turn) for one, past in made for turn in past))
    return [one.session_id for one, _ in made]


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


def session(said: Iterable[tuple[str, str]], now: datetime) -> tuple[Session, Sequence[Turn]]:
    """Return a session in which this was said, and its turns, as the service would have left them."""
    past = [_turn(number, *exchange, now) for number, exchange in enumerate(said)]
    turns = len(past)
    active = Active(past[-1], OnDisconnect.CONTINUE, now + timedelta(minutes=10), uuid4().hex, turns) if past else None
    made = Session(
        session_id=uuid4().hex,
        uid=uuid4().hex,
        owner=ANONYMOUS,
        create_time=now,
        update_time=now,
        last_seq=2 * turns,
        fence=turns,
        active=active,
    )
    return made, past


def _turn(number: int, question: str, answer: str, now: datetime) -> Turn:
    turn_id = uuid4().hex
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
