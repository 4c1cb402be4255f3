"""Values of every kind of field as they can stand in a URL and in JSON: good, bad, and where gateways may disagree.

Each has a name, `<kind>/<what is special>`, by which the table of differences speaks of it.
"""

from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor

from service.rest import wellknown

Named = Mapping[str, str]

_BOUNDS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_ENUM: "enum",
}
_WELL_KNOWN = {
    wellknown.TIMESTAMP: "time",
    wellknown.DURATION: "duration",
    wellknown.FIELD_MASK: "mask",
    wellknown.STRUCT: "struct",
    wellknown.VALUE: "value",
    wellknown.LIST_VALUE: "list",
    wellknown.ANY: "any",
    "google.protobuf.Empty": "empty",
    "gallery.v1.Parent": "parent",
    "gallery.v1.Thing": "thing",
}


def is_map(field: FieldDescriptor) -> bool:
    """Tell maps from other repeated fields."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def kind_of(field: FieldDescriptor) -> str:
    """Return the kind of a field's single values: wrappers are of the kind that they wrap."""
    if is_map(field):
        return "map"
    if field.type in _BOUNDS:
        return "integer"
    if field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue":
        return "null"
    if field.message_type is None:
        return _KINDS[field.type]
    if wellknown.is_wrapper(field.message_type):
        return kind_of(field.message_type.fields_by_name["value"])
    return _WELL_KNOWN[field.message_type.full_name]


def _named(kind: str, fragments: Named) -> Named:
    return {f"{kind}/{name}": fragment for name, fragment in fragments.items()}


def _bounds(field: FieldDescriptor) -> Named:
    if field.message_type is not None:
        field = field.message_type.fields_by_name["value"]
    low, high = _BOUNDS[field.type]
    return {"low": f"{low}", "high": f"{high}", "under": f"{low - 1}", "over": f"{high + 1}"}


# --- as text ---------------------------------------------------------------------------------------------------------

_TEXTS: dict[str, Named] = {
    "integer": {
        "one": "1",
        "zero": "0",
        "negative": "-1",
        "minus-zero": "-0",
        "plus": "+1",
        "leading-zero": "007",
        "octal": "0o7",
        "hex": "0x10",
        "exponent": "1e2",
        "point": "1.0",
        "fraction": "1.5",
        "underscore": "1_0",
        "blank-before": " 1",
        "blank-after": "1 ",
        "arabic": "٣",
        "empty": "",
        "word": "one",
        "two-signs": "--1",
        "comma": "1,000",
        "huge": "1" * 40,
        "nan": "NaN",
        "true": "true",
        "quoted": '"1"',
    },
    "bool": {
        "true": "true",
        "false": "false",
        "one": "1",
        "zero": "0",
        "t": "t",
        "f": "f",
        "capital": "T",
        "upper": "TRUE",
        "title": "False",
        "yes": "yes",
        "empty": "",
        "two": "2",
        "blank": " true",
        "null": "null",
    },
    "double": {
        "one": "1",
        "fraction": "-1.5",
        "exponent": "1.5e3",
        "capital-exponent": "1E3",
        "minus-zero": "-0",
        "nan": "NaN",
        "infinity": "Infinity",
        "minus-infinity": "-Infinity",
        "nan-lower": "nan",
        "inf": "inf",
        "plus-infinity": "+Infinity",
        "infinity-lower": "infinity",
        "overflow": "1e400",
        "underflow": "1e-400",
        "plus": "+1.5",
        "no-integer": ".5",
        "no-fraction": "1.",
        "leading-zero": "01.5",
        "hex": "0x1p4",
        "underscore": "1_0.5",
        "blank": " 1.5",
        "comma": "1,5",
        "empty": "",
        "word": "half",
        "float-max": "3.4028234663852886e38",
        "float-overflow": "3.5e38",
    },
    "enum": {
        "name": "LARGE",
        "number": "2",
        "zero": "0",
        "negative": "-1",
        "zero-name": "KIND_UNSPECIFIED",
        "lower": "large",
        "unknown-name": "HUGE",
        "unknown-number": "99",
        "huge-number": "99999999999",
        "plus": "+2",
        "point": "2.0",
        "blank": " LARGE",
        "empty": "",
        "qualified": "Kind.LARGE",
    },
    "null": {"name": "NULL_VALUE", "number": "0", "word": "null", "empty": "", "unknown-number": "1"},
    "bytes": {
        "padded": "AQI=",
        "unpadded": "AQI",
        "standard": "+/8=",
        "standard-unpadded": "+/8",
        "url-safe": "-_8",
        "url-safe-padded": "-_8=",
        "mixed": "+_8=",
        "empty": "",
        "whole": "AQID",
        "one-left": "AQIDA",
        "too-padded": "AQI==",
        "padding-inside": "A=QI",
        "padding-only": "=",
        "blank-inside": "AQ ID",
        "line-inside": "AQ\nID",
        "bang": "AQ!D",
        "not-ascii": "AQÉD",
        "loose-bits": "AQJ",
        "loose-bits-padded": "AQJ=",
    },
    "string": {
        "word": "word",
        "blank": "two words",
        "plus": "a+b",
        "slash": "a/b",
        "percent": "50%",
        "escape": "%41",
        "unicode": "Grüße €",
        "astral": "𝄞",
        "empty": "",
        "nul": "a\0b",
        "newline": "a\nb",
        "quotes": "\"'",
        "reserved": ";?:@&=,$#[]!*()",
        "dots": "..",
        "null": "null",
        "colon": "a:b",
        "long": "x" * 3000,
        "separator": "a\u2028b",
    },
    "time": {
        "plain": "2026-01-02T03:04:05Z",
        "millis": "2026-01-02T03:04:05.120Z",
        "micros": "2026-01-02T03:04:05.123456Z",
        "nanos": "2026-01-02T03:04:05.123456789Z",
        "one-digit": "2026-01-02T03:04:05.5Z",
        "ten-digits": "2026-01-02T03:04:05.1234567891Z",
        "offset": "2026-01-02T03:04:05+01:30",
        "minus-offset": "2026-01-02T03:04:05-08:00",
        "zero-offset": "2026-01-02T03:04:05-00:00",
        "first": "0001-01-01T00:00:00Z",
        "last": "9999-12-31T23:59:59.999999999Z",
        "year-0": "0000-01-01T00:00:00Z",
        "before-first": "0001-01-01T00:00:00+01:00",
        "after-last": "9999-12-31T23:59:59-01:00",
        "leap-day": "2024-02-29T00:00:00Z",
        "no-leap-day": "2026-02-29T00:00:00Z",
        "leap-second": "2016-12-31T23:59:60Z",
        "hour-24": "2026-01-02T24:00:00Z",
        "lower": "2026-01-02t03:04:05z",
        "blank": "2026-01-02 03:04:05Z",
        "no-zone": "2026-01-02T03:04:05",
        "date": "2026-01-02",
        "no-colon": "2026-01-02T03:04:05+0100",
        "offset-24": "2026-01-02T03:04:05+24:00",
        "comma": "2026-01-02T03:04:05,5Z",
        "no-digits": "2026-01-02T03:04:05.Z",
        "seconds": "1767322800",
        "empty": "",
        "five-digit-year": "10000-01-01T00:00:00Z",
        "short-hour": "2026-01-02T3:04:05Z",
    },
    "duration": {
        "plain": "1s",
        "fraction": "1.5s",
        "nanos": "0.000000001s",
        "negative": "-1.5s",
        "negative-fraction": "-0.5s",
        "zero": "0s",
        "highest": "315576000000s",
        "over": "315576000001s",
        "over-by-nanos": "315576000000.000000001s",
        "ten-digits": "1.1234567891s",
        "no-unit": "1",
        "minutes": "1m",
        "go-form": "1h30m",
        "millis": "500ms",
        "plus": "+1s",
        "no-integer": ".5s",
        "no-fraction": "1.s",
        "blank": "1 s",
        "upper": "1S",
        "leading-zero": "01s",
        "exponent": "1e2s",
        "empty": "",
        "unit-only": "s",
        "huge": "9" * 30 + "s",
    },
    "mask": {
        "one": "id",
        "two": "id,kind",
        "camel": "displayName",
        "snake": "display_name",
        "dotted": "parent.displayName",
        "star": "*",
        "empty": "",
        "blank": "id, kind",
        "comma-last": "id,",
        "upper-first": "Id",
        "digit": "int32Value",
        "snake-digit": "int32_value",
        "bad": "a b",
    },
    "struct": {"json": '{"a":1}', "word": "a"},
    "value": {"number": "1", "string": "a", "json": '{"a":1}'},
    "list": {"json": "[1]", "word": "a"},
    "any": {"json": '{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}'},
    "empty": {"json": "{}", "nothing": ""},
    "parent": {"json": '{"name":"x"}', "word": "x", "nothing": ""},
    "thing": {"json": '{"id":"x"}'},
}
_TEXTS["float"] = _TEXTS["double"]


def texts(field: FieldDescriptor) -> Named:
    """Return values for one place of a field in a URL, not yet escaped."""
    kind = kind_of(field)
    return _named(kind, {**_TEXTS[kind], **(_bounds(field) if kind == "integer" else {})})


# --- as JSON ---------------------------------------------------------------------------------------------------------


def _quoted(fragments: Named, *left_out: str) -> Named:
    return {name: _quote(text) for name, text in fragments.items() if name not in left_out}


def _quote(text: str) -> str:
    escapes = {'"': '\\"', "\0": "\\u0000", "\n": "\\n", "\\": "\\\\"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


_WRONG_TYPES: Named = {"object": "{}", "array": "[]", "full-object": '{"a":1}', "full-array": "[1]", "null": "null"}

_LITERALS: dict[str, Named] = {
    "integer": {
        "one": "1",
        "zero": "0",
        "negative": "-1",
        "minus-zero": "-0",
        "point": "1.0",
        "fraction": "1.5",
        "exponent": "1e2",
        "negative-exponent": "100e-2",
        "fraction-exponent": "1e-2",
        "high-exponent": "1.5e1",
        "huge": "1" * 40,
        "overflow": "1e400",
        "bool": "true",
        "quoted": '"1"',
        "quoted-negative": '"-1"',
        "quoted-point": '"1.0"',
        "quoted-fraction": '"1.5"',
        "quoted-exponent": '"1e2"',
        "quoted-plus": '"+1"',
        "quoted-blank": '" 1"',
        "quoted-blank-after": '"1 "',
        "quoted-leading-zero": '"007"',
        "quoted-minus-zero": '"-0"',
        "quoted-empty": '""',
        "quoted-word": '"one"',
        "quoted-hex": '"0x1"',
        "quoted-underscore": '"1_0"',
        "quoted-arabic": '"٣"',
        "quoted-huge": '"' + "1" * 40 + '"',
        **_WRONG_TYPES,
    },
    "bool": {
        "true": "true",
        "false": "false",
        "one": "1",
        "zero": "0",
        "quoted": '"true"',
        "quoted-empty": '""',
        "quoted-one": '"1"',
        **_WRONG_TYPES,
    },
    "double": {
        "one": "1",
        "fraction": "-1.5",
        "exponent": "1.5E3",
        "minus-zero": "-0.0",
        "overflow": "1e400",
        "underflow": "1e-400",
        "huge-integer": "1" * 400,
        "long": "0.1000000000000000055511151231257827",
        "float-overflow": "3.5e38",
        "float-max": "3.4028234663852886e38",
        "bare-nan": "NaN",
        "bare-infinity": "Infinity",
        "bool": "true",
        **{f"quoted-{name}": text for name, text in _quoted(_TEXTS["double"]).items()},
        **_WRONG_TYPES,
    },
    "enum": {
        "name": '"LARGE"',
        "number": "2",
        "negative": "-1",
        "zero-name": '"KIND_UNSPECIFIED"',
        "lower": '"large"',
        "unknown-name": '"HUGE"',
        "unknown-number": "99",
        "huge-number": "99999999999",
        "quoted-number": '"2"',
        "quoted-unknown-number": '"99"',
        "point": "2.0",
        "exponent": "2e0",
        "fraction": "1.5",
        "quoted-empty": '""',
        "bool": "true",
        **_WRONG_TYPES,
    },
    "null": {
        "null": "null",
        "name": '"NULL_VALUE"',
        "number": "0",
        "unknown-number": "1",
        "unknown-name": '"x"',
        "bool": "false",
        "object": "{}",
        "array": "[]",
    },
    "bytes": {**_quoted(_TEXTS["bytes"]), "number": "1", "bool": "true", **_WRONG_TYPES},
    "string": {
        **_quoted(_TEXTS["string"]),
        "escapes": '"\\u00e9\\t\\/\\b\\f"',
        "surrogate-pair": '"\\ud834\\udd1e"',
        "lone-high": '"a\\ud834b"',
        "lone-low": '"a\\udd1e"',
        "swapped": '"\\udd1e\\ud834"',
        "raw-newline": '"a\nb"',
        "raw-tab": '"a\tb"',
        "raw-delete": '"a\x7fb"',
        "bad-escape": '"\\x41"',
        "short-escape": '"\\u41"',
        "single-quotes": "'a'",
        "number": "1",
        "bool": "true",
        **_WRONG_TYPES,
    },
    "time": {
        **_quoted(_TEXTS["time"]),
        "number": "1",
        "bool": "true",
        "full": '{"seconds":"1","nanos":1}',
        **_WRONG_TYPES,
    },
    "duration": {
        **_quoted(_TEXTS["duration"]),
        "number": "1",
        "full": '{"seconds":"1","nanos":1}',
        **_WRONG_TYPES,
    },
    "mask": {**_quoted(_TEXTS["mask"]), "number": "1", "full": '{"paths":["id"]}', **_WRONG_TYPES},
    "struct": {
        "empty": "{}",
        "all": '{"a":1,"b":"x","c":null,"d":[1,{"e":false}],"f":{}}',
        "array": "[]",
        "string": '"a"',
        "null": "null",
        "number": "1",
        "empty-key": '{"":1}',
        "key-twice": '{"a":1,"a":2}',
        "fields": '{"fields":{"a":{"numberValue":1}}}',
        "overflow": '{"a":1e400}',
        "long-integer": '{"a":12345678901234567890}',
        "bad": '{"a":NaN}',
    },
    "value": {
        "null": "null",
        "number": "1.5",
        "string": '"a"',
        "bool": "false",
        "object": '{"a":[]}',
        "array": "[null,1]",
        "nan": '"NaN"',
        "bare-nan": "NaN",
        "kind": '{"numberValue":1}',
    },
    "list": {"empty": "[]", "all": '[1,"x",null,{"a":1},[2]]', "object": "{}", "string": '"a"', "null": "null"},
    "any": {
        "duration": '{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.5s"}',
        "parent": '{"@type":"type.googleapis.com/gallery.v1.Parent","name":"x"}',
        "type-last": '{"name":"x","@type":"type.googleapis.com/gallery.v1.Parent"}',
        "empty-message": '{"@type":"type.googleapis.com/google.protobuf.Empty","value":{}}',
        "empty-message-bare": '{"@type":"type.googleapis.com/google.protobuf.Empty"}',
        "struct": '{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"a":1}}',
        "wrapper": '{"@type":"type.googleapis.com/google.protobuf.Int64Value","value":"5"}',
        "any": '{"@type":"type.googleapis.com/google.protobuf.Any",'
        '"value":{"@type":"type.googleapis.com/gallery.v1.Parent"}}',
        "other-host": '{"@type":"example.com/gallery.v1.Parent","name":"x"}',
        "no-host": '{"@type":"gallery.v1.Parent","name":"x"}',
        "slash-only": '{"@type":"/gallery.v1.Parent","name":"x"}',
        "unknown-type": '{"@type":"type.googleapis.com/not.Known"}',
        "unknown-field": '{"@type":"type.googleapis.com/gallery.v1.Parent","nme":"x"}',
        "no-type": '{"name":"x"}',
        "empty-type": '{"@type":""}',
        "type-number": '{"@type":1}',
        "type-twice": '{"@type":"type.googleapis.com/gallery.v1.Parent",'
        '"@type":"type.googleapis.com/gallery.v1.Event"}',
        "no-value": '{"@type":"type.googleapis.com/google.protobuf.Duration"}',
        "value-and-more": '{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s","x":1}',
        "packed": '{"typeUrl":"type.googleapis.com/gallery.v1.Parent","value":"CgF4"}',
        "nothing": "{}",
        "string": '"a"',
        "array": "[]",
        "null": "null",
    },
    "empty": {"object": "{}", "array": "[]", "string": '""', "null": "null", "unknown-field": '{"a":1}'},
    "parent": {
        "empty": "{}",
        "full": '{"name":"x","number":"5","parent":{"flag":false},"flag":true,"left":"l"}',
        "oneof-message": '{"right":{"left":"l"}}',
        "oneof-twice": '{"left":"l","right":{}}',
        "oneof-null": '{"left":"l","right":null}',
        "unknown-field": '{"nme":"x"}',
        "unknown-null": '{"nme":null}',
        "unknown-deep": '{"parent":{"parent":{"nme":1}}}',
        "key-twice": '{"name":"x","name":"y"}',
        "two-spellings": '{"flag":true,"flag":false}',
        "array": "[]",
        "string": '"x"',
        "number": "1",
        "null": "null",
    },
    "thing": {
        "empty": "{}",
        "json-names": '{"stringValue":"a","int32Value":1,"other-name":"b"}',
        "proto-names": '{"string_value":"a","int32_value":1,"renamed_field":"b"}',
        "both-names": '{"stringValue":"a","string_value":"a"}',
        "both-names-differ": '{"stringValue":"a","string_value":"b"}',
        "former-json-name": '{"renamedField":"b"}',
        "upper-name": '{"StringValue":"a"}',
        "nested": '{"thing":{"thing":{"id":"x"}}}',
        "array": "[]",
        "null": "null",
    },
}
_LITERALS["float"] = _LITERALS["double"]


def literals(field: FieldDescriptor) -> Named:
    """Return JSON for one value of a field."""
    kind = kind_of(field)
    if kind != "integer":
        return _named(kind, _LITERALS[kind])
    bounds = _bounds(field)
    quoted = {f"quoted-{name}": text for name, text in _quoted(bounds).items()}
    return _named(kind, {**_LITERALS[kind], **bounds, **quoted})
