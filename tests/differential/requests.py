"""The requests that all gateways get: a table for each feature, and seeded mixtures of them."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from service.rest import wellknown
from tests.differential.fragments import Named, is_map, kind_of, literals, texts

JSON = (("content-type", "application/json"),)


@dataclass(frozen=True)
class Request:
    """One request, and the names of what is in it, by which the table of differences speaks of it."""

    method: str
    target: str
    body: bytes | None
    headers: tuple[tuple[str, str], ...]
    tags: frozenset[str]

    def __str__(self) -> str:
        body = "" if self.body is None else f" {self.body[:100]!r}"
        headers = "" if self.headers == JSON or (self.body is None and not self.headers) else f" {dict(self.headers)}"
        return f"{self.method} {self.target[:160]}{body}{headers}"


def get(target: str, *tags: str) -> Request:
    """Return a GET."""
    return Request("GET", target, None, (), frozenset(tags))


def post(target: str, body: str | bytes, *tags: str) -> Request:
    """Return a POST of JSON."""
    return Request("POST", target, body.encode() if isinstance(body, str) else body, JSON, frozenset(tags))


def requests(pool: DescriptorPool, seed: int = 1) -> list[Request]:
    """Return all requests, each once."""
    thing = pool.FindMessageTypeByName("gallery.v1.Thing")
    every = [
        *_paths(),
        *_routes(),
        *_typed_paths(thing),
        *_parameters(thing),
        *_query_forms(),
        *_bodies(thing),
        *_body_forms(thing),
        *_syntax(),
        *_content_types(),
        *_conflicts(),
        *_methods(),
        *_streams(),
        *_errors(),
        *_mixtures(thing, random.Random(seed)),
    ]
    once: dict[tuple[object, ...], Request] = {}
    for request in map(_placed, every):
        wire = request.method, request.target, request.body, request.headers
        once[wire] = replace(request, tags=request.tags | once[wire].tags) if wire in once else request
    return list(once.values())


def _placed(request: Request) -> Request:
    """Add what the path says: whether the answer is a stream, and of which field it is if it is one."""
    path = request.target.partition("?")[0]
    tags = {"stream"} if path.startswith("/v1/watch") else set()
    if path in ANSWER_FIELDS:
        first, *words = ANSWER_FIELDS[path].split("_")
        tags.add(f"answer/{first}{''.join(map(str.title, words))}")
    return replace(request, tags=request.tags | tags) if tags else request


# --- paths -----------------------------------------------------------------------------------------------------------

_SEGMENTS = {
    "word": "abc",
    "unreserved": "a-b_c.d~e",
    "sub-delimiters": "a!b$c&d'e(f)g*h,i;j=k",
    "at": "a@b",
    "plus": "a+b",
    "escaped-plus": "a%2Bb",
    "blank": "a%20b",
    "letter": "%61bc",
    "slash": "a%2Fb",
    "slash-lower": "a%2fb",
    "slash-only": "%2F",
    "percent": "50%25",
    "percent-slash": "a%252Fb",
    "percent-letter": "%2541",
    "question": "a%3Fb",
    "hash": "a%23b",
    "brackets": "a%5Bb%5D",
    "quote": "%22",
    "backslash": "a%5Cb",
    "utf-8": "%E2%82%AC",
    "utf-8-lower": "%e2%82%ac",
    "astral": "%F0%9D%84%9E",
    "nul": "a%00b",
    "newline": "a%0Ab",
    "colon": "a:b",
    "colon-last": "a:",
    "colon-first": ":a",
    "escaped-colon": "a%3Ab",
    "escaped-verb": "a%3Acancel",
    "verb": "a:cancel",
    "verb-escaped": "a:%63ancel",
    "verb-twice": "a:cancel:cancel",
    "show": "a:show",
    "unknown-verb": "a:fly",
    "dot": ".",
    "two-dots": "..",
    "escaped-dots": "%2e%2e",
    "three-dots": "...",
    "bad-escape": "a%zzb",
    "short-escape": "a%4",
    "lone-percent": "a%",
    "not-utf-8": "%ff",
    "cut-utf-8": "%C3",
    "surrogate": "%ED%A0%80",
    "empty": "",
    "me": "me",
    "me-escaped": "m%65",
    "long": "x" * 3000,
}
_SEGMENT_PLACES = {
    "single": ("GET", "/v1/things/{}"),
    "deleted": ("DELETE", "/v1/things/{}"),
    "before-verb": ("POST", "/v1/things/{}:cancel"),
    "inside": ("POST", "/v1/parents/{}/things"),
    "pattern": ("GET", "/v1/shelves/{}/books/b"),
    "pattern-last": ("GET", "/v1/shelves/s/books/{}"),
    "rest": ("GET", "/v1/files/{}"),
    "rest-middle": ("GET", "/v1/files/a/{}/c"),
    "rest-before-literal": ("GET", "/v1/files/{}/raw"),
    "rest-pattern": ("GET", "/v2/paths/{}/b"),
    "rest-before-verb": ("GET", "/v2/trees/{}:prune"),
    "two": ("GET", "/v2/pairs/{}/b"),
    "unnamed": ("GET", "/v2/{}/starred"),
}


def _paths() -> Iterator[Request]:
    for place, (method, template) in _SEGMENT_PLACES.items():
        for name, segment in _SEGMENTS.items():
            tags = frozenset({f"segment/{name}", f"place/{place}"})
            yield Request(method, template.format(segment), None, (), tags)
    yield get("/v2/things/a", "place/plain")
    yield Request("DELETE", "/v2/things/a:purge", None, (), frozenset({"place/before-verb"}))
    yield post("/v2/things/a:show", '{"kind":"SMALL"}', "place/before-verb")


def _routes() -> Iterator[Request]:
    good = {
        "thing": "/v1/things/abc",
        "things": "/v1/things",
        "me": "/v1/things/me",
        "pattern": "/v1/shelves/a/books/b",
        "files": "/v1/files/a/b",
        "no-files": "/v1/files",
        "raw": "/v1/files/a/raw",
        "only-raw": "/v1/files/raw",
        "raw-raw": "/v1/files/raw/raw",
        "tail": "/v1/any/a/b/tail",
        "only-tail": "/v1/any/tail",
        "verb": "/v2/things:batch",
        "show": "/v2/things/a:show",
        "prune": "/v2/trees/a/b:prune",
        "only-prune": "/v2/trees:prune",
        "rooms": "/v2/rooms/1/walls/2",
        "paths": "/v2/paths/a/b/c",
        "starred": "/v2/x/starred",
    }
    shapes = {
        "as-is": "{}",
        "slash-last": "{}/",
        "slashes-last": "{}//",
        "slash-first": "/{}",
        "query": "{}?",
        "empty-pieces": "{}?&&",
        "colon-last": "{}:",
        "more": "{}/more",
        "unknown-verb": "{}:fly",
        "dot-last": "{}/.",
        "dots-last": "{}/..",
        "hash": "{}%23a",
    }
    for name, target in good.items():
        for shape, template in shapes.items():
            yield get(template.format(target), f"route/{name}", f"shape/{shape}")
        yield get(target.replace("/v", "//v", 1), f"route/{name}", "shape/slash-first")
        yield get(target.upper(), f"route/{name}", "shape/upper")
        yield get(target.replace("/v1", "/%761").replace("/v2", "/%762"), f"route/{name}", "shape/literal-escaped")
        yield get(target.replace("/", "/./", 1), f"route/{name}", "shape/dot-first")
        yield get("/x/.." + target, f"route/{name}", "shape/dots-first")
        yield get(target.rpartition("/")[0] + "//" + target.rpartition("/")[2], f"route/{name}", "shape/slashes-inside")
    for target in ("/", "/v1", "/v1/", "/v3/things", "/gallery.v1.Gallery/GetThing", "/v1/hidden", "/v1/things%2Fabc"):
        yield get(target, "route/none")
    yield post("/gallery.v1.Gallery/Hidden", "{}", "route/rpc-name")
    yield get("/" + "a/" * 1500, "route/none")


def _typed_paths(thing: Descriptor) -> Iterator[Request]:
    places = {
        "int32_value": "/v1/numbers/{}",
        "kind": "/v1/kinds/{}/at/2026-01-02T03:04:05Z",
        "time_value": "/v1/kinds/SMALL/at/{}",
        "bytes_value": "/v1/bytes/{}",
        "bool_value": "/v1/flags/{}/1.5/a",
        "double_value": "/v1/flags/true/{}/a",
        "string_wrapper": "/v1/flags/true/1.5/{}",
        "duration_value": "/v2/spans/{}/1/true",
        "int64_wrapper": "/v2/spans/1s/{}/true",
        "uint64_value": "/v2/sizes/{}/1/1",
        "sint32_value": "/v2/sizes/1/{}/1",
        "float_value": "/v2/sizes/1/1/{}",
        "optional_string": "/v2/maybe/{}/b",
    }
    for field, template in places.items():
        for name, text in texts(thing.fields_by_name[field]).items():
            yield get(template.format(quote(text, safe="")), f"path:{name}")


# --- query -----------------------------------------------------------------------------------------------------------


def _parameters(thing: Descriptor) -> Iterator[Request]:
    seen: Counter[str] = Counter()
    for number, field in enumerate(thing.fields):
        name = field.json_name if number % 2 else field.name
        if is_map(field):
            for key in ("", "[a]", "[1]", ".a", ".key"):
                yield get(f"/v1/things?{name}{key}=1", "query:map")
            continue
        many = "many-" if field.is_repeated else ""
        for tag, text in _share(number, seen, field, texts(field)):
            yield get(f"/v1/things?{name}={quote(text, safe='')}", f"query:{many}{tag}")
        if field.is_repeated:
            good = [quote(text, safe="") for text in texts(field).values()][:2]
            yield get("/v1/things?" + "&".join(f"{name}={text}" for text in [*good, *good]), "query:repeated")
            yield get(f"/v1/things?{name}={','.join(good)}", "query:comma")
            yield get(f"/v1/things?{field.name}={good[0]}&{field.json_name}={good[0]}", "query:repeated")


def _query_forms() -> Iterator[Request]:
    forms = {
        "plus": "id=a+b",
        "escaped-plus": "id=a%2Bb",
        "escaped-name": "i%64=a",
        "two-equals": "id=a=b",
        "semicolon": "id=a;string_value=b",
        "empty-pieces": "&id=a&&kind=SMALL&",
        "no-equals": "id",
        "no-name": "=a",
        "only-equals": "=",
        "bad-escape": "id=a%zz",
        "short-escape": "id=a%4",
        "lone-percent": "id=50%",
        "bad-escape-in-name": "i%zzd=a",
        "not-utf-8": "id=%ff",
        "not-utf-8-name": "%ff=a",
        "surrogate": "id=%ED%A0%80",
        "nul": "id=a%00b",
        "question": "id=a?b",
        "slash": "id=a/b",
        "hash": "id=a%23b",
        "brackets": "id[]=a",
        "index": "strings[0]=a",
        "unknown": "nme=a",
        "unknown-empty": "nme",
        "unknown-nested": "parent.nme=a",
        "unknown-first": "nobody.name=a",
        "upper-name": "ID=a",
        "kebab-name": "string-value=a",
        "former-json-name": "renamedField=a",
        "json-name": "other-name=a",
        "proto-name": "renamed_field=a",
        "blank-name": "id%20=a",
        "nested": "parent.name=a",
        "nested-number": "parent.number=5",
        "nested-camel": "thing.stringValue=a&thing.int32_value=1",
        "deep": "parent.parent.parent.name=a",
        "deeper": ".".join(["parent"] * 40) + ".name=a",
        "two-nested": "parent.name=a&parent.number=5",
        "presence": "parent.flag=false&optional_bool=false&optional_string=",
        "dot-first": ".id=a",
        "dot-last": "id.=a",
        "two-dots": "parent..name=a",
        "through-scalar": "id.name=a",
        "through-repeated": "parents.name=a",
        "through-map": "labels.a=b",
        "through-time": "time_value.seconds=1",
        "through-wrapper": "string_wrapper.value=a",
        "through-mask": "mask.paths=a",
        "through-duration": "duration_value.seconds=1",
        "through-struct": "struct.fields=1",
        "through-value": "value.string_value=a",
        "through-any": "any.type_url=a",
        "through-list": "list_value.values=a",
        "twice": "id=a&id=b",
        "twice-equal": "id=a&id=a",
        "twice-spelled": "string_value=a&stringValue=b",
        "twice-number": "int32_value=1&int32_value=2",
        "twice-time": "time_value=2026-01-02T03:04:05Z&time_value=2026-01-02T03:04:06Z",
        "twice-wrapper": "int64_wrapper=1&int64_wrapper=2",
        "twice-nested": "parent.name=a&parent.name=b",
        "oneof": "one_string=a",
        "oneof-number": "one_number=0",
        "oneof-duration": "one_duration=1s",
        "oneof-nested": "one_parent.name=a",
        "oneof-null": "one_null=NULL_VALUE",
        "oneof-twice": "one_string=a&one_number=1",
        "oneof-twice-nested": "one_number=1&one_parent.name=a",
        "oneof-inside": "parent.left=a",
        "oneof-inside-twice": "parent.left=a&parent.right.name=b",
        "json-object": "parent=%7B%22name%22:%22x%22%7D",
        "interleaved": "strings=a&id=x&strings=b&int64s=1&strings=",
        "many": "&".join(f"strings={number}" for number in range(999)),
        "too-many": "&".join(f"strings={number}" for number in range(1100)),
        "alt": "alt=json&prettyPrint=true",
        "output-only": "output_only=a&input_only=b&old=c",
    }
    for name, query in forms.items():
        yield get(f"/v1/things?{query}", f"form/{name}")
        if name in ("plus", "bad-escape", "unknown", "through-time", "twice", "twice-nested", "oneof-twice", "many"):
            yield get(f"/v1/watch?int32_value=1&{query}", f"form/{name}")


# --- bodies ----------------------------------------------------------------------------------------------------------


def _bodies(thing: Descriptor) -> Iterator[Request]:
    seen: Counter[str] = Counter()
    for number, field in enumerate(thing.fields):
        name = field.name if number % 2 else field.json_name
        for tag, literal in _share(number, seen, field, dict(_values(field))):
            yield post("/v1/things", f'{{"{name}":{literal}}}', tag)


def _share(number: int, seen: Counter[str], field: FieldDescriptor, fragments: Named) -> list[tuple[str, str]]:
    """Return all fragments for the first two fields of a kind, a third of them for each other one."""
    kind = f"{kind_of(field)}{' ' * field.is_repeated}"
    seen[kind] += 1
    return list(fragments.items()) if seen[kind] <= 2 else list(fragments.items())[number % 3 :: 3]


def _values(field: FieldDescriptor) -> Iterator[tuple[str, str]]:
    """Return JSON for a whole field."""
    if is_map(field):
        yield from _maps(field)
    elif field.is_repeated:
        yield from _arrays(field)
    else:
        yield from ((f"body:{tag}", literal) for tag, literal in literals(field).items())


def _arrays(field: FieldDescriptor) -> Iterator[tuple[str, str]]:
    good = list(literals(field).values())[:2]
    yield "many/good", f"[{good[0]},{good[1]},{good[0]}]"
    yield "many/empty", "[]"
    yield "many/null", "null"
    yield f"many-{kind_of(field)}/null-inside", f"[{good[0]},null]"
    yield "many/single", good[0]
    yield "many/object", '{"0":1}'
    yield "many/nested", f"[[{good[0]}]]"
    yield "many/word", '"x"'


def _maps(field: FieldDescriptor) -> Iterator[tuple[str, str]]:
    key_field, value_field = field.message_type.fields
    good = next(iter(literals(value_field).values()))
    keys = {tag: text for tag, text in texts(key_field).items() if '"' not in text and text.isprintable()}
    for tag, key in keys.items():
        yield f"key:{tag}", f'{{"{key}":{good}}}'
    key = next(iter(keys.values()))
    yield "map/empty", "{}"
    yield "map/null", "null"
    yield "map/array", "[]"
    yield "map/string", '"a"'
    yield "map/entries", f'[{{"key":"{key}","value":{good}}}]'
    yield "map/bare-key", f"{{{key}:{good}}}"
    yield f"map-{kind_of(value_field)}/null-inside", f'{{"{key}":null}}'
    yield "map/key-twice", f'{{"{key}":{good},"{key}":{good}}}'
    yield "map/array-inside", f'{{"{key}":[{good}]}}'


BODY_FIELDS = {
    "/v1/in/a": "parent",
    "/v1/list/a": "strings",
    "/v1/map/a": "labels",
    "/v1/text/a": "string_value",
    "/v1/any-value/a": "value",
    "/v2/fields/int64": "int64_value",
    "/v2/fields/uint32": "uint32_value",
    "/v2/fields/double": "double_value",
    "/v2/fields/bool": "bool_value",
    "/v2/fields/bytes": "bytes_value",
    "/v2/fields/kind": "kind",
    "/v2/fields/time": "time_value",
    "/v2/fields/duration": "duration_value",
    "/v2/fields/mask": "mask",
    "/v2/fields/wrapper": "string_wrapper",
    "/v2/fields/struct": "struct",
    "/v2/fields/list": "list_value",
    "/v2/fields/any": "any",
    "/v2/fields/int64s": "int64s",
    "/v2/fields/kinds": "kinds",
    "/v2/fields/parents": "parents",
    "/v2/fields/by-number": "by_number",
    "/v2/fields/thing": "thing",
    "/v2/fields/optional": "optional_string",
    "/v2/fields/parent-to-name": "parent",
}
ANSWER_FIELDS = {
    **BODY_FIELDS,
    "/v2/fields/parent-to-name": "id",
    "/v2/fields/all-to-parent": "parent",
    "/v1/watch/names": "name",
}


def _number_tags(name: str, literal: str) -> tuple[str, ...]:
    """Tell bodies that are a bare number, of all fields but one."""
    return ("body-is-number",) if literal.strip("-+0123456789.eE") == "" and name != "uint32_value" else ()


def _body_forms(thing: Descriptor) -> Iterator[Request]:
    for target, name in BODY_FIELDS.items():
        field = thing.fields_by_name[name]
        chosen = list(_values(field))
        null = [(tag, literal) for tag, literal in chosen if literal == "null"]
        for tag, literal in dict([*chosen[:5], *chosen[-2:], *null]).items():
            tags = (tag, "body-is-field", f"field/{kind_of(field)}")
            yield post(target, literal, *tags, *_number_tags(name, literal))
        yield post(target, "", "body/empty", "body-is-field")
        yield post(target, f'{{"{name}":{chosen[0][1]}}}', "body/wrapped", "body-is-field", f"field/{kind_of(field)}")
        beside = ("query-beside-body", "body-is-field", f"field/{kind_of(field)}")
        beside = (*beside, *_number_tags(name, chosen[0][1]))
        yield post(f"{target}?uint64_value=7&one_parent.name=t", chosen[0][1], chosen[0][0], *beside)
    yield post("/v2/fields/all-to-parent", '{"parent":{"name":"x"}}', "body-is-field")
    yield post("/v2/fields/all-to-parent", "{}", "body-is-field")
    yield get("/v2/fields/kind?kind=LARGE", "body-is-field")
    for body in ("{}", '{"stringValue":"a","int32Value":5}', '{"mask":"id"}'):
        for method in ("PATCH", "PUT"):
            for query in ("", "?mask=stringValue", "?kind=SMALL"):
                tags = frozenset({"update", f"update/{method.lower()}"})
                yield Request(method, f"/v2/things/a{query}", body.encode(), JSON, tags)
    for body in (b"raw bytes \x00\xff", b"{}", b""):
        for content_type in ("text/plain", "application/octet-stream", "image/png; a=b", "application/json"):
            headers = (("content-type", content_type),)
            yield Request("POST", "/v1/upload", body, headers, frozenset({"http-body"}))
            yield Request("POST", "/v1/parts/a", body, headers, frozenset({"http-body"}))
    yield get("/v1/download", "http-body")
    yield get("/v1/watch/file?int32_value=2", "http-body")


def _syntax() -> Iterator[Request]:
    bodies: dict[str, str | bytes] = {
        "empty": "",
        "empty-object": "{}",
        "blank": " ",
        "blanks": " \n\t ",
        "around": ' \r\n{"id":"a"}\n',
        "truncated": '{"id":"a"',
        "truncated-string": '{"id":"a',
        "truncated-number": '{"int32Value":1e',
        "trailing": '{"id":"a"}x',
        "second": '{"id":"a"}{"id":"b"}',
        "second-line": '{"id":"a"}\n{"id":"b"}',
        "comma-last": '{"id":"a",}',
        "comma-first": '{,"id":"a"}',
        "no-colon": '{"id" "a"}',
        "no-quotes": '{id:"a"}',
        "single-quotes": "{'id':'a'}",
        "comment": '{/* a */"id":"a"}',
        "comment-line": '{"id":"a"} // a',
        "key-twice": '{"id":"a","id":"b"}',
        "key-twice-equal": '{"id":"a","id":"a"}',
        "two-spellings": '{"stringValue":"a","string_value":"b"}',
        "two-spellings-null": '{"stringValue":"a","string_value":null}',
        "escaped-key": '{"\\u0069d":"a"}',
        "unknown": '{"nme":"a"}',
        "unknown-deep": '{"thing":{"parent":{"nme":"a"}}}',
        "unknown-null": '{"nme":null}',
        "unknown-object": '{"nme":{"a":[1,{}]},"id":"a"}',
        "empty-key": '{"":"a"}',
        "type-key": '{"@type":"type.googleapis.com/gallery.v1.Thing","id":"a"}',
        "extension-key": '{"[a.b]":1}',
        "null": "null",
        "number": "1",
        "string": '"a"',
        "true": "true",
        "array": "[]",
        "array-of-one": '[{"id":"a"}]',
        "word": "hello",
        "form": "id=a&kind=SMALL",
        "byte-order-mark": b'\xef\xbb\xbf{"id":"a"}',
        "utf-16": '{"id":"a"}'.encode("utf-16"),
        "latin-1": b'{"id":"\xe9"}',
        "not-utf-8": b'{"id":"\xff"}',
        "overlong": b'{"id":"\xc0\xaf"}',
        "surrogate": b'{"id":"\xed\xa0\x80"}',
        "not-utf-8-key": b'{"\xff":"a"}',
        "nul": b'{"id":"a"}\x00',
        "nul-in-string": b'{"id":"a\x00b"}',
        "plus-number": '{"int32Value":+1}',
        "leading-zero": '{"int32Value":01}',
        "no-integer": '{"doubleValue":.5}',
        "no-fraction": '{"doubleValue":1.}',
        "hex": '{"int32Value":0x1}',
        "upper-true": '{"boolValue":TRUE}',
        "deep": '{"thing":' * 20 + "{}" + "}" * 20,
        "deep-60": '{"thing":' * 60 + "{}" + "}" * 60,
        "deep-98": '{"thing":' * 98 + "{}" + "}" * 98,
        "deep-150": '{"thing":' * 150 + "{}" + "}" * 150,
        "deep-20000": '{"thing":' * 20000 + "{}" + "}" * 20000,
        "deep-array": '{"value":' + "[" * 40 + "]" * 40 + "}",
        "deep-array-20000": '{"value":' + "[" * 20000 + "]" * 20000 + "}",
        "open-arrays": "[" * 20000,
        "oneof": '{"oneString":"a"}',
        "oneof-null": '{"oneNull":null}',
        "oneof-absent": '{"oneString":null,"oneNumber":1}',
        "oneof-twice": '{"oneString":"a","oneNumber":1}',
        "oneof-twice-default": '{"oneString":"","oneNumber":0}',
        "oneof-twice-null-value": '{"oneString":"a","oneNull":null}',
        "output-only": '{"outputOnly":"a","inputOnly":"b","old":"c"}',
        "large": '{"stringValue":"' + "x" * 300_000 + '"}',
        "all-null": '{"id":null,"parent":null,"strings":null,"labels":null,"timeValue":null,"optionalBool":null}',
    }
    for name, body in bodies.items():
        yield post("/v1/things", body, f"syntax/{name}")
        if name in ("empty", "blank", "truncated", "trailing", "key-twice", "two-spellings", "unknown", "nul", "large"):
            yield post("/v1/watch", body, f"syntax/{name}")
            yield post("/v1/things/a", body, f"syntax/{name}", "id-in-path")


def _content_types() -> Iterator[Request]:
    types = {
        "json": "application/json",
        "upper": "Application/JSON",
        "charset": "application/json; charset=utf-8",
        "charset-upper": 'application/json;charset="UTF-8"',
        "charset-latin-1": "application/json; charset=iso-8859-1",
        "suffix": "application/vnd.api+json",
        "merge-patch": "application/merge-patch+json",
        "text": "text/plain",
        "form": "application/x-www-form-urlencoded",
        "multipart": "multipart/form-data; boundary=a",
        "xml": "application/xml",
        "octets": "application/octet-stream",
        "none": None,
        "empty": "",
        "star": "*/*",
        "text-json": "text/json",
        "grpc": "application/grpc",
        "grpc-json": "application/grpc+json",
        "grpc-web": "application/grpc-web",
    }
    for name, content_type in types.items():
        headers = () if content_type is None else (("content-type", content_type),)
        for place, target in (("all", "/v1/things"), ("field", "/v1/in/a"), ("stream", "/v1/watch")):
            for body, filled in ((b"{}", "full"), (b"", "no-body")):
                tags = {f"content-type/{name}", f"content-type/{filled}"}
                tags |= {"body-is-field"} if place == "field" else set()
                yield Request("POST", target, body, headers, frozenset(tags))
    for name in ("gzip", "identity", "br", "x-own"):
        headers = (*JSON, ("content-encoding", name))
        yield Request("POST", "/v1/things", b"{}", headers, frozenset({f"content-encoding/{name}"}))
    for accept in ("text/html", "application/json", "*/*", "application/xml;q=0.5", "application/json+pretty", ""):
        yield Request("GET", "/v1/things?id=a", None, (("accept", accept),), frozenset({"accept"}))


def _conflicts() -> Iterator[Request]:
    both = {
        "path-query": ("GET", "/v1/things/a?id=b", None),
        "path-query-equal": ("GET", "/v1/things/a?id=a", None),
        "path-query-nested": ("GET", "/v1/shelves/a/books/b?parent.name=x", None),
        "path-query-nested-equal": ("GET", "/v1/shelves/a/books/b?parent.name=shelves/a/books/b", None),
        "path-query-beside": ("GET", "/v1/shelves/a/books/b?parent.number=5", None),
        "path-query-number": ("GET", "/v1/numbers/5?int32Value=6", None),
        "path-query-number-equal": ("GET", "/v1/numbers/5?int32Value=05", None),
        "path-body": ("POST", "/v1/things/a", '{"id":"b"}'),
        "path-body-equal": ("POST", "/v1/things/a", '{"id":"a"}'),
        "path-body-null": ("POST", "/v1/things/a", '{"id":null}'),
        "path-body-empty": ("POST", "/v1/things/a", '{"id":""}'),
        "path-body-nested": ("POST", "/v1/parents/a/things", '{"parent":{"name":"b","number":"5"}}'),
        "path-body-nested-equal": ("POST", "/v1/parents/a/things", '{"parent":{"name":"a","number":"5"}}'),
        "path-body-beside": ("POST", "/v1/parents/a/things", '{"parent":{"number":"5"},"id":"x"}'),
        "path-body-null-parent": ("POST", "/v1/parents/a/things", '{"parent":null}'),
        "path-body-field": ("PUT", "/v2/things/a", '{"id":"b","kind":"SMALL"}'),
        "path-body-field-equal": ("PUT", "/v2/things/a", '{"id":"a","kind":"SMALL"}'),
        "path-body-field-beside": ("PUT", "/v2/things/a", '{"kind":"SMALL"}'),
        "path-body-pattern": ("POST", "/v2/trees/a/leaves/b:press", '[{"name":"x"}]'),
        "body-query": ("POST", "/v1/in/a?parent.name=x", '{"name":"y"}'),
        "body-query-equal": ("POST", "/v1/in/a?parent.name=y", '{"name":"y"}'),
        "body-query-whole": ("POST", "/v1/text/a?string_value=x", '"y"'),
        "body-query-list": ("POST", "/v1/list/a?strings=x", '["y"]'),
        "body-query-other": ("POST", "/v1/in/a?kind=SMALL", '{"name":"y"}'),
        "body-query-path": ("POST", "/v1/in/a?id=b", '{"name":"y"}'),
        "body-query-no-body": ("POST", "/v1/in/a?parent.name=x", ""),
        "star-query": ("POST", "/v1/things?string_value=x", "{}"),
        "star-query-unknown": ("POST", "/v1/things?nme=x", "{}"),
        "star-query-path": ("POST", "/v1/things/a?id=a", "{}"),
        "star-query-path-differs": ("POST", "/v1/things/a?id=b", "{}"),
        "star-query-no-body": ("POST", "/v1/things?string_value=x", ""),
        "no-body-rule-get": ("GET", "/v1/things", "{}"),
        "no-body-rule-get-full": ("GET", "/v1/things/a", '{"id":"b"}'),
        "no-body-rule-delete": ("DELETE", "/v1/things/a", "{}"),
        "no-body-rule-delete-word": ("DELETE", "/v1/things/a", "x"),
        "no-body-rule-empty": ("DELETE", "/v1/things/a", ""),
        "oneof-path-body": ("GET", "/v2/maybe/a/b?one_number=1", None),
        "oneof-path-nested": ("GET", "/v2/pairs/a/b?parent.right.name=x", None),
    }
    for name, (method, target, body) in both.items():
        headers = () if body is None else JSON
        tags = {f"conflict/{name}", *(("body-is-field",) if "/v1/in" in target or "/v1/list" in target else ())}
        tags |= {"body-is-field"} if "/v1/text" in target else set()
        yield Request(method, target, None if body is None else body.encode(), headers, frozenset(tags))


def _methods() -> Iterator[Request]:
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "MADEUP")
    targets = (
        "/v1/things",
        "/v1/things/a",
        "/v1/things/a:cancel",
        "/v1/probe",
        "/v1/whatever",
        "/v1/watch",
        "/v1/none",
    )
    targets = (*targets, "/v2/things/a", "/v1/files/a/b", "/v1/in/a", "/v1/things/a:fly")
    for target in targets:
        for method in methods:
            yield Request(method, target, None, (), frozenset({"method", f"method/{method}"}))
    for method in ("GET", "PUT", "DELETE"):
        headers = (*JSON, ("x-http-method-override", method))
        yield Request("POST", "/v1/things/a", b"{}", headers, frozenset({"override"}))
    form = (("content-type", "application/x-www-form-urlencoded"), ("x-http-method-override", "GET"))
    yield Request("POST", "/v1/things", b"id=a", form, frozenset({"override", "override/form"}))
    yield Request("POST", "/v2/things/a", b"kind=SMALL", form[:1], frozenset({"override", "override/fallback"}))


def _streams() -> Iterator[Request]:
    for count in (0, 1, 2, 5, 40):
        for accept in (None, "application/json", "application/x-ndjson", "text/event-stream", "text/html"):
            headers = () if accept is None else (("accept", accept),)
            kind = "sse" if accept == "text/event-stream" else "lines"
            tags = frozenset({"stream", f"stream/{kind}", *(("stream/none",) if not count else ())})
            yield Request("GET", f"/v1/watch?int32_value={count}", None, headers, tags)
            yield Request("GET", f"/v1/watch/names?int32_value={count}", None, headers, tags | {"stream/field"})
            yield Request("POST", "/v1/watch", f'{{"int32Value":{count}}}'.encode(), (*JSON, *headers), tags)
        yield get(f"/v1/watch/file?int32_value={count}", "http-body", *(("stream/none",) if not count else ()))


def _errors() -> Iterator[Request]:
    for code in range(1, 17):
        for details in ("plain", "details", "unknown"):
            name = f"error-{code}-{details}"
            tags = ("upstream-error", f"error/{details}", f"code/{code}")
            yield get(f"/v1/things/{name}", *tags)
            yield post("/v1/things", f'{{"id":"{name}"}}', *tags)
            yield get(f"/v1/watch?id={name}", *tags, "error/early")
            yield get(f"/v1/watch?id={name}&int32_value=2", *tags, "error/late")


# --- mixtures --------------------------------------------------------------------------------------------------------


def _mixtures(thing: Descriptor, chance: random.Random) -> Iterator[Request]:
    """Several fields at once, and now and then a bad one."""
    single = [field for field in thing.fields if not field.is_repeated]
    in_text = [field for field in single if wellknown.has_text_form(field) and field.name != "id"]
    for _ in range(250):
        chosen = _without_rivals(chance.sample(list(thing.fields), chance.randint(1, 6)))
        picked = {field: chance.choice(list(_values(field))) for field in chosen}
        body = ",".join(
            f'"{chance.choice([field.name, field.json_name])}":{value}' for field, (_, value) in picked.items()
        )
        yield post("/v1/things", f"{{{body}}}", "mixture", *(tag for tag, _ in picked.values()))
    for _ in range(250):
        chosen = _without_rivals(chance.sample(in_text, chance.randint(1, 5)))
        path = chance.choice(["/v1/things", "/v1/things/a%20b", "/v1/shelves/1/books/2", "/v2/paths/a/b%20c"])
        taken = {"/v1/things": "", "/v1/things/a%20b": "id", "/v1/shelves/1/books/2": "parent"}.get(
            path, "string_value"
        )
        chosen = [field for field in chosen if field.name != taken] or [thing.fields_by_name["kind"]]
        picked_texts = {field: chance.choice(list(texts(field).items())) for field in chosen}
        query = "&".join(
            f"{chance.choice([field.name, field.json_name])}={quote(text, safe='')}"
            for field, (_, text) in picked_texts.items()
        )
        yield get(f"{path}?{query}", "mixture", *(f"query:{tag}" for tag, _ in picked_texts.values()))
    for _ in range(100):
        names = [chance.choice(list(_SEGMENTS)) for _ in range(chance.randint(1, 3))]
        place = chance.choice(["/v1/files/{}", "/v1/files/{}/raw", "/v2/paths/{}", "/v2/trees/{}:prune"])
        target = place.format("/".join(_SEGMENTS[name] for name in names))
        yield get(target, "mixture", "place/mixed", *(f"segment/{name}" for name in names))


def _without_rivals(fields: Iterable[FieldDescriptor]) -> list[FieldDescriptor]:
    seen: set[str] = set()
    kept = []
    for field in fields:
        oneof = field.containing_oneof
        if oneof is None or oneof.name not in seen:
            kept.append(field)
            seen.add(oneof.name if oneof is not None else field.name)
    return kept
