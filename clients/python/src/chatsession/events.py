"""What an answer stream yields.

`cursor` is the place in the turn after the event: `attach(…, after_cursor=cursor)` gives what comes after it.
"""

from dataclasses import dataclass

from chatsession.v1.chat_session_pb2 import Turn


@dataclass(frozen=True, slots=True)
class Accepted:
    """The user message is saved, or: this is the turn that was attached to. Once a stream, the first event."""

    turn: Turn
    cursor: str


@dataclass(frozen=True, slots=True)
class Text:
    """More text; never empty."""

    text: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """All the text so far; what was yielded before is void. Rare: a new attempt at the answer began."""

    text: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over; the last event."""

    turn: Turn
    cursor: str


Event = Accepted | Text | Replaced | Ended
