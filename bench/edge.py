"""Peak memory of a whole server with the settings of docs/howto/serve-at-the-edge.md. The last line is one JSON object.

Four clients ask as fast as they can, up to 64 rows a request, binary and JSON in turn; every input is recorded. `..._peak_mb`
are millions of bytes (VmHWM) for a small feed-forward network and for an LSTM over 64 steps of 8 features; `..._unrecorded` is
what did not fit the spool at that speed.
"""

import concurrent.futures
import http.client
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "serving_peers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving" / "operations"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving" / "dataplane"))
import models
import msgspec
import numpy as np
import onnx
from ours import NUM_FEATURES, serving, write_mlp
from test_edge import edge_settings

from clipdrift_contract.profile import FeatureProfile, FeatureSpec

os.environ["MALLOC_ARENA_MAX"], os.environ["MALLOC_TRIM_THRESHOLD_"] = "1", "65536"  # of the server, as the page says
NUM_CLIENTS, NUM_REQUESTS = 4, 800
STEPS, FEATURES = 64, 8


def ask(port: int, row_shape: tuple[int, ...], seed: int) -> int:
    """Number of rows answered."""
    random = np.random.default_rng(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    num_rows = 0
    for number in range(NUM_REQUESTS):
        rows = int(random.integers(1, 65))
        values = random.normal(size=(rows, *row_shape)).astype("<f4")
        one = {"name": "x", "shape": list(values.shape), "datatype": "FP32"}
        if number % 2 and rows <= 16:
            body, headers = json.dumps({"inputs": [{**one, "data": values.round(4).ravel().tolist()}]}).encode(), {}
        else:
            head = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": values.nbytes}}]}).encode()
            body, headers = head + values.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
        connection.request("POST", "/v2/models/edge/infer", body, headers)
        answer = json.loads(connection.getresponse().read())
        if len(answer["parameters"]["receipts"]) != rows:
            raise SystemExit(f"{rows} rows were answered with {answer}")
        num_rows += rows
    connection.close()
    return num_rows


def write_lstm(path: Path) -> None:
    """A recurrent network whose window is recorded whole."""
    spec = FeatureSpec(name="x", kind="sequence", shape=(STEPS, FEATURES))
    features = (FeatureProfile(spec=spec, edges=(0.0,), counts=(1, 1)),)
    model = models.lstm(64, FEATURES, STEPS)
    profile = msgspec.structs.replace(models.BINARY, features=features)
    onnx.helper.set_model_props(model, {"clipdrift.profile": msgspec.json.encode(profile).decode()})
    onnx.save(model, path)


def measure(model: Path, row_shape: tuple[int, ...]) -> tuple[float, float]:
    """Peak in millions of bytes, and rows that were not recorded."""
    with (
        serving(model.parent, model, "edge", grpc_port=0, **edge_settings()) as server,
        concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool,
    ):
        num_rows = sum(pool.map(ask, [server.port] * NUM_CLIENTS, [row_shape] * NUM_CLIENTS, range(NUM_CLIENTS)))
        if server.metric("clipdrift_serving_rows_total") != num_rows:
            raise SystemExit("the server counts other rows than it answered")
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        unrecorded = server.metric("clipdrift_serving_unrecorded_total")
    return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6, 1), unrecorded


def main() -> dict[str, object]:
    found: dict[str, object] = {"bench": "edge"}
    for name, row_shape in (("mlp", (NUM_FEATURES,)), ("lstm", (STEPS, FEATURES))):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edge.onnx"
            if name == "mlp":
                write_mlp(path)
            else:
                write_lstm(path)
            print(f"{name} ...", flush=True)
            found[f"{name}_peak_mb"], found[f"{name}_unrecorded"] = measure(path, row_shape)
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
