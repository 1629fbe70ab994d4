"""The OpenAPI document of the data listener, so that tools can read what it takes and gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from clipdrift_serving.dataplane.description import VERSION
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES
from clipdrift_serving.rest.ingest import TYPES
from clipdrift_serving.rest.uploads import CSV_TYPE, NDJSON_TYPES

Json = dict[str, Any]

_NAME_PATTERN = "^[A-Za-z0-9_.-]{1,64}$"
_WORDS: dict[int, str] = {
    400: "What was sent is wrong; the message says what, what came, and what is allowed",
    401: "An API key is missing, unknown or expired",
    403: "The API key may not do this",
    404: "There is no such model, version or address",
    405: "The address is asked for with another method; the header Allow names it",
    408: "The head or the body did not arrive in time",
    413: "The body, or its number of rows, is larger than allowed",
    415: "An encoding or a media type that is not known",
    422: "The model has no finite answer to these inputs",
    429: "Too many requests of this client; the header Retry-After says when to try again",
    431: "The first line or the headers are longer than allowed",
    500: "A fault inside the server; it is in its log",
    503: "Busy, or not in service now; the header Retry-After says when to try again, where that is known",
}
_OF_ALL = (400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503)
_MODEL = "/v2/models/{model}"
_VERSIONED = "/v2/models/{model}/versions/{version}"


def document() -> Json:
    """The document, OpenAPI 3.1.

    Example:
        >>> sorted(document()["paths"])[:3]
        ['/v1/ingest', '/v2', '/v2/health/live']
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clipdrift serving",
            "version": VERSION,
            "description": "The Open Inference Protocol v2, with a receipt for each prediction and labels that come back.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "responses": {f"e{status}": _error(status, words) for status, words in _WORDS.items()},
            "parameters": _parameters(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, where the server asks for one."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def document_bytes() -> bytes:
    """The document as it goes out."""
    return orjson.dumps(document())


# --- addresses --------------------------------------------------------------------------------------------------------------


def _paths() -> Json:
    paths: Json = {
        "/v2": {"get": _read("server", "What the server is", "ServerMetadata")},
        "/v2/health/live": {"get": _read("live", "Whether the process answers", "Live")},
        "/v2/health/ready": {
            "get": _operation(
                "ready",
                "Whether every model that was announced is in service",
                {"200": _json("Ready", "It is"), "503": _json("ReadyOrError", "It is not, or the server is too busy to say")},
            )
        },
        "/v2/openapi.json": {
            "get": _operation("openapi", "This document", {"200": _json("OpenApi", "This document")}),
        },
        "/v2/models/stats": {
            "get": _read("allStatistics", "What all models did, as Triton's clients ask for it", "Statistics")
        },
        "/v1/ingest": {"post": _ingest()},
    }
    for prefix, suffix in ((_MODEL, ""), (_VERSIONED, "Version")):
        shared = [{"$ref": f"#/components/parameters/{name}"} for name in ("model", "version") if "{" + name + "}" in prefix]
        of_model = {
            "": {"get": _read(f"metadata{suffix}", "What the model takes and gives", "ModelMetadata")},
            "/ready": {"get": _read(f"modelReady{suffix}", "Whether the model is in service", "ModelReady")},
            "/config": {"get": _read(f"config{suffix}", "How the model is run, as Triton's clients ask for it", "ModelConfig")},
            "/stats": {"get": _read(f"statistics{suffix}", "What the model did, as Triton's clients ask for it", "Statistics")},
            "/infer": {"post": _infer(suffix)},
        }
        paths |= {prefix + rest: {"parameters": shared, **item} for rest, item in of_model.items()}
    shared = [{"$ref": "#/components/parameters/model"}]
    paths[f"{_MODEL}/feedback"] = {"parameters": shared, "post": _feedback()}
    paths[f"{_MODEL}/labels"] = {"parameters": shared, "post": _labels()}
    return paths


def _operation(name: str, summary: str, answers: Json, **more: Any) -> Json:
    others = {str(status): {"$ref": f"#/components/responses/e{status}"} for status in _OF_ALL}
    return {"operationId": name, "summary": summary, **more, "responses": others | answers}


def _read(name: str, summary: str, schema: str) -> Json:
    return _operation(name, summary, {"200": _json(schema, summary)})


def _infer(suffix: str) -> Json:
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    length = {
        "description": "Bytes of JSON at the beginning of the body; binary tensors follow.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer = _json("InferResponse", "Outputs, and a receipt for each row")
    answer["content"]["application/octet-stream"] = binary
    answer["headers"] = {"Inference-Header-Content-Length": length}
    header = {"name": "Inference-Header-Content-Length", "in": "header", "required": False, **length}
    content = {"application/json": _schema("InferRequest"), "application/octet-stream": binary}
    return _operation(
        f"infer{suffix}",
        "Ask for predictions",
        {"200": answer, "422": {"$ref": "#/components/responses/e422"}},
        parameters=[header, {"$ref": "#/components/parameters/contentEncoding"}],
        requestBody={"required": True, "content": content},
    )


def _feedback() -> Json:
    return _operation(
        "feedback",
        "Hand in labels, by receipt or by the caller's own request id",
        {"200": _json("FeedbackResponse", "What was accepted; a label that is sent again is accepted again and counted once")},
        parameters=[{"$ref": "#/components/parameters/contentEncoding"}],
        requestBody={"required": True, "content": {"application/json": _schema("FeedbackRequest")}},
    )


def _labels() -> Json:
    lines = {"schema": {"type": "string"}, "example": '{"receipt": "AQAA...", "label": "worn"}\n'}
    table = {"schema": {"type": "string"}, "example": "receipt,label,label_time\nAQAA...,worn,2026-11-25T10:00:00Z\n"}
    return _operation(
        "uploadLabels",
        "Hand in labels in bulk",
        {"200": _json("UploadResponse", "What was accepted; each line that was not, with its number")},
        parameters=[{"$ref": "#/components/parameters/contentEncoding"}],
        requestBody={"required": True, "content": {CSV_TYPE: table, NDJSON_TYPES[0]: lines}},
    )


def _ingest() -> Json:
    attributes = [
        {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}
        for name, words in (
            ("Ce-Type", f"In binary mode: {' or '.join(TYPES)}."),
            ("Ce-Id", "In binary mode: the same for a request and its answer."),
            ("Ce-Inferenceservicename", "In binary mode: the model."),
            ("Ce-Endpoint", "In binary mode: the version, where the answer does not say one."),
            ("Ce-Time", "In binary mode: when it was asked, ISO 8601."),
        )
    ]
    event = _schema("CloudEvent")
    content = {
        "application/json": {"schema": {"type": "object", "description": "Binary mode: a payload, V1 or V2."}},
        "application/cloudevents+json": event,
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": event["schema"]}},
    }
    return _operation(
        "ingest",
        "What a model served elsewhere was asked and answered, as KServe's payload logger sends it",
        {"200": _json("IngestResponse", "What became of it")},
        parameters=attributes,
        requestBody={"required": True, "content": content},
    )


def _schema(name: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _json(name: str, words: str) -> Json:
    return {"description": words, "content": {"application/json": _schema(name)}}


def _error(status: int, words: str) -> Json:
    answer = _json("Error", words)
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}
    if status == 405:
        answer["headers"] = {"Allow": {"description": "The methods that would do.", "schema": {"type": "string"}}}
    return answer


def _parameters() -> Json:
    name = {"type": "string", "pattern": _NAME_PATTERN}
    return {
        "model": {"name": "model", "in": "path", "required": True, "schema": name},
        "version": {"name": "version", "in": "path", "required": True, "schema": name},
        "contentEncoding": {
            "name": "Content-Encoding",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["identity", "gzip", "deflate"]},
        },
    }


# --- schemas ----------------------------------------------------------------------------------------------------------------

_STRING: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_PARAMETERS: Json = {"$ref": "#/components/schemas/Parameters"}


def _list_of(schema: Mapping[str, Any] | str) -> Json:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema}


def _object(required: Sequence[str], **properties: Any) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas() -> Json:
    datatype = {"type": "string", "enum": [*DTYPES, BYTES]}
    sizes = _list_of({"type": "integer", "minimum": 1})
    return {
        "Error": _object(["error"], error=_STRING),
        "Live": _object(["live"], live={"type": "boolean"}),
        "Ready": _object(["ready"], ready={"type": "boolean"}),
        "ReadyOrError": {"anyOf": [{"$ref": "#/components/schemas/Ready"}, {"$ref": "#/components/schemas/Error"}]},
        "ModelReady": _object(["name", "ready"], name=_STRING, ready={"type": "boolean"}),
        "OpenApi": _object(["openapi", "paths"], openapi=_STRING, paths={"type": "object"}),
        "ServerMetadata": _object(
            ["name", "version", "extensions"], name=_STRING, version=_STRING, extensions=_list_of(_STRING)
        ),
        "TensorMetadata": _object(
            ["name", "datatype", "shape"],
            name=_STRING,
            datatype=datatype,
            shape={"description": "-1 where any size will do.", **_list_of({"type": "integer", "minimum": -1})},
        ),
        "ModelMetadata": _object(
            ["name", "platform", "inputs", "outputs"],
            name=_STRING,
            versions=_list_of(_STRING),
            platform=_STRING,
            inputs=_list_of("TensorMetadata"),
            outputs=_list_of("TensorMetadata"),
            parameters=_PARAMETERS,
        ),
        "ModelConfig": _object(["name", "platform"], name=_STRING, platform=_STRING, max_batch_size=_COUNT),
        "Statistics": _object(["model_stats"], model_stats=_list_of({"type": "object"})),
        "Parameters": {"type": "object", "description": "Values by name."},
        "TensorData": {
            "description": "Values in row-major order, flat or nested; null is NaN in a tensor of floats.",
            "type": "array",
            "items": {
                "anyOf": [
                    {"$ref": "#/components/schemas/TensorData"},
                    {"type": ["number", "string", "boolean", "null"]},
                ]
            },
        },
        "RequestInput": _object(
            ["name", "shape", "datatype"],
            name=_STRING,
            shape=sizes,
            datatype=datatype,
            data={"$ref": "#/components/schemas/TensorData"},
            parameters={**_PARAMETERS, "description": "`binary_data_size`: bytes of this tensor behind the JSON."},
        ),
        "RequestOutput": _object(["name"], name=_STRING, parameters=_PARAMETERS),
        "InferRequest": _object(
            ["inputs"],
            id=_STRING,
            inputs=_list_of("RequestInput"),
            outputs=_list_of("RequestOutput"),
            parameters={
                **_PARAMETERS,
                "description": "`event_time_ms`: when it happened, one number or one a row; `key`: requests of one key get the "
                "same version while a canary runs; `binary_data_output`: answer in binary.",
            },
        ),
        "ResponseOutput": _object(
            ["name", "shape", "datatype"],
            name=_STRING,
            shape=_list_of(_COUNT),
            datatype=datatype,
            data={"$ref": "#/components/schemas/TensorData"},
            parameters=_PARAMETERS,
        ),
        "InferResponse": _object(
            ["model_name", "model_version", "outputs", "parameters"],
            id=_STRING,
            model_name=_STRING,
            model_version=_STRING,
            outputs=_list_of("ResponseOutput"),
            parameters=_object(
                ["receipts", "role", "generation"],
                receipts=_list_of(_STRING),
                more_receipts={"type": "object", "additionalProperties": _list_of(_STRING)},
                role={"type": "string", "enum": ["champion", "canary"]},
                generation=_COUNT,
            ),
        ),
        **_label_schemas(),
        "CloudEvent": _object(
            ["type", "id", "inferenceservicename"],
            specversion=_STRING,
            type={"type": "string", "enum": list(TYPES)},
            id={"type": "string", "minLength": 1, "maxLength": 256},
            source=_STRING,
            time={"type": "string", "format": "date-time"},
            inferenceservicename={"type": "string", "pattern": _NAME_PATTERN},
            namespace=_STRING,
            component=_STRING,
            endpoint=_STRING,
            data={"description": "The payload, V1 or V2."},
            data_base64=_STRING,
        ),
        "IngestResponse": _object(["accepted"], accepted=_COUNT, predictions=_COUNT, receipts=_list_of(_STRING)),
    }


def _label_schemas() -> Json:
    labels = _list_of({"description": "A class name, a class index or a number.", "type": ["string", "number", "boolean"]})
    given: Json = {"labels": labels, "label_times_ms": _list_of({"type": "integer"})}
    rejected: Json = {"reason": _STRING, "message": _STRING}
    return {
        "FeedbackRequest": {
            "description": "Lists of one length.",
            "anyOf": [
                _object(["receipts", "labels"], receipts=_list_of(_STRING), **given),
                _object(["request_ids", "labels"], request_ids=_list_of(_STRING), rows=_list_of(_COUNT), **given),
            ],
        },
        "FeedbackResponse": _object(
            ["accepted", "rejected"],
            accepted=_COUNT,
            rejected=_list_of(_object(["index", "reason", "message"], index=_COUNT, **rejected)),
        ),
        "UploadResponse": _object(
            ["accepted", "rejected", "num_rejected"],
            accepted=_COUNT,
            rejected=_list_of(_object(["line", "reason", "message"], line={"type": "integer", "minimum": 1}, **rejected)),
            num_rejected={**_COUNT, "description": "Of all lines; `rejected` tells the first thousand."},
        ),
    }
