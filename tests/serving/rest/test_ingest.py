"""Logged payloads as KServe's agent sends them, and their pairing."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.rest.ingest import Pairing, decode_logged
from clipdrift_serving.rest.logged_form import LoggedForm

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"


def headers(kind=REQUEST, **more) -> dict[bytes, bytes]:
    """As the agent sends them in binary mode: pkg/logger/worker.go."""
    named = {
        "ce-specversion": "1.0", "ce-type": kind, "ce-source": "http://localhost:9081/", "ce-id": "689b15e7",
        "ce-time": "2023-04-05T07:39:53.501752983Z", "ce-inferenceservicename": "iris", "ce-namespace": "default",
        "ce-component": "predictor", "ce-endpoint": "", "ce-metadata": "{}", "content-type": "application/json",
    }  # fmt: skip
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    return {name.encode(): value.encode() for name, value in named.items()}


def decoded(body, kind=REQUEST, forms=None, **more):
    (message,) = decode_logged(headers(kind, **more), body if isinstance(body, bytes) else json.dumps(body).encode(), forms)
    return message


# --- what is read ------------------------------------------------------------------------------------------------------------


def test_a_request_of_the_v1_protocol_is_one_tensor_of_its_rows():
    message = decoded({"instances": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]}, ce_endpoint="canary")

    assert (message.kind, message.id, message.model, message.version) == ("request", "689b15e7", "iris", "canary")
    assert (message.namespace, message.component, message.request_id) == ("default", "predictor", "689b15e7")
    assert message.time_ms == 1680680393501
    np.testing.assert_array_equal(message.tensors["input-0"], [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]])


def test_the_content_type_of_a_form_changes_nothing():
    """curl sends it unless it is told otherwise, and the agent hands it on."""
    assert "input-0" in decoded({"instances": [[1]]}, content_type="application/x-www-form-urlencoded").tensors


def test_columns_name_the_positions_of_a_list():
    forms = {"iris": LoggedForm(columns=("length", "width", "kind"))}

    message = decoded({"instances": [[6.8, 2, "a"], [6, 3, "b"]]}, forms=forms)

    assert {name: tensor.tolist() for name, tensor in message.tensors.items()} == {
        "length": [6.8, 6.0], "width": [2, 3], "kind": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "columns", "kinds"),
    [
        ([{"a": 1, "b": "x"}, {"b": "y", "a": 2}], {"a": [1, 2], "b": ["x", "y"]}, {"a": "i", "b": "O"}),
        ([{"a": 1.5, "b": True}, {"a": 2, "b": False}], {"a": [1.5, 2.0], "b": [True, False]}, {"a": "f", "b": "b"}),
        ([{"a": 1, "b": None}, {"b": "y"}], {"a": [1.0, None], "b": ["", "y"]}, {"a": "f", "b": "O"}),
        ([{"a": [1, 2]}, {"a": [3, 4]}], {"a": [[1, 2], [3, 4]]}, {"a": "i"}),
    ],
)
def test_rows_that_are_objects_become_columns(rows, columns, kinds):
    tensors = decoded({"instances": rows}).tensors

    assert {name: tensor.dtype.kind for name, tensor in tensors.items()} == kinds
    for name, values in columns.items():
        np.testing.assert_array_equal(
            tensors[name], np.array([np.nan if v is None else v for v in values], tensors[name].dtype)
        )


@pytest.mark.parametrize(("rows", "shape"), [([1, 2, 3], (3,)), (["a"], (1,)), ([[[1], [2]]], (1, 2, 1)), ([True], (1,))])
def test_predictions_are_one_tensor_under_its_name(rows, shape):
    forms = {"iris": LoggedForm(output_name="scores")}

    message = decoded({"predictions": rows}, RESPONSE, forms)

    assert (message.kind, message.tensors["scores"].shape) == ("response", shape)
    assert message.tensors["scores"].tolist() == rows


def test_a_request_and_an_answer_of_the_v2_protocol_have_their_own_names_types_and_id():
    request = decoded({"id": "order-1", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [0.5, None]}]})
    outputs = [{"name": "p", "shape": [2, 1], "datatype": "FP64", "data": [0.25, 0.75]}]
    answer = decoded({"model_name": "m", "model_version": "v7", "id": "order-1", "outputs": outputs}, RESPONSE)

    assert request.request_id == answer.request_id == "order-1"
    assert (request.tensors["x"].dtype, answer.tensors["p"].dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(request.tensors["x"], np.array([0.5, np.nan], "f4"))
    assert answer.tensors["p"].tolist() == [[0.25], [0.75]]
    assert (request.version, answer.version) == ("", "v7")


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("values", [[0.5, -1.0], struct.unpack("<2f", b"}}}}}}}}")], ids=["values", "braces"])
def test_binary_tensors_are_found_behind_the_json_whether_or_not_its_length_was_kept(is_told, values):
    data = struct.pack("<2f", *values)
    entry = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [entry]}).encode()
    metadata = {"Inference-Header-Content-Length": [str(len(head))]} if is_told else {}

    request = decoded(head + data, ce_metadata=json.dumps(metadata), content_type="application/octet-stream")
    answer = decoded(json.dumps({"outputs": [entry]}).encode() + data, RESPONSE, ce_metadata=json.dumps(metadata))

    np.testing.assert_array_equal(request.tensors["x"], np.array(values, "f4"))
    np.testing.assert_array_equal(answer.tensors["x"], np.array(values, "f4"))


def event(kind=REQUEST, number="1", **more) -> dict:
    return {"specversion": "1.0", "type": kind, "source": "/", "id": number, "inferenceservicename": "iris", **more}


PAYLOAD = {"instances": [[1, 2]]}


@pytest.mark.parametrize(
    "data",
    [
        {"data": PAYLOAD},
        {"data": json.dumps(PAYLOAD), "datacontenttype": "application/x-www-form-urlencoded"},
        {"data_base64": base64.b64encode(json.dumps(PAYLOAD).encode()).decode()},
    ],
    ids=["json", "string", "base64"],
)
def test_the_json_format_holds_the_payload_as_json_as_a_string_or_in_base64(data):
    body = json.dumps(event(time="2026-11-25T10:00:00Z", **data)).encode()

    (message,) = decode_logged({b"content-type": b"application/cloudevents+json; charset=UTF-8"}, body)

    assert message.tensors["input-0"].tolist() == [[1, 2]]
    assert (message.model, message.id, message.time_ms) == ("iris", "1", 1795600800000)


def test_a_batch_holds_any_number_of_events():
    body = json.dumps(
        [event(data=PAYLOAD), event(RESPONSE, data={"predictions": [1]}), event(number="2", data=PAYLOAD)]
    ).encode()

    messages = decode_logged({b"content-type": b"application/cloudevents-batch+json"}, body)

    assert [(one.kind, one.id) for one in messages] == [("request", "1"), ("response", "1"), ("request", "2")]
    assert decode_logged({b"content-type": b"application/cloudevents-batch+json"}, b"[]") == []


def test_attributes_in_headers_are_percent_decoded():
    assert decoded({"instances": [1]}, ce_id="caf%C3%A9").id == "café"


# --- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ce_type": "com.example.other"}, "a type of"),
        ({"ce_type": ""}, "has the headers Ce-Type and Ce-Id"),
        ({"ce_id": ""}, "has the headers Ce-Type and Ce-Id"),
        ({"ce_id": "x" * 300}, "1 to 256 characters"),
        ({"ce_inferenceservicename": ""}, "inferenceservicename is"),
        ({"ce_inferenceservicename": "../etc"}, "inferenceservicename is"),
        ({"ce_endpoint": "a/b"}, "a version is"),
        ({"ce_time": "yesterday"}, "ISO 8601"),
        ({"content_type": "application/cloudevents+json"}, "no CloudEvent"),
        ({"content_type": "application/cloudevents-batch+json"}, "no CloudEvent"),
    ],
)
def test_wrong_attributes_are_refused_in_words(changes, words):
    with pytest.raises(RequestError, match=words) as raised:
        decoded({"instances": [1]}, **changes)

    assert raised.value.fault == "bad_input"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not begin with JSON"),
        (b"hello", "does not begin with JSON"),
        (b"\xff\xfe", "does not begin with JSON"),
        (b"[" * 100_000, "does not begin with JSON"),
        (b"[1]", "a JSON object, got list"),
        ({"other": 1}, r"inputs \(V2\) or instances \(V1\), got \['other'\]"),
        ({"instances": []}, "at least one row"),
        ({"instances": {"a": [1]}}, "must be a list"),
        ({"instances": [{}]}, "are empty"),
        ({"instances": [[]]}, "empty"),
        ({"instances": [[1], 2]}, "mix objects, lists and single values"),
        ({"instances": [[1, 2], [3]]}, "rows of one shape"),
        ({"instances": [[1, [2]]]}, "words or numbers alone"),
        ({"instances": [["a", 1]]}, "words or numbers alone"),
        ({"instances": [{"a": {"b": 1}}]}, "words or numbers alone"),
        ({"instances": [2**63]}, "too large"),
        ({"instances": [[[[[[[[[[1]]]]]]]]]]}, "words or numbers alone"),
        ({"inputs": []}, "inputs are empty"),
        ({"inputs": [{"name": "x"}]}, "not valid"),
        ({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}]}, "is 2 values, got 1"),
    ],
)
def test_a_payload_that_is_none_is_refused_in_words(body, words):
    with pytest.raises(RequestError, match=words) as raised:
        decoded(body)

    assert raised.value.fault == "bad_input"


def test_rows_with_names_of_their_own_each_do_not_fill_the_memory():
    rows = [{f"{row}-{number}": 1 for number in range(50)} for row in range(1_000)]

    with pytest.raises(RequestError, match="50000 names in 1000 rows"):
        decoded({"instances": rows})


def test_a_row_of_another_width_than_the_columns_is_refused():
    with pytest.raises(RequestError, match="must be a list of 2 values"):
        decoded({"instances": [[1, 2], [1, 2, 3]]}, forms={"iris": LoggedForm(columns=("a", "b"))})


def test_one_bad_event_refuses_its_batch():
    body = json.dumps([event(data=PAYLOAD), event(number="2", data={})]).encode()

    with pytest.raises(RequestError, match="instances"):
        decode_logged({b"content-type": b"application/cloudevents-batch+json"}, body)


@pytest.mark.parametrize("more", [{}, {"data_base64": "%%%"}, {"data": None}])
def test_an_event_without_a_payload_is_refused(more):
    with pytest.raises(RequestError) as raised:
        decode_logged({b"content-type": b"application/cloudevents+json"}, json.dumps(event(**more)).encode())

    assert raised.value.fault == "bad_input"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.sampled_from(["instances", "inputs", "predictions", "outputs"]), JSON, st.sampled_from([REQUEST, RESPONSE]))
def test_whatever_json_is_logged_is_read_or_refused(name, value, kind):
    try:
        message = decoded({name: value}, kind)
    except RequestError:
        return
    assert all(tensor.ndim >= 1 for tensor in message.tensors.values())


# --- pairing -----------------------------------------------------------------------------------------------------------------


def request_of(number, rows=1, **more):
    return decoded({"instances": [1] * rows}, ce_id=str(number), **more)


def answer_to(number, rows=1, **more):
    return decoded({"predictions": [0.5] * rows}, RESPONSE, ce_id=str(number), **more)


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_request_and_its_answer_make_a_prediction_in_whatever_order_they_come(is_turned):
    pairing = Pairing()
    halves = [request_of(1, 2), answer_to(1, 2, ce_endpoint="v3", ce_time="2023-04-05T07:39:54Z")]

    first, second = [pairing.add(one, 0.0) for one in (halves[::-1] if is_turned else halves)]

    assert first is None
    assert (second.model, second.version, second.id, second.num_rows) == ("iris", "v3", "1", 2)
    assert second.event_time_ms == 1680680393501  # when it was asked
    assert (second.inputs["input-0"].tolist(), second.outputs["output-0"].tolist()) == ([1, 1], [0.5, 0.5])
    assert (pairing.num_waiting, pairing.num_waiting_bytes, pairing.num_paired) == (0, 0, 1)


def test_messages_of_other_ids_models_components_and_namespaces_are_not_mixed_up():
    pairing = Pairing()
    others = [
        answer_to(2), answer_to(1, ce_inferenceservicename="other"), answer_to(1, ce_component="transformer"),
        answer_to(1, ce_namespace="staging"),
    ]  # fmt: skip

    assert [pairing.add(one, 0.0) for one in (request_of(1), *others)] == [None] * 5
    assert pairing.num_waiting == 5
    assert pairing.add(answer_to(1), 0.0) is not None


def test_a_message_that_comes_again_is_ignored_before_and_after_its_pair_was_found():
    pairing = Pairing()

    found = [pairing.add(one, 0.0) for one in (request_of(1), request_of(1), answer_to(1), answer_to(1), request_of(1))]

    assert [one is not None for one in found] == [False, False, True, False, False]
    assert (pairing.num_repeated, pairing.num_paired, pairing.num_waiting) == (3, 1, 0)


def test_what_waits_too_long_is_given_up_and_counted():
    pairing = Pairing(max_age_seconds=10)
    pairing.add(request_of(1), 0.0)
    pairing.add(request_of(2), 5.0)

    assert pairing.add(answer_to(1), 10.5) is None
    assert pairing.add(answer_to(2), 11.0) is not None
    assert pairing.num_given_up == {"age": 1, "room": 0}


def test_the_oldest_is_given_up_when_too_many_wait():
    pairing = Pairing(max_waiting=3)
    for number in range(5):
        pairing.add(request_of(number), 0.0)

    assert (pairing.num_waiting, pairing.num_given_up) == (3, {"age": 0, "room": 2})
    assert pairing.add(answer_to(4), 0.0) is not None


def test_bytes_that_wait_are_bounded():
    size = request_of(0, 100).num_bytes
    pairing = Pairing(max_bytes=3 * size)
    for number in range(10):
        pairing.add(request_of(number, 100), 0.0)
        assert pairing.num_waiting_bytes == pairing.num_waiting * size <= 3 * size

    assert pairing.num_given_up["room"] == 7


def test_halves_that_differ_in_their_rows_are_refused_and_counted():
    pairing = Pairing()
    pairing.add(request_of(1, 2), 0.0)

    with pytest.raises(RequestError, match="differ in their number of rows"):
        pairing.add(answer_to(1, 3), 0.0)

    assert (pairing.num_misfits, pairing.num_waiting, pairing.num_paired) == (1, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.floats(0, 3)), max_size=60))
def test_every_message_is_paired_waiting_repeated_or_given_up(steps):
    pairing = Pairing(max_waiting=4, max_age_seconds=5)
    now = 0.0
    for is_request, number, passed in steps:
        now += passed
        pairing.add((request_of if is_request else answer_to)(number), now)

    accounted = 2 * pairing.num_paired + pairing.num_waiting + pairing.num_repeated + sum(pairing.num_given_up.values())
    assert accounted == len(steps)
    assert pairing.num_waiting <= 4
