"""Google's own client-side transcoding, undone by ours, gives back the message."""

from typing import Any
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.api_core import path_template, rest_helpers
from google.protobuf import json_format
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.rest.kit import FakeInvoker, ask, gallery, gallery_app, gallery_class, unhurried
from tests.rest.messages import messages

POOL = gallery().file.pool
THING = POOL.FindMessageTypeByName("gallery.v1.Thing")

_SHELF = st.text(alphabet=st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=6)
_AS_PARAMETERS = [
    "string_value",
    "int32_value",
    "int64_value",
    "uint32_value",
    "uint64_value",
    "sint64_value",
    "fixed32_value",
    "sfixed64_value",
    "double_value",
    "float_value",
    "bool_value",
    "bytes_value",
    "kind",
    "optional_bool",
    "optional_string",
    "renamed_field",
    "strings",
    "int64s",
    "kinds",
    "bytes_values",
    "doubles",
    "floats",
    "time_value",
    "duration_value",
    "mask",
    "string_wrapper",
    "int64_wrapper",
    "bool_wrapper",
    "bytes_wrapper",
    "double_wrapper",
    "one_string",
    "one_number",
    "one_duration",
]


def _options(method: str, number: int = 0) -> list[dict[str, str]]:
    """Return one binding of a method as google.api_core wants it."""
    rule = gallery().methods_by_name[method].GetOptions().Extensions[annotations_pb2.http]
    binding = [rule, *rule.additional_bindings][number]
    http_method = binding.WhichOneof("pattern")
    options = {"method": http_method, "uri": getattr(binding, http_method)}
    return [{**options, "body": binding.body} if binding.body else options]


async def _send(method: str, number: int, message: Any) -> Any:
    """Send a message as a Google client would, and return what reaches the invoker."""
    request = path_template.transcode(_options(method, number), message=message)
    query = json_format.MessageToDict(request["query_params"], descriptor_pool=POOL)
    pairs = rest_helpers.flatten_query_params(query, strict=True)
    target = quote(request["uri"], safe="/:%") + ("?" + urlencode(pairs) if pairs else "")
    body = json_format.MessageToJson(request["body"], descriptor_pool=POOL) if "body" in request else None
    invoker = FakeInvoker()
    answer = await ask(gallery_app(invoker), request["method"].upper(), target, body)
    assert answer.status == 200, answer.json
    return invoker.call.request


def _fits_a_segment(text: str) -> bool:
    """Leave out what Google's client does not send in one segment."""
    return "/" not in text and text not in (".", "..") and ":" not in text


@unhurried
@given(messages(THING, depth=1), st.text(min_size=1, max_size=8))
async def test_parameters(message: Any, name: str) -> None:
    assume(_fits_a_segment(name))
    for field in THING.fields:
        if field.name not in _AS_PARAMETERS:
            message.ClearField(field.name)
    message.id = name
    for kind in [*message.kinds, message.kind]:
        assume(kind in THING.fields_by_name["kind"].enum_type.values_by_number)
    message.parent.name = "x y/&=%"
    assert _bytes(await _send("GetThing", 0, message)) == _bytes(message)


@unhurried
@given(messages(THING), st.text(min_size=1, max_size=8))
async def test_whole_body(message: Any, name: str) -> None:
    assume(_fits_a_segment(name))
    message.id = name
    _drop_what_json_format_cannot_read(message)
    assert _bytes(await _send("CreateThing", 1, message)) == _bytes(message)


@unhurried
@given(messages(POOL.FindMessageTypeByName("gallery.v1.Parent")), st.text(min_size=1, max_size=8))
async def test_one_field_as_body(parent: Any, name: str) -> None:
    assume(_fits_a_segment(name))
    message = gallery_class("Thing")(id=name, string_value="&?=", parent=parent)
    message.parent.SetInParent()
    assert _bytes(await _send("CreateIn", 0, message)) == _bytes(message)


@unhurried
@given(_SHELF, _SHELF)
async def test_pattern(shelf: str, book: str) -> None:
    assume(_fits_a_segment(shelf) and _fits_a_segment(book))
    message = gallery_class("Thing")(parent={"name": f"shelves/{shelf}/books/{book}"})
    assert _bytes(await _send("GetThing", 1, message)) == _bytes(message)


@unhurried
@given(st.lists(_SHELF, min_size=1, max_size=4))
async def test_many_segments(pieces: list[str]) -> None:
    assume(all(map(_fits_a_segment, pieces)) and pieces[-1] != "raw")
    message = gallery_class("Thing")(string_value="/".join(pieces))
    assert _bytes(await _send("GetFile", 0, message)) == _bytes(message)


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _drop_what_json_format_cannot_read(message: Any) -> None:
    """Clear what does not survive JSON in json_format either: a Value that is not set, a null in a oneof."""
    for field, value in message.ListFields():
        if field.name in (
            "value",
            "values",
            "list_value",
            "struct",
            "by_name",
            "nulls",
            "null_value",
            "one_null",
            "any",
            "anys",
        ):
            message.ClearField(field.name)
        elif field.name == "thing":
            _drop_what_json_format_cannot_read(value)
