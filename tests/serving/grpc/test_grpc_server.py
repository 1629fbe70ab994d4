"""The gRPC server against Triton's client, in one process: both define the same messages."""

import asyncio
import json
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from toy_service import yes
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.grpc.protocol.generate import described
from clipdrift_serving.grpc.protocol.messages import POOL
from clipdrift_serving.grpc.server import GrpcConfig, GrpcServer


def _authorise(headers, scope, model):
    if scope == "admin" and headers.get(b"authorization") != b"Bearer key":
        raise RequestError("unauthorized", "no key")


@pytest.fixture
def client(service):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = GrpcServer(GrpcConfig(max_message_bytes=100_000), service.plane, loop, _authorise)
    server.start()
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as made:
        made.address = f"127.0.0.1:{server.port}"
        yield made
    server.stop(1.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _inputs(x, dtype="FP32"):
    made = []
    for name, kind, values in (
        ("x", dtype, x), ("y", "FP32", np.array([0.25], np.float32)), ("carrier", "BYTES", np.array([b"UA"], object)),
    ):  # fmt: skip
        made.append(triton.InferInput(name, list(values.shape), kind))
        made[-1].set_data_from_numpy(values)
    return made


def test_every_message_and_field_has_the_number_type_and_label_that_the_client_knows():
    num_compared = 0
    for theirs in (
        *service_pb2.DESCRIPTOR.message_types_by_name.values(),
        *model_config_pb2.DESCRIPTOR.message_types_by_name.values(),
    ):
        try:
            ours = POOL.FindMessageTypeByName(theirs.full_name)
        except KeyError:
            continue
        for one, other in [(ours, theirs), *((n, theirs.nested_types_by_name[n.name]) for n in ours.nested_types)]:
            for field in one.fields:
                known = other.fields_by_name[field.name]
                assert (field.number, field.type, field.is_repeated) == (known.number, known.type, known.is_repeated), (
                    field.full_name
                )
                num_compared += 1
    assert num_compared > 100


def test_the_generated_descriptor_is_that_of_the_proto_file():
    from pathlib import Path

    import clipdrift_serving.grpc.protocol.described as module

    assert Path(module.__file__).read_text() == described()


def test_an_inference_is_answered_with_its_receipt(client):
    answer = client.infer("toy", _inputs(np.array([0.5], np.float32)), request_id="r1")
    name = answer.get_response().outputs[0].name
    assert answer.as_numpy(name).ravel()[1] == pytest.approx(yes(0.5, 0.25, 1.0, 0.0), rel=1e-6)
    assert answer.get_response().id == "r1"
    assert len(json.loads(answer.get_response().parameters["receipts"].string_param)) == 1


def test_bad_input_is_the_callers_mistake(client):
    with pytest.raises(InferenceServerException, match="datatype must be FP32") as caught:
        client.infer("toy", _inputs(np.array([1], np.int64), "INT64"))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="unknown model") as caught:
        client.infer("none", _inputs(np.array([0.5], np.float32)))
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("toy", _inputs(np.zeros(50_000, np.float32)))
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_the_client_reads_metadata_config_and_statistics(client):
    assert client.is_server_live()
    assert client.is_model_ready("toy")
    assert not client.is_model_ready("none")
    assert [one.datatype for one in client.get_model_metadata("toy").inputs] == ["FP32", "FP32", "BYTES"]
    assert client.get_model_config("toy").config.max_batch_size == 4096
    client.infer("toy", _inputs(np.array([0.5], np.float32)))
    assert client.get_inference_statistics("toy").model_stats[0].inference_stats.success.count == 1


def test_the_repository_needs_the_key(client):
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_repository_index()
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    headers = {"authorization": "Bearer key"}
    assert client.get_model_repository_index(headers=headers).models[0].state == "READY"
    client.unload_model("toy", headers=headers)
    assert not client.is_model_ready("toy")
    client.load_model("toy", headers=headers)
    assert client.is_model_ready("toy")


@pytest.fixture
def call(client):
    """Calls ModelInfer with bytes as they are; the answer, or the status and the words of the refusal."""
    channel = grpc.insecure_channel(client.address)
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def called(body: bytes):
        try:
            return service_pb2.ModelInferResponse.FromString(infer(body, timeout=10))
        except grpc.RpcError as error:
            return error.code(), error.details()

    yield called
    channel.close()


def _typed(**contents) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="toy")
    for name, kind in (("x", "FP32"), ("y", "FP32"), ("carrier", "BYTES")):
        made = request.inputs.add(name=name, datatype=kind, shape=[1])
        getattr(made.contents, "bytes_contents" if kind == "BYTES" else "fp32_contents").extend(contents[name])
    return request


def test_typed_contents_are_answered_as_raw_ones_are(call):
    answer = call(_typed(x=[0.5], y=[0.25], carrier=[b"UA"]).SerializeToString())
    (raw,) = answer.raw_output_contents
    assert np.frombuffer(raw, "<f4")[1] == pytest.approx(yes(0.5, 0.25, 1.0, 0.0), rel=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest"),
        (_typed(x=[0.5, 1.5], y=[0.25], carrier=[b"UA"]).SerializeToString(), "INVALID_ARGUMENT", "1 values of fp32_contents"),
        (_typed(x=[0.5], y=[float("nan")], carrier=[b"UA"]).SerializeToString(), "INVALID_ARGUMENT", "finite"),
        (_typed(x=[0.5], y=[0.25], carrier=[b"\xff"]).SerializeToString(), "INVALID_ARGUMENT", "UTF-8"),
        (_typed(x=[0.5], y=[0.25], carrier=[b"a" * 200_000]).SerializeToString(), "RESOURCE_EXHAUSTED", "larger than"),
    ],
    ids=["no message", "too many values", "NaN", "no UTF-8", "too large"],
)
def test_what_cannot_be_read_or_answered_is_the_callers_mistake_in_words(call, body, status, words):
    code, told = call(body)
    assert code.name == status
    assert words in told


def test_a_key_that_is_no_value_makes_nobody_sticky(call):
    request = _typed(x=[0.5], y=[0.25], carrier=[b"UA"])
    request.parameters["key"].ClearField("parameter_choice")
    assert call(request.SerializeToString()).model_version == "v1"
