"""What schemathesis is told of this service beyond the OpenAPI document. Loaded by SCHEMATHESIS_HOOKS.

No check is off and no operation left out. Three kinds of failures are none, and are judged here one by one:

- A deleted session that is there again, because it was undeleted.
- A refusal for what no schema can say: that two fields must agree, or that a time must be soon.
- An accepted request that only looks invalid. JSON of protobuf has several spellings of one value, and rules J3, J5 and
  J10 of the transcoding make a server take all of them: null for an absent field, numbers in quotes, numbers of enum
  values. The document has the one that clients should send; with unions in their stead, generated clients would wrap
  every number. So such a request is rewritten to that spelling, and must then be valid by the document.
"""

import hashlib
import json
import re
from typing import Any
from uuid import uuid4

import schemathesis
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from schemathesis.core import NOT_SET
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from tests.support.server import ROOT

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_EXPORTED = (ROOT / "tests" / "data" / "exported_session.ndjson").read_bytes()
_EXPORTED_ID = json.loads(_EXPORTED.splitlines()[0])["session_id"].encode()
_BOOLS = ("true", "false", "1", "0")

# Only the server can make one; without one it is the beginning, or any.
for _format in ("cursor", "page-token", "etag", "id-in-path"):
    schemathesis.openapi.format(_format, st.just(""))
schemathesis.openapi.format("words", st.from_regex(r"\A[a-z]{1,9}( \"[a-z]{1,9} [a-z]{1,9}\")?\Z"))
schemathesis.openapi.format("filter", st.sampled_from(["", 'labels.a = "b"', 'title:"x" AND NOT labels:a']))

_undeleted: set[str] = set()
# Refusals that schemathesis does not count among them.
_TOO_LARGE = (413, 414, 431)
_REFUSALS = {
    "session.session_id": r"differs from session_id",
    "session.etag": r"is made by the server",
    "session.expire_time": r"must be in the future|must be at most \S+ seconds ahead",
}


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: schemathesis.SerializationContext, __: Any) -> bytes:
    """Send a session that was exported, of an id of its own, whatever was made up: no schema describes such files."""
    *lines, end = _EXPORTED.splitlines(keepends=True)
    old, new = b"".join(lines), b"".join(lines).replace(_EXPORTED_ID, uuid4().hex.encode())
    return new + end.replace(*(hashlib.sha256(part).hexdigest().encode() for part in (old, new)))


@schemathesis.deserializer("application/x-ndjson")
def read_lines(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """Check all lines of a stream but the last, which is returned to be checked like any answer. A file is a text."""
    media = context.operation.definition.raw["responses"]["200"]["content"].get("application/x-ndjson")
    if media is None:
        return response.text
    assert response.content.endswith(b"\n"), "the last line was cut"
    lines = [json.loads(line) for line in response.content.splitlines()]
    assert [list(line) for line in lines[:-1]] == [["result"]] * (len(lines) - 1)
    assert list(lines[-1]) in (["error"], ["result", "done"]), "the stream has no end"
    for line in lines[:-1]:
        _Document(context.operation.schema.raw_schema).validator(media["schema"]).validate(line)
    return lines[-1]


@schemathesis.hook
def after_call(_: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Remember which sessions were brought back after they were deleted."""
    if case.path.endswith(":undelete") and response.status_code == 200:
        _undeleted.add(case.path_parameters["sessionId"])


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Keep a failure, unless it is one of the three kinds that are none."""
    if isinstance(failure, UseAfterFree):
        return case.path_parameters["sessionId"] not in _undeleted
    if isinstance(failure, RejectedPositiveData):
        return not _is_refused_for_what_no_schema_says(response.json())
    if isinstance(failure, AcceptedNegativeData):
        return not (response.status_code in _TOO_LARGE or _is_valid_in_other_words(case))
    return True


def _is_refused_for_what_no_schema_says(status: Any) -> bool:
    violations = [violation for detail in status["details"] for violation in detail.get("fieldViolations", ())]
    return bool(violations) and all(
        re.fullmatch(_REFUSALS.get(violation["field"], r"(?!)"), violation["description"]) for violation in violations
    )


def _is_valid_in_other_words(case: schemathesis.Case) -> bool:
    document, operation = _Document(case.operation.schema.raw_schema), case.operation.definition.raw
    texts = {("path", name): text for name, text in (case.path_parameters or {}).items()}
    texts |= {("query", name): text for name, text in (case.query or {}).items()}
    for parameter in operation.get("parameters", ()):
        text = texts.pop((parameter["in"], parameter["name"]), None)
        if text is not None and not document.has_text(text, parameter["schema"]):
            return False
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {"schema": {"not": {}}})
    return not texts and (case.body is NOT_SET or document.has(case.body, body["schema"]))


class _Document:
    """Schemas of an OpenAPI document, and values in the spelling that they describe."""

    def __init__(self, document: Any) -> None:
        self._document = document

    def validator(self, schema: Any) -> OAS31Validator:
        """Return what checks values against a schema of the document."""
        return OAS31Validator({**schema, "components": self._document["components"]})

    def has(self, value: Any, schema: Any) -> bool:
        """Whether a JSON value is one of the schema's, in any spelling."""
        return self.validator(schema).is_valid(self.canonical(value, schema))

    def has_text(self, text: Any, schema: Any) -> bool:
        """Whether a parameter is one of the schema's values, as it stands in a URL."""
        resolved = self._resolved(schema)
        if resolved.get("type") == "boolean":
            return str(text) in _BOOLS
        if ("enum" in resolved or resolved.get("type") == "integer") and _DECIMAL.fullmatch(str(text)):
            return self.has(int(text), schema)
        return self.has(text, schema)

    def canonical(self, value: Any, schema: Any) -> Any:
        """Return a JSON value without nulls for absent fields, quoted numbers and numbers of enum values."""
        schema = self._resolved(schema)
        kind = schema.get("type")
        if "enum" in schema and type(value) is int and 0 <= value < len(schema["enum"]):
            return schema["enum"][value]
        if kind in ("integer", "number") and type(value) is str and _NUMBER.fullmatch(value):
            return json.loads(value)
        if kind == "array" and isinstance(value, list):
            return [self.canonical(item, schema["items"]) for item in value]
        if kind == "object" and isinstance(value, dict):
            fields, required = schema.get("properties", {}), schema.get("required", ())
            others = schema.get("additionalProperties") or {}
            return {
                name: self.canonical(item, fields.get(name, others))
                for name, item in value.items()
                if not (item is None and name in fields and name not in required)
            }
        return value

    def _resolved(self, schema: Any) -> Any:
        reference = schema.get("$ref")
        return self._document["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema
