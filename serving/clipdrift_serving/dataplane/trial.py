"""`python -m clipdrift_serving.dataplane.trial`: checks an ONNX file and runs it, in a process that may die of it.

Reads one line of JSON (operators, seconds, mib) and the file's bytes from stdin; writes one line of JSON to stdout: what was
measured, or `{"refused": why}`. A process that ends without a line was killed by the file.
"""

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import onnx

from clipdrift_serving.dataplane.measuring import Measured, measure
from clipdrift_serving.dataplane.model import Graph

# What models that are trained and exported use. Left out: what holds a graph (Loop, If, Scan, SequenceMap: a loop may run for
# ever), sequences and optionals (the protocol has no name for them), random numbers (an answer must be repeatable), decoders,
# regular expressions, losses, and kernels that follow indices from their input into memory (MaxUnpool, RoiAlign, DeformConv).
_ONNX = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift BitwiseAnd
BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Compress Concat Constant ConstantOfShape Conv
ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal
Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean
MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink
Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze StringNormalizer Sub Sum Swish Tan
Tanh TfIdfVectorizer ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
"""
_ONNX_ML = """
ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor
"""
_MICROSOFT = "DynamicQuantizeLSTM"  # what int8 makes of an LSTM
ALLOWED_OPERATORS = frozenset(
    [*_ONNX.split(), *(f"ai.onnx.ml:{op}" for op in _ONNX_ML.split()), *(f"com.microsoft:{op}" for op in _MICROSOFT.split())]
)
# Inputs of operators that say how large their output is: 2^40 in one of them is a terabyte.
_SIZE_INPUTS = {
    "CenterCropPad": (1,), "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1,), "Range": (0, 1, 2),
    "Resize": (2, 3), "Tile": (1,),
}  # fmt: skip
_IR_VERSIONS = (3, onnx.IR_VERSION)
_OPSETS = (7, onnx.defs.onnx_opset_version())
_MAX_INPUTS = 2048
_MAX_OUTPUTS = 64
_MAX_NAME = 256
_MAX_ROW_ELEMENTS = 1 << 24
_MAX_RANK = 8


class RefusedError(ValueError):
    """The file must not serve; the message says why and what to do."""


def check_graph(content: bytes, allowed_operators: Sequence[str] = ()) -> None:
    """Refuse a file by what stands in it; nothing of it is run.

    Args:
        content: An ONNX file.
        allowed_operators: Besides `ALLOWED_OPERATORS`, as `Loop` or `domain:Name`; one that is named here may hold a graph.

    Raises:
        RefusedError: It is not valid ONNX, refers to other files, or uses what is not allowed.
    """
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf raises types of its own
        raise RefusedError(f"it is not an ONNX file: {error}") from error
    _check_versions(model)
    _check_messages(model)
    if model.functions:
        names = [function.name for function in model.functions][:5]
        raise RefusedError(f"it defines functions of its own ({names}); export it with them written out (inlined)")
    if model.training_info:
        raise RefusedError("it holds a training graph; export it for inference")
    added = frozenset(allowed_operators)
    _check_operators(model.graph, ALLOWED_OPERATORS | added, added)
    _check_sizes(model.graph)
    _check_values("input", model.graph.input, _MAX_INPUTS)
    _check_values("output", model.graph.output, _MAX_OUTPUTS)
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # the checker raises several types
        raise RefusedError(f"onnx.checker refuses it: {type(error).__name__}: {str(error)[:500]}") from error


def _check_versions(model: onnx.ModelProto) -> None:
    if not _IR_VERSIONS[0] <= model.ir_version <= _IR_VERSIONS[1]:
        raise RefusedError(f"IR version must be {_IR_VERSIONS[0]} to {_IR_VERSIONS[1]}, got {model.ir_version}")
    domains = Counter(_domain(entry.domain) for entry in model.opset_import)
    if max(domains.values(), default=1) > 1:
        raise RefusedError(f"an operator set is imported twice: {sorted(domains)}")
    for entry in model.opset_import:
        if _domain(entry.domain) == "" and not _OPSETS[0] <= entry.version <= _OPSETS[1]:
            raise RefusedError(f"opset must be {_OPSETS[0]} to {_OPSETS[1]}, got {entry.version}; export it with another")


def _check_messages(model: onnx.ModelProto) -> None:
    """Refuse data outside the file wherever it may hide: initializers, sparse ones, attributes, graphs within graphs."""
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (
            message.external_data or message.data_location != onnx.TensorProto.DEFAULT
        ):
            places = [entry.value[:100] for entry in message.external_data if entry.key == "location"]
            raise RefusedError(
                f"tensor {message.name[:100]!r} keeps its data outside the file ({places or 'no place given'}); export it as "
                "one file"
            )


def _messages(message: Any) -> Iterator[Any]:
    """Each message within, itself included; protobuf allows 100 levels."""
    yield message
    for name, is_repeated in _message_fields(message.DESCRIPTOR):
        if is_repeated:
            for one in getattr(message, name):
                yield from _messages(one)
        elif message.HasField(name):
            yield from _messages(getattr(message, name))


@cache
def _message_fields(descriptor: Any) -> list[tuple[str, bool]]:
    return [(field.name, field.is_repeated) for field in descriptor.fields if field.message_type is not None]


def _check_operators(graph: onnx.GraphProto, allowed: frozenset[str], may_hold_graphs: frozenset[str]) -> None:
    for node in graph.node:
        domain = _domain(node.domain)
        name = f"{domain}:{node.op_type}" if domain else node.op_type
        if name not in allowed:
            raise RefusedError(
                f"operator {name[:100]!r} is not allowed (node {node.name[:100]!r}); export without it or, if you trust the "
                "file, add it to serving.admission.allowed_operators"
            )
        inner = [one for attribute in node.attribute for one in (*_graph_of(attribute), *attribute.graphs)]
        if inner and name not in may_hold_graphs:
            raise RefusedError(f"operator {name[:100]!r} holds a graph of its own, which is not allowed")
        for one in inner:
            _check_operators(one, allowed, may_hold_graphs)


def _check_sizes(graph: onnx.GraphProto) -> None:
    """Refuse a graph that takes a size from a value of a request: a trial cannot show what it does with a large one.

    Sizes that come from the shapes of inputs, which are checked, or from constants, which the trial has run, are fine.
    """
    from_values = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in order, so that what a node reads was written before
        for place in _SIZE_INPUTS.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in from_values:
                raise RefusedError(
                    f"operator {node.op_type} (node {node.name[:100]!r}) takes its size from the values of a request, so one "
                    "request could take all memory; make the size a constant"
                )
        if node.op_type not in ("Shape", "Size") and any(name in from_values for name in node.input):
            from_values.update(node.output)


def _graph_of(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [attribute.g] if attribute.HasField("g") else []


def _check_values(side: str, values: Sequence[onnx.ValueInfoProto], most: int) -> None:
    if not 1 <= len(values) <= most:
        raise RefusedError(f"a model has 1 to {most} {side}s, got {len(values)}")
    for value in values:
        is_text = isinstance(value.name, str)  # protobuf gives bytes where they are not UTF-8
        if not (is_text and 0 < len(value.name) <= _MAX_NAME and value.name.isprintable()):
            raise RefusedError(f"{side} names are 1 to {_MAX_NAME} printable characters, got {value.name[:100]!r}")
        if value.type.WhichOneof("value") != "tensor_type":
            raise RefusedError(f"{side} {value.name!r} is no tensor; export without ZipMap, sequences and optionals")
        shape = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim]
        if side == "input" and not 1 <= len(shape) <= _MAX_RANK:
            raise RefusedError(f"input {value.name!r} must have 1 to {_MAX_RANK} axes, the batch first, got {len(shape)}")
        if any(size < 1 for size in shape) or prod(shape) > _MAX_ROW_ELEMENTS:
            raise RefusedError(
                f"{side} {value.name!r} must have axes >= 1 and at most {_MAX_ROW_ELEMENTS} elements, got {shape[:10]}"
            )


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def try_out(content: bytes, operators: Sequence[str], seconds: float, mib: int) -> Measured:
    """Check, load and run a file under limits; the limits stay on this process.

    Raises:
        RefusedError: It is refused by what stands in it, or by the runtime.
    """
    _limit(seconds, mib)
    before_mib = _memory_mib("VmRSS")
    try:
        check_graph(content, operators)
        graph = Graph(content)
        measured = measure(
            graph.run, graph.inputs, fixed_rows=graph.fixed_rows, profile=graph.profile, budget_seconds=min(0.3, seconds / 4)
        )
    except RefusedError:
        raise
    except MemoryError as error:
        raise RefusedError(f"it takes more memory than serving.admission.trial_memory_mib ({mib} MiB)") from error
    except Exception as error:  # protobuf and the runtime raise many types; each means that this file cannot be served
        raise RefusedError(f"it cannot be loaded and run: {type(error).__name__}: {str(error)[:500]}") from error
    return measured._replace(peak_mib=round(max(0.0, _memory_mib("VmHWM") - before_mib), 1))


def _limit(seconds: float, mib: int) -> None:
    """Bound what the file may take from here on; what is imported already is not counted."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = ceil(used.ru_utime + used.ru_stime + seconds)
    address_space = int((_memory_mib("VmSize") + mib) * 2**20)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory_mib(field: str) -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        said: dict[str, Any] = try_out(sys.stdin.buffer.read(), **asked)._asdict()
    except RefusedError as error:
        said = {"refused": str(error)}
    except MemoryError:
        said = {"refused": f"it takes more memory than serving.admission.trial_memory_mib ({asked['mib']} MiB)"}
    os.write(answers, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
