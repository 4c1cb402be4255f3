"""A whole answer."""

from dataclasses import dataclass

from chatsession.v1.chat_session_pb2 import Turn


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer and the turn that it belongs to.

    text: the answer; what there is of it if the turn is INCOMPLETE or CANCELLED.
    turn: the turn, final: state, finish reason, usage, numbers of its messages.
    """

    text: str
    turn: Turn

    @property
    def is_complete(self) -> bool:
        """Whether the model finished; if not, `turn.finish_reason` says why."""
        return self.turn.state == Turn.COMPLETED
