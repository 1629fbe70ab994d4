"""The data listener, asked as clients ask it."""

import gzip
import json
import struct

import numpy as np
import pytest
from toy_service import Service, deploy, write_model, yes

X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [0.5, None]}
Y = {"name": "y", "shape": [2], "datatype": "FP32", "data": [0.25, -1.0]}
CARRIER = {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["UA", "ZZ"]}
EXPECTED = [yes(0.5, 0.25, 1.0, 0.0), yes(np.nan, -1.0, 2.0, 0.0)]


def _body(*inputs, **more) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def _infer(service, body, headers=None, path="/v2/models/toy/infer"):
    status, got, content = service.request("POST", path, body, headers)
    length = got.get("inference-header-content-length")
    split = len(content) if length is None else int(length)
    return status, json.loads(content[:split]), content[split:]


def test_a_json_request_is_answered_with_probabilities_and_a_receipt_for_each_row(service):
    status, answer, _ = _infer(service, _body(X, Y, CARRIER, id="7", parameters={"event_time_ms": [5, 6]}))
    assert status == 200
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "toy", "v1")
    np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (2, 2))[:, 1], EXPECTED, rtol=1e-6)
    receipts = [service.receipts.verify(token) for token in answer["parameters"]["receipts"]]
    assert [(r.sequence, r.event_time_ms, r.slice_index, r.predicted) for r in receipts] == [(0, 5, 1, 1.0), (1, 6, 2, 1.0)]


def test_binary_tensors_go_both_ways_and_mix_with_json(service):
    words = b"".join(struct.pack("<I", len(w)) + w for w in (b"UA", b"ZZ"))
    y = np.array([0.25, -1.0], "<f4").tobytes()
    header = _body(
        {"name": "y", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": len(y)}},
        X,
        {"name": "carrier", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(words)}},
        parameters={"binary_data_output": True},
    )
    status, answer, tail = _infer(service, header + y + words, {"Inference-Header-Content-Length": str(len(header))})
    assert status == 200
    assert answer["outputs"][0]["parameters"]["binary_data_size"] == len(tail) == 16
    np.testing.assert_allclose(np.frombuffer(tail, "<f4").reshape(2, 2)[:, 1], EXPECTED, rtol=1e-6)
    assert len(answer["parameters"]["receipts"]) == 2


def _with(one, **changes):
    return {**one, **changes}


DEEP = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"
BAD = {
    "no json": b"{",
    "not utf-8": b'{"inputs":[{"name":"\xff"}]}',
    "lone surrogate": b'{"inputs":[{"name":"carrier","shape":[1],"datatype":"BYTES","data":["\\ud800"]}]}',
    "NaN": b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}',
    "deep": DEEP,
    "a list": b"[]",
    "no inputs": _body(),
    "missing input": _body(X, Y),
    "unknown input": _body(X, Y, CARRIER, _with(X, name="z")),
    "input twice": _body(X, X, Y, CARRIER),
    "null where not nullable": _body(X, _with(Y, data=[None, 0]), CARRIER),
    "float32 overflow": _body(_with(X, data=[1e39, 0]), Y, CARRIER),
    "wrong datatype": _body(_with(X, datatype="FP64"), Y, CARRIER),
    "unknown datatype": _body(_with(X, datatype="FLOAT"), Y, CARRIER),
    "string in numbers": _body(_with(X, data=["a", 1]), Y, CARRIER),
    "bool in numbers": _body(_with(X, data=[True, 1]), Y, CARRIER),
    "too few values": _body(_with(X, data=[1]), Y, CARRIER),
    "rows differ": _body(_with(X, shape=[1], data=[1]), Y, CARRIER),
    "wrong rank": _body(_with(X, shape=[1, 2]), Y, CARRIER),
    "negative dimension": _body(_with(X, shape=[-1, -2]), Y, CARRIER),
    "no rows": _body(_with(X, shape=[0], data=[]), _with(Y, shape=[0], data=[]), _with(CARRIER, shape=[0], data=[])),
    "huge dimensions": _body(_with(X, shape=[2**31 - 1, 2**31 - 1]), Y, CARRIER),
    "huge empty": _body(_with(X, shape=[0, 2**62, 2**62], data=[]), Y, CARRIER),
    "dimension beyond 64 bits": _body(_with(X, shape=[10**30]), Y, CARRIER),
    "ragged": _body(_with(X, data=[[1], 2]), Y, CARRIER),
    "data is a number": _body(_with(X, data=3), Y, CARRIER),
    "no data": _body({"name": "x", "shape": [2], "datatype": "FP32"}, Y, CARRIER),
    "numbers as strings": _body(X, Y, _with(CARRIER, data=[1, 2])),
    "a string of megabytes": _body(X, Y, _with(CARRIER, data=["a" * 100_000, "b"])),
    "unknown output": _body(X, Y, CARRIER, outputs=[{"name": "nope"}]),
    "event times of another length": _body(X, Y, CARRIER, parameters={"event_time_ms": [1]}),
    "event time in words": _body(X, Y, CARRIER, parameters={"event_time_ms": "now"}),
    "event time beyond 64 bits": _body(X, Y, CARRIER, parameters={"event_time_ms": 10**30}),
    "binary size lies": _body(_with(X, data=[], parameters={"binary_data_size": 10**12}), Y, CARRIER),
    "binary size negative": _body({"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": -1}}),
    "binary size is no number": _body({"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": "8"}}),
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_bad_input_is_a_client_error_that_says_what_was_wrong(service, body):
    status, answer, _ = _infer(service, body)
    assert 400 <= status < 500
    assert len(answer["error"]) > 10


@pytest.mark.parametrize("length", ["-1", "abc", "99999999", "1", "٣"])
def test_a_header_length_that_lies_is_a_client_error(service, length):
    assert _infer(service, _body(X, Y, CARRIER), {"Inference-Header-Content-Length": length})[0] == 400


def test_bytes_behind_the_last_tensor_are_refused(service):
    header = _body(X, Y, CARRIER)
    status, answer, _ = _infer(service, header + b"abc", {"Inference-Header-Content-Length": str(len(header))})
    assert (status, answer["error"][:7]) == (400, "3 bytes")


def test_limits_are_said_by_their_status(service):
    bomb = gzip.compress(b" " * (service.config.max_body_bytes + 1))
    assert _infer(service, bomb, {"content-encoding": "gzip"})[0] == 413
    assert _infer(service, gzip.compress(b"{}")[:-1], {"content-encoding": "gzip"})[0] == 400
    assert _infer(service, b"", {"content-encoding": "br"})[0] == 415
    many = 5000
    body = _body(
        _with(X, shape=[many], data=[0] * many), _with(Y, shape=[many], data=[0] * many),
        _with(CARRIER, shape=[many], data=["UA"] * many),
    )  # fmt: skip
    assert _infer(service, body)[0] == 413


@pytest.mark.parametrize("outputs", [[{"name": "nope"}], [{"name": "probabilities"}] * 65])
def test_a_request_for_outputs_that_do_not_exist_is_not_counted_as_a_prediction(service, outputs):
    assert _infer(service, _body(X, Y, CARRIER, outputs=outputs))[0] == 400
    service.recorder.flush()
    assert service.plane.live.of("toy").num_requests == 0
    assert [len(one.sequence.array()) for one in service.spool.events] == [0] * len(service.spool.events)
    assert sum(one.num_failed for one in service.spool.events) <= 1  # it may be the version that lacks the output


@pytest.mark.parametrize("path", ["/v2/models/toy/infer/", "/V2/models/toy/infer", "/v2/models/to%2fy/infer", "/v2/models"])
def test_a_mistyped_address_is_said_not_to_exist_whatever_the_method(service, path):
    for method in ("GET", "POST", "PUT"):
        status, _, body = service.request(method, path, b"{}")
        assert status == 404
        assert "/infer" in json.loads(body)["error"]


def test_an_unknown_model_is_404_and_its_name_does_not_become_a_metric_label(service):
    assert _infer(service, b"{", path="/v2/models/made-up-by-a-client/infer")[0] == 404
    assert service.metric("clipdrift_serving_requests_total", model="(unknown)", code="404") == 1
    assert service.metric("clipdrift_serving_requests_total", model="made-up-by-a-client", code="400") is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200), ("GET", "/v2/health/live", 200), ("GET", "/v2/models/toy", 200),
        ("GET", "/v2/models/toy/ready", 200), ("GET", "/v2/models/toy/versions/v1", 200),
        ("GET", "/v2/models/toy/versions/v9/ready", 404), ("GET", "/v2/models/toy/infer", 405),
        ("POST", "/v2", 405), ("GET", "/v2/models/..%2f", 404), ("GET", "/", 404), ("DELETE", "/v2/models/toy", 405),
        ("GET", "/v2/repository/index", 404), ("POST", "/v2/repository/models/toy/unload", 404),
    ],
)  # fmt: skip
def test_paths_are_answered_as_the_protocol_says(service, method, path, status):
    assert service.request(method, path)[0] == status


@pytest.mark.parametrize(("path", "allowed"), [("/v2/models/toy/infer", "POST"), ("/v2/health/live", "GET, HEAD")])
def test_a_wrong_method_is_told_which_one_is_right(service, path, allowed):
    status, headers, body = service.request("PUT", path)
    assert (status, headers["allow"]) == (405, allowed)
    assert f"{path} is asked for with {allowed}, got PUT" in json.loads(body)["error"]


def test_readiness_waits_for_every_announced_model(service, tmp_path):
    service.repository.is_caught_up = False
    assert service.request("GET", "/v2/health/ready")[0] == 503
    status, headers, body = service.request("GET", "/v2/models/other")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "still being read" in json.loads(body)["error"]
    service.repository.is_caught_up = True
    assert service.request("GET", "/v2/health/ready")[0] == 200
    broken = deploy(write_model(tmp_path, "v2", 0.0), model="other")
    (tmp_path / "v2.onnx").write_bytes(b"")
    service.repository.apply(broken)
    assert service.request("GET", "/v2/health/ready")[0] == 503


def _feedback(service, receipts, labels, times=None):
    body = {"receipts": receipts, "labels": labels} | ({} if times is None else {"label_times_ms": times})
    status, _, content = service.request("POST", "/v2/models/toy/feedback", json.dumps(body).encode())
    return status, json.loads(content)


@pytest.fixture
def receipts(service):
    return _infer(service, _body(X, Y, CARRIER, parameters={"event_time_ms": 5}))[1]["parameters"]["receipts"]


def test_a_label_that_is_sent_again_is_accepted_and_counted_once(service, receipts):
    assert _feedback(service, receipts * 3, ["yes", "no"] * 3, [10] * 6)[1]["accepted"] == 6
    assert _feedback(service, receipts, ["no", "no"], [10] * 2)[1]["accepted"] == 2
    assert (service.plane.live.of("toy").num_labels, service.plane.live.of("toy").num_correct) == (2, 1)
    outcomes = {
        one: service.metric("clipdrift_serving_labels_total", model="toy", outcome=one) for one in ("accepted", "repeated")
    }
    assert outcomes == {"accepted": 2, "repeated": 6}
    assert service.metric("clipdrift_serving_labels_correct_total", model="toy", version="v1") == 1


def test_labels_are_accepted_by_class_name_or_index_and_counted_live(service, receipts):
    assert _feedback(service, receipts, ["yes", 0], [10, 11]) == (200, {"accepted": 2, "rejected": []})
    (batch,) = service.spool.events
    assert batch.label.array().tolist() == [1.0, 0.0]
    assert batch.label_time_ms.array().tolist() == [10, 11]
    live = service.plane.live.of("toy")
    assert (live.num_requests, live.num_rows, live.num_labels, live.num_correct) == (1, 2, 2, 1)


@pytest.mark.parametrize(
    ("label", "time_ms", "reason"),
    [
        ("maybe", 10, "bad_value"), (2, 10, "bad_value"), (0.5, 10, "bad_value"), (None, 10, "bad_value"),
        (10**400, 10, "bad_value"), ([1], 10, "bad_value"), (1, "soon", "bad_value"), (1, 4, "bad_value"),
        (1, 4_000_000_000_000, "expired"), (1, 10**40, "bad_value"),
    ],
)  # fmt: skip
def test_a_label_that_cannot_count_is_rejected_with_its_reason(service, receipts, label, time_ms, reason):
    status, answer = _feedback(service, receipts[:1], [label], [time_ms])
    if status == 200:
        assert answer["accepted"] == 0
        assert answer["rejected"][0]["reason"] == reason
    else:
        assert status == 400


def test_a_forged_receipt_is_rejected_and_the_others_still_count(service, receipts):
    changed = ("A" if receipts[0][30] != "A" else "B").join((receipts[0][:30], receipts[0][31:]))
    status, answer = _feedback(service, [changed, receipts[1], 7, "", "é" * 40], [1] * 5, [10] * 5)
    assert (status, answer["accepted"]) == (200, 1)
    assert [(one["index"], one["reason"]) for one in answer["rejected"]] == [(i, "forged") for i in (0, 2, 3, 4)]


def test_a_receipt_of_another_model_is_rejected(service, receipts, tmp_path):
    service.repository.apply(deploy(write_model(tmp_path, "w1", 0.0), model="other"))
    body = json.dumps({"receipts": receipts[:1], "labels": [1], "label_times_ms": [10]}).encode()
    _, _, content = service.request("POST", "/v2/models/other/feedback", body)
    assert json.loads(content)["rejected"][0]["reason"] == "unknown_model"


def test_labels_that_cannot_be_kept_are_not_acknowledged(service, receipts):
    from clipdrift_serving.recording.spool import SpoolFullError

    service.spool.error = SpoolFullError("full")
    assert _feedback(service, receipts, [1, 0], [10, 10])[0] == 503
    assert service.plane.live.of("toy").num_labels == 0


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"receipts":["a"],"labels":[]}', b'{"receipts":1,"labels":1}'])
def test_bad_feedback_is_a_client_error(service, body):
    assert service.request("POST", "/v2/models/toy/feedback", body)[0] == 400


def test_questions_about_a_model_do_not_move_the_canarys_share(service, tmp_path):
    canary = write_model(tmp_path, "v2", 1.0)
    assert service.repository.apply(deploy(write_model(tmp_path, "v1", 0.0), 2, canary=canary, canary_weight=0.5)) == "done"
    versions = []
    for _ in range(6):
        for path in ("", "/ready", "/config", "/stats"):
            assert service.request("GET", f"/v2/models/toy{path}")[0] == 200
        versions.append(_infer(service, _body(X, Y, CARRIER))[1]["model_version"])
    assert sorted(versions[:2]) == ["v1", "v2"]
    assert versions == versions[:2] * 3


def test_a_server_of_several_workers_refuses_logged_messages_that_could_never_meet():
    service = Service(workers=2)
    status, _, body = service.request("POST", "/v1/ingest", b"{}", {"ce-id": "1", "ce-type": "x"})
    assert status == 400
    assert "workers = 1" in json.loads(body)["error"]
