"""A model with an input and an output of each type: what goes in comes out."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from clipdrift_contract.events import ServedVersion

TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip


def write_echo(folder: Path) -> ServedVersion:
    """`in_fp32` [batch, 3] comes back as `out_fp32`, and so for each type; without a reference profile."""
    inputs = [helper.make_tensor_value_info(f"in_{name.lower()}", kind, ["batch", 3]) for name, kind in TYPES.items()]
    outputs = [helper.make_tensor_value_info(f"out_{name.lower()}", kind, ["batch", 3]) for name, kind in TYPES.items()]
    nodes = [helper.make_node("Identity", [f"in_{name.lower()}"], [f"out_{name.lower()}"]) for name in TYPES]
    graph = helper.make_graph(nodes, "echo", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    path = folder / "echo.onnx"
    path.write_bytes(content)
    return ServedVersion(version="1", uri=path.as_uri(), digest=f"sha256:{hashlib.sha256(content).hexdigest()}")
