"""Triton's clients, unchanged, on our server: http, http.aio and grpc."""

import asyncio
import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_aio
from echo_model import TYPES
from serving_process import TOKEN
from toy_service import yes
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

pytestmark = pytest.mark.system
X = np.array([0.5, -1.0], np.float32)
Y = np.array([0.25, 2.0], np.float32)
CARRIER = np.array([b"UA", b"AA"], dtype=np.object_)
EXPECTED = [yes(0.5, 0.25, 1.0, 0.0), yes(-1.0, 2.0, 0.0, 0.0)]
ADMIN = {"authorization": f"Bearer {TOKEN}"}


def toy_inputs(client, **binary):
    """The toy's inputs of two rows for a client's module."""
    inputs = []
    for name, values, kind in (("x", X, "FP32"), ("y", Y, "FP32"), ("carrier", CARRIER, "BYTES")):
        made = client.InferInput(name, [2], kind)
        made.set_data_from_numpy(values, **({"binary_data": binary[name]} if name in binary else {}))
        inputs.append(made)
    return inputs


def echo_values(kind: str) -> np.ndarray:
    if kind == "BYTES":
        return np.array([["a", "ü", ""], ["longer word", "\N{SNOWMAN}", "0"]], dtype=object)
    dtype = triton_to_np_dtype(kind)
    if kind == "BOOL":
        return np.array([[True, False, True], [False, True, True]])
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return np.array([[0, 1, 2], [limits.min, limits.max, 100]], dtype)


def echo_inputs(client, **options):
    inputs = []
    for kind in TYPES:
        made = client.InferInput(f"in_{kind.lower()}", [2, 3], kind)
        values = echo_values(kind)
        if kind == "BYTES":
            values = np.array([[str(word).encode() for word in row] for row in values], dtype=np.object_)
        is_json = options.get("binary_data") is False and kind != "FP16"  # the client knows no FP16 in JSON
        made.set_data_from_numpy(values, **({"binary_data": not is_json} if options else {}))
        inputs.append(made)
    return inputs


def check_echo(result):
    for kind in TYPES:
        got, wanted = result.as_numpy(f"out_{kind.lower()}"), echo_values(kind)
        if kind == "BYTES":
            got = np.array([[one.decode() if isinstance(one, bytes) else one for one in row] for row in got], dtype=object)
        assert got.shape == (2, 3), kind
        assert (got == wanted).all(), kind


@pytest.fixture
def http(server):
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


@pytest.fixture
def admin(server):
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.admin_port}") as client:
        yield client


@pytest.fixture
def grpc(server):
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        yield client


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_http_infers_with_tensors_of_either_form_and_any_compression(http, binary_in, binary_out, packing):
    result = http.infer(
        "toy",
        toy_inputs(triton_http, x=binary_in, y=True, carrier=not binary_in),
        outputs=[triton_http.InferRequestedOutput("probabilities", binary_data=binary_out)],
        request_id="r1",
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
    )
    np.testing.assert_allclose(result.as_numpy("probabilities")[:, 1], EXPECTED, rtol=1e-6)
    response = result.get_response()
    assert (response["id"], response["model_version"], len(response["parameters"]["receipts"])) == ("r1", "v1", 2)


@pytest.mark.parametrize("binary", [True, False])
def test_http_takes_and_gives_every_data_type(http, binary):
    outputs = [triton_http.InferRequestedOutput(f"out_{kind.lower()}", binary_data=binary or kind == "FP16") for kind in TYPES]
    check_echo(http.infer("echo", echo_inputs(triton_http, binary_data=binary), outputs=outputs))


def test_http_asks_for_some_outputs_of_a_version(http):
    outputs = [triton_http.InferRequestedOutput("out_int8")]
    result = http.infer("echo", echo_inputs(triton_http), model_version="1", outputs=outputs)
    assert [one["name"] for one in result.get_response()["outputs"]] == ["out_int8"]


def test_http_reads_health_metadata_configuration_and_statistics(http):
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("toy")
    assert http.is_model_ready("toy", "v1")
    assert not http.is_model_ready("none")
    assert {"binary_tensor_data", "statistics"} <= set(http.get_server_metadata()["extensions"])
    metadata = http.get_model_metadata("toy")
    assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {"x": "FP32", "y": "FP32", "carrier": "BYTES"}
    assert http.get_model_config("toy")["max_batch_size"] > 0
    http.infer("toy", toy_inputs(triton_http))
    (statistics,) = http.get_inference_statistics("toy")["model_stats"]
    assert statistics["inference_count"] >= 2
    assert {one["name"] for one in http.get_inference_statistics()["model_stats"]} == {"toy", "echo"}


def test_the_admin_listener_lists_loads_and_unloads(admin, http):
    assert {(one["name"], one["state"]) for one in admin.get_model_repository_index(headers=ADMIN)} == {
        ("toy", "READY"),
        ("echo", "READY"),
    }
    admin.unload_model("echo", headers=ADMIN)
    assert not http.is_model_ready("echo")
    admin.load_model("echo", headers=ADMIN)
    assert http.is_model_ready("echo")
    with pytest.raises(InferenceServerException, match="admin token"):
        admin.unload_model("echo")


def test_a_mistake_is_the_clients_exception_with_our_words(http, grpc):
    for client, module in ((http, triton_http), (grpc, triton_grpc)):
        with pytest.raises(InferenceServerException, match="inputs must be exactly"):
            client.infer("toy", toy_inputs(module)[:2])
        with pytest.raises(InferenceServerException, match="unknown model"):
            client.infer("none", toy_inputs(module))


def test_the_asynchronous_client_sends_many_at_once(server):
    async def ask():
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}", conn_limit=20) as client:
            return await asyncio.gather(*(client.infer("toy", toy_inputs(triton_aio)) for _ in range(50)))

    for result in asyncio.run(ask()):
        np.testing.assert_allclose(result.as_numpy("probabilities")[:, 1], EXPECTED, rtol=1e-6)


def test_grpc_infers_and_carries_receipts(grpc):
    result = grpc.infer("toy", toy_inputs(triton_grpc), request_id="g1")
    np.testing.assert_allclose(result.as_numpy("probabilities")[:, 1], EXPECTED, rtol=1e-6)
    response = result.get_response()
    assert response.id == "g1"
    assert len(json.loads(response.parameters["receipts"].string_param)) == 2


def test_grpc_takes_and_gives_every_data_type(grpc):
    check_echo(grpc.infer("echo", echo_inputs(triton_grpc)))


def test_grpc_reads_health_metadata_configuration_and_statistics(grpc):
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert grpc.is_model_ready("toy")
    assert [one.name for one in grpc.get_model_metadata("toy").inputs] == ["x", "y", "carrier"]
    assert grpc.get_model_config("toy").config.backend == "onnxruntime"
    grpc.infer("toy", toy_inputs(triton_grpc))
    assert grpc.get_inference_statistics("toy").model_stats[0].inference_count >= 2


def test_grpc_is_no_way_around_the_admin_token(grpc):
    with pytest.raises(InferenceServerException, match="admin"):
        grpc.unload_model("toy")
    with pytest.raises(InferenceServerException, match="admin"):
        grpc.get_model_repository_index()
    assert {one.name for one in grpc.get_model_repository_index(headers=ADMIN).models} == {"toy", "echo"}
