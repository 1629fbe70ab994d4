"""The server as it is sold, with a model in service: recording, receipts, metrics and checks on. A context for benches."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.log import Bus
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.events import PREDICTIONS, Deployment, ServedVersion
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile

NUM_FEATURES = 32
_TOKEN = "bench"
_START = (
    "import json, pathlib, sys; from clipdrift_serving.config import ServingConfig; from clipdrift_serving.server import run;"
    "given = json.loads(sys.argv[1]); given['spool_dir'] = pathlib.Path(given['spool_dir']); run(ServingConfig(**given))"
)


class Server(NamedTuple):
    """A serving process: its ports and its process."""

    port: int
    admin_port: int
    grpc_port: int
    process: subprocess.Popen
    bus: Bus

    def metric(self, name: str) -> float:
        """Sum of a metric's series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def num_recorded_rows(self) -> int:
        """Rows of predictions on the bus, once all that waits is sent."""
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        flush = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}/v1/recording/flush", b"", headers)
        with urllib.request.urlopen(flush, timeout=60):
            pass
        consumer, publisher = self.bus.consumer(None, [PREDICTIONS]), self.bus.publisher()
        reader, total = EventReader(consumer, publisher=publisher, metrics=MetricSet(), clock=SystemClock()), 0
        while found := reader.poll(500, 0.2):
            total += sum(len(event.sequence.array()) for _, _, event in found)
        return total


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def write_mlp(path: Path) -> None:
    """32-64-64-2 with softmax; seeded weights, and a reference profile that watches the one input as a sequence."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, 0.2, shape).astype("f4") for shape in ((32, 64), (64, 64), (64, 2))]
    constants = [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]), helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w2"], ["e"]), helper.make_node("Softmax", ["e"], ["probabilities"], axis=1),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", NUM_FEATURES])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = FeatureSpec(name="x", kind="sequence", shape=(NUM_FEATURES,))
    profile = ReferenceProfile(
        task="binary", classes=("no", "yes"), features=(FeatureProfile(spec=spec, edges=(0.0,), counts=(1, 1)),)
    )
    helper.set_model_props(model, {"clipdrift.profile": msgspec.json.encode(profile).decode()})
    onnx.save(model, path)


def served_version(model: Path) -> ServedVersion:
    """What a deployment says of the file."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return ServedVersion(version="v1", uri=model.as_uri(), digest=f"sha256:{digest}")


@contextlib.contextmanager
def serving(folder: Path, model: Path, name: str = "mlp", **config: object) -> Iterator[Server]:
    """The product's server in a process of its own, with `model` in service, on a SQLite bus in `folder`."""
    bus_url = f"sqlite:///{folder}/bus.db"
    ports = {"port": free_port(), "admin_port": free_port(), "grpc_port": free_port()}
    given = {
        **ports, "admin_token": _TOKEN, "receipt_keys": ["11" * 32], "bus_url": bus_url, "spool_dir": str(folder / "spool"),
        **config,
    }  # fmt: skip
    bus = connect(bus_url)
    served = served_version(model)
    events = EventPublisher(bus.publisher(), source="bench", clock=SystemClock())
    events.publish(Deployment(model=name, generation=1, champion=served, decided_at_ms=0))
    events.flush(10)
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", _START, json.dumps(given)], env=environment)
    try:
        wait_for(f"http://127.0.0.1:{given['port']}/v2/health/ready", process)
        yield Server(given["port"], given["admin_port"], given["grpc_port"], process, bus)
    finally:
        process.terminate()
        process.wait(60)
        bus.close()


def wait_for(url: str, process: subprocess.Popen, body: bytes | None = None) -> None:
    """Until the address answers 200; ends the bench when the process is gone or half a minute is over."""
    end = time.monotonic() + 30
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer")
