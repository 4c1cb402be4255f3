"""What a demo server has been asked: counts in bounded memory, for tests and exactly-once checks."""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

_K = TypeVar("_K")

_MAX_MODELS = 1_000
_MAX_MESSAGES = 50_000


def message_key(text: str) -> str:
    """Return the name under which calls for a user message are counted: 16 hex digits of its SHA-256."""
    return sha256(text.encode()).hexdigest()[:16]


@dataclass(slots=True)
class Tally:
    """Counts since the start or the last clear.

    calls: requests for a completion, errors included. open: calls that are being answered.
    closed_by_client: calls whose client left before their end. finished: calls answered to their scripted end.
    by_model, by_message: the newest 1,000 and 50,000; `forgotten` counts messages dropped over that.
    """

    calls: int = 0
    open: int = 0
    most_open: int = 0
    finished: int = 0
    closed_by_client: int = 0
    by_model: OrderedDict[str, int] = field(default_factory=OrderedDict)
    by_message: OrderedDict[str, int] = field(default_factory=OrderedDict)
    forgotten: int = 0
    _seen: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def begin(self, model: str, user_text: str) -> int:
        """Count a call, and return how often this model had met this message before."""
        self.calls += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        key = message_key(user_text)
        _count(self.by_model, model, _MAX_MODELS)
        self.forgotten += _count(self.by_message, key, _MAX_MESSAGES)
        _count(self._seen, (model, key), _MAX_MESSAGES)
        return self._seen[model, key] - 1

    def clear(self) -> None:
        """Start counting anew; what is open stays counted as open."""
        self.calls = self.finished = self.closed_by_client = self.forgotten = 0
        self.most_open = self.open
        self.by_model.clear()
        self.by_message.clear()
        self._seen.clear()

    def as_json(self) -> dict[str, object]:
        """Return the counts for `GET /v1/demo/stats`."""
        return {
            "calls": self.calls,
            "open": self.open,
            "most_open": self.most_open,
            "finished": self.finished,
            "closed_by_client": self.closed_by_client,
            "by_model": dict(self.by_model),
            "by_message": dict(self.by_message),
            "forgotten": self.forgotten,
        }


def _count(counts: OrderedDict[_K, int], key: _K, limit: int) -> int:
    """Add one, and return how many entries were dropped to stay within the limit."""
    counts[key] = counts.get(key, 0) + 1
    counts.move_to_end(key)
    if len(counts) <= limit:
        return 0
    counts.popitem(last=False)
    return 1
