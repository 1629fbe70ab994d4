"""Small real ONNX models, good and bad, each made in memory. No torch."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile

FLOAT = TensorProto.FLOAT
REGRESSION = ReferenceProfile(task="regression")
BINARY = ReferenceProfile(task="binary", classes=("no", "yes"))


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    metadata: Mapping[str, ReferenceProfile] | None = None,
    opset: int = 20,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are name -> (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 3) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    if metadata:
        helper.set_model_props(model, {key: msgspec.json.encode(one).decode() for key, one in metadata.items()})
    return model


def save(model: onnx.ModelProto | bytes, folder: Path, version: str = "v1") -> ServedVersion:
    """The file, and what a deployment would say of it."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / f"{version}.onnx"
    path.write_bytes(content)
    return ServedVersion(version=version, uri=path.as_uri(), digest=f"sha256:{hashlib.sha256(content).hexdigest()}")


# --- good ones --------------------------------------------------------------------------------------------------------------


def doubled(kind: int = FLOAT, batch: int | str = "batch") -> onnx.ModelProto:
    """value = x + x, for any number type; a float `value` beside it where the type is none."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    nodes = [helper.make_node("Add", ["x", "x"], ["value" if kind in floats else "sum"])]
    outputs = {"value" if kind in floats else "sum": (kind, [batch, 3])}
    if kind not in floats:
        nodes.append(helper.make_node("Cast", ["sum"], ["value"], to=FLOAT))
        outputs["value"] = (FLOAT, [batch, 3])
    return make(nodes, {"x": (kind, [batch, 3])}, outputs, metadata={"clipdrift.profile": REGRESSION})


def words() -> onnx.ModelProto:
    """code [N] = place of a word in (a, b), 2 for all others."""
    node = helper.make_node(
        "LabelEncoder", ["word"], ["code"], domain="ai.onnx.ml",
        keys_strings=["a", "b"], values_floats=[0.0, 1.0], default_float=2.0,
    )  # fmt: skip
    return make([node], {"word": (TensorProto.STRING, ["batch"])}, {"code": (FLOAT, ["batch"])}, domains=["ai.onnx.ml"])


def embedded(num_words: int) -> onnx.ModelProto:
    """value = the row of a table that an INT64 index names; an index beyond the table is refused by the runtime."""
    table = np.arange(num_words * 2, dtype=np.float32).reshape(num_words, 2)
    node = helper.make_node("Gather", ["table", "index"], ["value"])
    return make(
        [node], {"index": (TensorProto.INT64, ["batch"])}, {"value": (FLOAT, ["batch", 2])}, {"table": table},
        metadata={"clipdrift.profile": REGRESSION},
    )  # fmt: skip


def softmax(axis: int) -> onnx.ModelProto:
    """probabilities = softmax(x); over axis 0 the rows of a batch change each other's answers."""
    node = helper.make_node("Softmax", ["x"], ["probabilities"], axis=axis)
    return make([node], {"x": (FLOAT, ["batch", 2])}, {"probabilities": (FLOAT, ["batch", 2])})


def pooled() -> onnx.ModelProto:
    """value [N, 1] fits its row, `total` [1] is of the whole batch: it cannot be split again."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "one"], ["value"], keepdims=1),
        helper.make_node("ReduceSum", ["value", "zero"], ["total"], keepdims=0),
    ]
    constants = {"one": np.array([1]), "zero": np.array([0])}
    return make(nodes, {"x": (FLOAT, ["batch", 2])}, {"value": (FLOAT, ["batch", 1]), "total": (FLOAT, [1])}, constants)


def several(metadata: Mapping[str, ReferenceProfile], *, num_columns: int | str = 2) -> onnx.ModelProto:
    """probabilities = softmax(x) [N, 2]; arrival = 10 x [N, 2]; delay = x[:, :1] + 1 [N, 1]."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["probabilities"], axis=1),
        helper.make_node("Mul", ["x", "ten"], ["arrival"]),
        helper.make_node("Gather", ["x", "first"], ["some"], axis=1),
        helper.make_node("Add", ["some", "unit"], ["delay"]),
    ]
    outputs = {
        "arrival": (FLOAT, ["batch", num_columns]),
        "probabilities": (FLOAT, ["batch", 2]),
        "delay": (FLOAT, ["batch", 1]),
    }
    constants = {"ten": np.float32(10), "unit": np.float32(1), "first": np.array([0])}
    return make(nodes, {"x": (FLOAT, ["batch", 2])}, outputs, constants, metadata=metadata)


def profiled(*, log: bool = False) -> onnx.ModelProto:
    """value = x - 1 over x with a profile (bins around 1000, missing values allowed)."""
    spec = FeatureSpec(name="x", kind="numeric", nullable=True)
    profile = ReferenceProfile(
        task="regression", features=(FeatureProfile(spec=spec, edges=(900.0, 1000.0, 1100.0), counts=(0, 5, 5, 0)),)
    )
    node = helper.make_node("Log", ["x"], ["value"]) if log else helper.make_node("Sub", ["x", "one"], ["value"])
    constants = {} if log else {"one": np.float32(1)}
    return make(
        [node], {"x": (FLOAT, ["batch"])}, {"value": (FLOAT, ["batch"])}, constants, metadata={"clipdrift.profile": profile}
    )


def lstm(hidden: int = 32, features: int = 4, steps: int = 8) -> onnx.ModelProto:
    """probabilities [N, 2] = softmax(W h), h the last state of an LSTM over x [N, steps, features]; seeded weights."""
    rng = np.random.default_rng(7)
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["xt", "w", "r", "b"], ["", "h"], hidden_size=hidden),
        helper.make_node("Squeeze", ["h", "zero"], ["last"]),
        helper.make_node("MatMul", ["last", "out"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "w": rng.normal(0, 0.3, (1, 4 * hidden, features)).astype("f4"),
        "r": rng.normal(0, 0.3, (1, 4 * hidden, hidden)).astype("f4"),
        "b": np.zeros((1, 8 * hidden), "f4"),
        "zero": np.array([0]),
        "out": rng.normal(0, 1, (hidden, 2)).astype("f4"),
    }
    return make(
        nodes, {"x": (FLOAT, ["batch", steps, features])}, {"probabilities": (FLOAT, ["batch", 2])}, constants,
        metadata={"clipdrift.profile": BINARY},
    )  # fmt: skip


def int8_lstm(folder: Path) -> bytes:
    """`lstm` with 8-bit weights; its activations are scaled by the largest of the whole batch."""
    path = folder / "int8.onnx"
    quantize_dynamic(lstm(), path, op_types_to_quantize=["LSTM"])
    return path.read_bytes()


# --- bad ones ---------------------------------------------------------------------------------------------------------------


def endless() -> onnx.ModelProto:
    """A loop of 2^62 turns that the runtime does not cut short: about 300 bytes that hang for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Add", ["sum", "sum"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", FLOAT, ["batch"]),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("next", FLOAT, ["batch"])],
    )
    node = helper.make_node("Loop", ["turns", "yes", "x"], ["value"], body=body)
    constants = {"turns": np.array(2**62), "yes": np.array(True)}
    return make([node], {"x": (FLOAT, ["batch"])}, {"value": (FLOAT, ["batch"])}, constants)


def vast(log2_elements: int = 33) -> onnx.ModelProto:
    """value = x + max(zeros of 2^33 elements): 32 GiB for a row. The size hangs on x, so that it is not folded at load."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Mul", ["rows", "large"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["value"]),
    ]
    constants = {"large": np.array([2**log2_elements])}
    return make(nodes, {"x": (FLOAT, ["batch"])}, {"value": (FLOAT, ["batch"])}, constants)


def treacherous() -> onnx.ModelProto:
    """value = x + max(zeros of x elements): harmless on small values, out of memory on a large one."""
    nodes = [
        helper.make_node("Cast", ["x"], ["size"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["value"]),
    ]
    return make(nodes, {"x": (FLOAT, ["batch"])}, {"value": (FLOAT, ["batch"])})


def deadly() -> onnx.ModelProto:
    """A GRU over a batch that was cut to no rows: ONNX Runtime does not survive it."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["xt", "zero", "zero", "one"], ["none"]),
        helper.make_node("GRU", ["none", "w", "r"], ["", "h"], hidden_size=2),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["x", "others"], ["row"], keepdims=0),
        helper.make_node("Add", ["row", "sum"], ["value"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "others": np.array([1, 2]),
        "w": np.ones((1, 6, 3), "f4"), "r": np.ones((1, 6, 2), "f4"),
    }  # fmt: skip
    return make(nodes, {"x": (FLOAT, ["batch", 4, 3])}, {"value": (FLOAT, ["batch"])}, constants)


def outside(location: str, *, offset: str | None = None, length: str | None = None) -> onnx.ModelProto:
    """value = x + c, the constant's data in another file."""
    node = helper.make_node("Add", ["x", "c"], ["value"])
    model = make([node], {"x": (FLOAT, ["batch", 3])}, {"value": (FLOAT, ["batch", 3])}, {"c": np.zeros(3, "f4")})
    point_outside(model.graph.initializer[0], location, offset, length)
    return model


def point_outside(tensor: onnx.TensorProto, location: str, offset: str | None = None, length: str | None = None) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
