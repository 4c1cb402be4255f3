"""Random ids, for everything that the service names."""

import os
from typing import Final

_ID_BYTES: Final = 16
_DRAWN_AT_ONCE: Final = 256
_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> str:
    """Return 128 bits of the operating system's randomness as 32 hexadecimal digits.

    Many are drawn at once: whoever asks the operating system lets go of the interpreter, and has to wait for it where
    other threads are at work: about 10 us for each id, in a process under load.
    """
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            digits = os.urandom(_ID_BYTES * _DRAWN_AT_ONCE).hex()
            _drawn.extend(digits[start : start + 2 * _ID_BYTES] for start in range(0, len(digits), 2 * _ID_BYTES))
