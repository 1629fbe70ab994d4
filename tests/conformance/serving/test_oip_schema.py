"""Real answers fit the JSON schemas of the Open Inference Protocol, written here anew from its text (inference_rest.md)."""

import json

import jsonschema
import numpy as np
import pytest
from echo_model import TYPES
from serving_process import INPUTS

pytestmark = pytest.mark.system

DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]
STRING = {"type": "string"}


def fields(required, **properties):
    return {"type": "object", "required": required.split(), "properties": properties}


def many(schema):
    return {"type": "array", "items": schema}


TENSOR = {"name": STRING, "datatype": {"enum": DATATYPES}, "shape": many({"type": "integer"})}
METADATA_TENSOR = fields("name datatype shape", **TENSOR)
TENSOR_DATA = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/data"}, {"type": ["number", "string", "boolean"]}]}}
SCHEMAS = {
    "server": fields("name version extensions", name=STRING, version=STRING, extensions=many(STRING)),
    "live": fields("live", live={"type": "boolean"}),
    "ready": {"type": "object"},  # the text says `live`, KServe's client reads `ready`; each is a boolean where it is given
    "model_ready": fields("name ready", name=STRING, ready={"type": "boolean"}),
    "model": fields(
        "name platform inputs outputs",
        name=STRING, versions=many(STRING), platform=STRING, inputs=many(METADATA_TENSOR), outputs=many(METADATA_TENSOR),
    ),
    "response": fields(
        "model_name outputs",
        model_name=STRING, model_version=STRING, id=STRING, parameters={"type": "object"},
        outputs=many(fields("name shape datatype data", **TENSOR, data={"$ref": "#/$defs/data"})),
    ),
    "error": fields("error", error={"type": "string", "minLength": 1}),
}  # fmt: skip


def fits(name, body):
    value = json.loads(body)
    jsonschema.Draft202012Validator({**SCHEMAS[name], "$defs": {"data": TENSOR_DATA}}).validate(value)
    return value


def test_the_schemas_are_schemas_and_turn_down_what_is_wrong():
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        fits("response", '{"model_name": "m", "outputs": [{"name": "p", "shape": [1], "datatype": "FLOAT", "data": [1]}]}')
    with pytest.raises(jsonschema.ValidationError):
        fits("response", '{"model_name": "m", "outputs": [{"name": "p", "shape": [1], "datatype": "FP32", "data": [null]}]}')


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2", "server"), ("/v2/", "server"), ("/v2/health/live", "live"), ("/v2/health/ready", "ready"),
        ("/v2/models/toy", "model"), ("/v2/models/toy/versions/v1", "model"), ("/v2/models/echo", "model"),
        ("/v2/models/toy/ready", "model_ready"), ("/v2/models/toy/versions/v1/ready", "model_ready"),
    ],
)  # fmt: skip
def test_what_is_read_fits_the_protocol(server, path, name):
    status, body = server.get(path)

    assert status == 200
    fits(name, body)


@pytest.mark.parametrize("path", ["/v2/models/toy/infer", "/v2/models/toy/versions/v1/infer"])
def test_an_answer_fits_the_protocol_and_hands_the_id_back(server, path):
    body = json.dumps({"id": "42", "inputs": INPUTS, "outputs": [{"name": "probabilities"}]}).encode()

    status, answer = server.get(path, "POST", body)

    assert status == 200
    told = fits("response", answer)
    assert (told["id"], told["model_name"], told["model_version"]) == ("42", "toy", "v1")
    (output,) = told["outputs"]
    assert len(output["data"]) == np.prod(output["shape"])


def test_an_answer_of_every_datatype_fits_the_protocol(server):
    model = json.loads(server.get("/v2/models/echo")[1])
    inputs = []
    for one in model["inputs"]:
        shape = [2 if size < 0 else size for size in one["shape"]]
        value = {"BOOL": True, "BYTES": "word"}.get(one["datatype"], 1)
        inputs.append({"name": one["name"], "shape": shape, "datatype": one["datatype"], "data": [value] * int(np.prod(shape))})

    status, answer = server.get("/v2/models/echo/infer", "POST", json.dumps({"inputs": inputs}).encode())

    assert status == 200, answer
    told = fits("response", answer)
    assert {one["datatype"] for one in told["outputs"]} >= set(TYPES)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v2/models/other", None, 404),
        ("GET", "/v2/models/toy/versions/v9/ready", None, 404),
        ("GET", "/nowhere", None, 404),
        ("POST", "/v2/models/other/infer", b"{}", 404),
        ("POST", "/v2/models/toy/infer", b"{}", 400),
        ("POST", "/v2/models/toy/infer", b'{"inputs": []}', 400),
        ("PUT", "/v2/models/toy/infer", b"{}", 405),
    ],
)
def test_an_error_fits_the_protocol(server, method, path, body, status):
    got, answer = server.get(path, method, body)

    assert got == status
    fits("error", answer)
