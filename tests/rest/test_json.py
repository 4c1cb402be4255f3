"""JSON in and out: rules J1 to J14 and 4a of the transcoding rules, with json_format as the oracle."""

import json
import math
import re
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import assume, given
from hypothesis import strategies as st

from service.rest.reader import Reader, parse
from service.rest.refusal import Refusal
from service.rest.values import InvalidValue
from service.rest.writer import Writer
from tests.rest.kit import attempt, gallery, gallery_class, unhurried
from tests.rest.messages import messages

POOL = gallery().file.pool
THING = POOL.FindMessageTypeByName("gallery.v1.Thing")
Thing = gallery_class("Thing")
WRITER = Writer(POOL)
MANY = 10_000


def read(text: str | bytes, *, lenient: bool = False) -> Any:
    message = Thing()
    Reader(POOL, lenient=lenient).message(THING)(
        message, parse(text.encode() if isinstance(text, str) else text, MANY, MANY), 0
    )
    return message


def write(message: Any) -> Any:
    return json.loads(WRITER.text(message))


def json_format_write(message: Any) -> Any:
    text = json_format.MessageToJson(message, always_print_fields_with_no_presence=True, descriptor_pool=POOL)
    return json.loads(text)


_TRIPS = re.compile(r'"nulls": ?(?:null|\[.*null)|"values": ?null')
"""What json_format wrongly refuses."""


def json_format_read(text: str) -> Any:
    return json_format.Parse(text, Thing(), descriptor_pool=POOL)


def same(one: Any, other: Any) -> bool:
    """Compare as bytes, in which NaN equals itself."""
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"int64Value":"-5"}', {"int64_value": -5}, id="J1-string"),
        pytest.param('{"uint64Value":18446744073709551615}', {"uint64_value": 2**64 - 1}, id="J1-number"),
        pytest.param(
            '{"string_value":"a","int32Value":1}', {"string_value": "a", "int32_value": 1}, id="J2-both-names"
        ),
        pytest.param('{"other-name":"a"}', {"renamed_field": "a"}, id="J2-given-name"),
        pytest.param('{"kind":"SMALL"}', {"kind": 1}, id="J3-name"),
        pytest.param('{"kind":2}', {"kind": 2}, id="J3-number"),
        pytest.param('{"kind":2.0}', {"kind": 2}, id="J3-integral-number"),
        pytest.param('{"kind":77}', {"kind": 77}, id="J3-open"),
        pytest.param('{"bytesValue":"+/8="}', {"bytes_value": b"\xfb\xff"}, id="J4-standard"),
        pytest.param('{"bytesValue":"-_8"}', {"bytes_value": b"\xfb\xff"}, id="J4-url-safe-unpadded"),
        pytest.param('{"bytesValue":""}', {}, id="J4-empty"),
        pytest.param('{"id":null,"parent":null,"strings":null,"labels":null}', {}, id="J5-null-is-absent"),
        pytest.param('{"oneString":null,"oneNumber":1}', {"one_number": 1}, id="J5-null-in-oneof"),
        pytest.param('{"stringWrapper":null,"timeValue":null}', {}, id="J5-null-well-known"),
        pytest.param('{"doubleValue":"NaN"}', {"double_value": math.nan}, id="J6-nan"),
        pytest.param('{"doubleValue":"-Infinity"}', {"double_value": -math.inf}, id="J6-infinity"),
        pytest.param('{"floatValue":"Infinity"}', {"float_value": math.inf}, id="J6-float-infinity"),
        pytest.param('{"doubleValue":"1.5e3"}', {"double_value": 1500.0}, id="J6-quoted"),
        pytest.param('{"empty":{}}', {"empty": {}}, id="J11-empty"),
        pytest.param('{"int32Value":-0}', {}, id="J10-minus-zero"),
        pytest.param('{"int32Value":1.0}', {"int32_value": 1}, id="J10-fraction-zero"),
        pytest.param('{"int32Value":1e5}', {"int32_value": 100_000}, id="J10-exponent"),
        pytest.param('{"int32Value":"1e2"}', {"int32_value": 100}, id="J10-quoted-exponent"),
        pytest.param('{"int64Value":"1.0"}', {"int64_value": 1}, id="J10-quoted-fraction"),
        pytest.param('{"doubleValue":-0.0}', {"double_value": -0.0}, id="J10-negative-zero"),
        pytest.param('{"doubleValue":5}', {"double_value": 5.0}, id="J10-integer-for-double"),
        pytest.param('{"id":"\\ud83d\\ude00 \\u0000"}', {"id": "😀 \0"}, id="J14-pair"),
        pytest.param('{"optionalBool":false}', {"optional_bool": False}, id="B27-presence"),
        pytest.param('{"labels":{"":"x","a":""}}', {"labels": {"": "x", "a": ""}}, id="J2-map"),
        pytest.param('{"byFlag":{"true":"LARGE","false":0}}', {"by_flag": {True: 2, False: 0}}, id="J2-bool-keys"),
        pytest.param('{"byLong":{"-5":1}}', {"by_long": {-5: 1.0}}, id="J2-integer-keys"),
        pytest.param(
            '{"stringWrapper":"","int64Wrapper":"0"}', {"string_wrapper": {}, "int64_wrapper": {}}, id="J5-wrapper"
        ),
    ],
)
def test_reads(text: str, expected: dict[str, Any]) -> None:
    assert same(read(text), Thing(**expected))
    assert same(read(text), json_format_read(text))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param('{"id":"a","nope":1}', "nope", id="J12-unknown"),
        pytest.param('{"parent":{"nope":1}}', "parent.nope", id="J12-unknown-nested"),
        pytest.param('{"strings":["a",null]}', "strings[1]", id="J5-null-in-repeated"),
        pytest.param('{"parents":[null]}', "parents[0]", id="J5-null-message-in-repeated"),
        pytest.param('{"times":[null]}', "times[0]", id="J5-null-time-in-repeated"),
        pytest.param('{"labels":{"a":null}}', 'labels["a"]', id="J5-null-in-map"),
        pytest.param('{"byNumber":{"1":null}}', 'by_number["1"]', id="J5-null-message-in-map"),
        pytest.param('{"intoString":1,"other-name":1}', "intoString", id="J12-first-problem"),
        pytest.param('{"stringValue":"a","string_value":"a"}', "string_value", id="J9-two-spellings"),
        pytest.param('{"stringValue":null,"string_value":"a"}', "string_value", id="J9-two-spellings-with-null"),
        pytest.param('{"byNumber":{"1":{},"01":{}}}', 'by_number["01"]', id="J9-two-spellings-of-a-key"),
        pytest.param('{"oneString":"a","oneNumber":1}', "one_number", id="J9-oneof"),
        pytest.param('{"oneNull":null,"oneNumber":1}', "one_number", id="J9-oneof-with-null-value"),
        pytest.param('{"bytesValue":"a"}', "bytes_value", id="4a-base64-length"),
        pytest.param('{"bytesValue":"é==="}', "bytes_value", id="4a-base64-not-ascii"),
        pytest.param('{"bytesValue":"AA=="\n,"bytesValues":["!"]}', "bytes_values[0]", id="4a-base64-in-repeated"),
        pytest.param('{"bytesValue":"AA==="}', "bytes_value", id="4a-base64-padding"),
        pytest.param('{"bytesValue":1}', "bytes_value", id="4a-bytes-type"),
        pytest.param('{"kind":"HUGE"}', "kind", id="J3-unknown-name"),
        pytest.param('{"kind":true}', "kind", id="J3-bool"),
        pytest.param('{"kind":1.5}', "kind", id="J3-fraction"),
        pytest.param('{"kind":4294967296}', "kind", id="J13-enum-range"),
        pytest.param('{"int32Value":2147483648}', "int32_value", id="J13-int32"),
        pytest.param('{"uint32Value":-1}', "uint32_value", id="J13-uint32"),
        pytest.param('{"int64Value":"9223372036854775808"}', "int64_value", id="J13-int64"),
        pytest.param('{"int64Value":1e19}', "int64_value", id="J13-exponent"),
        pytest.param('{"int64Value":"1e999999"}', "int64_value", id="J13-huge-exponent"),
        pytest.param('{"doubleValue":1e400}', "double_value", id="J13-double"),
        pytest.param('{"doubleValue":' + "9" * 400 + "}", "double_value", id="J13-long-integer-for-double"),
        pytest.param('{"floatValue":3.5e38}', "float_value", id="J13-float"),
        pytest.param('{"floatWrapper":1e39}', "float_wrapper", id="J13-float-wrapper"),
        pytest.param('{"int32Value":1.5}', "int32_value", id="4a-fraction"),
        pytest.param('{"int32Value":true}', "int32_value", id="4a-bool-for-int"),
        pytest.param('{"int32Value":"1_0"}', "int32_value", id="4a-underscore"),
        pytest.param('{"int32Value":" 1"}', "int32_value", id="4a-blank"),
        pytest.param('{"int32Value":"٣"}', "int32_value", id="4a-arabic-digit"),
        pytest.param('{"int32Value":""}', "int32_value", id="4a-empty-number"),
        pytest.param('{"doubleValue":"nan"}', "double_value", id="J6-lower-case"),
        pytest.param('{"doubleValue":"1_0"}', "double_value", id="J6-underscore"),
        pytest.param('{"doubleValue":true}', "double_value", id="J6-bool"),
        pytest.param('{"boolValue":"true"}', "bool_value", id="4a-quoted-bool"),
        pytest.param('{"boolValue":1}', "bool_value", id="4a-number-for-bool"),
        pytest.param('{"byFlag":{"True":1}}', 'by_flag["True"]', id="4a-bool-key"),
        pytest.param('{"byNumber":{"x":{}}}', 'by_number["x"]', id="4a-integer-key"),
        pytest.param('{"id":1}', "id", id="4a-number-for-string"),
        pytest.param('{"id":"\\ud800"}', "id", id="J14-lone-surrogate"),
        pytest.param('{"labels":{"\\udc00":"x"}}', 'labels["?"]', id="J14-lone-surrogate-in-key"),
        pytest.param('{"\\ud800":1}', "?", id="J14-lone-surrogate-in-name"),
        pytest.param('{"struct":{"\\ud800":1}}', 'struct["?"]', id="J14-lone-surrogate-in-struct"),
        pytest.param('{"strings":"a"}', "strings", id="4a-not-an-array"),
        pytest.param('{"strings":{}}', "strings", id="4a-object-for-array"),
        pytest.param('{"labels":[]}', "labels", id="4a-not-an-object"),
        pytest.param('{"parent":[]}', "parent", id="4a-array-for-message"),
        pytest.param('{"parent":"x"}', "parent", id="4a-string-for-message"),
        pytest.param('{"empty":{"x":1}}', "empty.x", id="J11-empty-has-no-fields"),
        pytest.param('{"timeValue":"2026-01-02t03:04:05Z"}', "time_value", id="J7-lower-case"),
        pytest.param('{"timeValue":"2026-1-2T3:4:5Z"}', "time_value", id="J7-unpadded"),
        pytest.param('{"timeValue":"0000-01-01T00:00:00Z"}', "time_value", id="J7-year-zero"),
        pytest.param('{"timeValue":"0001-01-01T00:00:00+01:00"}', "time_value", id="J7-before-year-one"),
        pytest.param('{"timeValue":"2026-01-02T03:04:05.1234567890Z"}', "time_value", id="J7-ten-digits"),
        pytest.param('{"timeValue":"2026-01-02T03:04:05"}', "time_value", id="J7-no-zone"),
        pytest.param('{"timeValue":"2026-01-02T03:04:05+24:00"}', "time_value", id="J7-bad-offset"),
        pytest.param('{"timeValue":1}', "time_value", id="J7-number"),
        pytest.param('{"durationValue":"1.5"}', "duration_value", id="J7-no-unit"),
        pytest.param('{"durationValue":"315576000000.1s"}', "duration_value", id="J7-too-long"),
        pytest.param('{"mask":"foo_bar"}', "mask", id="J7-snake-case-mask"),
        pytest.param('{"mask":"FooBar"}', "mask", id="J7-capital-mask"),
        pytest.param('{"any":{"x":1}}', "any.@type", id="J8-no-type"),
        pytest.param('{"any":{"@type":"type.googleapis.com/no.Such"}}', "any.@type", id="J8-unknown-type"),
        pytest.param('{"any":{"@type":1}}', "any", id="J8-type-is-a-number"),
        pytest.param('{"any":{"@type":"x/gallery.v1.Parent","nope":1}}', "any.nope", id="J8-unknown-field"),
        pytest.param('{"any":{"@type":"x/google.protobuf.Duration"}}', "any", id="J8-no-value"),
        pytest.param('{"any":{"@type":"x/google.protobuf.Duration","value":"1"}}', "any.value", id="J8-bad-value"),
        pytest.param('{"value":{"a":[1e400]}}', 'value["a"][0]', id="J13-in-value"),
        pytest.param('{"struct":[]}', "struct", id="4a-array-for-struct"),
        pytest.param('{"listValue":{}}', "list_value", id="4a-object-for-list-value"),
    ],
)
def test_refuses_and_says_where(text: str, path: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(text)
    assert caught.value.path == path
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", ['{"nulls":[null],"values":[null],"byName":{"a":null}}', '{"value":null,"oneNull":null}']
)
def test_j5_null_is_a_value_where_there_is_one(text: str) -> None:
    message = read(text)
    assert list(message.nulls) in ([], [0])
    assert write(message)["values"] in ([], [None])
    assert message.value.WhichOneof("kind") in (None, "null_value")


def test_unknown_fields_can_be_skipped_but_not_bad_ones() -> None:
    assert read('{"nope":{"a":[1]},"kind":"SMALL"}', lenient=True).kind == 1
    with pytest.raises(InvalidValue):
        read('{"kind":"HUGE"}', lenient=True)


@pytest.mark.parametrize(
    "nest",
    [
        pytest.param(lambda n: '{"thing":' * n + "{}" + "}" * n, id="messages"),
        pytest.param(lambda n: '{"listValue":' + "[" * n + "]" * n + "}", id="list-value"),
        pytest.param(lambda n: '{"struct":' + '{"a":' * n + "1" + "}" * n + "}", id="struct"),
        pytest.param(
            lambda n: '{"any":' + '{"@type":"x/google.protobuf.Any","value":' * n + "{}" + "}" * n + "}", id="any"
        ),
        pytest.param(
            lambda n: '{"any":' + '{"@type":"x/gallery.v1.Thing","any":' * (n // 2) + "{}" + "}" * (n // 2) + "}",
            id="any-of-messages",
        ),
    ],
)
def test_4a_depth_is_bounded(nest: Any) -> None:
    read(nest(90))
    for depth in (110, 300, 900):
        with pytest.raises((InvalidValue, Refusal), match="nested too deeply"):
            read(nest(depth))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"int64_value": -5, "uint64_value": 7}, '"int64Value":"-5"', id="J1-strings"),
        pytest.param({"renamed_field": "x"}, '"other-name":"x"', id="J2-names"),
        pytest.param({"kind": 2}, '"kind":"LARGE"', id="J3-name"),
        pytest.param({"kind": 77}, '"kind":77', id="J3-unknown-number"),
        pytest.param({"bytes_value": b"\xfb\xff"}, '"bytesValue":"+/8="', id="J4-padded-standard"),
        pytest.param({"double_value": math.nan}, '"doubleValue":"NaN"', id="J6-nan"),
        pytest.param({"double_value": -math.inf}, '"doubleValue":"-Infinity"', id="J6-infinity"),
        pytest.param({"double_value": -0.0}, '"doubleValue":-0.0', id="J10-negative-zero"),
        pytest.param({"float_value": 0.1}, '"floatValue":0.1,', id="J6-shortest-float"),
        pytest.param({"float_value": 3.4028234663852886e38}, '"floatValue":3.4028235e+38', id="J6-largest-float"),
        pytest.param({"empty": {}}, '"empty":{}', id="J11-empty"),
        pytest.param({"id": '"\\\n\u2028\x00é'}, '"id":"\\"\\\\\\n\u2028\\u0000é"', id="J14-escapes"),
        pytest.param({"labels": {"b": "2", "a": "1"}}, '"labels":{"a":"1","b":"2"}', id="J2-maps-are-sorted"),
        pytest.param({"by_flag": {True: 1}}, '"byFlag":{"true":"SMALL"}', id="J2-bool-keys"),
        pytest.param({"by_long": {-5: 1.0}}, '"byLong":{"-5":1.0}', id="J2-integer-keys"),
        pytest.param(
            {"time_value": {"seconds": 0, "nanos": 5_000_000}}, '"1970-01-01T00:00:00.005Z"', id="J7-3-digits"
        ),
        pytest.param(
            {"time_value": {"seconds": -1, "nanos": 5_000}}, '"1969-12-31T23:59:59.000005Z"', id="J7-6-digits"
        ),
        pytest.param({"time_value": {"nanos": 5}}, '"1970-01-01T00:00:00.000000005Z"', id="J7-9-digits"),
        pytest.param({"time_value": {}}, '"1970-01-01T00:00:00Z"', id="J7-0-digits"),
        pytest.param({"duration_value": {"nanos": -500_000_000}}, '"durationValue":"-0.500s"', id="J7-duration"),
        pytest.param({"mask": {"paths": ["a_b.c_d", "e"]}}, '"mask":"aB.cD,e"', id="J7-mask"),
        pytest.param({"optional_bool": False}, '"optionalBool":false', id="B27-presence"),
        pytest.param({"nulls": [0]}, '"nulls":[null]', id="J5-null-value"),
        pytest.param({"value": {}}, '"value":null', id="J5-unset-value"),
    ],
)
def test_writes(fields: dict[str, Any], text: str) -> None:
    message = Thing(**fields)
    assert text in WRITER.text(message)
    assert write(message) == json_format_write(message)


def test_4b_fields_without_presence_are_always_there_in_order_of_declaration() -> None:
    written = list(write(Thing()))
    assert written == [field.json_name for field in THING.fields if not field.has_presence]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"time_value": {"seconds": 253_402_300_800}}, id="J7-time-range"),
        pytest.param({"time_value": {"nanos": -1}}, id="J7-time-nanos"),
        pytest.param({"duration_value": {"seconds": 1, "nanos": -1}}, id="J7-duration-signs"),
        pytest.param({"mask": {"paths": ["aB"]}}, id="J7-mask-capital"),
        pytest.param({"mask": {"paths": ["a__b"]}}, id="J7-mask-double-underscore"),
        pytest.param({"value": {"number_value": math.nan}}, id="J6-nan-in-value"),
        pytest.param({"struct": {"fields": {"a": {"number_value": math.inf}}}}, id="J6-infinity-in-struct"),
    ],
)
def test_what_has_no_json_form(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the caller gets INTERNAL
        WRITER.text(Thing(**fields))


@pytest.mark.parametrize(
    ("any_fields", "expected"),
    [
        pytest.param({}, {}, id="J8-empty"),
        pytest.param(
            {"type_url": "x/no.Such", "value": b"\1"}, {"@type": "x/no.Such", "value": "AQ=="}, id="R4-unknown-type"
        ),
        pytest.param({"value": b"\1"}, {"@type": "", "value": "AQ=="}, id="R4-no-type"),
        pytest.param(
            {"type_url": "x/gallery.v1.Parent", "value": b"\xff"},
            {"@type": "x/gallery.v1.Parent", "value": "/w=="},
            id="R4-rubbish",
        ),
        pytest.param(
            {"type_url": "x/google.protobuf.Timestamp", "value": b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
            {"@type": "x/google.protobuf.Timestamp", "value": "EP///////////wE="},
            id="R4-no-json-form",
        ),
        pytest.param({"type_url": "x/google.protobuf.Empty"}, {"@type": "x/google.protobuf.Empty"}, id="J8-no-fields"),
    ],
)
def test_r4_what_cannot_be_unpacked(any_fields: dict[str, Any], expected: Any) -> None:
    assert write(Thing(any=any_fields))["any"] == expected


def test_deep_replies_are_written() -> None:
    message = inner = Thing(id="top")
    for _ in range(95):
        inner = inner.thing
        inner.id = "x"
    assert WRITER.text(message).count('"thing":') == 95


@unhurried
@given(messages(THING))
def test_writes_what_json_format_writes(message: Any) -> None:
    assert write(message) == json_format_write(message)


@unhurried
@given(messages(THING))
def test_reads_what_it_writes(message: Any) -> None:
    text = WRITER.text(message)
    again = read(text)
    assert WRITER.text(again) == text
    assume(not _TRIPS.search(text))
    assert same(again, json_format_read(text))


_KEYS = st.sampled_from([name for field in THING.fields for name in (field.name, field.json_name)])
_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["1", "-1", "1.0", "NaN", "SMALL", "AA==", "1s", "2026-01-02T03:04:05Z", "a,bC", "true"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["@type", "value", "name", "number", "id", "1", "true", "a"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@unhurried
@given(st.dictionaries(_KEYS, _ANYTHING, max_size=4))
def test_what_it_reads_json_format_reads_alike(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    try:
        ours = read(text)
    except (InvalidValue, Refusal):
        return
    assume(not _TRIPS.search(text))
    assert same(ours, json_format_read(text))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("[" + "[]," * 60 + "1]", id="lists"),
        pytest.param("[" + "{}," * 60 + "1]", id="objects"),
        pytest.param("[" + "1," * 60 + "1]", id="numbers"),
        pytest.param("[" + '"",' * 60 + '""]', id="strings"),
        pytest.param("{" + ",".join(f'"{n}":1' for n in range(60)) + "}", id="members"),
        pytest.param('{"a":' * 60 + "1" + "}" * 60, id="nested"),
        pytest.param('["\\\\",' + "[]," * 60 + '"\\""]', id="between-escapes"),
        pytest.param("[" * 60, id="unfinished"),
    ],
)
def test_values_are_counted_before_they_are_made(body: str) -> None:
    with pytest.raises(Refusal, match="more than 50 values"):
        parse(body.encode(), 50, MANY)


@pytest.mark.parametrize("piece", ["\n", '"', "\\", "\0", "a\\\n"], ids=["n", "quote", "backslash", "u", "mixed"])
def test_escapes_are_counted_before_they_are_read(piece: str) -> None:
    count = 2 if piece.startswith("a") else 1
    body = json.dumps(piece * 60).encode()
    assert parse(body, MANY, 60 * count) == piece * 60
    with pytest.raises(Refusal, match="escaped characters"):
        parse(body, MANY, 60 * count - 1)


@unhurried
@given(
    st.recursive(st.none() | st.text('a,[{"\\\n'), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_what_looks_like_a_value_in_a_string_is_not_counted(value: Any) -> None:
    text = json.dumps(value)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    values_at_most = 1 + sum(map(outside.count, ",[{"))
    body = (text + " " * values_at_most).encode()
    assert parse(body, values_at_most, MANY) == value
    if values_at_most > 1:
        assert isinstance(attempt(lambda: parse(body, values_at_most - 1, MANY)), Refusal)


@pytest.mark.parametrize("number", ["9" * 401, "-" + "9" * 1_000_000])
def test_numbers_of_endless_digits_are_not_converted(number: str) -> None:
    with pytest.raises(Refusal, match="a number that JSON does not have"):
        parse(number.encode(), MANY, MANY)


@unhurried
@given(st.binary(max_size=50) | st.text(alphabet='{}[]",:0123456789.eE-+ntfu\\ au', max_size=40).map(str.encode))
def test_parses_whatever_json_parses_and_raises_nothing_else(body: bytes) -> None:
    ours = attempt(lambda: parse(body, MANY, MANY))
    if isinstance(ours, Refusal):
        assert ours.http_status == 400
    else:
        assert ours == json.loads(body)
