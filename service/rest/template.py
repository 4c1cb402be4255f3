"""The path template of an HTTP rule.

Grammar (google/api/http.proto), with two additions: literals may follow `**`, and a literal may hold percent escapes.

    Template  = "/" Segments [ ":" Verb ]
    Segments  = Segment { "/" Segment }
    Segment   = "*" | "**" | Literal | "{" Field { "." Field } [ "=" Segments ] "}"

No empty segment, no variable inside a variable or named twice, one `**`, and in the last segment a colon only before
the verb. Parsing takes one pass and no recursion.
"""

import enum
import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote_to_bytes


class Wildcard(enum.Enum):
    """A segment that stands for others."""

    ONE = "*"
    MANY = "**"


Segment = str | Wildcard
"""A literal, percent-decoded, or a wildcard."""


class TemplateError(ValueError):
    """A template that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that sets a field.

    start, stop: the segments of the template that it spans.
    multi: it can hold slashes, so that `%2F` in it stays as written.
    """

    field_path: tuple[str, ...]
    start: int
    stop: int
    multi: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: flat segments, the variables over them, and the verb, empty if there is none."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...]
    verb: str

    @property
    def shape(self) -> tuple[tuple[Segment, ...], str]:
        """What it matches, whatever its variables are called."""
        return self.segments, self.verb


_TOKEN = re.compile(r"\*\*|[{}=/*:]|[^{}=/*:]+")
_FIELD_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_LITERAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%[0-9A-Fa-f]{2})+")


def parse(text: str) -> Template:
    """Parse a template. Raises TemplateError, which says what is wrong and quotes the template."""
    return _Parser(text).template()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = [*_TOKEN.findall(text), ""]
        self._at = 0
        slashes = (i for i in range(len(self._tokens) - 1, -1, -1) if self._tokens[i] == "/")
        self._last_slash = next(slashes, 0)
        self._segments: list[Segment] = []
        self._variables: dict[tuple[str, ...], Variable] = {}
        self._many = False

    def template(self) -> Template:
        self._expect("/")
        self._segment()
        while self._accept("/"):
            self._segment()
        verb = self._literal("verb") if self._accept(":") else ""
        if self._peek():
            self._fail(f"unexpected {self._peek()[:16]!r}")
        return Template(self._text, tuple(self._segments), tuple(self._variables.values()), verb)

    def _segment(self) -> None:
        if self._accept("{"):
            self._variable()
        else:
            self._plain_segment()

    def _plain_segment(self) -> None:
        if self._accept("**"):
            self._wildcard(Wildcard.MANY)
        elif self._accept("*"):
            self._wildcard(Wildcard.ONE)
        elif self._peek() == "{":
            self._fail("a variable inside a variable")
        else:
            self._segments.append(self._literal("segment"))

    def _wildcard(self, wildcard: Wildcard) -> None:
        if self._many:
            self._fail("only literals may follow **")
        self._many = wildcard is Wildcard.MANY
        self._segments.append(wildcard)

    def _variable(self) -> None:
        path = self._take()
        if not _FIELD_PATH.fullmatch(path):
            self._fail(f"{path[:64]!r} is not a field path")
        field_path = tuple(path.split("."))
        if field_path in self._variables:
            self._fail(f"variable {path!r} occurs twice")
        start = len(self._segments)
        if self._accept("="):
            self._plain_segment()
            while self._accept("/"):
                self._plain_segment()
        else:
            self._wildcard(Wildcard.ONE)
        self._expect("}")
        stop = len(self._segments)
        multi = stop - start > 1 or self._segments[start] is Wildcard.MANY
        self._variables[field_path] = Variable(field_path, start, stop, multi)

    def _literal(self, what: str) -> str:
        """Take a literal. In the last segment it ends before a colon, which begins the verb there."""
        stops = {"/", "{", "}", "*", "**", ""}
        if self._at > self._last_slash:
            stops.add(":")
        pieces: list[str] = []
        while self._peek() not in stops:
            pieces.append(self._take())
        literal = "".join(pieces)
        if not literal:
            self._fail(f"empty {what}")
        if not _LITERAL.fullmatch(literal):
            self._fail(f"{literal[:64]!r} is not a {what}")
        try:
            return unquote_to_bytes(literal).decode()
        except UnicodeDecodeError:
            self._fail(f"{literal[:64]!r} is not UTF-8")

    def _peek(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        token = self._tokens[self._at]
        if token:
            self._at += 1
        return token

    def _accept(self, token: str) -> bool:
        if self._tokens[self._at] != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            found = self._peek()[:16]
            self._fail(f"expected {token!r}, found {found!r}" if found else f"expected {token!r} before the end")

    def _fail(self, why: str) -> NoReturn:
        shown = self._text if len(self._text) <= 200 else self._text[:200] + "…"
        raise TemplateError(f"template {shown!r}: {why}")
