"""The OpenAPI document, made of the table of operations, so that it can promise nothing that is not so."""

import re
from importlib.metadata import version
from typing import Any

import msgspec

from clipdrift_monitor.api.answers import Problem
from clipdrift_monitor.api.operations import MAX_ACTOR_CHARACTERS, MAX_REASON_CHARACTERS, OPERATIONS, Operation, Parameter

Json = dict[str, Any]
WORDS: dict[int, str] = {
    400: "What was asked with is wrong; the message says what, what came, and what is allowed",
    401: "Nobody known is asking",
    403: "The API key is not for this",
    404: "There is no such model, incident, approval or retrain; the message says how to find those there are",
    408: "The command did not arrive in time",
    409: "The command is refused; the message says why",
    413: "The command is larger than allowed",
    500: "A fault of the monitor; its log says how",
    503: "Store or bus are away, or the monitor did not come to it in time; nothing was done unless the message says so",
}
_OF_ALL = (400, 401, 403, 500, 503)


def document() -> Json:
    """The document, OpenAPI 3.1.

    Example:
        >>> sorted(document()["paths"])[:2]
        ['/api/v1/approvals', '/api/v1/approvals/{approval_id}']
    """
    types = [Problem, *(one.answer for one in OPERATIONS), *{one.body for one in OPERATIONS if one.body is not None}]
    references, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(repr, types), references, strict=True))
    for name in ("Order", "Until", "Feedback", "Look", "Agreement"):
        _bound(schemas[name]["properties"], may_be_silent=name == "Agreement")
    paths: Json = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clipdrift monitor",
            "version": version("clipdrift"),
            "description": "What the monitor knows of the models it watches, its incidents, and what people may order. Times "
            "are milliseconds since 1970 UTC, of the events and not of the wall clock.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                f"e{status}": {"description": words, "content": _content({"$ref": "#/components/schemas/Problem"})}
                for status, words in WORDS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The project's API token, or a key of the scope."}
            },
        },
    }


def _operation(one: Operation, by_type: dict[str, Json]) -> Json:
    statuses = sorted({*one.may_be, *_OF_ALL})
    made: Json = {
        "operationId": one.name,
        "summary": one.words,
        "tags": [one.scope or "process"],
        "security": [{"bearer": []}] if one.scope in ("respond", "operate", "approve", "report") else [{}, {"bearer": []}],
        "responses": {
            str(one.status): {"description": one.words, "content": _content(by_type[repr(one.answer)])},
            **{str(status): {"$ref": f"#/components/responses/e{status}"} for status in statuses},
        },
    }
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", one.path)
    ]
    if in_path or one.parameters:
        made["parameters"] = [*in_path, *map(_parameter, one.parameters)]
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": _content(by_type[repr(one.body)])}
    return made


def _parameter(one: Parameter) -> Json:
    schema: Json = {"type": "integer", "minimum": 0, "maximum": one.at_most} if one.is_number else {"type": "string"}
    schema |= {"enum": list(one.choices)} if one.choices else {}
    schema |= {"default": one.default} if one.default is not None else {}
    return {"name": one.name, "in": "query", "required": False, "description": one.words, "schema": schema}


def _bound(properties: Json, *, may_be_silent: bool = False) -> None:
    """What `orders` checks beyond the types; whether an answer to an approval needs a reason, the policy says."""
    if may_be_silent:
        properties["reason"] |= {"maxLength": MAX_REASON_CHARACTERS, "pattern": r"^[^\u0000]*$"}
    elif "reason" in properties:
        properties["reason"] |= {
            "minLength": 1,
            "maxLength": MAX_REASON_CHARACTERS,
            "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
        }
    properties["actor"] |= {"minLength": 1, "maxLength": MAX_ACTOR_CHARACTERS, "pattern": "^[ -~]+$"}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
