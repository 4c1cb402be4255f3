"""From request to message and back: rules B1 to B10, B25, R9 and the request side of 4a of the transcoding rules."""

from typing import Any

import pytest
from google.api.http_pb2 import HttpRule

from service.rest import Limits, RestApp
from tests.rest.kit import FakeInvoker, ask, gallery_app, gallery_class, service_with


@pytest.fixture
def invoker() -> FakeInvoker:
    return FakeInvoker()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"id": "body"}, id="B1-over-the-body"),
        pytest.param({"id": "body", "stringValue": "x"}, id="B1-over-the-body-with-others"),
        pytest.param({}, id="B1-empty-body"),
    ],
)
async def test_b1_the_path_wins(invoker: FakeInvoker, body: dict[str, Any]) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/things/path", body)
    assert answer.status == 200
    assert invoker.call.request.id == "path"


@pytest.mark.parametrize("body", [{"parent": {"name": "body", "number": 5}}, {"parent": {"number": 5}}])
async def test_b1_the_path_wins_inside_a_message(invoker: FakeInvoker, body: dict[str, Any]) -> None:
    await ask(gallery_app(invoker), "POST", "/v1/parents/path/things", body)
    assert invoker.call.request.parent == gallery_class("Parent")(name="path", number=5)


async def test_p10_a_pattern_sets_its_whole_text(invoker: FakeInvoker) -> None:
    await ask(gallery_app(invoker), "GET", "/v1/shelves/1/books/a%2Fb%20c")
    assert invoker.call.request.parent.name == "shelves/1/books/a%2Fb c"


@pytest.mark.parametrize(
    ("target", "field"),
    [
        pytest.param("/v1/numbers/x", "int32_value", id="B16-int"),
        pytest.param("/v1/numbers/%D9%A3", "int32_value", id="B16-arabic-digit"),
        pytest.param("/v1/kinds/HUGE/at/2026-01-02T03:04:05Z", "kind", id="B19-enum"),
        pytest.param("/v1/kinds/SMALL/at/now", "time_value", id="B21-time"),
        pytest.param("/v1/bytes/a", "bytes_value", id="B20-bytes"),
        pytest.param("/v1/flags/yes/1/x", "bool_value", id="B17-bool"),
    ],
)
async def test_bad_path_values(target: str, field: str) -> None:
    answer = await ask(gallery_app(), "GET", target)
    assert (answer.status, answer.violation) == (400, field)


async def test_path_values_of_all_kinds(invoker: FakeInvoker) -> None:
    app = gallery_app(invoker)
    await ask(app, "GET", "/v1/flags/1/-0.5/w%20w")
    request = invoker.call.request
    assert (request.bool_value, request.double_value, request.string_wrapper.value) == (True, -0.5, "w w")
    await ask(app, "GET", "/v1/kinds/-1/at/1969-12-31T23:59:59.9Z")
    assert (invoker.call.request.kind, invoker.call.request.time_value.nanos) == (-1, 900_000_000)
    await ask(app, "GET", "/v1/bytes/-_8")
    assert invoker.call.request.bytes_value == b"\xfb\xff"


async def test_b4_a_body_field_and_parameters_for_the_rest(invoker: FakeInvoker) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/in/1?string_value=q", {"name": "n"})
    request = invoker.call.request
    assert (request.id, request.string_value, request.parent.name) == ("1", "q", "n")
    assert answer.json == {"name": "n", "number": "0"}


@pytest.mark.parametrize(
    ("target", "body", "field", "value"),
    [
        pytest.param("/v1/list/1", '["a","b"]', "strings", ["a", "b"], id="S7-repeated"),
        pytest.param("/v1/map/1", '{"a":"b"}', "labels", {"a": "b"}, id="S7-map"),
        pytest.param("/v1/text/1", '"t"', "string_value", "t", id="S7-scalar"),
    ],
)
async def test_s7_s8_bodies_that_are_one_field(
    invoker: FakeInvoker, target: str, body: str, field: str, value: Any
) -> None:
    answer = await ask(gallery_app(invoker), "POST", target, body)
    assert getattr(invoker.call.request, field) == value
    assert answer.json == value


async def test_s7_a_value_body_may_be_anything(invoker: FakeInvoker) -> None:
    for body in ('{"a":[1,null]}', "[]", '"x"', "1.5", "true"):
        assert (await ask(gallery_app(invoker), "POST", "/v1/any-value/1", body)).status == 200


async def test_j5_null_is_a_value_body_and_no_other(invoker: FakeInvoker) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/any-value/1", "null")
    assert (answer.status, answer.body) == (200, b"null")
    assert invoker.call.request.value.WhichOneof("kind") == "null_value"
    for target, field in [("/v1/in/1", "parent"), ("/v1/list/1", "strings"), ("/v1/text/1", "string_value")]:
        answer = await ask(gallery_app(), "POST", target, "null")
        assert (answer.status, answer.violation) == (400, field)


async def test_s7_an_empty_body_leaves_its_field_unset(invoker: FakeInvoker) -> None:
    app = gallery_app(invoker)
    await ask(app, "POST", "/v1/in/1")
    assert not invoker.call.request.HasField("parent")
    await ask(app, "POST", "/v1/in/1", "{}")
    assert invoker.call.request.HasField("parent")


@pytest.mark.parametrize("target", ["/v1/things/x", "/v1/things"])
async def test_b5_no_body_where_none_is_taken(target: str) -> None:
    answer = await ask(gallery_app(), "GET", target, "{}")
    assert (answer.status, answer.detail("ErrorInfo")["reason"]) == (400, "INVALID_BODY")
    assert (await ask(gallery_app(), "GET", target, b"")).status == 200


async def test_b25_an_empty_mask_stays_empty(invoker: FakeInvoker) -> None:
    service = service_with(HttpRule(patch="/things/{id}", body="thing"))
    app = RestApp([service], invoker)
    assert (await ask(app, "PATCH", "/things/1", {"kind": "SMALL"})).status == 200
    assert not invoker.call.request.HasField("mask")


async def test_b5_a_chunked_body_is_a_body_too() -> None:
    answer = await ask(gallery_app(), "DELETE", "/v1/things/x", b"{}", {"transfer-encoding": "chunked"})
    assert answer.status == 400
    answer = await ask(gallery_app(), "DELETE", "/v1/things/x", b"", {"transfer-encoding": "chunked"})
    assert answer.status == 200


async def test_b6_an_empty_body_is_an_empty_message(invoker: FakeInvoker) -> None:
    for headers in ({}, {"content-type": "application/json"}, {"content-type": "text/plain", "content-length": "0"}):
        answer = await ask(gallery_app(invoker), "POST", "/v1/things/1:cancel", b"", headers)
        assert (answer.status, answer.body) == (200, b"{}")
        assert invoker.call.request == gallery_class("Thing")(id="1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b" ", id="B7-blank"),
        pytest.param(b"\r\n\t ", id="B7-whitespace"),
        pytest.param(b'{"id":1}x', id="B8-trailing"),
        pytest.param(b"{}{}", id="B8-second-value"),
        pytest.param(b'{"id":', id="B8-truncated"),
        pytest.param(b"{'id':1}", id="B8-single-quotes"),
        pytest.param(b'{"id":"a",}', id="B8-trailing-comma"),
        pytest.param(b"// {}", id="B8-comment"),
        pytest.param(b'{"doubleValue":NaN}', id="4a-bare-nan"),
        pytest.param(b'{"doubleValue":-Infinity}', id="4a-bare-infinity"),
        pytest.param(b'{"id":"a","id":"b"}', id="J9-duplicate-key"),
        pytest.param(b'{"struct":{"a":{"b":1,"b":2}}}', id="J9-duplicate-key-in-struct"),
        pytest.param(b"{" + b",".join(b'"%d":1' % n for n in range(50_000)) + b',"49999":1}', id="J9-among-many"),
        pytest.param(b"[" * 100_000, id="4a-deep"),
        pytest.param(b'{"a":' * 100_000, id="4a-deep-objects"),
        pytest.param(b'{"id":"\xff"}', id="4a-not-utf8"),
        pytest.param(b"\xff\xfe{\0}\0", id="4a-utf16"),
        pytest.param(b"\xef\xbb\xbf{}", id="4a-byte-order-mark"),
        pytest.param(b"null", id="4a-null"),
        pytest.param(b"1", id="4a-number"),
        pytest.param(b'"x"', id="4a-string"),
        pytest.param(b"[]", id="4a-array"),
        pytest.param(b'{"int64Value":' + b"9" * 5000 + b"}", id="4a-digits"),
    ],
)
async def test_b8_bodies_that_are_not_a_json_object(body: bytes) -> None:
    answer = await ask(gallery_app(), "POST", "/v1/things", body, {"content-type": "application/json"})
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert answer.detail("ErrorInfo")["reason"] == "INVALID_BODY"
    assert len(answer.body) < 600
    assert b"Error" not in answer.body.replace(b"ErrorInfo", b"")


async def test_b8_says_where() -> None:
    answer = await ask(gallery_app(), "POST", "/v1/things", '{"id":\n  oops}')
    assert answer.json["message"] == "the body is not JSON from line 2, column 3"


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("application/json", id="B9-json"),
        pytest.param("application/json; charset=utf-8", id="B9-utf8"),
        pytest.param('Application/JSON ; Charset="UTF-8"', id="B9-case-and-quotes"),
        pytest.param("application/merge-patch+json", id="B9-suffix"),
        pytest.param("application/json;v=1; charset=UTF-8 ;", id="B9-other-parameters"),
        pytest.param("application/vnd.api+json;charset=UTF-8", id="B9-suffix-and-charset"),
        pytest.param(None, id="B9-absent"),
    ],
)
async def test_b9_content_types_that_are_json(content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert (await ask(gallery_app(), "POST", "/v1/things", b"{}", headers)).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("text/plain", id="B9-text"),
        pytest.param("application/x-www-form-urlencoded", id="B9-form"),
        pytest.param("multipart/form-data; boundary=x", id="B9-multipart"),
        pytest.param("application/json; charset=latin-1", id="B9-charset"),
        pytest.param("application/jsonp", id="B9-prefix"),
        pytest.param("application/json, text/plain", id="B9-list"),
        pytest.param("", id="B9-empty"),
        pytest.param("text/json", id="B9-not-application"),
        pytest.param("application/json" + " " * 30_000 + "x", id="B9-hostile-blanks"),
        pytest.param("application/json; charset=utf-8; charset=utf-16", id="B9-two-charsets"),
    ],
)
async def test_b9_other_content_types(content_type: str) -> None:
    answer = await ask(gallery_app(), "POST", "/v1/things", b"{}", {"content-type": content_type})
    assert (answer.status, answer.json["code"]) == (415, 3)
    assert "application/json" in answer.json["message"]
    assert answer.headers["accept-post"] == "application/json"


async def test_b10_compressed_bodies() -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (await ask(gallery_app(), "POST", "/v1/things", b"{}", headers)).status == 415
    headers["content-encoding"] = "identity"
    assert (await ask(gallery_app(), "POST", "/v1/things", b"{}", headers)).status == 200


async def test_unknown_fields_are_refused_or_skipped(invoker: FakeInvoker) -> None:
    body = {"id": "x", "parent": {"nmae": "y"}, "parents": [{}, {"oops": 1}]}
    answer = await ask(gallery_app(invoker), "POST", "/v1/things", body)
    assert (answer.status, answer.violation) == (400, "parent.nmae")
    answer = await ask(gallery_app(invoker, lenient=True), "POST", "/v1/things", body)
    assert answer.status == 200
    assert len(invoker.call.request.parents) == 2


async def test_errors_in_a_body_field_begin_with_its_name() -> None:
    answer = await ask(gallery_app(), "POST", "/v1/in/1", {"parent": {"number": "x"}})
    assert answer.violation == "parent.parent.number"
    answer = await ask(gallery_app(), "POST", "/v1/list/1", "[1]")
    assert answer.violation == "strings[0]"


async def test_r9_raw_bodies(invoker: FakeInvoker) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/upload", b"\xff\0", {"content-type": "image/png"})
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"\xff\0", "image/png")
    assert invoker.call.request.content_type == "image/png"


async def test_r9_an_empty_file_has_a_type_too(invoker: FakeInvoker) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/upload", b"", {"content-type": "image/png"})
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", "image/png")
    answer = await ask(gallery_app(invoker), "POST", "/v1/parts/7")
    assert not invoker.call.request.HasField("file")


async def test_r9_raw_body_in_a_field(invoker: FakeInvoker) -> None:
    answer = await ask(gallery_app(invoker), "POST", "/v1/parts/7", b"\xff", {"content-type": "x/y"})
    assert (answer.body, answer.headers["content-type"]) == (b"\xff", "x/y")
    assert invoker.call.request.id == "7"


async def test_a_large_body_is_read_all_the_same(invoker: FakeInvoker) -> None:
    app = gallery_app(invoker)
    answer = await ask(app, "POST", "/v1/things", {"id": "x" * 1_000_000})
    assert (answer.status, len(invoker.call.request.id)) == (200, 1_000_000)
    answer = await ask(app, "POST", "/v1/things", {"id": "x" * 1_000_000, "nope": 1})
    assert (answer.status, answer.violation) == (400, "nope")


async def test_l3_a_message_that_grows() -> None:
    app = gallery_app(limits=Limits(max_message_bytes=100_000, max_json_values=50_000))
    body = '{"doubles":[' + ",".join(["1"] * 40_000) + "]}"
    answer = await ask(app, "POST", "/v1/things", body)
    assert (answer.status, answer.json["code"]) == (413, 8)
