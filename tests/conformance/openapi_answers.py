"""Asks a server what its OpenAPI document allows and what it does not, and holds every answer against the document."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def operations_of(document: dict[str, Any]) -> dict[str, Any]:
    """The operations of a document by "METHOD /path"."""
    schema = schemathesis.openapi.from_dict(document)
    return {one.ok().label: one.ok() for one in schema.get_all_operations()}


def named(operation: Any, names: Mapping[str, str]) -> dict[str, str]:
    """The path parameters of an operation."""
    return {name: value for name, value in names.items() if "{" + name + "}" in operation.path}


def checked_answer(
    port: int, session: requests.Session, case: schemathesis.Case, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """The answer to a case, held against the document. Schemathesis's own transport does not run on every urllib3."""
    asked = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{port}")
    asked["headers"] = {**(asked.get("headers") or {}), **(headers or {})}
    answer = session.request(**asked, timeout=30, allow_redirects=False)
    case.validate_response(answer, checks=CHECKS)
    return answer


def statuses_of(
    operation: Any,
    mode: schemathesis.GenerationMode,
    path_parameters: dict[str, str] | None,
    num_examples: int,
    ask: Callable[[schemathesis.Case], requests.Response],
) -> Counter[int]:
    """How often each status was answered to generated cases."""
    statuses: Counter[int] = Counter()

    @given(operation.as_strategy(mode, path_parameters=path_parameters))
    @settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def asked(case: schemathesis.Case) -> None:
        statuses[ask(case).status_code] += 1

    asked()
    return statuses
