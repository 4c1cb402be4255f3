"""Where other gateways differ from our shim, by the rule that ours follows; a difference that no row explains is a bug.

A row says what ours does and what theirs does, and for which requests. Rules are those that the tests in `tests/rest`
name.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from tests.differential import gateways
from tests.differential.outcomes import NOTHING, Difference
from tests.differential.requests import BODY_FIELDS, Request
from tests.differential.run import Gateway, Pair

ENVOY = "Envoy"
GO = "grpc-gateway"
GATEWAYS: dict[str, Gateway] = {ENVOY: gateways.envoy, GO: gateways.grpc_gateway}

Fits = Callable[[Pair, Difference], bool]


@dataclass(frozen=True)
class Row:
    """One way in which a gateway differs.

    about: what differs, as in Difference. why: what they do instead.
    tags: patterns, one of which must fit a tag of the request; none for any request.
    """

    rule: str
    gateway: str
    about: str
    why: str
    tags: tuple[str, ...]
    fits: Fits

    def explains(self, pair: Pair, difference: Difference) -> bool:
        """Whether a difference is this one."""
        return (
            difference.about == self.about
            and (not self.tags or any(fnmatchcase(tag, glob) for glob in self.tags for tag in pair.request.tags))
            and self.fits(pair, difference)
        )


def _status(rule: str, gateway: str, ours: int, theirs: int, why: str, *tags: str, when: Fits | None = None) -> Row:
    def fits(pair: Pair, difference: Difference) -> bool:
        return (difference.ours, difference.theirs) == (ours, theirs) and (when is None or when(pair, difference))

    return Row(rule, gateway, "status", f"{why} ({theirs}, ours {ours})", tags, fits)


def _row(about: str, rule: str, gateway: str, why: str, *tags: str, when: Fits) -> Row:
    return Row(rule, gateway, about, why, tags, when)


# --- what rows ask ---------------------------------------------------------------------------------------------------


def _in_url(kinds: str, names: str) -> tuple[str, ...]:
    """Return the tags of values in paths and query strings. Kinds and names are separated by blanks."""
    places = ("path:", "query:", "query:many-")
    return tuple(f"{place}{kind}/{name}" for place in places for kind in kinds.split() for name in names.split())


def _in_body(kinds: str, names: str) -> tuple[str, ...]:
    return tuple(f"body:{kind}/{name}" for kind in kinds.split() for name in names.split())


def _tags(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}/{name}" for name in names.split())


def _path(pair: Pair) -> str:
    return pair.request.target.partition("?")[0]


def _is(ours: Any, theirs: Any) -> Fits:
    return lambda _, difference: (difference.ours, difference.theirs) == (ours, theirs)


def _escaped_slash(pair: Pair, _: Difference) -> bool:
    return "%2f" in _path(pair).lower()


def _strings(difference: Difference) -> tuple[str, str]:
    return getattr(difference.ours, "string_value", ""), getattr(difference.theirs, "string_value", "")


def _decoded_slash(pair: Pair, difference: Difference) -> bool:
    """Theirs is decoded wholly, ours but for its escaped slashes."""
    ours, theirs = _strings(difference)
    kept = unquote(_path(pair).replace("%2F", "%252F").replace("%2f", "%252f"))
    return _escaped_slash(pair, difference) and ours != "" and ours in kept and theirs in unquote(_path(pair))


def _without_last_slashes(pair: Pair, difference: Difference) -> bool:
    ours, theirs = _strings(difference)
    return _path(pair).endswith("/") and ours.rstrip("/") in (theirs, f"{theirs}/raw")


def _raw_is_data(_: Pair, difference: Difference) -> bool:
    return _strings(difference) == ("", "raw")


def _known_verb(pair: Pair, _: Difference) -> bool:
    return _path(pair).rpartition(":")[2] in ("cancel", "show")


def _any_method(pair: Pair, _: Difference) -> bool:
    return pair.request.target == "/v1/whatever"


def _empty_body(pair: Pair, difference: Difference) -> bool:
    """Ours leaves the field of the body alone; theirs is ours but for that."""
    field = {**BODY_FIELDS, "/v2/things/a": "thing"}.get(_path(pair), "")
    return bool(
        not pair.request.body
        and field in [known.name for known, _ in difference.theirs.ListFields()]
        and field not in [known.name for known, _ in difference.ours.ListFields()]
        and _cleared(field)(pair, difference)
    )


def _no_body(pair: Pair, _: Difference) -> bool:
    return not pair.request.body


def _stream(pair: Pair, _: Difference) -> bool:
    return "stream" in pair.request.tags


def _grpc_passed_on(pair: Pair, _: Difference) -> bool:
    return pair.theirs.kind == "application/grpc"


def _sets_value(pair: Pair, _: Difference) -> bool:
    request: Any = pair.theirs.request
    return bool(request.value.string_value or request.values)


def _mask_in_query(pair: Pair, _: Difference) -> bool:
    return "mask=" in pair.request.target.partition("?")[2]


def _number(pair: Pair, _: Difference) -> bool:
    return (pair.request.body or b"").strip(b"-+0123456789.eE") == b""


def _go_scalar(pair: Pair, _: Difference) -> bool:
    return bool({"field/integer", "field/bytes", "field/enum"} & pair.request.tags)


def _own_text(pair: Pair, difference: Difference) -> bool:
    return difference.theirs is None and pair.theirs.kind == "text/plain" and pair.theirs.rpc is None


def _enveloped_error(pair: Pair, difference: Difference) -> bool:
    return isinstance(pair.theirs.answer, dict) and pair.theirs.answer["error"]["code"] == difference.ours


def _says_500(pair: Pair, difference: Difference) -> bool:
    return bool(difference.theirs == 500 and pair.theirs.code == 13)


def _says_little(pair: Pair, _: Difference) -> bool:
    return pair.theirs.answer == {"code": 13, "message": "failed to marshal error message"}


def _empty_list(pair: Pair, _: Difference) -> bool:
    return pair.theirs.answer == []


def _no_status(pair: Pair, _: Difference) -> bool:
    return pair.theirs.answer == b""


def _other_code(_: Pair, difference: Difference) -> bool:
    return bool(difference.theirs == 13)


def _records(answer: list[Any], envelope: str) -> list[Any]:
    """Return the messages in one of our streams, without the terminal record."""
    return [record[envelope] for record in answer[:-1]]


def _bare_records(pair: Pair, _: Difference) -> bool:
    """Theirs has our messages, bare, whole even where a rule says one field, and nothing after them."""
    events = pair.ours.kind == "text/event-stream"
    ours = _records(pair.ours.answer, "data" if events else "result")
    return ours in (pair.theirs.answer, [record["name"] for record in pair.theirs.answer])


def _lost_error(pair: Pair, difference: Difference) -> bool:
    return "error" in pair.ours.answer[-1] and _bare_records(pair, difference)


def _unended(pair: Pair, _: Difference) -> bool:
    """Theirs has our messages in the envelope that we have too, and nothing after them."""
    ours = pair.ours.answer
    return "done" in ours[-1] and [{"result": record} for record in _records(ours, "result")] == pair.theirs.answer


def _lines_for_events(pair: Pair, _: Difference) -> bool:
    ours = pair.ours.answer
    return pair.ours.kind == "text/event-stream" and pair.theirs.answer == [
        {"result": record} for record in _records(ours, "data")
    ]


def _lost_last(pair: Pair, _: Difference) -> bool:
    """Theirs has all of our records but the error at the end."""
    return "error" in pair.ours.answer[-1] and pair.theirs.answer == pair.ours.answer[:-1]


def _nothing_left(pair: Pair, _: Difference) -> bool:
    return not pair.theirs.answer


def _one_of_their_fields(pair: Pair, _: Difference) -> bool:
    """Our answer is one field of theirs; what is absent there may be its default in ours."""
    names = [tag.partition("/")[2] for tag in pair.request.tags if tag.startswith("answer/")]
    if not names or not isinstance(pair.theirs.answer, dict):
        return False
    theirs = pair.theirs.answer.get(names[0], NOTHING)
    return pair.ours.answer in _ABSENT if theirs is NOTHING else bool(pair.ours.answer == theirs)


_ABSENT = (None, "", "0s", "1970-01-01T00:00:00Z", {}, [], {"name": "", "number": "0"})


def _as_number(_: Pair, difference: Difference) -> bool:
    return isinstance(difference.ours, str) and difference.ours == str(difference.theirs)


def _null_body(pair: Pair, _: Difference) -> bool:
    return pair.request.body == b"null"


def _null_items(_: Pair, difference: Difference) -> bool:
    return len(difference.theirs.nulls) == 1 or len(difference.theirs.values) == 1


def _null_values(pair: Pair, _: Difference) -> bool:
    return any(name in (pair.request.body or b"") for name in (b'"values":null', b'"nulls":null'))


def _same_float(_: Pair, difference: Difference) -> bool:
    try:
        return struct.pack("<f", difference.ours) == struct.pack("<f", difference.theirs)
    except (struct.error, OverflowError):
        return False


def _same_double(_: Pair, difference: Difference) -> bool:
    return isinstance(difference.theirs, int) and difference.ours == float(difference.theirs)


def _calls(ours: str, theirs: str) -> Fits:
    return lambda _, difference: difference.ours.endswith(f".{ours}") and difference.theirs.endswith(f".{theirs}")


def _cleared(*fields: str) -> Fits:
    """Theirs is ours but for some fields."""

    def fits(_: Pair, difference: Difference) -> bool:
        ours, theirs = type(difference.ours)(), type(difference.ours)()
        ours.CopyFrom(difference.ours)
        theirs.CopyFrom(difference.theirs)
        for message in (ours, theirs):
            for field in fields:
                message.ClearField(field)
        return bool(ours == theirs)

    return fits


def _newlines_between(pair: Pair, _: Difference) -> bool:
    pieces = pair.ours.answer.splitlines(keepends=True)
    return bool(pair.theirs.answer == b"".join(piece + b"\n" for piece in pieces))


# --- the table -------------------------------------------------------------------------------------------------------

_BAD_ESCAPES = (*_tags("segment", "bad-escape short-escape lone-percent"), "form/bad-escape*", "form/short-escape")
_NOT_UTF_8 = (*_tags("segment", "not-utf-8 cut-utf-8 surrogate"), "form/not-utf-8", "form/surrogate")
_OTHER_TYPES = "charset-latin-1 empty form grpc grpc-web multipart octets star text text-json xml"
_OTHER_VALUES = (
    "path-query path-query-nested path-query-number "
    "body-query body-query-whole body-query-list body-query-path body-query-no-body"
)
_LOOSE_BOOLS = "t f capital upper title yes"
_NO_OBJECTS = "integer double float bool string bytes time duration mask list"
_UNKNOWN_NAMES = (
    "alt blank-name deeper dot-first former-json-name kebab-name no-name not-utf-8-name only-equals two-dots unknown* "
    "upper-name"
)
_GO_DURATIONS = "go-form millis minutes no-fraction no-integer over-by-nanos plus ten-digits"
_LOOSE_JSON = "comma-last extension-key no-fraction no-quotes single-quotes nul-in-string"
_LOOSE_STRINGS = "bad-escape raw-newline raw-tab single-quotes"
_QUOTED_NO_NUMBERS = "quoted-plus quoted-no-integer quoted-no-fraction quoted-leading-zero quoted-hex"
_QUOTED_NUMBERS = "quoted-point quoted-exponent quoted-minus-zero"
_UNKNOWN_FIELDS = (
    *_tags("syntax", "unknown* extension-key type-key"),
    *_in_body("parent empty", "unknown-*"),
    *_in_body("thing", "former-json-name upper-name"),
)
_UNKNOWN_ENUMS = "lower quoted-empty quoted-number quoted-unknown-number unknown-name unknown-number"
_ENVOY_ANY = "empty-message no-value type-twice unknown-field"
_GO_ANY = "empty-message no-type packed unknown-field value-and-more"
_DUPLICATES = (
    *_tags("syntax", "key-twice* two-spellings"),
    *_in_body("parent", "key-twice"),
    *_in_body("thing", "both-names*"),
)
_NO_NUMBERS = "plus no-integer no-fraction leading-zero hex"

ROWS: list[Row] = [
    # Matching.
    _status("P1", GO, 200, 404, "decodes %2F before it splits the path", when=_escaped_slash),
    _status("P1", GO, 404, 200, "takes an escaped slash for a slash", "route/none", when=_escaped_slash),
    _row("request", "P10", GO, "decodes %2F in a variable of several segments", when=_decoded_slash),
    _status("P6", ENVOY, 200, 404, "does not decode a literal", "shape/literal-escaped"),
    _row("call", "P6", ENVOY, "does not decode a literal", "segment/me-escaped", when=_calls("GetMe", "GetThing")),
    _row("call", "P2", GO, "takes the rule that was registered last", "route/show", when=_calls("Verbs", "Plain")),
    _status("P3", ENVOY, 200, 404, "wants a segment for ** before a literal", "route/only-tail"),
    _row("request", "P5", ENVOY, "drops slashes at the end", when=_without_last_slashes),
    _row("request", "P3", ENVOY, "wants a segment for ** before a literal", "route/only-raw", when=_raw_is_data),
    _status("P5", ENVOY, 404, 200, "drops slashes at the end", "shape/slash-last", "shape/slashes-last"),
    _status("P4", ENVOY, 404, 200, "lets an empty segment be a value", "segment/empty", "path:*/empty"),
    _status("P4", ENVOY, 404, 400, "lets an empty segment be a value, a bad one here", "path:*/empty"),
    _status("P4", GO, 404, 200, "lets an empty segment be a value", "segment/empty", "path:*/empty"),
    _status("P4", GO, 404, 400, "lets an empty segment be a value, a bad one here", "path:*/empty"),
    _status("P7", ENVOY, 200, 404, "takes a verb of any template for no data of others", when=_known_verb),
    _status("P7", ENVOY, 405, 200, "does not decode a verb", "segment/verb-escaped"),
    _status("P7", GO, 405, 200, "falls back to a template without the verb", "segment/verb*"),
    _status("P11", GO, 200, 400, "refuses a semicolon in a query", "form/semicolon"),
    _status("P12", ENVOY, 400, 200, "takes a malformed escape as it stands", *_BAD_ESCAPES, "form/lone-percent"),
    _status("P7", ENVOY, 400, 404, "looks for a verb before it decodes", *_NOT_UTF_8, when=_known_verb),
    _status("P12", ENVOY, 400, 500, "passes on what is not UTF-8", *_NOT_UTF_8),
    _status("P12", GO, 400, 500, "passes on what is not UTF-8", *_NOT_UTF_8),
    _status("P16", ENVOY, 405, 404, "has no 405"),
    _status("P16", GO, 405, 501, "has no 405"),
    _status("P16", GO, 400, 501, "reads methods that are none; our parser refuses them", "method/MADEUP"),
    _status("P16", GO, 400, 404, "reads methods that are none; our parser refuses them", "method/MADEUP"),
    _status("P17", ENVOY, 204, 404, "leaves OPTIONS to the service", "method/OPTIONS"),
    _status("P17", GO, 204, 501, "leaves OPTIONS to the service", "method/OPTIONS"),
    _status("P18", GO, 415, 200, "gives a form another method by a header", "override/form"),
    _status("P18", GO, 405, 200, "lets a form fall back to a GET rule", "override/fallback"),
    _status("S3", GO, 200, 501, "has no rules for any method", when=_any_method),
    _status("S3", ENVOY, 200, 0, "breaks HTTP in the answer to HEAD", "method/HEAD"),
    # Building the message.
    _status(
        "B1",
        ENVOY,
        200,
        400,
        "refuses a body that the path overrules",
        *_tags("conflict", "path-body path-body-empty path-body-nested path-body-field"),
    ),
    _status(
        "B2", ENVOY, 200, 502, "refuses any field that is given twice, as a bad gateway", "conflict/path-query*-equal"
    ),
    _status("B2", ENVOY, 400, 502, "answers that the gateway is bad", *_tags("conflict", _OTHER_VALUES)),
    _status("B2", ENVOY, 400, 200, "adds parameters to what the body has", *_tags("conflict", _OTHER_VALUES)),
    _status("B2", GO, 400, 200, "drops parameters of path and body", *_tags("conflict", _OTHER_VALUES)),
    _status("B3", ENVOY, 400, 200, "takes parameters beside a whole body", "conflict/star-query*"),
    _status("B3", ENVOY, 400, 502, "answers that the gateway is bad", "conflict/star-query-path*"),
    _status("B3", GO, 400, 200, "drops parameters beside a whole body", "conflict/star-query*"),
    _status(
        "B5",
        ENVOY,
        400,
        200,
        "drops a body that no rule takes",
        *_tags("conflict", "no-body-rule-get* no-body-rule-delete no-body-rule-delete-word"),
    ),
    _status(
        "B5",
        GO,
        400,
        200,
        "drops a body that no rule takes",
        *_tags("conflict", "no-body-rule-get* no-body-rule-delete no-body-rule-delete-word"),
    ),
    _row("request", "B6", ENVOY, "sets an empty message for an empty body", when=_empty_body),
    _row("request", "B6", GO, "sets an empty message for an empty body", when=_empty_body),
    _status("B6", ENVOY, 200, 400, "reads an empty body as {}, which a scalar is not", "body-is-field", when=_no_body),
    _status("B7", GO, 400, 200, "takes blanks for no body", "syntax/blank*"),
    _status("B8", GO, 400, 200, "does not look behind the JSON", *_tags("syntax", "trailing second* comment-line nul")),
    _status("B9", ENVOY, 415, 200, "reads any content type", *_tags("content-type", _OTHER_TYPES)),
    _status("B9", GO, 415, 200, "reads any content type", *_tags("content-type", _OTHER_TYPES)),
    _status("B9", ENVOY, 415, 400, "reads a form as JSON", "override/form"),
    _row("type", "B9", ENVOY, "passes gRPC on untouched", "content-type/grpc*", when=_grpc_passed_on),
    _row("call", "B9", ENVOY, "passes gRPC on untouched", "content-type/grpc*", when=_grpc_passed_on),
    _status("B10", ENVOY, 415, 200, "does not look at Content-Encoding", *_tags("content-encoding", "br gzip x-own")),
    _status("B10", GO, 415, 200, "does not look at Content-Encoding", *_tags("content-encoding", "br gzip x-own")),
    _status("B12", GO, 200, 400, "wants one spelling for all of a repeated field", "query:repeated"),
    _status("B13", ENVOY, 400, 502, "answers that the gateway is bad", "form/twice*"),
    _status("B13", ENVOY, 400, 200, "takes the last, in streams", "form/twice*", when=_stream),
    _status("B14", ENVOY, 400, 200, "reaches into lists and JSON's own types", "form/through-*"),
    _status("B14", GO, 400, 200, "reaches into JSON's own types", "form/through-*"),
    _status("B14", GO, 400, 500, "reaches into JSON's own types, and cannot write them", "form/through-*"),
    _status(
        "B15", ENVOY, 400, 200, "skips what is empty or has no name", *_tags("form", "no-name only-* unknown-empty")
    ),
    _status("B15", GO, 400, 200, "drops parameters that it does not know", *_tags("form", _UNKNOWN_NAMES)),
    _status("B16", ENVOY, 400, 200, "takes a plus sign", *_in_url("integer", "plus"), "key:integer/plus"),
    _status("B16", GO, 400, 200, "takes a plus sign", *_in_url("integer", "plus"), "key:integer/plus"),
    _status(
        "B17",
        ENVOY,
        400,
        200,
        "takes t, TRUE, yes and their like",
        *_in_url("bool", _LOOSE_BOOLS),
        *_tags("key:bool", f"{_LOOSE_BOOLS} one zero"),
    ),
    _status("B17", GO, 400, 200, "takes t, TRUE and their like", *_in_url("bool", _LOOSE_BOOLS)),
    _status("B18", ENVOY, 400, 200, "takes numbers that JSON has not", *_in_url("double float", _NO_NUMBERS)),
    _status("B18", GO, 400, 200, "takes numbers that JSON has not", *_in_url("double float", _NO_NUMBERS)),
    _status("B19", ENVOY, 400, 200, "takes a plus sign", *_in_url("enum", "plus")),
    _status("B19", GO, 400, 200, "takes a plus sign", *_in_url("enum", "plus")),
    _status("B20", ENVOY, 400, 200, "skips white space", *_in_url("bytes", "blank-inside line-inside")),
    _status("B20", GO, 400, 200, "skips line ends", *_in_url("bytes", "line-inside")),
    _status("B20", ENVOY, 200, 400, "wants one alphabet", *_in_url("bytes", "mixed")),
    _status("B20", GO, 200, 400, "wants one alphabet", *_in_url("bytes", "mixed")),
    _status(
        "B21",
        ENVOY,
        400,
        200,
        "takes a string for a Value",
        *_in_url("value", "*"),
        "query:repeated",
        "query:comma",
        when=_sets_value,
    ),
    _status("B21", GO, 400, 200, "takes JSON for messages", *_in_url("value struct empty", "*"), "query:repeated"),
    _status("B21", ENVOY, 400, 200, "takes looser times", *_in_url("time", "leap-second no-digits short-hour")),
    _status("B21", GO, 400, 200, "takes looser times", *_in_url("time", "comma offset-24 short-hour ten-digits")),
    _status(
        "B21", ENVOY, 400, 200, "takes looser durations", *_in_url("duration", "blank no-fraction over-by-nanos plus")
    ),
    _status("B21", GO, 200, 400, "holds a duration in 64 bits of nanoseconds", *_in_url("duration", "highest")),
    _status("B21", GO, 200, 400, "refuses a leading zero in a path", "path:duration/leading-zero"),
    _status("B22", ENVOY, 400, 200, "takes map parameters", "query:map"),
    _status("B22", GO, 400, 200, "takes map parameters", "query:map"),
    _status("B23", GO, 400, 200, "takes durations as Go writes them", *_in_url("duration", _GO_DURATIONS)),
    _status("B24", ENVOY, 400, 200, "takes anything for a mask", *_in_url("mask", "bad blank comma-last upper-first")),
    _status(
        "B24", GO, 400, 500, "takes any mask, and cannot write it", *_in_url("mask", "bad blank comma-last upper-first")
    ),
    _status("B24", GO, 200, 500, "does not convert a mask, and cannot write it", when=_mask_in_query),
    _row("request", "B25", GO, "fills an empty mask in PATCH", "update/patch", when=_cleared("mask")),
    _row(
        "request", "B25", GO, "sets mask and message for an empty PATCH", "method/PATCH", when=_cleared("mask", "thing")
    ),
    _status("B26", GO, 400, 200, "has no such limit", *_tags("form", "too-many deeper")),
    _status("B26", ENVOY, 400, 200, "has no such limit", *_tags("form", "too-many deeper")),
    _status("S7", ENVOY, 200, 0, "waits for more of a body that is a number", "body-is-field", when=_number),
    _status("S7", GO, 200, 400, "reads scalars as Go's JSON does", "body-is-field", when=_go_scalar),
    # JSON.
    _status(
        "4a", ENVOY, 400, 200, "reads JSON loosely", *_tags("syntax", _LOOSE_JSON), *_in_body("string", _LOOSE_STRINGS)
    ),
    _status("4a", ENVOY, 400, 200, "takes quoted bools", *_in_body("bool", "quoted quoted-one")),
    _status(
        "4a", ENVOY, 400, 200, "takes numbers in strings that are none", *_in_body("double float", _QUOTED_NO_NUMBERS)
    ),
    _status("4a", ENVOY, 400, 200, "takes one for many", *_tags("many", "nested object single word"), "map/bare-key"),
    _status(
        "4a",
        ENVOY,
        400,
        200,
        "takes an object for a well-known type",
        *_in_body(_NO_OBJECTS, "object full-object full"),
    ),
    _status("4a", ENVOY, 400, 500, "makes no message of it that could be read", "body/wrapped"),
    _status("4a", ENVOY, 400, 200, "takes null for a body", "body-is-field", when=_null_body),
    _status("4a", GO, 400, 200, "takes null for a body", "body-is-field", when=_null_body),
    _status("4a", GO, 400, 500, "lets a body be nested as deep as can no more be read", "syntax/deep-150"),
    _status("4b", ENVOY, 400, 200, "drops fields that it does not know", *_UNKNOWN_FIELDS, "body/wrapped"),
    _status(
        "4b", GO, 400, 200, "drops fields that it does not know", *_UNKNOWN_FIELDS, "body/wrapped", "syntax/empty-key"
    ),
    _row("answer", "4b", GO, "writes null for messages that are absent", when=_is(NOTHING, None)),
    _status("J1", GO, 400, 200, "reads a list of bytes as numbers", "body:bytes/full-array", when=_go_scalar),
    _row("answer", "J1", GO, "writes a long that is the whole answer as a number", when=_as_number),
    _status("J3", ENVOY, 400, 200, "takes numbers of enums in quotes", *_in_body("enum", "quoted-number")),
    _status("J3", ENVOY, 400, 200, "takes any number for null", *_in_body("null", "unknown-number")),
    _status("J3", GO, 400, 200, "drops names of enums that it does not know", *_in_body("enum null", _UNKNOWN_ENUMS)),
    _status("J4", ENVOY, 400, 200, "skips white space in base64", *_in_body("bytes", "blank-inside line-inside")),
    _status("J4", GO, 400, 200, "skips line ends in base64", *_in_body("bytes", "line-inside")),
    _status("J4", ENVOY, 200, 400, "wants one alphabet of base64", *_in_body("bytes", "mixed")),
    _status("J4", GO, 200, 400, "wants one alphabet of base64", *_in_body("bytes", "mixed")),
    _row("answer", "J4", GO, "writes [] for no bytes that are the whole answer", when=_is("", [])),
    _status("J5", ENVOY, 400, 200, "drops a null in a list", "many-*/null-inside"),
    _row("request", "J5", ENVOY, "makes an item of a null for a list", "many/null", when=_null_items),
    _status("J5", GO, 200, 400, "refuses a null for a list of values", "many/null", when=_null_values),
    _status("J5", GO, 400, 200, "takes a null in a list that is the body for an empty item", "many-*/null-inside"),
    _status("J5", GO, 200, 500, "cannot write a Value without a value", "body/empty"),
    _row("answer", "J6", ENVOY, "writes floats with nine digits", when=_same_float),
    _row("answer", "J6", GO, "writes large numbers in a Struct without an exponent", when=_same_double),
    _status("J7", ENVOY, 400, 200, "takes looser times", *_in_body("time", "leap-second no-digits short-hour")),
    _status("J7", GO, 400, 200, "takes looser times", *_in_body("time", "comma offset-24 short-hour")),
    _status(
        "J7", ENVOY, 400, 200, "takes looser durations", *_in_body("duration", "blank no-fraction over-by-nanos plus")
    ),
    _status("J7", GO, 400, 200, "takes looser durations", *_in_body("duration", _GO_DURATIONS)),
    _status("J7", GO, 200, 400, "refuses a leading zero", *_in_body("duration", "leading-zero")),
    _status(
        "J7", ENVOY, 400, 200, "takes anything for a mask", *_in_body("mask", "bad blank comma-last snake* upper-first")
    ),
    _status("J7", GO, 400, 200, "takes a capital for the start of a path", *_in_body("mask", "upper-first")),
    _status("J7", GO, 200, 400, "refuses * as a mask", *_in_body("mask", "star")),
    _status("J8", ENVOY, 400, 200, "drops what an Any should not have", *_in_body("any", _ENVOY_ANY)),
    _status(
        "J8", ENVOY, 200, 400, "wants type.googleapis.com in an Any", *_in_body("any", "other-host no-host slash-only")
    ),
    _status("J8", GO, 400, 200, "drops what an Any should not have", *_in_body("any", _GO_ANY)),
    _status("J9", ENVOY, 400, 502, "answers that the gateway is bad", *_DUPLICATES),
    _status("J9", ENVOY, 400, 200, "takes the last, in streams and beside a null", *_DUPLICATES, "syntax/*-null"),
    _status("J10", ENVOY, 200, 400, "wants digits in quotes", *_in_body("integer", _QUOTED_NUMBERS)),
    _status(
        "J10", ENVOY, 400, 200, "takes other digits in quotes", *_in_body("integer", "quoted-plus quoted-leading-zero")
    ),
    _status("J13", ENVOY, 400, 200, "takes the lowest number for a lower one", *_in_body("integer", "under")),
    # Answers.
    _row("answer", "S8", ENVOY, "does not know response_body, and writes the whole message", when=_one_of_their_fields),
    _row("code", "R3", GO, "puts the early error of a stream under `error`", "error/early", when=_enveloped_error),
    _row(
        "code", "R4", ENVOY, "has no body for an error whose details it does not know", "error/unknown", when=_no_status
    ),
    _row("code", "R4", GO, "has no body for an error whose details it does not know", "error/unknown", when=_no_status),
    _row("code", "R4", GO, "says 13 for an error whose details it does not know", "error/unknown", when=_other_code),
    _row("status", "R4", GO, "says 500 for an error whose details it does not know", "error/unknown", when=_says_500),
    _row("answer", "R4", GO, "drops an error whose details it does not know", "error/unknown", when=_says_little),
    _row("code", "R11", ENVOY, "writes its own errors as text", when=_own_text),
    _row("code", "R11", GO, "leaves a malformed path to Go's server, which writes text", *_BAD_ESCAPES, when=_own_text),
    _row("type", "R9", GO, "does not know HttpBody in requests", "http-body", when=_nothing_left),
    _row("request", "R9", GO, "does not know HttpBody in requests", "http-body", when=_nothing_left),
    _status("R9", GO, 200, 400, "does not know HttpBody in requests", "http-body"),
    _row("type", "R9", ENVOY, "takes a stream without files for a list of JSON", "http-body", when=_empty_list),
    _row("answer", "R9", GO, "puts line ends between the pieces of a file", "http-body", when=_newlines_between),
    # Streams.
    _row(
        "type",
        "W1",
        ENVOY,
        "names lines of JSON as JSON",
        "stream",
        when=_is("application/x-ndjson", "application/json"),
    ),
    _row(
        "type", "W1", GO, "names lines of JSON as JSON", "stream", when=_is("application/x-ndjson", "application/json")
    ),
    _row("type", "W1", GO, "names no type where there is no message", "stream", when=_is("application/x-ndjson", "")),
    _row(
        "type",
        "W1",
        ENVOY,
        "has no events unless told",
        "stream/sse",
        when=_is("text/event-stream", "application/json"),
    ),
    _row("type", "W1", GO, "has no events", "stream/sse", when=_is("text/event-stream", "application/json")),
    _status("W2", ENVOY, 204, 200, "has no events unless told", "stream/sse"),
    _status("W2", GO, 204, 200, "has no events", "stream/sse"),
    _row("answer", "W2", GO, "has no events", "stream/sse", when=_lines_for_events),
    _row("answer", "W4", ENVOY, "loses the error of a stream that has begun", "error/late", when=_lost_error),
    _row("answer", "W4", GO, "loses an error whose details it does not know", "error/unknown", when=_lost_last),
    _row("answer", "W5", ENVOY, "has neither an envelope nor a last record", "stream", when=_bare_records),
    _row("answer", "W5", GO, "has no last record", "stream", when=_unended),
]

SPARED: dict[str, dict[str, str]] = {
    ENVOY: {
        "map-*/null-inside": "J5, a null in a map ends Envoy with a segmentation fault",
        "body-is-number": "S7, Envoy does not answer, and a few of these are enough",
    },
    GO: {},
}
"""Requests that a gateway does not get, by a pattern of their tags, and why."""


def spared(gateway: str, request: Request) -> bool:
    """Whether a gateway is not to get a request."""
    return any(fnmatchcase(tag, glob) for glob in SPARED[gateway] for tag in request.tags)


@dataclass(frozen=True)
class Report:
    """How often each row of a gateway was met, by how many requests, and one of them; and what no row explains."""

    gateway: str
    requests: int
    alike: int
    met: dict[Row, list[Pair]]
    unexplained: list[tuple[Pair, Difference]]

    @property
    def stale(self) -> list[Row]:
        """Rows that explain nothing."""
        return [row for row in ROWS if row.gateway == self.gateway and row not in self.met]


def report(gateway: str, pairs: Iterable[Pair]) -> Report:
    """Explain all differences."""
    rows = [row for row in ROWS if row.gateway == gateway]
    met: dict[Row, dict[Request, Pair]] = {}
    unexplained = []
    requests = alike = 0
    for pair in pairs:
        requests += 1
        alike += not pair.differences
        for difference in pair.differences:
            row = next((row for row in rows if row.explains(pair, difference)), None)
            if row is None:
                unexplained.append((pair, difference))
            else:
                met.setdefault(row, {})[pair.request] = pair
    return Report(gateway, requests, alike, {row: list(found.values()) for row, found in met.items()}, unexplained)
