"""Query parameters: rules B2, B3 and B11 to B27 of the transcoding rules."""

import time
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from service.rest import Limits
from service.rest.query import parameters
from tests.rest.kit import FakeInvoker, ask, attempt, gallery_app, unhurried


def _fields(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        pytest.param("id=a+b", {"id": "a b"}, id="P11-plus-is-blank"),
        pytest.param("id=a%2Bb%20c", {"id": "a+b c"}, id="P11-escapes"),
        pytest.param("i%64=x", {"id": "x"}, id="P11-escaped-name"),
        pytest.param("id=a=b", {"id": "a=b"}, id="P11-second-equals-is-data"),
        pytest.param("id=a;string_value=b", {"id": "a;string_value=b"}, id="P11-semicolon-is-data"),
        pytest.param("&id=x&&", {"id": "x"}, id="P11-empty-pieces"),
        pytest.param("id=%E2%82%AC", {"id": "€"}, id="P11-utf8"),
        pytest.param("id", {}, id="P11-no-equals-is-empty"),
        pytest.param("int32_value=5", {"int32_value": 5}, id="B11-proto-name"),
        pytest.param("int32Value=5", {"int32_value": 5}, id="B11-json-name"),
        pytest.param("other-name=x", {"renamed_field": "x"}, id="B11-given-json-name"),
        pytest.param("renamed_field=x", {"renamed_field": "x"}, id="B11-proto-name-of-renamed"),
        pytest.param("parent.name=x", {"parent": {"name": "x"}}, id="B11-dotted"),
        pytest.param(
            "parent.parent.parent.number=7", {"parent": {"parent": {"parent": {"number": "7"}}}}, id="B11-deep"
        ),
        pytest.param("strings=a&strings=b&strings=", {"strings": ["a", "b", ""]}, id="B12-order"),
        pytest.param("strings=a,b", {"strings": ["a,b"]}, id="B12-no-comma-splitting"),
        pytest.param("kinds=SMALL&kinds=2", {"kinds": ["SMALL", "LARGE"]}, id="B12-enums"),
        pytest.param("int64s=1&id=x&int64s=-2", {"int64s": ["1", "-2"], "id": "x"}, id="B12-interleaved"),
        pytest.param("times=2026-01-02T03:04:05Z", {"times": ["2026-01-02T03:04:05Z"]}, id="B12-well-known"),
        pytest.param("int64_wrappers=1&int64_wrappers=0", {"int64_wrappers": ["1", "0"]}, id="B12-wrappers"),
        pytest.param("int32_value=-2147483648", {"int32_value": -2147483648}, id="B16-int32-low"),
        pytest.param("uint32_value=4294967295", {"uint32_value": 4294967295}, id="B16-uint32-high"),
        pytest.param("int64_value=9223372036854775807", {"int64_value": "9223372036854775807"}, id="B16-int64-high"),
        pytest.param("uint64_value=18446744073709551615", {"uint64_value": "18446744073709551615"}, id="B16-uint64"),
        pytest.param("fixed64_value=1&sfixed32_value=-1", {"fixed64_value": "1", "sfixed32_value": -1}, id="B16-fixed"),
        pytest.param("bool_value=true&optional_bool=0", {"bool_value": True, "optional_bool": False}, id="B17-bools"),
        pytest.param("double_value=-1.5e3", {"double_value": -1500.0}, id="B18-double"),
        pytest.param("double_value=Infinity", {"double_value": "Infinity"}, id="B18-infinity"),
        pytest.param("float_value=-Infinity", {"float_value": "-Infinity"}, id="B18-float-infinity"),
        pytest.param("double_value=NaN", {"double_value": "NaN"}, id="B18-nan"),
        pytest.param("kind=LARGE", {"kind": "LARGE"}, id="B19-name"),
        pytest.param("kind=-1", {"kind": "NEGATIVE"}, id="B19-number"),
        pytest.param("bytes_value=-_8", {"bytes_value": "+/8="}, id="B20-url-safe"),
        pytest.param("bytes_value=%2B/8%3D", {"bytes_value": "+/8="}, id="B20-standard-padded"),
        pytest.param(
            "time_value=2026-01-02T03:04:05.5%2B01:00", {"time_value": "2026-01-02T02:04:05.500Z"}, id="B21-time"
        ),
        pytest.param("duration_value=-1.5s", {"duration_value": "-1.500s"}, id="B21-duration"),
        pytest.param("string_wrapper=", {"string_wrapper": ""}, id="B21-empty-wrapper-is-present"),
        pytest.param("bool_wrapper=false", {"bool_wrapper": False}, id="B21-wrapper"),
        pytest.param("bytes_wrapper=AA", {"bytes_wrapper": "AA=="}, id="B21-bytes-wrapper"),
        pytest.param("one_duration=1s", {"one_duration": "1s"}, id="B21-in-oneof"),
        pytest.param("one_null=NULL_VALUE", {"one_null": None}, id="B21-null-value-is-an-enum"),
        pytest.param("mask=displayName,a.bC", {"mask": "displayName,a.bC"}, id="B24-camel-case"),
        pytest.param("mask=display_name,*", {"mask": "displayName,*"}, id="B24-snake-case-and-star"),
        pytest.param("mask=", {"mask": ""}, id="B24-empty"),
        pytest.param("optional_bool=false", {"optional_bool": False}, id="B27-explicit-default-is-present"),
        pytest.param("parent.flag=false", {"parent": {"flag": False}}, id="B27-nested"),
    ],
)
async def test_sets(query: str, fields: dict[str, Any]) -> None:
    invoker = FakeInvoker()
    answer = await ask(gallery_app(invoker), "GET", f"/v1/things?{query}")
    assert answer.status == 200, answer.json
    assert _fields(invoker.call.request) == fields


async def test_b24_masks_are_stored_in_snake_case() -> None:
    invoker = FakeInvoker()
    await ask(gallery_app(invoker), "GET", "/v1/things?mask=displayName,a.bC")
    assert list(invoker.call.request.mask.paths) == ["display_name", "a.b_c"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("int32_value=1&int32_value=2", "int32_value", id="B13-twice"),
        pytest.param("int32_value=1&int32Value=1", "int32Value", id="B13-twice-under-two-names"),
        pytest.param("parent.name=a&parent.name=b", "parent.name", id="B13-nested-twice"),
        pytest.param("one_string=a&one_number=1", "one_number", id="B13-oneof"),
        pytest.param("one_string=a&one_parent.name=b", "one_parent.name", id="B13-oneof-message"),
        pytest.param("one_parent.name=b&one_string=a", "one_string", id="B13-oneof-other-order"),
        pytest.param("parent.left=a&parent.right.name=b", "parent.right.name", id="B13-nested-oneof"),
        pytest.param("id.x=1", "id.x", id="B14-through-scalar"),
        pytest.param("parents.name=x", "parents.name", id="B14-through-repeated"),
        pytest.param("labels.key=x", "labels.key", id="B14-through-map"),
        pytest.param("time_value.seconds=1", "time_value.seconds", id="B14-into-timestamp"),
        pytest.param("string_wrapper.value=1", "string_wrapper.value", id="B14-into-wrapper"),
        pytest.param("parent=x", "parent", id="B14-message"),
        pytest.param("parents=x", "parents", id="B14-repeated-message"),
        pytest.param("labels=x", "labels", id="B14-map"),
        pytest.param("int32_valu=5", "int32_valu", id="B15-unknown"),
        pytest.param("parent.nam=5", "parent.nam", id="B15-unknown-nested"),
        pytest.param("par.name=5", "par.name", id="B15-unknown-parent"),
        pytest.param("=5", "", id="B15-empty-name"),
        pytest.param("parent.=5", "parent.", id="B15-empty-step"),
        pytest.param(".id=5", ".id", id="B15-leading-dot"),
        pytest.param("renamedField=5", "renamedField", id="B11-not-a-made-up-json-name"),
        pytest.param("INT32_VALUE=5", "INT32_VALUE", id="B15-case"),
        pytest.param("int32_value=1_0", "int32_value", id="B16-underscore"),
        pytest.param("int32_value=+1", "int32_value", id="B16-blank"),
        pytest.param("int32_value=%2B1", "int32_value", id="B16-plus-sign"),
        pytest.param("int32_value=%D9%A3", "int32_value", id="B16-arabic-digit"),
        pytest.param("int32_value=1e3", "int32_value", id="B16-exponent"),
        pytest.param("int32_value=1.0", "int32_value", id="B16-fraction"),
        pytest.param("int32_value=0x1", "int32_value", id="B16-hex"),
        pytest.param("int32_value=", "int32_value", id="B16-empty"),
        pytest.param("int32_value=1%0A", "int32_value", id="B16-newline"),
        pytest.param("int32_value=2147483648", "int32_value", id="B16-too-large"),
        pytest.param("uint32_value=-1", "uint32_value", id="B16-sign-on-unsigned"),
        pytest.param("uint64_value=-0", "uint64_value", id="B16-minus-zero-on-unsigned"),
        pytest.param("int64_value=9223372036854775808", "int64_value", id="B16-int64-too-large"),
        pytest.param("int64_value=" + "9" * 5000, "int64_value", id="B16-thousands-of-digits"),
        pytest.param("bool_value=yes", "bool_value", id="B17-yes"),
        pytest.param("bool_value=True", "bool_value", id="B17-case"),
        pytest.param("bool_value=t", "bool_value", id="B17-t"),
        pytest.param("bool_value=", "bool_value", id="B17-empty"),
        pytest.param("double_value=nan", "double_value", id="B18-lower-case-nan"),
        pytest.param("double_value=inf", "double_value", id="B18-inf"),
        pytest.param("double_value=1e400", "double_value", id="B18-overflow"),
        pytest.param("float_value=1e39", "float_value", id="B18-float-overflow"),
        pytest.param("double_value=1_0.0", "double_value", id="B18-underscore"),
        pytest.param("double_value=0x1p3", "double_value", id="B18-hex"),
        pytest.param("kind=HUGE", "kind", id="B19-unknown-name"),
        pytest.param("kind=77", "kind", id="B19-unknown-number"),
        pytest.param("kind=small", "kind", id="B19-case"),
        pytest.param("kind=", "kind", id="B19-empty"),
        pytest.param("bytes_value=a", "bytes_value", id="B20-length"),
        pytest.param("bytes_value=a*==", "bytes_value", id="B20-alphabet"),
        pytest.param("bytes_value=AA%3D", "bytes_value", id="B20-half-padded"),
        pytest.param("bytes_value=%C3%A9%C3%A9%C3%A9%C3%A9", "bytes_value", id="B20-not-ascii"),
        pytest.param("time_value=2026-01-02", "time_value", id="B21-date-only"),
        pytest.param("time_value=2026-02-30T00:00:00Z", "time_value", id="B21-no-such-date"),
        pytest.param("time_value=2026-01-02T03:04:60Z", "time_value", id="B21-leap-second"),
        pytest.param("time_value=%D9%A32026-01-02T03:04:05Z", "time_value", id="B21-arabic-digit"),
        pytest.param("duration_value=1.5", "duration_value", id="B21-no-unit"),
        pytest.param("duration_value=315576000001s", "duration_value", id="B21-too-long"),
        pytest.param("struct=%7B%7D", "struct", id="B21-struct"),
        pytest.param("value=1", "value", id="B21-value"),
        pytest.param("list_value=1", "list_value", id="B21-list-value"),
        pytest.param("any=1", "any", id="B21-any"),
        pytest.param("empty=", "empty", id="B21-empty"),
        pytest.param("value.string_value=x", "value.string_value", id="B21-inside-value"),
        pytest.param("any.type_url=x", "any.type_url", id="B21-inside-any"),
        pytest.param("struct.fields=x", "struct.fields", id="B21-inside-struct"),
        pytest.param("list_value.values=x", "list_value.values", id="B21-inside-list"),
        pytest.param("labels%5Ba%5D=b", "labels[a]", id="B22-map-syntax"),
        pytest.param("duration_value=1h30m", "duration_value", id="B23-go-duration"),
        pytest.param("mask=a..b", "mask", id="B24-bad-path"),
        pytest.param(".".join(["parent"] * 32 + ["name"]) + "=x", None, id="B26-depth"),
    ],
)
async def test_refuses_and_names_the_parameter(query: str, field: str | None) -> None:
    answer = await ask(gallery_app(), "GET", f"/v1/things?{query}")
    assert answer.status == 400
    assert answer.json["code"] == 3
    assert answer.detail("ErrorInfo")["reason"] == "INVALID_FIELD"
    assert field is None or answer.violation == field


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("id=%zz", id="P12-not-hex"),
        pytest.param("id=%4", id="P12-short"),
        pytest.param("id=%ff", id="P12-not-utf8"),
        pytest.param("%ff=1", id="P12-name-not-utf8"),
        pytest.param("id=%ed%a0%80", id="P12-surrogate"),
        pytest.param("&".join("strings=x" for _ in range(1001)), id="B26-count"),
    ],
)
async def test_refuses_what_is_not_a_query_string(query: str) -> None:
    answer = await ask(gallery_app(), "GET", f"/v1/things?{query}")
    assert (answer.status, answer.detail("ErrorInfo")["reason"]) == (400, "INVALID_URL")


async def test_b26_a_thousand_parameters_are_fine() -> None:
    invoker = FakeInvoker()
    await ask(gallery_app(invoker), "GET", "/v1/things?" + "&".join("strings=x" for _ in range(1000)))
    assert len(invoker.call.request.strings) == 1000


async def test_b26_many_parameters_are_refused_fast() -> None:
    app = gallery_app(limits=Limits(max_url_bytes=10**6))
    start = time.process_time()
    answer = await ask(app, "GET", "/v1/things?" + "&".join(f"id={number}" for number in range(10_000)))
    assert answer.status == 400
    assert time.process_time() - start < 0.2


async def test_b2_a_parameter_may_repeat_the_path() -> None:
    invoker = FakeInvoker()
    answer = await ask(gallery_app(invoker), "GET", "/v1/things/1?id=1")
    assert (answer.status, invoker.call.request.id) == (200, "1")
    answer = await ask(
        gallery_app(), "GET", "/v1/kinds/SMALL/at/2026-01-02T03:04:05Z?timeValue=2026-01-02T04:04:05%2B01:00"
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("target", "field"),
    [
        pytest.param("/v1/things/1?id=2", "id", id="B2-other-value"),
        pytest.param("/v1/numbers/1?int32Value=2", "int32Value", id="B2-other-spelling"),
        pytest.param("/v1/shelves/1/books/2?parent.name=x", "parent.name", id="B2-nested"),
        pytest.param("/v1/kinds/SMALL/at/2026-01-02T03:04:05Z?kind=LARGE", "kind", id="B2-enum"),
    ],
)
async def test_b2_a_parameter_may_not_change_the_path(target: str, field: str) -> None:
    answer = await ask(gallery_app(), "GET", target)
    assert (answer.status, answer.violation) == (400, field)


@pytest.mark.parametrize(
    ("target", "field"),
    [
        pytest.param("/v1/things?string_value=x", "string_value", id="B3-all-in-the-body"),
        pytest.param("/v1/things/1?id=1", "id", id="B3-even-what-the-path-has"),
    ],
)
async def test_b3_no_parameters_beside_a_whole_body(target: str, field: str) -> None:
    answer = await ask(gallery_app(), "POST", target, {})
    assert (answer.status, answer.violation) == (400, field)


async def test_b2_a_parameter_may_repeat_the_body() -> None:
    invoker = FakeInvoker()
    body = {"name": "x", "flag": False, "parent": {"number": 5}}
    for parameter in ("name=x", "flag=false", "parent.number=05"):
        answer = await ask(gallery_app(invoker), "POST", f"/v1/in/1?parent.{parameter}", body)
        assert answer.status == 200, answer.json
        assert _fields(invoker.call.request) == {"id": "1", "parent": {**body, "parent": {"number": "5"}}}


@pytest.mark.parametrize(
    ("target", "body", "field"),
    [
        pytest.param("/v1/in/1?parent.name=x", {"name": "y"}, "parent.name", id="B2-other-value"),
        pytest.param("/v1/in/1?parent.name=x", {}, "parent.name", id="B2-not-in-the-body"),
        pytest.param("/v1/in/1?parent.flag=false", {}, "parent.flag", id="B2-default-that-is-absent"),
        pytest.param("/v1/in/1?parent.parent.name=", {}, "parent.parent.name", id="B2-in-a-message-that-is-absent"),
        pytest.param("/v1/in/1?parent.number=x", {"number": 1}, "parent.number", id="B2-not-a-value"),
        pytest.param("/v1/in/1?parent=x", {}, "parent", id="B2-whole-message"),
        pytest.param("/v1/in/1?parent.name=x", None, "parent.name", id="B2-no-body"),
        pytest.param("/v1/text/1?string_value=x", '"y"', "string_value", id="B2-scalar"),
        pytest.param("/v1/list/1?strings=x", ["x"], "strings", id="B2-repeated"),
    ],
)
async def test_b2_a_parameter_may_not_change_the_body(target: str, body: Any, field: str) -> None:
    answer = await ask(gallery_app(), "POST", target, body)
    assert (answer.status, answer.violation) == (400, field)


async def test_b15_lenient_skips_what_is_unknown_only() -> None:
    invoker = FakeInvoker()
    app = gallery_app(invoker, lenient=True)
    assert (await ask(app, "GET", "/v1/things?nope=1&parent.nope=1&id=x")).status == 200
    assert _fields(invoker.call.request) == {"id": "x"}
    assert (await ask(app, "POST", "/v1/things?id=x", {})).status == 200
    assert _fields(invoker.call.request) == {}
    assert (await ask(app, "GET", "/v1/things?int32_value=x")).status == 400


async def test_b15_listed_names_are_ignored() -> None:
    app = gallery_app(ignored_parameters=["key", "id"])
    assert (await ask(app, "GET", "/v1/things?key=1&id=2&key=3")).status == 200
    assert (await ask(app, "GET", "/v1/things?other=1")).status == 400


async def test_unknown_names_are_quoted_short() -> None:
    answer = await ask(gallery_app(), "GET", "/v1/things?" + "x" * 10_000 + "=1")
    assert len(answer.body) < 1000


@unhurried
@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_splits_what_a_form_would_send(pairs: list[tuple[str, str]]) -> None:
    try:
        query = urlencode(pairs).encode()
    except UnicodeEncodeError:
        return
    assert list(parameters(query, 1000)) == pairs


@unhurried
@given(st.binary(max_size=60))
def test_raises_nothing_else_whatever_the_query(query: bytes) -> None:
    found = attempt(lambda: list(parameters(query, 10)))
    assert isinstance(found, list) or found.http_status == 400
