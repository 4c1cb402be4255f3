"""Plans of turns: who says what in which session."""

from collections.abc import Callable, Sequence

import orjson
from chatsession.v1 import chat_session_pb2 as pb

from benchmarks import data
from benchmarks.load import Kind, Plan

SEND = "/chatsession.v1.ChatSessionService/SendMessage"
STREAM = "/chatsession.v1.ChatSessionService/StreamMessage"


def send(
    target: str, sessions: Sequence[str], *, each: int, start: int = 0, lanes: int = 16, connections: int = 4
) -> Plan:
    """Plan unary sends: `each` in every session, from its `start`th message, one session after the other in a lane."""
    return Plan(Kind.UNARY, target, _lanes(sessions, each, start, lanes, _request), connections)


def post(url: str, sessions: Sequence[str], *, each: int, start: int = 0, lanes: int = 16) -> Plan:
    """Plan the same as POST /chat."""
    return Plan(Kind.POST, url, _lanes(sessions, each, start, lanes, _body))


def _lanes(
    sessions: Sequence[str], each: int, start: int, lanes: int, call: Callable[[str, str], tuple[str, bytes]]
) -> list[list[tuple[str, bytes]]]:
    """Share the sessions out. What is said depends on the place of a session, so contenders are told the same."""
    numbered = list(enumerate(sessions))
    return [
        [
            call(session, _message(number, turn))
            for number, session in numbered[lane::lanes]
            for turn in _range(start, each)
        ]
        for lane in range(min(lanes, len(sessions)))
    ]


def _range(start: int, count: int) -> range:
    return range(start, start + count)


def _message(session_number: int, turn: int) -> str:
    return data.questions()[(session_number * 11 + turn * 7) % len(data.questions())]


def _request(session: str, message: str) -> tuple[str, bytes]:
    return SEND, pb.SendMessageRequest(session_id=session, message=message).SerializeToString()


def _body(session: str, message: str) -> tuple[str, bytes]:
    return "/chat", orjson.dumps({"sessionId": session, "message": message})
