"""The OpenAPI document: section 10 of the transcoding rules."""

import json
from typing import Any

import pytest
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.status_pb2 import Status
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from service.rest.openapi import Document
from service.rest.rules import rules_of
from service.rest.schemas import Schemas, Way
from tests.rest.kit import compiled, gallery, service_with


def document_of(service: Any, **options: Any) -> Any:
    rules = rules_of([service], uploads=True)
    return json.loads(Document(rules, title="T", version="1", **options).json())


@pytest.fixture(scope="module")
def document() -> Any:
    return document_of(gallery(), source_info=compiled("gallery.proto"))


def operations(document: Any) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }


def test_is_valid(document: Any) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"


def test_is_valid_without_comments_and_when_lenient() -> None:
    validate(document_of(gallery(), lenient=True))
    validate(document_of(service_with(HttpRule(get="/a/{parent.parent.name=**}"), HttpRule(get="/b"))))


def test_is_the_same_every_time() -> None:
    rules = rules_of([gallery()])
    first, second = (Document(rules, title="T", version="1", source_info=compiled("gallery.proto")) for _ in range(2))
    assert first.json() == second.json()


def test_has_every_binding_that_openapi_can_name(document: Any) -> None:
    expected = [rule for rule in rules_of([gallery()]) if rule.http_method != "*"]
    assert len(operations(document)) == len(expected)


def test_operation_ids_name_service_method_and_binding(document: Any) -> None:
    ids = operations(document)
    assert {"Gallery_GetThing", "Gallery_GetThing_2", "Gallery_Watch", "Gallery_Watch_2"} <= set(ids)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param("/v1/things/{id}", ["id"], id="variable"),
        pytest.param("/v1/things/{id}:cancel", ["id"], id="verb"),
        pytest.param("/v1/shelves/{shelve}/books/{book}", ["shelve", "book"], id="pattern-is-spelled-out"),
        pytest.param("/v1/parents/{parent.name}/things", ["parent.name"], id="dotted"),
        pytest.param("/v1/numbers/{int32Value}", ["int32Value"], id="json-name"),
        pytest.param("/v1/files/{stringValue}", ["stringValue"], id="many"),
        pytest.param("/v1/any/{path}/tail", ["path"], id="many-without-a-name"),
    ],
)
def test_paths(document: Any, path: str, names: list[str]) -> None:
    for operation in document["paths"][path].values():
        parameters = [parameter for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert [parameter["name"] for parameter in parameters] == names
        assert all(parameter["required"] for parameter in parameters)


def test_many_segments_are_marked(document: Any) -> None:
    parameters = document["paths"]["/v1/files/{stringValue}"]["get"]["parameters"]
    assert parameters[0]["x-multi-segment"] is True


def test_templates_that_differ_in_names_share_a_path() -> None:
    made = document_of(service_with(HttpRule(get="/a/{id}"), HttpRule(post="/a/{string_value}", body="*")))
    assert list(made["paths"]) == ["/a/{id}"]
    assert list(made["paths"]["/a/{id}"]) == ["get", "post"]
    validate(made)


def test_wildcards_get_names_of_their_own() -> None:
    made = document_of(service_with(HttpRule(get="/a/*/b/*"), HttpRule(get="/c/{id=x/*/*}")))
    assert list(made["paths"]) == ["/a/{segment}/b/{segment2}", "/c/x/{x}/{id}"]
    validate(made)


def test_query_parameters(document: Any) -> None:
    parameters = {parameter["name"]: parameter for parameter in document["paths"]["/v1/things"]["get"]["parameters"]}
    assert parameters["int64Value"]["schema"] == {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
    assert parameters["strings"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert parameters["kind"]["schema"] == {"$ref": "#/components/schemas/Kind"}
    assert parameters["parent.name"]["description"] == "Its name."
    assert parameters["timeValue"]["schema"]["format"] == "date-time"
    assert parameters["old"]["deprecated"] is True
    assert "other-name" in parameters
    assert not {"outputOnly", "labels", "value", "parents", "any", "parent"} & set(parameters)


def test_query_parameters_leave_out_what_path_and_body_have(document: Any) -> None:
    operation = document["paths"]["/v1/in/{id}"]["post"]
    names = [parameter["name"] for parameter in operation["parameters"]]
    assert names.count("id") == 1
    assert not [name for name in names if name.startswith("parent")]
    assert "parameters" not in document["paths"]["/v1/things"]["post"]


def test_bodies(document: Any) -> None:
    whole = document["paths"]["/v1/things"]["post"]["requestBody"]["content"]["application/json"]
    assert whole["schema"] == {"$ref": "#/components/schemas/Thing.Input"}
    less = document["paths"]["/v1/things/{id}"]["post"]["requestBody"]["content"]["application/json"]
    assert less["schema"] == {"$ref": "#/components/schemas/Thing.Input.Without.id"}
    assert "id" not in document["components"]["schemas"]["Thing.Input.Without.id"]["properties"]
    field = document["paths"]["/v1/list/{id}"]["post"]
    assert field["requestBody"]["content"]["application/json"]["schema"]["type"] == "array"
    assert field["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "array"
    assert document["paths"]["/v1/upload"]["post"]["requestBody"]["content"] == {"*/*": {}}


def test_what_is_sent_and_what_is_received(document: Any) -> None:
    schemas = document["components"]["schemas"]
    sent, received = schemas["Thing.Input"], schemas["Thing"]
    assert "outputOnly" not in sent["properties"]
    assert "inputOnly" not in received["properties"]
    assert sent["properties"]["inputOnly"]["writeOnly"] is True
    assert received["properties"]["outputOnly"]["readOnly"] is True
    assert sent["additionalProperties"] is False
    assert "int32Value" in received["required"]
    assert "parent" not in received["required"]
    assert "Part" not in schemas, "nothing refers to it"


def test_types(document: Any) -> None:
    properties = document["components"]["schemas"]["Thing"]["properties"]
    expected = {
        "int32Value": {"type": "integer", "format": "int32"},
        "uint64Value": {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
        "boolValue": {"type": "boolean"},
        "bytesValue": {"type": "string", "format": "byte", "contentEncoding": "base64"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "byNumber": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Parent"}},
        "int64Wrapper": {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"},
        "value": {},
        "nullValue": {"type": "null"},
        "thing": {"$ref": "#/components/schemas/Thing"},
    }
    assert {name: properties[name] for name in expected} == expected


def test_oneofs(document: Any) -> None:
    sent = document["components"]["schemas"]["Parent.Input"]
    assert sent["allOf"] == [{"not": {"required": ["left", "right"]}}]
    assert "At most one of `left`, `right`." in sent["description"]


def test_comments(document: Any) -> None:
    assert document["tags"] == [{"name": "Gallery", "description": "Shows things."}]
    operation = document["paths"]["/v1/things/{id}"]["get"]
    assert operation["summary"] == "Gets a thing"
    assert operation["description"] == "Gets a thing. Nothing else.\n\nAt length."
    kind = document["components"]["schemas"]["Kind"]
    assert kind["enum"] == ["KIND_UNSPECIFIED", "SMALL", "LARGE", "NEGATIVE"]
    assert kind["description"] == "What a thing can be.\n\n- `KIND_UNSPECIFIED`: Not known.\n- `SMALL`: A small one."
    assert document["components"]["schemas"]["Thing"]["description"].startswith("All kinds of fields.")


def test_errors(document: Any) -> None:
    assert all(
        operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
        for operation in operations(document).values()
    )
    error = document["components"]["responses"]["Error"]
    assert error["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Status"}
    assert "| 404 | 5 | NOT_FOUND |" in error["description"]


def test_streams(document: Any) -> None:
    responses = document["paths"]["/v1/watch"]["get"]["responses"]
    content = responses["200"]["content"]
    assert set(content) == {"text/event-stream", "application/x-ndjson"}
    assert content["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/Event"}
    assert content["application/x-ndjson"]["schema"] == {"$ref": "#/components/schemas/Event.Line"}
    assert [list(form["properties"]) for form in document["components"]["schemas"]["Event.Line"]["anyOf"]] == [
        ["result"],
        ["error"],
        ["result", "done"],
    ]
    assert "event: done" in responses["200"]["description"]
    assert "204" in responses
    assert document["paths"]["/v1/watch/file"]["get"]["responses"]["200"]["content"].keys() == {"*/*"}


def test_3_2_describes_one_record() -> None:
    made = document_of(gallery(), openapi_version="3.2.0")
    content = made["paths"]["/v1/watch"]["get"]["responses"]["200"]["content"]
    assert made["openapi"] == "3.2.0"
    assert [list(form) for form in content.values()] == [["itemSchema"], ["itemSchema"]]


def test_literals_stay_encoded() -> None:
    assert list(document_of(service_with(HttpRule(get="/a%2Fb:c")))["paths"]) == ["/a%2Fb:c"]


def test_examples_can_be_given() -> None:
    made = document_of(gallery(), examples={"gallery.v1.Gallery.CreateThing": {"id": "x"}})
    assert made["paths"]["/v1/things"]["post"]["requestBody"]["content"]["application/json"]["example"] == {"id": "x"}


def test_an_example_leaves_out_what_stands_in_the_path() -> None:
    service = service_with(HttpRule(post="/a/{id}", body="*"))
    made = document_of(service, examples={"made.Made.M0": {"id": "x", "old": "y"}})
    body = made["paths"]["/a/{id}"]["post"]["requestBody"]
    assert body["content"]["application/json"]["example"] == {"old": "y"}


def test_examples_are_valid(document: Any) -> None:
    bodies = [op["requestBody"]["content"] for op in operations(document).values() if "requestBody" in op]
    media = [content["application/json"] for content in bodies if "application/json" in content]
    for one in media:
        OAS31Validator({**one["schema"], "components": document["components"]}).validate(one["example"])
    assert media


def test_types_are_named_in_full_where_two_have_one_name() -> None:
    pool = DescriptorPool()
    pool.Add(FileDescriptorProto(name="x.proto", package="x", message_type=[DescriptorProto(name="Status")]))
    ours, theirs = pool.FindMessageTypeByName("x.Status"), Status.DESCRIPTOR
    schemas = Schemas([ours], [theirs], {})
    assert schemas.message(ours, Way.IN) == {"$ref": "#/components/schemas/x.Status"}
    assert schemas.message(theirs, Way.OUT) == {"$ref": "#/components/schemas/google.rpc.Status"}
    assert schemas.components().keys() == {"x.Status", "google.rpc.Status"}


def test_what_a_field_may_hold_can_be_given() -> None:
    constraints = {"gallery.v1.Thing.id": {"pattern": "^[a-z]+$"}, "gallery.v1.Thing.strings": {"maxItems": 2}}
    made = document_of(gallery(), constraints=constraints)
    sent, received = (made["components"]["schemas"][name]["properties"] for name in ("Thing.Input", "Thing"))
    assert sent["id"]["pattern"] == made["paths"]["/v1/things/{id}"]["get"]["parameters"][0]["schema"]["pattern"]
    assert (sent["strings"]["maxItems"], sent["strings"]["type"]) == (2, "array")
    assert "pattern" not in received["id"], "what is received may grow"
    validate(made)


def test_what_is_not_served_is_told() -> None:
    unserved = {"gallery.v1.Gallery.GetThing", "gallery.v1.Thing.bool_value"}
    made = document_of(gallery(), unserved=unserved)
    assert made["paths"]["/v1/things/{id}"]["get"]["responses"].keys() == {"501", "default"}
    assert "boolValue" not in made["components"]["schemas"]["Thing.Input"]["properties"]
    assert "boolValue" in made["components"]["schemas"]["Thing"]["properties"]
    assert "boolValue" not in {parameter["name"] for parameter in made["paths"]["/v1/things"]["get"]["parameters"]}
    validate(made)


def test_every_reference_leads_somewhere(document: Any) -> None:
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["$ref"]] if "$ref" in value else [])
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(document)
    for reference in found:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    assert found
