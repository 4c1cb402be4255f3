"""Filters of sessions, in a part of AIP-160's syntax: restrictions joined by AND, each maybe turned round.

    labels.KEY = "VALUE"    labels:KEY    title = "TEXT"    title:"TEXT"    create_time >= "2026-03-01T00:00:00Z"

`NOT` or `-` before a restriction turns it round. Texts without blanks and signs need no quotes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn, Protocol

from service.domain.entities import Session
from service.domain.errors import InvalidField
from service.domain.ranges import END, START, Place
from service.domain.titles import title_pieces

MAX_CHARS: Final = 4096
MAX_RESTRICTIONS: Final = 32
_TIMES: Final = ("create_time", "update_time", "expire_time")
_COMPARISONS: Final = ("<", "<=", ">", ">=")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS_NS: Final = 1_000_000


class Restriction(Protocol):
    """One condition."""

    def matches(self, session: Session) -> bool:
        """Whether a session meets it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Has the label `key`, with this value if there is one."""

    key: str
    value: str | None = None

    def matches(self, session: Session) -> bool:
        """Whether a session meets it."""
        if self.value is None:
            return self.key in session.labels
        return session.labels.get(self.key) == self.value


@dataclass(frozen=True, slots=True)
class Titled:
    """Has this title, or one that contains this text, in any case."""

    text: str
    is_part: bool

    def matches(self, session: Session) -> bool:
        """Whether a session meets it."""
        return self.text.casefold() in session.title.casefold() if self.is_part else self.text == session.title


@dataclass(frozen=True, slots=True)
class Timed:
    """Has the time `field`, and it is as said. moment_ns: since 1970, as exactly as it was written."""

    field: str
    comparison: str
    moment_ns: int

    def matches(self, session: Session) -> bool:
        """Whether a session meets it."""
        time: datetime | None = getattr(session, self.field)
        if time is None:
            return False
        low, high = self.bounds()
        return low <= (time, session.session_id) < high

    def bounds(self) -> tuple[Place, Place]:
        """Return the places between which all sessions lie that meet it. Their times are whole milliseconds."""
        floor_ms, rest_ns = divmod(self.moment_ns, _MS_NS)
        # The first millisecond at or after the moment; the first one after it.
        at_or_after, after = _place(floor_ms + bool(rest_ns)), _place(floor_ms + 1)
        match self.comparison:
            case "<":
                return START, at_or_after
            case "<=":
                return START, after
            case ">":
                return after, END
            case _:
                return at_or_after, END


@dataclass(frozen=True, slots=True)
class Not:
    """Does not meet a restriction."""

    restriction: Restriction

    def matches(self, session: Session) -> bool:
        """Whether a session meets it."""
        return not self.restriction.matches(session)


@dataclass(frozen=True, slots=True)
class Filter:
    """Restrictions, all of which a session has to meet."""

    restrictions: Sequence[Restriction] = ()

    def matches(self, session: Session) -> bool:
        """Whether a session meets all of them."""
        return all(restriction.matches(session) for restriction in self.restrictions)

    def labels(self) -> Sequence[tuple[str, ...]]:
        """Return what labels all sessions have: key and value, or the key alone where no value is asked for."""
        labels = [label for label in self.restrictions if isinstance(label, Labelled)]
        pairs = dict.fromkeys((label.key, label.value) for label in labels if label.value is not None)
        keys = dict.fromkeys((label.key,) for label in labels if label.value is None)
        return [*pairs, *(key for key in keys if key[0] not in {key for key, _ in pairs})]

    def title_pieces(self) -> Sequence[str]:
        """Return pieces that all titles have, in the order of the texts."""
        texts = [title.text for title in self.restrictions if isinstance(title, Titled)]
        return list(dict.fromkeys(piece for text in texts for piece in title_pieces(text)))

    def bounds(self, field: str) -> tuple[Place, Place]:
        """Return the places, in the order by this time, between which all sessions lie."""
        timed = [r.bounds() for r in self.restrictions if isinstance(r, Timed) and r.field == field]
        return max((low for low, _ in timed), default=START), min((high for _, high in timed), default=END)


def parse_filter(text: str) -> Filter:
    """Read a filter; raises InvalidField that says where it is wrong. An empty one holds for all sessions."""
    if len(text) > MAX_CHARS:
        raise InvalidField("filter", f"must be at most {MAX_CHARS} characters")
    return Filter(_Parser(text).restrictions())


class _Parser:
    _BLANKS = re.compile(r"\s*")
    _NEGATION = re.compile(r"NOT\s+|-")
    _NAME = re.compile(r"[A-Za-z_]+")
    _OPERATOR = re.compile(r"[<>!]=|[<>=:.]")
    _CONJUNCTION = re.compile(r"AND(?!\S)")
    _KEY = re.compile(r"""[^\s"'()<>=!:,]+""")
    _VALUE = re.compile(r"""[^\s"'()<>=!,]+""")
    _STRING = re.compile(r""""((?:[^"\\]|\\["'\\])*)"|'((?:[^'\\]|\\["'\\])*)\'""")
    _ESCAPED = re.compile(r"\\(.)")
    _TIME = re.compile(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
        r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
    )

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip_blanks()

    def restrictions(self) -> list[Restriction]:
        found: list[Restriction] = []
        if self._is_over():
            return found
        found.append(self._restriction())
        while not self._is_over():
            if not self._take(self._CONJUNCTION):
                self._refuse("expected AND")
            if len(found) == MAX_RESTRICTIONS:
                self._refuse(f"more than {MAX_RESTRICTIONS} restrictions")
            found.append(self._restriction())
        return found

    def _restriction(self) -> Restriction:
        negated = bool(self._take(self._NEGATION))
        name_at = self._at
        name = self._take(self._NAME)
        if name == "labels":
            found: Restriction = self._label()
        elif name == "title":
            found = Titled(is_part=self._operator("=", ":") == ":", text=self._text_of(self._VALUE, "a text"))
        elif name in _TIMES:
            found = Timed(name, self._operator(*_COMPARISONS), self._time())
        else:
            self._refuse("expected labels, title, create_time, update_time or expire_time", name_at)
        return Not(found) if negated else found

    def _label(self) -> Labelled:
        if self._operator(".", ":") == ":":
            return Labelled(self._text_of(self._KEY, "a label's key"))
        key = self._text_of(self._KEY, "a label's key")
        self._operator("=")
        return Labelled(key, self._text_of(self._VALUE, "a label's value"))

    def _operator(self, *allowed: str) -> str:
        at = self._at
        operator = self._take(self._OPERATOR)
        if operator not in allowed:
            self._refuse(f"expected {' or '.join(allowed)}", at)
        return operator

    def _text_of(self, bare: re.Pattern[str], what: str) -> str:
        at = self._at
        if (match := self._STRING.match(self._text, at)) is not None:
            self._at = match.end()
            self._skip_blanks()
            return self._ESCAPED.sub(r"\1", match[1] if match[1] is not None else match[2])
        text = self._take(bare)
        if not text or text in ("AND", "OR", "NOT"):
            self._refuse(f"expected {what}", at)
        return text

    def _time(self) -> int:
        at = self._at
        match = self._TIME.fullmatch(self._text_of(self._VALUE, "a time"))
        if match is None:
            self._refuse('expected a time as in "2026-03-01T12:30:00Z"', at)
        *whole, fraction, sign, hours, minutes = match.groups(default="")
        try:
            moment = datetime(*map(int, whole), tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError:
            self._refuse("there is no such time", at)
        if sign and (hours > "23" or minutes > "59"):
            self._refuse("there is no such zone", at)
        offset_s = (int(hours) * 60 + int(minutes)) * 60 if sign else 0
        seconds = (moment - _EPOCH) // timedelta(seconds=1) - (-offset_s if sign == "-" else offset_s)
        return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Return what comes next if it is of this kind, else an empty text."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        self._skip_blanks()
        return match[0]

    def _skip_blanks(self) -> None:
        if (match := self._BLANKS.match(self._text, self._at)) is not None:
            self._at = match.end()

    def _is_over(self) -> bool:
        return self._at == len(self._text)

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        raise InvalidField("filter", f"at character {(self._at if at is None else at) + 1}: {why}")


def _place(ms: int) -> Place:
    """Return the place before all sessions of a time."""
    try:
        return Place(_EPOCH + timedelta(milliseconds=ms), "")
    except OverflowError:
        return START if ms < 0 else END
