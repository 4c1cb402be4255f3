"""Query strings: their syntax, and the fields that their parameters set."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.rest import values, wellknown
from service.rest.refusal import Reason, bad_request, invalid_field
from service.rest.values import InvalidValue

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_KNOWN_TARGETS = 1024


def parameters(query: bytes, max_parameters: int) -> Iterator[tuple[str, str]]:
    """Split a query string by the rules of HTML forms: `+` is a blank, only `&` separates. Raises Refusal."""
    try:
        text = query.decode("ascii")
    except UnicodeDecodeError:
        raise bad_request(Reason.INVALID_URL, "the query string is not ASCII") from None
    if _BAD_ESCAPE.search(text):
        raise bad_request(Reason.INVALID_URL, "the query string has a malformed percent escape")
    if text.count("&") >= max_parameters:
        raise bad_request(Reason.INVALID_URL, f"the query string has more than {max_parameters} parameters")
    for piece in text.split("&"):
        if piece:
            name, _, value = piece.partition("=")
            yield _unquoted(name), _unquoted(value)


def _unquoted(text: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise bad_request(Reason.INVALID_URL, "the query string is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class TextField:
    """A field that can be set from text, at the end of a path through singular messages.

    path: of proto names.
    """

    path: tuple[str, ...]
    parents: tuple[FieldDescriptor, ...]
    field: FieldDescriptor
    put: values.FromText | wellknown.SetText

    @classmethod
    def at(cls, parents: tuple[FieldDescriptor, ...], field: FieldDescriptor) -> "TextField":
        """Compile the way to a field. The field must have a text form."""
        path = (*(parent.name for parent in parents), field.name)
        if field.message_type is None:
            return cls(path, parents, field, values.from_text(field))
        setter = wellknown.text_setter(field.message_type)
        assert setter is not None
        return cls(path, parents, field, setter)

    def set(self, message: Any, text: str) -> None:
        """Set the field, or append to it if it is repeated. Raises InvalidValue."""
        for parent in self.parents:
            message = getattr(message, parent.name)
        name = self.field.name
        if self.field.message_type is not None:
            child = getattr(message, name)
            child = child.add() if self.field.is_repeated else child
            child.SetInParent()
            self.put(child, text)  # type: ignore[call-arg]
        elif self.field.is_repeated:
            getattr(message, name).append(self.put(text))  # type: ignore[call-arg]
        else:
            setattr(message, name, self.put(text))  # type: ignore[call-arg]

    def get(self, message: Any) -> Any:
        """Return the value of the field."""
        for parent in self.parents:
            message = getattr(message, parent.name)
        return getattr(message, self.field.name)

    def is_in(self, message: Any) -> bool:
        """Whether the field has a value, as far as can be told of a field without presence. It must not be repeated."""
        for parent in self.parents:
            if not message.HasField(parent.name):
                return False
            message = getattr(message, parent.name)
        return not self.field.has_presence or message.HasField(self.field.name)

    def rival(self, message: Any) -> str | None:
        """Return the field that is set in a oneof which this one would take over, if there is one."""
        for field in (*self.parents, self.field):
            oneof = field.containing_oneof
            rival: str | None = message.WhichOneof(oneof.name) if oneof is not None else None
            if rival not in (None, field.name):
                return rival
            if field is not self.field:
                message = getattr(message, field.name)
        return None


class Parameters:
    """The query parameters that one binding takes.

    bound: fields that the path sets.
    body: the field that the body sets, `*` for all, empty for none.
    Of what path and body field set, a parameter may repeat the value, not change it.
    ignored: names that are skipped; with `lenient`, so is every name that is not known.
    """

    def __init__(
        self,
        message: Descriptor,
        *,
        bound: Collection[tuple[str, ...]] = (),
        body: str = "",
        ignored: Collection[str] = (),
        lenient: bool = False,
        max_parameters: int = 1000,
        max_depth: int = 32,
    ) -> None:
        self._message = message
        self._bound = frozenset(bound)
        self._body = body
        self._ignored = frozenset(ignored)
        self._lenient = lenient
        self._max_parameters = max_parameters
        self._max_depth = max_depth
        self._targets: dict[str, TextField] = {}

    def apply(self, message: Any, query: bytes) -> None:
        """Set the fields of a message from a query string. Raises Refusal."""
        seen: set[tuple[str, ...]] = set()
        for name, text in parameters(query, self._max_parameters):
            if name in self._ignored:
                continue
            try:
                target = self._target(name)
                if target is not None:
                    self._set(message, target, text, seen)
            except InvalidValue as error:
                raise invalid_field(name, str(error)) from None

    def _set(self, message: Any, target: TextField, text: str, seen: set[tuple[str, ...]]) -> None:
        if target.path in self._bound:
            if not _repeats(target, message, text):
                raise InvalidValue("is in the path already, with another value")
            return
        if target.path[0] == self._body:
            if not _repeats(target, message, text):
                raise InvalidValue("belongs in the body")
            return
        if not target.field.is_repeated:
            if target.path in seen:
                raise InvalidValue("is given more than once")
            seen.add(target.path)
        rival = target.rival(message)
        if rival is not None:
            raise InvalidValue(f"cannot be set together with {rival}")
        target.set(message, text)

    def _target(self, name: str) -> TextField | None:
        """Return what a parameter sets, None if it is to be skipped. Raises InvalidValue."""
        target = self._targets.get(name)
        if target is None:
            target = self._resolve(name)
            if target is not None and len(self._targets) < _MAX_KNOWN_TARGETS:
                self._targets[name] = target
        return target

    def _resolve(self, name: str) -> TextField | None:
        if self._body == "*":
            self._unknown("is a query parameter, and all fields of this method are in the body")
            return None
        parts = name.split(".")
        if len(parts) > self._max_depth:
            raise InvalidValue("has too many dots")
        parents: list[FieldDescriptor] = []
        message = self._message
        for part in parts[:-1]:
            parent = _field(message, part)
            if parent is None:
                self._unknown("is not a known parameter")
                return None
            if parent.message_type is None or parent.is_repeated or wellknown.is_opaque(parent.message_type):
                raise InvalidValue(f"{parent.name} has no fields that a parameter can set")
            parents.append(parent)
            message = parent.message_type
        field = _field(message, parts[-1])
        if field is None:
            self._unknown("is not a known parameter")
            return None
        if not wellknown.has_text_form(field):
            raise InvalidValue("is a message, which a parameter cannot hold")
        return TextField.at(tuple(parents), field)

    def _unknown(self, problem: str) -> None:
        if not self._lenient:
            raise InvalidValue(problem)


def _repeats(target: TextField, message: Any, text: str) -> bool:
    """Whether a text is what the message has already. Raises InvalidValue."""
    if target.field.is_repeated or not target.is_in(message):
        return False
    other = type(message)()
    target.set(other, text)
    return bool(target.get(other) == target.get(message))


def _field(message: Descriptor, name: str) -> FieldDescriptor | None:
    """Find a field by its proto name or its JSON name."""
    return next((field for field in message.fields if name in (field.name, field.json_name)), None)
