"""A model of several outputs: each that has a profile is answered with receipts of its own and labelled by them."""

import json

import numpy as np
import pytest
from dataplane import models
from toy_service import Service, deploy

METADATA = {"clipdrift.profile": models.BINARY, "clipdrift.profile.arrival.1": models.REGRESSION}
ASKED = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [0.5, 1.5, -1.0, 2.0]}]}


@pytest.fixture(params=["flights", "flights.eu"], ids=["plain name", "name with a dot"])
def named(request, tmp_path) -> tuple[Service, str]:
    service = Service()
    served = models.save(models.several(METADATA), tmp_path)
    assert service.repository.apply(deploy(served, model=request.param)) == "done"
    return service, request.param


def post(service: Service, path: str, body: dict | bytes, **headers: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = service.request("POST", path, content, headers)
    return status, json.loads(answer)


def test_each_head_has_its_receipts_its_record_and_its_labels(named):
    service, model = named
    status, answer = post(service, f"/v2/models/{model}/infer", ASKED)
    assert status == 200
    head = f"{model}.arrival.1"
    parameters = answer["parameters"]
    assert list(parameters["more_receipts"]) == [head]
    main, further = parameters["receipts"], parameters["more_receipts"][head]
    values = {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}
    assert [service.receipts.verify(token).predicted for token in further] == values["arrival"][:, 1].tolist()
    assert [service.receipts.verify(token).model for token in main] == [model, model]

    assert post(service, f"/v2/models/{head}/feedback", {"receipts": further, "labels": [7.5, 8.5]})[1]["accepted"] == 2
    assert post(service, f"/v2/models/{model}/feedback", {"receipts": main, "labels": ["yes", "no"]})[1]["accepted"] == 2
    labelled = {event.model: event.label.array().tolist() for event in service.spool.events}
    assert labelled == {head: [7.5, 8.5], model: [1.0, 0.0]}
    service.recorder.flush()
    recorded = {event.model: len(event.sequence) for event in service.spool.events[2:]}
    assert recorded == {head: 2, model: 2}


def test_labels_of_a_head_come_in_a_file_too(named):
    service, model = named
    head = f"{model}.arrival.1"
    token = post(service, f"/v2/models/{model}/infer", ASKED)[1]["parameters"]["more_receipts"][head][0]
    lines = f"receipt,label\n{token},3.25\n".encode()
    status, answer = post(service, f"/v2/models/{head}/labels", lines, **{"content-type": "text/csv"})
    assert (status, answer["accepted"]) == (200, 1)


def test_a_label_for_another_head_and_a_head_that_there_is_not_are_refused(named):
    service, model = named
    main = post(service, f"/v2/models/{model}/infer", ASKED)[1]["parameters"]["receipts"]
    status, answer = post(service, f"/v2/models/{model}.arrival.1/feedback", {"receipts": main, "labels": [1, 2]})
    assert (status, answer["accepted"]) == (200, 0)
    assert {one["reason"] for one in answer["rejected"]} == {"unknown_model"}
    status, answer = post(service, f"/v2/models/{model}.departure/feedback", {"receipts": main, "labels": [1, 2]})
    assert status == 404
    assert "arrival" in answer["error"]
