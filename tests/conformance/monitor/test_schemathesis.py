"""The monitor's OpenAPI document is true: schemathesis asks what it allows and what it does not, and every answer fits it."""

import json
from collections import Counter

import pytest
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

from clipdrift_monitor.api.openapi import document

pytestmark = [pytest.mark.system, pytest.mark.slow]
SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KNOWN = {"known": True, "anything": False}
AUTH = {"authorization": "Bearer the-api-token"}
EXAMPLES = 25


@pytest.fixture(scope="module")
def session():
    with requests.Session() as made:
        made.trust_env = False
        yield made


@pytest.fixture(scope="module")
def names(monitor):
    """What is known, by the name of its place in an address."""
    return {"model": "pump", "incident_id": json.loads(monitor.get("/api/v1/incidents")[1])["items"][0]["incident_id"]}


def checked_answer(monitor, session, case, headers=None):
    """The answer to a case, held against the document."""
    asked = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{monitor.config['port']}")
    asked["headers"] = {**(asked.get("headers") or {}), **(headers or {})}
    answer = session.request(**asked, timeout=30, allow_redirects=False)
    case.validate_response(answer, checks=CHECKS)
    return answer


def named(operation, names):
    """The path parameters of an operation."""
    return {name: value for name, value in names.items() if "{" + name + "}" in operation.path}


def places_and_modes():
    """What is known and anything else; what is allowed and, where anything can be wrong, what is not."""
    for label, operation in OPERATIONS.items():
        is_asked_with = any(one["in"] == "query" for one in operation.definition.raw.get("parameters", ()))
        can_be_wrong = is_asked_with or label.startswith("POST")  # a name in an address never is
        for place in KNOWN if "{" in operation.path else ["anything"]:
            for mode in schemathesis.GenerationMode:
                if mode.is_positive or can_be_wrong:
                    yield pytest.param(label, place, mode, id=f"{label} {place} {mode.value}")


@pytest.mark.parametrize(("label", "place", "mode"), list(places_and_modes()))
def test_whatever_is_asked_the_answer_is_one_of_the_document(monitor, session, names, label, place, mode):
    operation = OPERATIONS[label]
    statuses = Counter()

    @given(operation.as_strategy(mode, path_parameters=named(operation, names) or None if KNOWN[place] else None))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(case):
        statuses[checked_answer(monitor, session, case, AUTH).status_code] += 1

    ask()
    assert statuses
    assert max(statuses) < 500


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("GET")])
def test_a_right_question_is_answered_as_the_document_says(monitor, session, names, label):
    operation = OPERATIONS[label]

    assert checked_answer(monitor, session, operation.Case(path_parameters=named(operation, names))).status_code == 200


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("POST")])
def test_an_order_without_the_token_is_refused_as_the_document_says(monitor, session, names, label):
    operation = OPERATIONS[label]
    case = operation.Case(path_parameters=named(operation, names), body={"reason": "why"}, media_type="application/json")

    assert checked_answer(monitor, session, case).status_code == 401
