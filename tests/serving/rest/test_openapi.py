"""The OpenAPI document says what the data listener really is; that answers fit it is shown by the conformance suite."""

import json
import re

import jsonschema
import pytest
import schemathesis
from toy_service import Service

from clipdrift_serving.dataplane.tensors import BYTES, DTYPES
from clipdrift_serving.rest.errors import STATUS_OF
from clipdrift_serving.rest.openapi import document, document_bytes

OPERATIONS = [(path, method) for path, item in document()["paths"].items() for method in item if method in ("get", "post")]


def test_the_document_is_valid_openapi():
    schemathesis.openapi.from_dict(document()).validate()


def test_every_reference_leads_somewhere():
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', document_bytes().decode()))
    assert len(references) > 20
    for reference in references:
        found = document()
        for part in reference.split("/"):
            found = found[part]


def test_every_schema_is_one_and_none_is_left_over():
    text = document_bytes().decode()
    for name, schema in document()["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in text, name


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_address_of_the_document_exists(service: Service, path, method):
    address = path.replace("{model}", "toy").replace("{version}", "v1")

    status, _, body = service.request(method.upper(), address, b"" if method == "get" else b"?")

    assert status in ((200, 503) if method == "get" else (400, 415)), body


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_another_method_is_refused_and_the_right_one_named(service: Service, path, method):
    address = path.replace("{model}", "toy").replace("{version}", "v1")

    status, headers, _ = service.request("DELETE", address)

    assert status == 405
    assert method.upper() in headers["allow"]


def test_every_status_that_a_fault_has_is_in_the_document():
    statuses = {status for path, method in OPERATIONS for status in document()["paths"][path][method]["responses"]}

    assert {str(status) for status in STATUS_OF.values()} <= statuses


def test_every_datatype_is_in_the_document():
    assert set(document()["components"]["schemas"]["RequestInput"]["properties"]["datatype"]["enum"]) == {*DTYPES, BYTES}


def test_the_server_hands_the_document_out(service: Service):
    status, headers, body = service.request("GET", "/v2/openapi.json")

    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == document()
