"""The cursor of a streamed event: which turn, which lease, how far into its text.

Opaque to callers: base64url of a version byte, the turn id, the fence, the offset (in characters) and what was seen.
The text is the log: a cursor does not depend on how deltas were cut.
"""

from base64 import urlsafe_b64decode
from binascii import b2a_base64
from typing import NamedTuple, Self

from service.domain.errors import InvalidField

_VERSION = "1"


class Cursor(NamedTuple):
    """A place in a turn's stream. fence 0: before any text. has_ended: after the last event."""

    turn_id: str
    fence: int = 0
    offset: int = 0
    has_ended: bool = False

    def encode(self) -> str:
        """Return the string that callers get."""
        plain = f"{_VERSION}.{self.turn_id}.{self.fence}.{self.offset}.{int(self.has_ended)}"
        # The characters of a cursor never make the two in which base64url differs from base64.
        return b2a_base64(plain.encode(), newline=False).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str, *, turn_id: str, field: str) -> Self:
        """Read a cursor of the turn `turn_id`; raises InvalidField naming `field` for anything else."""
        try:
            plain = urlsafe_b64decode((text + "=" * (-len(text) % 4)).encode("ascii")).decode("ascii")
            version, cursor_turn_id, fence, offset, ended = plain.split(".")
            numbers = [int(number) for number in (fence, offset, ended) if number.isdecimal()]
            if version != _VERSION or len(numbers) != 3 or numbers[2] > 1 or max(numbers) >= 2**53:
                raise ValueError(plain)
        except ValueError as exc:
            raise InvalidField(field, "is not a cursor of this service") from exc
        cursor = cls(cursor_turn_id, numbers[0], numbers[1], numbers[2] == 1)
        if cursor.encode() != text:
            raise InvalidField(field, "is not a cursor of this service")
        if cursor_turn_id != turn_id:
            raise InvalidField(field, "is a cursor of another turn")
        return cursor
