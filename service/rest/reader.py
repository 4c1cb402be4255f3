"""Messages from JSON.

A plan is compiled for each message type when it is first met. It reads what `google.protobuf.json_format` reads,
several times faster, and refuses what that lets pass: a field under two spellings, bad base64, numbers out of range.
An error is a path of proto names and a sentence, and never quotes a value.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import EncodeError
from google.protobuf.message_factory import GetMessageClass

from service.rest import values, wellknown
from service.rest.refusal import Reason, bad_request, shortened
from service.rest.values import InvalidValue

Read = Callable[[Any, Any, int], None]
"""Reads a parsed JSON value, found at some depth, into a message. Raises InvalidValue."""


class _Field(NamedTuple):
    """name: its proto name. oneof: the oneof it is in, or empty. takes_null: whether null is a value, not absence."""

    name: str
    oneof: str
    takes_null: bool
    read: Read


class Reader:
    """Reads JSON into messages of one descriptor pool.

    pool: where the types named in an Any are looked up.
    lenient: skip unknown fields instead of refusing them.
    max_depth: how many messages may lie within each other.
    """

    def __init__(self, pool: DescriptorPool, *, lenient: bool = False, max_depth: int = 100) -> None:
        self._pool = pool
        self._lenient = lenient
        self._max_depth = max_depth
        self._plans: dict[Descriptor, Read] = {}
        self._special: Final[dict[str, Read]] = {
            wellknown.TIMESTAMP: _text_reader(wellknown.set_timestamp),
            wellknown.DURATION: _text_reader(wellknown.set_duration),
            wellknown.FIELD_MASK: _text_reader(wellknown.set_field_mask),
            wellknown.ANY: self._read_any,
            wellknown.STRUCT: self._read_struct,
            wellknown.LIST_VALUE: self._read_list,
            wellknown.VALUE: self._read_value,
        }

    def message(self, descriptor: Descriptor) -> Read:
        """Return the plan for a message type."""
        plan = self._plans.get(descriptor)
        if plan is None:
            plan = self._special_plan(descriptor)
            if plan is None:
                plan = self._plans[descriptor] = self._object_plan(descriptor)
        return plan

    def field(self, field: FieldDescriptor) -> Read:
        """Return what sets one field of a message from the field's own JSON value; null only if that is one."""
        _, _, takes_null, read = self._field(field)
        return read if takes_null else _not_null(read)

    def _special_plan(self, descriptor: Descriptor) -> Read | None:
        if wellknown.is_wrapper(descriptor):
            return _wrapper_reader(values.from_json(descriptor.fields_by_name["value"]))
        return self._special.get(descriptor.full_name)

    def _object_plan(self, descriptor: Descriptor) -> Read:
        fields: dict[str, _Field] = {}
        lenient, max_depth = self._lenient, self._max_depth

        def read(message: Any, value: Any, depth: int) -> None:
            if type(value) is not dict:
                raise InvalidValue("must be an object")
            if depth > max_depth:
                raise InvalidValue("is nested too deeply")
            if not fields:
                self._compile(descriptor, fields)
            seen: set[str] = set()
            for key, item in value.items():
                field = fields.get(key)
                if field is None:
                    if lenient:
                        continue
                    raise InvalidValue("is not a known field", shortened(key))
                name, oneof, takes_null, read_field = field
                if name in seen:
                    raise InvalidValue("is given under two names", name)
                seen.add(name)
                if item is None and not takes_null:
                    continue
                if oneof:
                    if oneof in seen:
                        raise InvalidValue("cannot be set together with another of its kind", name)
                    seen.add(oneof)
                try:
                    read_field(message, item, depth)
                except InvalidValue as error:
                    raise error.under(name)  # noqa: B904 - the same error, on its way up

        return read

    def _compile(self, descriptor: Descriptor, fields: dict[str, _Field]) -> None:
        for descriptor_field in descriptor.fields:
            field = self._field(descriptor_field)
            fields[descriptor_field.name] = field
            fields[descriptor_field.json_name] = field

    def _field(self, field: FieldDescriptor) -> _Field:
        oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
        if not field.is_repeated:
            return _Field(field.name, oneof, _takes_null(field), self._singular(field))
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return _Field(field.name, oneof, False, self._map(field.name, *entry.fields))
        return _Field(field.name, oneof, False, self._repeated(field))

    def _singular(self, field: FieldDescriptor) -> Read:
        name = field.name
        if field.message_type is None:
            convert = values.from_json(field)

            def read_scalar(message: Any, value: Any, _: int) -> None:
                setattr(message, name, convert(value))

            return read_scalar

        read = self.message(field.message_type)

        def read_message(message: Any, value: Any, depth: int) -> None:
            child = getattr(message, name)
            child.SetInParent()
            read(child, value, depth + 1)

        return read_message

    def _repeated(self, field: FieldDescriptor) -> Read:
        takes_null = _takes_null(field)
        if field.message_type is None:
            convert = values.from_json(field)

            def add(target: Any, item: Any, depth: int) -> None:
                target.append(convert(item))

        else:
            read = self.message(field.message_type)

            def add(target: Any, item: Any, depth: int) -> None:
                read(target.add(), item, depth + 1)

        name = field.name

        def read_list(message: Any, value: Any, depth: int) -> None:
            if type(value) is not list:
                raise InvalidValue("must be an array")
            target = getattr(message, name)
            for index, item in enumerate(value):
                try:
                    if item is None and not takes_null:
                        raise InvalidValue("must not be null")
                    add(target, item, depth)
                except InvalidValue as error:
                    raise error.under(f"[{index}]")  # noqa: B904

        return read_list

    def _map(self, name: str, key_field: FieldDescriptor, value_field: FieldDescriptor) -> Read:
        convert_key = values.key_from_json(key_field)
        takes_null = _takes_null(value_field)
        if value_field.message_type is None:
            convert = values.from_json(value_field)

            def put(target: Any, key: Any, item: Any, depth: int) -> None:
                target[key] = convert(item)

        else:
            read = self.message(value_field.message_type)

            def put(target: Any, key: Any, item: Any, depth: int) -> None:
                read(target[key], item, depth + 1)

        def read_map(message: Any, value: Any, depth: int) -> None:
            if type(value) is not dict:
                raise InvalidValue("must be an object")
            target = getattr(message, name)
            for text, item in value.items():
                try:
                    key = convert_key(text)
                    if key in target:
                        raise InvalidValue("is given twice")
                    if item is None and not takes_null:
                        raise InvalidValue("must not be null")
                    put(target, key, item, depth)
                except InvalidValue as error:
                    raise error.under(f'["{shortened(text)}"]')  # noqa: B904

        return read_map

    def _read_any(self, message: Any, value: Any, depth: int) -> None:
        if type(value) is not dict:
            raise InvalidValue("must be an object")
        if not value:
            return
        type_url = values.string_from_json(value.get("@type", ""))
        try:
            descriptor = self._pool.FindMessageTypeByName(type_url.rpartition("/")[2])
        except KeyError:
            raise InvalidValue("must name a known type", "@type") from None
        content = {key: item for key, item in value.items() if key != "@type"}
        packed = GetMessageClass(descriptor)()
        self._read_packed(packed, content, depth + 1)
        try:
            message.value = packed.SerializeToString(deterministic=True)
        except EncodeError:
            raise InvalidValue("lacks a required field") from None
        message.type_url = type_url

    def _read_packed(self, packed: Any, content: dict[str, Any], depth: int) -> None:
        special = self._special_plan(packed.DESCRIPTOR)
        if special is None:
            self.message(packed.DESCRIPTOR)(packed, content, depth)
            return
        if depth > self._max_depth:
            raise InvalidValue("is nested too deeply")
        if set(content) != {"value"}:
            raise InvalidValue("must have @type and value, and nothing else")
        try:
            special(packed, content["value"], depth)
        except InvalidValue as error:
            raise error.under("value")  # noqa: B904

    def _read_struct(self, message: Any, value: Any, depth: int) -> None:
        if type(value) is not dict:
            raise InvalidValue("must be an object")
        message.SetInParent()
        fields = message.fields
        for key, item in value.items():
            try:
                self._read_value(fields[values.string_from_json(key)], item, depth + 1)
            except InvalidValue as error:
                raise error.under(f'["{shortened(key)}"]')  # noqa: B904

    def _read_list(self, message: Any, value: Any, depth: int) -> None:
        if type(value) is not list:
            raise InvalidValue("must be an array")
        message.SetInParent()
        for index, item in enumerate(value):
            try:
                self._read_value(message.values.add(), item, depth + 1)
            except InvalidValue as error:
                raise error.under(f"[{index}]")  # noqa: B904

    def _read_value(self, message: Any, value: Any, depth: int) -> None:
        if depth > self._max_depth:
            raise InvalidValue("is nested too deeply")
        if value is None:
            message.null_value = 0
        elif type(value) is bool:
            message.bool_value = value
        elif type(value) is str:
            message.string_value = values.string_from_json(value)
        elif type(value) is dict:
            self._read_struct(message.struct_value, value, depth)
        elif type(value) is list:
            self._read_list(message.list_value, value, depth)
        else:
            message.number_value = values.double_from_json(value)


def _takes_null(field: FieldDescriptor) -> bool:
    if field.message_type is not None:
        return bool(field.message_type.full_name == wellknown.VALUE)
    return field.enum_type is not None and field.enum_type.full_name == values.NULL_VALUE


def _not_null(read: Read) -> Read:
    def read_value(message: Any, value: Any, depth: int) -> None:
        if value is None:
            raise InvalidValue("must not be null")
        read(message, value, depth)

    return read_value


def _text_reader(set_text: wellknown.SetText) -> Read:
    def read(message: Any, value: Any, _: int) -> None:
        set_text(message, values.string_from_json(value))

    return read


def _wrapper_reader(convert: values.FromJson) -> Read:
    def read(message: Any, value: Any, _: int) -> None:
        message.value = convert(value)

    return read


# --- the text itself -------------------------------------------------------------------------------------------------


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _DuplicateKey(key)
    return unique


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # which no field can hold; converting takes time with the square of them
        raise ValueError(digits)
    return int(digits)


_MAX_DIGITS: Final = 400
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer).decode


def _check_count(body: bytes, max_values: int) -> None:
    """Refuse a body with too many values before they are made: each costs more memory and time than its bytes."""
    is_long = len(body) > 20 * max_values  # then its beginning mostly says it all
    if (is_long and _has_more(body[: 10 * max_values], max_values)) or _has_more(body, max_values):
        raise bad_request(Reason.INVALID_BODY, f"the body has more than {max_values} values")


def _check_escapes(body: bytes, max_escapes: int) -> None:
    """Refuse a body with too many escapes: each takes the time of fifty other characters."""
    # The beginning of one that is full of them says it all.
    if _escapes(body[: 3 * max_escapes]) > max_escapes or _escapes(body) > max_escapes:
        raise bad_request(Reason.INVALID_BODY, f"the body has more than {max_escapes} escaped characters")


def _escapes(text: bytes) -> int:
    return text.count(b"\\") - text.count(b"\\\\")


def _has_more(text: bytes, max_values: int) -> bool:
    if _values_at_most(text) <= max_values:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    max_strings = 2 * max_values  # names too
    pieces = text.split(b'"', 2 * max_strings)
    return len(pieces) > 2 * max_strings or _values_at_most(b"".join(pieces[::2])) > max_values


def _values_at_most(text: bytes) -> int:
    """A value is the first of all, or comes behind one of these; within strings they are counted in vain."""
    return 1 + len(text) - len(text.translate(None, b",[{"))


def parse(body: bytes, max_values: int, max_escapes: int) -> Any:
    """Parse a JSON body: one value, UTF-8 without a byte order mark, no key twice. Raises Refusal."""
    if len(body) > 2 * max_escapes:
        _check_escapes(body, max_escapes)
    if len(body) > max_values:
        _check_count(body, max_values)
    try:
        return _decode(body.decode())
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"is not JSON from line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "is nested too deeply"
    except _DuplicateKey as error:
        problem = f'has the key "{shortened(str(error))}" twice'
    except ValueError:
        problem = "has a number that JSON does not have"
    raise bad_request(Reason.INVALID_BODY, f"the body {problem}")
