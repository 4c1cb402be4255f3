"""The table that finds the rule for a request, in one walk along its path.

Literals win over `*`, and `*` over `**`, segment by segment, whatever the order of registration; a branch that ends
nowhere is left for the next best. A verb counts only where a template with that verb fits, and then nothing else does.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from service.rest.refusal import Reason, bad_request, method_not_allowed, route_not_found
from service.rest.rules import ANY_METHOD
from service.rest.template import Segment, Template, Variable, Wildcard

Target = TypeVar("Target")

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(r"(%2[Ff])")


class RouteConflict(ValueError):
    """Two templates that match the same requests."""


class Match(NamedTuple, Generic[Target]):
    """What was registered for a request, and the decoded values of its template's variables, in their order."""

    target: Target
    values: tuple[str, ...]


class _Leaf(NamedTuple, Generic[Target]):
    target: Target
    template: Template


_Leaves = dict[str, _Leaf[Target]]


@dataclass(slots=True)
class _Node(Generic[Target]):
    """leaves: what ends here, by HTTP method. many: what goes on with `**`, by the literals behind it."""

    literals: dict[str, "_Node[Target]"] = field(default_factory=dict)
    one: "_Node[Target] | None" = None
    many: dict[tuple[Segment, ...], _Leaves[Target]] = field(default_factory=dict)
    leaves: _Leaves[Target] = field(default_factory=dict)


class Routes(Generic[Target]):
    """Templates and what is registered for them."""

    def __init__(self, entries: Iterable[tuple[str, Template, Target]] = ()) -> None:
        self._roots: dict[str, _Node[Target]] = {"": _Node()}
        self._plain: dict[tuple[str, str], Match[Target]] = {}
        for http_method, template, target in entries:
            self.add(http_method, template, target)

    def add(self, http_method: str, template: Template, target: Target) -> None:
        """Register a target. Raises RouteConflict if its requests have one already."""
        leaves = self._leaves_for(template)
        known = leaves.get(http_method)
        if known is not None:
            raise RouteConflict(f"{target} and {known.target} match the same requests")
        leaves[http_method] = _Leaf(target, template)
        if not any(isinstance(segment, Wildcard) for segment in template.segments) and "%" not in template.text:
            self._plain[http_method, template.text] = Match(target, ())

    def _leaves_for(self, template: Template) -> _Leaves[Target]:
        node = self._roots.setdefault(template.verb, _Node())
        for position, segment in enumerate(template.segments):
            if segment is Wildcard.MANY:
                behind = template.segments[position + 1 :]
                leaves = node.many.setdefault(behind, {})
                node.many = dict(sorted(node.many.items(), key=lambda item: -len(item[0])))
                return leaves
            if segment is Wildcard.ONE:
                node.one = node.one or _Node()
                node = node.one
            else:
                assert isinstance(segment, str)
                node = node.literals.setdefault(segment, _Node())
        return node.leaves

    def match(self, http_method: str, path: str) -> Match[Target]:
        """Return what is registered for a method and a path as it was sent, still percent-encoded.

        Raises Refusal: 404, 405, or 400 for a path that cannot be decoded.
        """
        plain = self._plain.get((http_method, path))
        if plain is not None:
            return plain
        leaves, segments = self._leaves_at(path, http_method)
        leaf = leaves.get(http_method) or leaves.get(ANY_METHOD)
        if leaf is None:
            raise method_not_allowed(list(leaves)) if leaves else route_not_found()
        return Match(
            leaf.target, tuple(_value(variable, leaf.template, segments) for variable in leaf.template.variables)
        )

    def methods(self, path: str) -> list[str]:
        """Return the HTTP methods that a path has, sorted; none if there is no such path. Raises Refusal."""
        leaves, _ = self._leaves_at(path, "")
        return sorted(leaves)

    def _leaves_at(self, path: str, http_method: str) -> tuple[_Leaves[Target], list[str]]:
        """Return the leaves that a path leads to, those of one method if it has them, and the path's segments."""
        segments = _split(path)
        head, _, raw_verb = segments[-1].rpartition(":")
        verb = _decoded_or_none(raw_verb)
        if verb and verb in self._roots and head:
            with_verb = [*segments[:-1], head]
            leaves = _walk(self._roots[verb], with_verb, http_method)
            if leaves:
                return leaves, with_verb
        return _walk(self._roots[""], segments, http_method), segments


def _split(path: str) -> list[str]:
    if not path.startswith("/") or not path.isascii():
        raise bad_request(Reason.INVALID_URL, "the path must start with a slash and be ASCII")
    if _BAD_ESCAPE.search(path):
        raise bad_request(Reason.INVALID_URL, "the path has a malformed percent escape")
    return path[1:].split("/")


def _walk(root: _Node[Target], segments: list[str], http_method: str) -> _Leaves[Target]:
    """Walk the tree, best branch first; no node is met twice, so its size bounds the time.

    Returns the first leaves that have the method, else all leaves that the path leads to.
    """
    others: _Leaves[Target] = {}
    pending: list[tuple[_Node[Target], int, bool]] = [(root, 0, False)]
    while pending:
        node, position, rest = pending.pop()
        if rest:
            found = _suffixes(node, segments, position)
        elif position < len(segments):
            _branch(node, segments[position], position, pending)
            continue
        else:
            pending.append((node, position, True))
            found = [node.leaves]
        for leaves in found:
            if http_method in leaves or ANY_METHOD in leaves:
                return leaves
            others.update(leaves)
    return others


def _branch(node: _Node[Target], segment: str, position: int, pending: list[tuple[_Node[Target], int, bool]]) -> None:
    """Put off the ways on from a node, the best one last, so that it is taken first."""
    if node.many:
        pending.append((node, position, True))
    if node.one is not None and segment:
        pending.append((node.one, position + 1, False))
    literal = node.literals.get(segment) if "%" not in segment else node.literals.get(_decoded_or_none(segment) or "")
    if literal is not None:
        pending.append((literal, position + 1, False))


def _suffixes(node: _Node[Target], segments: list[str], position: int) -> list[_Leaves[Target]]:
    """Return the leaves of `**` whose literals end the path, those with the most literals first."""
    return [
        leaves
        for suffix, leaves in node.many.items()
        if len(segments) - position >= len(suffix)
        and all(
            _decoded_or_none(segment) == literal
            for segment, literal in zip(segments[len(segments) - len(suffix) :], suffix, strict=True)
        )
    ]


def _value(variable: Variable, template: Template, segments: list[str]) -> str:
    """Return what a variable stands for in a path."""
    start, stop = variable.start, variable.stop
    if Wildcard.MANY in template.segments:
        many, surplus = template.segments.index(Wildcard.MANY), len(segments) - len(template.segments)
        start += surplus if start > many else 0
        stop += surplus if stop > many else 0
    raw = "/".join(segments[start:stop])
    if "%" not in raw:
        return raw
    try:
        if not variable.multi:
            return unquote_to_bytes(raw).decode()
        pieces = _ENCODED_SLASH.split(raw)
        pieces[::2] = (unquote_to_bytes(piece).decode() for piece in pieces[::2])
        return "".join(pieces)
    except UnicodeDecodeError:
        raise bad_request(Reason.INVALID_URL, f"{'.'.join(variable.field_path)} in the path is not UTF-8") from None


def _decoded_or_none(segment: str) -> str | None:
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
