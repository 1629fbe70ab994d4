"""The monitor's OpenAPI document is true: schemathesis asks what it allows and what it does not, and every answer fits it."""

import json

import pytest
import schemathesis
from openapi_answers import checked_answer, named, operations_of, statuses_of

from clipdrift_monitor.api.openapi import document

pytestmark = [pytest.mark.system, pytest.mark.slow]
OPERATIONS = operations_of(document())
KNOWN = {"known": True, "anything": False}
AUTH = {"authorization": "Bearer the-api-token"}
EXAMPLES = 25


@pytest.fixture(scope="module")
def names(monitor):
    """What is known, by the name of its place in an address."""
    listed = {kind: json.loads(monitor.get(f"/api/v1/{kind}")[1])["items"] for kind in ("incidents", "approvals")}
    return {
        "model": "pump", "incident_id": listed["incidents"][0]["incident_id"],
        "approval_id": listed["approvals"][0]["approval_id"],
        "key": json.loads(monitor.get("/api/v1/models/pump/retrains")[1])["items"][0]["key"],
    }  # fmt: skip


def asked(monitor, session, case, headers=None):
    return checked_answer(monitor.config["port"], session, case, headers)


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
    parameters = named(operation, names) or None if KNOWN[place] else None

    statuses = statuses_of(operation, mode, parameters, EXAMPLES, lambda case: asked(monitor, session, case, AUTH))

    assert statuses
    assert max(statuses) < 500


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("GET")])
def test_a_right_question_is_answered_as_the_document_says(monitor, session, names, label):
    operation = OPERATIONS[label]

    assert asked(monitor, session, operation.Case(path_parameters=named(operation, names))).status_code == 200


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label.startswith("POST")])
def test_an_order_without_the_token_is_refused_as_the_document_says(monitor, session, names, label):
    operation = OPERATIONS[label]
    case = operation.Case(path_parameters=named(operation, names), body={"reason": "why"}, media_type="application/json")

    assert asked(monitor, session, case).status_code == 401
