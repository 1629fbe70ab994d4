"""The client against the real application, and against a server that fails by a script."""

import json
import subprocess
import sys
import urllib.request
from random import Random

import numpy as np
import pandas
import pytest
from toy_service import Service, deploy, write_model, yes

from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_serving import client as public
from clipdrift_serving.client import (
    AccessError,
    AnswerError,
    Client,
    ClientError,
    InvalidRequestError,
    RetryConfig,
    ServerFaultError,
    UnavailableError,
    UnknownModelError,
)
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.rest.uploads import label_of_classes, parse_labels

COLUMNS = {"x": [0.5, None], "y": [0.25, -1.0], "carrier": ["UA", "ZZ"]}
EXPECTED = [yes(0.5, 0.25, 1.0, 0.0), yes(np.nan, -1.0, 2.0, 0.0)]
METADATA = (200, {}, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]})
SCORES = {"name": "p", "datatype": "FP32", "shape": [1], "data": [0.5]}
ANSWER = (200, {}, {"model_name": "m", "outputs": [SCORES], "parameters": {"receipts": ["AQA"]}})


class Waits(list):
    """Remembers how long somebody would have waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
def asking(scripted, waits):
    """A client of the server with the script, that waits for nothing."""
    with Client(scripted.url, api_key="open-sesame", tensors="json", wait=waits, random=Random(1)) as made:
        yield made


# --- predictions and labels on the real application -----------------------------------------------------------------------


@pytest.mark.parametrize("tensors", ["binary", "json"])
def test_columns_become_predictions_with_a_receipt_for_each_row(service: Service, address, tensors):
    with Client(address, tensors=tensors) as client:
        answer = client.predict("toy", COLUMNS, request_id="mine", event_time_ms=[5, 6])

    np.testing.assert_allclose(answer.outputs["probabilities"][:, 1], EXPECTED, rtol=1e-6)
    assert answer.outputs["probabilities"].dtype == np.float32
    assert (answer.model, answer.version, answer.role, answer.generation) == ("toy", "v1", "champion", 1)
    assert answer.request_id == "mine"
    receipts = [service.receipts.verify(token) for token in answer.receipts]
    assert [(one.event_time_ms, one.slice_index) for one in receipts] == [(5, 1), (6, 2)]


@pytest.mark.parametrize(
    "frame",
    [
        pandas.DataFrame(COLUMNS),
        pandas.DataFrame(COLUMNS).astype({"x": "Float64", "carrier": "category"}),
        {"x": np.array([0.5, np.nan], "f2"), "y": pandas.Series([0.25, -1.0]), "carrier": np.array(["UA", "ZZ"])},
        {"x": np.array([[0.5], [np.nan]]), "y": (0.25, -1), "carrier": [b"UA", "ZZ"]},
    ],
    ids=["frame", "nullable types", "arrays", "lists"],
)
def test_frames_and_arrays_of_other_types_are_cast_to_what_the_model_takes(address, frame):
    with Client(address) as client:
        answer = client.predict("toy", frame)

    np.testing.assert_allclose(answer.outputs["probabilities"][:, 1], EXPECTED, rtol=1e-6)


def test_a_frame_is_known_by_its_columns_alone(address):
    class Frame:
        """What polars and pandas have in common."""

        columns = tuple(COLUMNS)

        def __getitem__(self, name):
            return pandas.Series(COLUMNS[name])

    with Client(address) as client:
        answer = client.predict("toy", Frame())

    np.testing.assert_allclose(answer.outputs["probabilities"][:, 1], EXPECTED, rtol=1e-6)


def test_a_row_of_single_values_is_one_prediction(address):
    with Client(address) as client:
        answer = client.predict("toy", {"x": 0.5, "y": 0.25, "carrier": "UA"})

    assert answer.outputs["probabilities"].shape == (1, 2)
    assert len(answer.receipts) == 1


def test_a_version_can_be_asked_for(service: Service, address, tmp_path):
    service.repository.apply(deploy(write_model(tmp_path, "v2", 1.0), generation=2))
    with Client(address) as client:
        answers = {version: client.predict("toy", COLUMNS, version=version) for version in ("v1", "v2")}

    assert {version: answer.version for version, answer in answers.items()} == {"v1": "v1", "v2": "v2"}
    assert answers["v2"].outputs["probabilities"][0, 1] == pytest.approx(yes(0.5, 0.25, 1.0, 1.0), rel=1e-6)


def test_labels_go_back_with_their_receipts_and_what_is_wrong_is_named(service: Service, address):
    with Client(address) as client:
        receipts = client.predict("toy", COLUMNS, event_time_ms=999_000).receipts
        outcome = client.feedback("toy", [*receipts, "forged"], ["yes", np.int64(0), "no"])

    assert outcome.num_accepted == 2
    assert [(one.index, one.reason) for one in outcome.rejected] == [(2, "forged")]
    assert outcome.num_rejected == 1
    assert service.plane.live.of("toy").num_labels == 2


def test_labels_of_an_array_with_their_times_are_taken(service: Service, address):
    with Client(address) as client:
        receipts = client.predict("toy", COLUMNS, event_time_ms=1_000).receipts
        outcome = client.feedback("toy", receipts, np.array([1.0, 0.0]), label_times_ms=np.array([1_500, 999]))

    assert outcome.num_accepted == 1
    assert [(one.index, one.reason) for one in outcome.rejected] == [(1, "bad_value")]


def test_a_label_that_is_handed_in_twice_counts_once(service: Service, address):
    with Client(address) as client:
        receipts = client.predict("toy", COLUMNS).receipts
        outcomes = [client.feedback("toy", receipts, [1, 1]) for _ in range(2)]

    assert [one.num_accepted for one in outcomes] == [2, 2]
    assert service.plane.live.of("toy").num_labels == 2


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": [1.0], "y": [1.0], "carrier": [7]}, "carrier.*takes words; row 0"),
        ({"x": ["high"], "y": [1.0], "carrier": ["UA"]}, "'x': the model takes FP32, got words"),
        ({"x": [1e39], "y": [1.0], "carrier": ["UA"]}, "'x': row 0 does not fit FP32"),
        ({"x": [[1.0], [1.0, 2.0]], "y": [1.0, 1.0], "carrier": ["UA", "UA"]}, "'x': rows must have one shape"),
        ({"x": [np.datetime64("2026-11-25")], "y": [1.0], "carrier": ["UA"]}, "'x': the model takes FP32"),
        ({"z": [1.0]}, r"unknown input 'z'; 'toy' takes \['carrier', 'x', 'y'\]"),
        ({}, "no column"),
        ([1.0], "a mapping of columns or a data frame, got list"),
        ({"x": [1.0], "y": [1.0]}, "400: inputs must be exactly"),
        ({"x": [1.0, 2.0], "y": [1.0], "carrier": ["UA"]}, "400: inputs differ in their number of rows"),
    ],
)
def test_wrong_inputs_are_an_error_that_says_what_is_wrong(service: Service, address, inputs, words):
    with Client(address) as client, pytest.raises(InvalidRequestError, match=words):
        client.predict("toy", inputs)

    assert service.recorder.num_pending_rows == 0


def test_an_unknown_model_is_an_error_of_its_own(address):
    with Client(address) as client, pytest.raises(UnknownModelError, match="unknown model 'tyo'") as raised:
        client.predict("tyo", COLUMNS)

    assert raised.value.status == 404


def test_a_name_cannot_reach_another_address(scripted, asking):
    scripted.script = [(404, {}, {"error": "unknown"})]

    with pytest.raises(UnknownModelError):
        asking.metadata("../../v1/other?x#y")

    assert scripted.asked[0][1] == "/v2/models/..%2F..%2Fv1%2Fother%3Fx%23y"


def test_readiness_is_what_the_server_says(service: Service, address):
    with Client(address) as client:
        service.repository.is_caught_up = False
        before = client.is_ready()
        service.repository.is_caught_up = True
        assert (before, client.is_ready()) == (False, True)


def test_a_server_that_is_away_is_not_ready():
    with Client("http://127.0.0.1:9") as client:
        assert not client.is_ready()


# --- trying again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [(429, {}, {}), (503, {}, {}), (408, {}, {}), (504, {}, {}), "hang up"])
def test_a_prediction_is_tried_again_under_the_same_request_id(scripted, asking, waits, failure):
    scripted.script = [METADATA, failure, failure, ANSWER]

    answer = asking.predict("m", {"x": [1.0]})

    bodies = [json.loads(body) for _, path, _, body in scripted.asked if path.endswith("/infer")]
    assert len(bodies) == 3
    assert len({body["id"] for body in bodies}) == 1
    assert answer.request_id == bodies[0]["id"] != ""
    assert len(waits) == 2


def test_two_predictions_have_two_request_ids(scripted, asking):
    scripted.script = [METADATA, ANSWER, ANSWER]

    assert asking.predict("m", {"x": [1.0]}).request_id != asking.predict("m", {"x": [1.0]}).request_id


def test_labels_are_tried_again_as_they_were(scripted, asking):
    scripted.script = [(503, {}, {}), "hang up", (200, {}, {"accepted": 1, "rejected": []})]

    assert asking.feedback("m", ["AQA"], ["worn"]).num_accepted == 1
    assert len({body for _, _, _, body in scripted.asked}) == 1
    assert len(scripted.asked) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError), (401, AccessError), (403, AccessError), (404, UnknownModelError),
        (405, InvalidRequestError),
        (413, InvalidRequestError), (415, InvalidRequestError), (422, InvalidRequestError), (431, InvalidRequestError),
        (500, ServerFaultError), (302, AnswerError),
    ],
)  # fmt: skip
def test_what_is_wrong_is_asked_once_and_has_its_error(scripted, asking, status, kind):
    scripted.script = [METADATA, (status, {}, {"error": "no such luck"})]

    with pytest.raises(ClientError) as raised:
        asking.predict("m", {"x": [1.0]})

    assert type(raised.value) is kind
    assert raised.value.status == status
    assert len(scripted.asked) == 2


def test_a_server_that_stays_busy_is_an_error_that_can_be_retried(scripted, asking, waits):
    scripted.script = [METADATA] + [(503, {}, {"error": "too many"})] * 5

    with pytest.raises(UnavailableError, match="503: too many") as raised:
        asking.predict("m", {"x": [1.0]})

    assert isinstance(raised.value, RetryableError)
    assert isinstance(raised.value, ClipdriftError)
    assert raised.value.status == 503
    assert len(waits) == RetryConfig().max_tries - 1


def test_the_server_says_how_long_to_wait(scripted, asking, waits):
    scripted.script = [METADATA, (429, {"Retry-After": "7"}, {}), ANSWER]

    asking.predict("m", {"x": [1.0]})

    (waited,) = waits
    assert 7.05 <= waited < 7.1  # what it asked for, and a spread of the first delay


def test_a_wait_beyond_the_time_of_the_call_is_not_begun(scripted, waits):
    scripted.script = [(503, {"Retry-After": "31"}, {"error": "later"})]

    with Client(scripted.url, wait=waits, timeout_seconds=30) as client, pytest.raises(UnavailableError, match="later"):
        client.metadata("m")

    assert waits == []


def test_a_server_that_is_away_is_tried_and_then_an_error(waits):
    with Client("http://127.0.0.1:9", wait=waits, retry=RetryConfig(max_tries=3)) as client, pytest.raises(UnavailableError):
        client.metadata("m")

    assert len(waits) == 2


def test_a_server_that_does_not_answer_in_time_is_an_error(scripted):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout_seconds=0.2) as client, pytest.raises(UnavailableError, match="ReadTimeout"):
            client.metadata("m")


def test_what_the_model_takes_is_looked_up_again_after_a_refusal(scripted, asking):
    wider = (200, {}, {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]})
    scripted.script = [METADATA, (400, {}, {"error": "datatype must be FP64"}), wider, ANSWER]

    with pytest.raises(InvalidRequestError):
        asking.predict("m", {"x": [1.0]})
    asking.predict("m", {"x": [1.0]})

    assert json.loads(scripted.asked[-1][3])["inputs"][0]["datatype"] == "FP64"


# --- answers that are none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>hello</html>"),
        (200, {}, {"outputs": []}),
        (200, {}, {"model_name": "m", "outputs": [{"name": "p"}]}),
        (200, {}, {"model_name": "m", "outputs": [{**SCORES, "datatype": "FP128"}]}),
        (200, {}, {"model_name": "m", "outputs": [{**SCORES, "shape": [2]}]}),
        (200, {}, {"model_name": "m", "outputs": [SCORES], "parameters": {"receipts": 7}}),
        (200, {"Inference-Header-Content-Length": "999"}, {"model_name": "m", "outputs": []}),
        (200, {"Content-Encoding": "gzip"}, b"not packed"),
    ],
)
def test_an_answer_that_is_not_of_the_protocol_is_an_error(scripted, asking, answer):
    scripted.script = [METADATA, answer]

    with pytest.raises(AnswerError):
        asking.predict("m", {"x": [1.0]})


def test_words_come_back_as_words_in_both_forms(scripted, asking):
    words = ["fine", "worn ✓"]
    packed = b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)
    entry = {"name": "state", "datatype": "BYTES", "shape": [2]}
    head = json.dumps({"model_name": "m", "outputs": [{**entry, "parameters": {"binary_data_size": len(packed)}}]}).encode()
    scripted.script = [
        METADATA,
        (200, {}, {"model_name": "m", "outputs": [{**entry, "data": words}]}),
        (200, {"Inference-Header-Content-Length": str(len(head))}, head + packed),
    ]

    answers = [asking.predict("m", {"x": [1.0]}) for _ in range(2)]

    assert [answer.outputs["state"].tolist() for answer in answers] == [words, words]


def test_the_receipts_of_further_outputs_are_told_apart(scripted, asking):
    told = {"receipts": ["A"], "more_receipts": {"m.price": ["B"]}}
    scripted.script = [METADATA, (200, {}, {"model_name": "m", "outputs": [SCORES], "parameters": told})]

    answer = asking.predict("m", {"x": [1.0]})

    assert (answer.receipts, answer.more_receipts) == (("A",), {"m.price": ("B",)})


# --- labels in bulk ----------------------------------------------------------------------------------------------------------


def test_lists_of_labels_go_in_parts_and_rejections_keep_their_place(scripted, asking):
    parts = [(200, {}, {"accepted": 4_999, "rejected": [{"index": 3, "reason": "expired", "message": "old"}]})] * 2
    scripted.script = parts.copy()

    outcome = asking.feedback("m", ["A"] * 10_000, [1] * 10_000)

    assert [len(json.loads(body)["receipts"]) for _, _, _, body in scripted.asked] == [5_000, 5_000]
    assert outcome.num_accepted == 9_998
    assert [one.index for one in outcome.rejected] == [3, 5_003]


def test_labels_by_request_id_carry_ids_and_rows(scripted, asking):
    scripted.script = [(200, {}, {"accepted": 2, "rejected": []})]

    asking.feedback_by_request("m", ["a", "a"], ["worn", "fine"], rows=[0, 1], label_times_ms=[1, 2])

    _, path, _, body = scripted.asked[0]
    assert path == "/v2/models/m/feedback"
    assert json.loads(body) == {"request_ids": ["a", "a"], "rows": [0, 1], "labels": ["worn", "fine"], "label_times_ms": [1, 2]}


def test_lists_of_different_lengths_are_not_sent(scripted, asking):
    with pytest.raises(InvalidRequestError, match="equally long"):
        asking.feedback("m", ["A"], [1, 2])

    assert scripted.asked == []


@pytest.mark.parametrize("has_bom", [False, True])
def test_a_file_is_uploaded_in_parts_and_its_lines_keep_their_numbers(scripted, asking, tmp_path, has_bom):
    path = tmp_path / "labels.csv"
    lines = [
        "receipt,label",
        *(f"R{number},worn" for number in range(2, 100)),
        "R100",
        *(f"R{n},fine" for n in range(101, 201)),
    ]
    path.write_text("\n".join(lines), encoding="utf-8-sig" if has_bom else "utf-8")
    scripted.script = [(200, {}, {"accepted": 9, "rejected": [{"line": 2, "reason": "bad_line", "message": "?"}]})] * 40

    outcome = asking.upload("m", path, part_bytes=200)

    parts = [parse_labels(body, headers["content-type"], 1_000) for _, _, headers, body in scripted.asked]
    starts = [one.index - 2 for one in outcome.rejected]
    assert all(len(body) <= 200 for *_, body in scripted.asked)
    seen = {
        start + line: token
        for start, part in zip(starts, parts, strict=True)
        for line, token in zip(part.lines, part.receipts, strict=True)
    }
    assert seen == {number: f"R{number}" for number in range(2, 201) if number != 100}
    assert [start + one.line for start, part in zip(starts, parts, strict=True) for one in part.rejected] == [100]


def test_a_part_of_short_lines_holds_no_more_labels_than_the_server_takes(scripted, asking, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("request_id,label\n" + "".join(f"{number},1\n" for number in range(60_000)))
    scripted.script = [(200, {}, {"accepted": 1, "rejected": []})] * 10

    asking.upload("m", path)

    sizes = [len(parse_labels(body, headers["content-type"], 25_000).labels) for _, _, headers, body in scripted.asked]
    assert sum(sizes) == 60_000
    assert max(sizes) <= ServingConfig().max_upload_rows


def test_a_file_of_json_lines_is_uploaded_as_such(scripted, asking, tmp_path):
    path = tmp_path / "labels.ndjson"
    path.write_text('{"receipt": "A", "label": 1}\n' * 9)
    scripted.script = [(200, {}, {"accepted": 3, "rejected": [{"line": 1, "reason": "forged", "message": "?"}]})] * 3

    outcome = asking.upload("m", path, part_bytes=90)

    assert {headers["content-type"] for _, _, headers, _ in scripted.asked} == {"application/x-ndjson"}
    assert [one.index for one in outcome.rejected] == [1, 4, 7]
    assert sum(len(parse_labels(body, "application/x-ndjson", 9).labels) for *_, body in scripted.asked) == 9


def test_another_file_is_not_uploaded(asking, tmp_path):
    with pytest.raises(InvalidRequestError, match=r"labels\.xlsx"):
        asking.upload("m", tmp_path / "labels.xlsx")


def test_a_class_name_that_looks_like_a_number_stays_a_name_in_an_upload():
    uploaded = parse_labels(b"receipt,label\nA,10\nB,2\n", "text/csv", 10, label_of_classes(["10", "20"]))

    assert uploaded.labels == ["10", 2]


# --- secrets, and what is imported -----------------------------------------------------------------------------------------


def test_the_api_key_is_sent_and_never_shown(scripted, waits):
    client = Client(scripted.url, api_key="open-sesame", wait=waits, retry=RetryConfig(max_tries=1))
    scripted.script = [(401, {}, {"error": "this needs an API key"}), (503, {}, {}), "hang up"]
    shown = [repr(client), str(client)]
    for _ in range(3):
        with pytest.raises(ClientError) as raised:
            client.metadata("m")
        shown += [repr(raised.value), str(raised.value.__cause__), str(raised.value.__context__)]
    client.close()

    assert {headers["authorization"] for _, _, headers, _ in scripted.asked} == {"Bearer open-sesame"}
    assert not [words for words in shown if "sesame" in words]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", ""])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key):
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        Client("http://localhost:8080", api_key=key)

    assert not key or key not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://me:secret@localhost"])
def test_an_address_that_is_not_one_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match="url must") as raised:
        Client(url)

    assert "secret" not in str(raised.value)


def test_a_redirect_does_not_take_the_key_along(scripted, asking):
    scripted.script = [(307, {"Location": f"{scripted.url}/elsewhere"}, {})]

    with pytest.raises(AnswerError):
        asking.metadata("m")

    assert len(scripted.asked) == 1


def test_the_client_needs_nothing_of_a_server():
    code = "import sys, clipdrift_serving.client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    found = set(run.stdout.split())
    assert {"clipdrift_serving", "httpx", "numpy"} <= found
    assert not found & {"onnxruntime", "onnx", "uvloop", "httptools", "grpc", "orjson", "pandas", "polars", "prometheus_client"}


def test_what_is_public_is_what_is_named():
    assert sorted(public.__all__) == [
        "AccessError", "AnswerError", "Client", "ClientError", "Feedback", "InvalidRequestError", "Prediction", "RejectedLabel",
        "RetryConfig", "ServerFaultError", "UnavailableError", "UnknownModelError",
    ]  # fmt: skip
    assert all(hasattr(public, name) for name in public.__all__)


def test_another_client_reads_what_is_sent(service: Service, address):
    """The same request, written by hand: what the client sends in JSON is the protocol's."""
    body = {
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
            {"name": "y", "shape": [1], "datatype": "FP32", "data": [0.25]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
        ]
    }
    request = urllib.request.Request(f"{address}/v2/models/toy/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer, Client(address) as client:
        by_hand = json.load(answer)["outputs"][0]["data"]
        ours = client.predict("toy", {"x": [0.5], "y": [0.25], "carrier": ["UA"]}).outputs["probabilities"]

    np.testing.assert_allclose(ours.ravel(), by_hand, rtol=1e-6)
