"""The OpenAPI document is true: schemathesis asks the server what it allows and what it does not, and every answer fits it."""

import json

import pytest
import schemathesis
from openapi_answers import checked_answer, named, operations_of, statuses_of
from serving_process import INPUTS

from clipdrift_serving.rest.openapi import document

pytestmark = [pytest.mark.system, pytest.mark.slow]
OPERATIONS = operations_of(document())
PLACES = {"nowhere": {}, "toy": {"model": "toy", "version": "v1"}}
EXAMPLES = 100


def places_and_modes():
    """A model that nobody knows and one in service; what is allowed and, where anything can be wrong, what is not."""
    for label, operation in OPERATIONS.items():
        has_model, has_body = "{model}" in operation.path, label.startswith("POST")
        for place in PLACES if has_model else ["nowhere"]:
            for mode in schemathesis.GenerationMode:
                if mode.is_positive or has_body or (has_model and place == "nowhere"):
                    yield pytest.param(label, place, mode, id=f"{label} {place} {mode.value}")


@pytest.mark.parametrize(("label", "place", "mode"), list(places_and_modes()))
def test_whatever_is_asked_the_answer_is_one_of_the_document(server, session, label, place, mode):
    operation = OPERATIONS[label]
    parameters = named(operation, PLACES[place]) or None

    statuses = statuses_of(operation, mode, parameters, EXAMPLES, lambda case: checked_answer(server.port, session, case))

    assert statuses
    assert max(statuses) < 500


def good_requests(server) -> dict[str, dict]:
    """A right request of each operation."""
    answer = server.infer()[1]
    receipts = answer["parameters"]["receipts"]
    event = {"specversion": "1.0", "source": "/", "id": "1", "inferenceservicename": "toy"}
    event |= {"type": "org.kubeflow.serving.inference.request", "data": {"instances": [{"x": 0.5, "y": 0.25, "carrier": "UA"}]}}
    infer = {"body": {"id": "7", "inputs": INPUTS}, "media_type": "application/json"}
    return {
        "POST /v1/ingest": {"body": event, "media_type": "application/cloudevents+json"},
        "POST /v2/models/{model}/infer": infer,
        "POST /v2/models/{model}/versions/{version}/infer": infer,
        "POST /v2/models/{model}/feedback": {
            "body": {"receipts": [*receipts, "forged"], "labels": [1, 1]},
            "media_type": "application/json",
        },
        "POST /v2/models/{model}/labels": {
            "body": f"receipt,label\n{receipts[0]},yes\nforged,no\nbad\n",
            "media_type": "text/csv",
        },
    }


@pytest.mark.parametrize("label", OPERATIONS)
def test_a_right_request_is_answered_as_the_document_says(server, session, label):
    given_more = good_requests(server).get(label, {})
    operation = OPERATIONS[label]
    case = operation.Case(path_parameters=named(operation, PLACES["toy"]), **given_more)

    answer = checked_answer(server.port, session, case)

    assert answer.status_code == 200
    told = json.loads(answer.content)
    if label.endswith("/feedback"):
        assert (told["accepted"], len(told["rejected"])) == (1, 1)
    if label.endswith("/labels"):
        assert (told["accepted"], [one["line"] for one in told["rejected"]]) == (1, [3, 4])
    if label.endswith("/infer"):
        assert (told["id"], len(told["parameters"]["receipts"])) == ("7", 1)
