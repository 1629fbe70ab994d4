"""Small real models, and an in-memory service around them: no sockets, no torch."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import Deployment, ServedVersion
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.asked import Answer, Asked
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.recording.recorder import Recorder
from clipdrift_serving.rest.data import DataApp
from clipdrift_serving.rest.http import Request, Response

KEY = "11" * 32
PROFILE = ReferenceProfile(
    task="binary",
    classes=("no", "yes"),
    features=(
        FeatureProfile(spec=FeatureSpec(name="x", kind="numeric", nullable=True), edges=(0.0,), counts=(1, 1)),
        FeatureProfile(spec=FeatureSpec(name="y", kind="numeric"), edges=(0.0,), counts=(1, 1)),
        FeatureProfile(spec=FeatureSpec(name="carrier", kind="categorical"), categories=("AA", "UA"), counts=(1, 1, 0)),
    ),
    slices=SliceSpec(feature="carrier", categories=("AA", "UA")),
)


def write_model(folder: Path, version: str, bias: float, profile: ReferenceProfile | None = PROFILE) -> ServedVersion:
    """P(yes) = sigmoid(x or 0 + y + code(carrier) + bias); inputs x, y FP32 [N], carrier STRING [N]."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("carrier", TensorProto.STRING, ["batch"]),
    ]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    constants = [
        numpy_helper.from_array(np.array(value, dtype), name)
        for name, value, dtype in (("bias", bias, "f4"), ("one", 1.0, "f4"), ("zero", 0.0, "f4"), ("axis", [1], "i8"))
    ]
    nodes = [
        helper.make_node("IsNaN", ["x"], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "zero", "x"], ["filled"]),
        helper.make_node(
            "LabelEncoder", ["carrier"], ["code"], domain="ai.onnx.ml",
            keys_strings=["AA", "UA"], values_floats=[0.0, 1.0], default_float=2.0,
        ),
        helper.make_node("Sum", ["filled", "y", "code", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["yes"]),
        helper.make_node("Sub", ["one", "yes"], ["no"]),
        helper.make_node("Unsqueeze", ["no", "axis"], ["no_2d"]),
        helper.make_node("Unsqueeze", ["yes", "axis"], ["yes_2d"]),
        helper.make_node("Concat", ["no_2d", "yes_2d"], ["probabilities"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "toy", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if profile is not None:
        helper.set_model_props(model, {"clipdrift.profile": msgspec.json.encode(profile).decode()})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    path = folder / f"{version}.onnx"
    path.write_bytes(content)
    return ServedVersion(version=version, uri=path.as_uri(), digest=f"sha256:{hashlib.sha256(content).hexdigest()}")


def yes(x: float, y: float, code: float, bias: float) -> float:
    """What the toy model answers, in closed form."""
    return float(1 / (1 + np.exp(-((0.0 if np.isnan(x) else x) + y + code + bias))))


def deploy(served: ServedVersion, generation: int = 1, model: str = "toy", **others: object) -> Deployment:
    return Deployment(model=model, generation=generation, champion=served, decided_at_ms=0, **others)


class KeptEvents:
    """A spool that keeps events in a list, or refuses them."""

    def __init__(self) -> None:
        self.events: list = []
        self.error: Exception | None = None

    def append(self, event: object) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(event)


class Service:
    """A data plane with its HTTP application, called without a socket."""

    def __init__(self, **config: object) -> None:
        self.clock = ManualClock(now_ms=1_000_000)
        self.metrics = MetricSet()
        self.config = ServingConfig(receipt_keys=(KEY,), **config)
        self.repository = ModelRepository(self.metrics)
        self.repository.is_caught_up = True
        self.spool = KeptEvents()
        self.epoch = "0123456789abcdef"
        self.recorder = Recorder(self.spool, self.epoch, self.metrics, self.config.max_pending_rows)
        self.receipts = ReceiptBook(self.config.receipt_keys, self.epoch)
        self.plane = DataPlane(self.config, self.repository, self.receipts, self.recorder, self.clock, self.metrics)
        self.app = DataApp(self.config, self.plane, self.metrics)

    def infer(self, model: str, inputs: dict) -> Answer:
        """The answer to a request that is right."""
        answers: list[Answer] = []
        self.plane.submit(Asked(model, inputs, answers.append))
        return answers[0]

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, app: Callable | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        given = {key.lower().encode(): value.encode() for key, value in (headers or {}).items()}
        answers: list[Response] = []
        (app or self.app)(Request(method, path, b"", given, body, time.perf_counter()), answers.append)
        (answer,) = answers
        return answer.status, {k.decode(): v.decode() for k, v in answer.headers}, answer.body

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)
