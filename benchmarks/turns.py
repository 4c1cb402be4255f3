"""Plans of turns: who says what in which session."""

from collections.abc import Callable, Sequence

import orjson
from chatsession.v1 import chat_session_pb2 as pb

from benchmarks import data
from benchmarks.plans import Call, Kind, Plan

_SERVICE = "/chatsession.v1.ChatSessionService"
_NO_OP = f"{_SERVICE}/GetTurn", pb.GetTurnRequest(session_id="s", turn_id="t").SerializeToString()

MakeCall = Callable[[str, str], Call]


def send(session: str, message: str) -> Call:
    """A unary send."""
    return f"{_SERVICE}/SendMessage", pb.SendMessageRequest(session_id=session, message=message).SerializeToString()


def read(session: str, _message: str) -> Call:
    """Read the newest page of the history."""
    request = pb.GetHistoryRequest(session_id=session, page_size=10, order_by="seq desc")
    return f"{_SERVICE}/GetHistory", request.SerializeToString()


def stream(model: str) -> MakeCall:
    """A streamed send to a model."""

    def call(session: str, message: str) -> Call:
        request = pb.SendMessageRequest(session_id=session, message=message)
        request.settings.model = model
        return f"{_SERVICE}/StreamMessage", request.SerializeToString()

    return call


def post(session: str, message: str) -> Call:
    """POST /chat."""
    return "/chat", orjson.dumps({"sessionId": session, "message": message})


def ask(model: str) -> MakeCall:
    """A streamed call to the provider itself."""

    def call(_session: str, message: str) -> Call:
        body = {"model": model, "messages": [{"role": "user", "content": message}], "stream": True}
        return "/v1/chat/completions", orjson.dumps(body)

    return call


def plan(
    kind: Kind,
    target: str,
    call: MakeCall,
    sessions: Sequence[str],
    *,
    each: int = 1,
    start: int = 0,
    lanes: int = 16,
    connections: int = 4,
    fresh: bool = False,
    per_s: float = 0.0,
) -> Plan:
    """Plan `each` messages in every session, from its `start`th on, one session after the other in each lane.

    What is said depends on the place of the session, so that all contenders are told the same.
    """
    said = list(enumerate(sessions))
    shares = [said[lane::lanes] for lane in range(min(lanes, len(said)))]
    calls = [
        [call(session, _message(number, turn)) for number, session in share for turn in range(start, start + each)]
        for share in shares
    ]
    return Plan(kind, target, calls, connections, fresh, per_s)


def no_op(target: str, count: int, *, lanes: int = 16, connections: int = 4) -> Plan:
    """Plan calls of the bare handler's method that does nothing."""
    return Plan(Kind.UNARY, target, [[_NO_OP] * (count // lanes)] * lanes, connections)


def posts(url: str, count: int, *, lanes: int = 16) -> Plan:
    """Plan POST /chat to a server that does nothing with them."""
    return Plan(Kind.POST, url, [[post("a" * 32, _message(lane, 0))] * (count // lanes) for lane in range(lanes)])


def _message(session_number: int, turn: int) -> str:
    return data.questions()[(session_number * 11 + turn * 7) % len(data.questions())]
