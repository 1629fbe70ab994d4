"""Writes a fitted module as one ONNX file that takes the user's raw features by name, and checks it against torch.

Categories come in as strings: an `ai.onnx.ml` LabelEncoder in front of the graph knows the vocabulary. Softmax and temperature
are inside. The reference profile and the lineage are in the file's metadata.
"""

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

# ONNX Runtime sends usage data home unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.jit._trace import TracerWarning

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.profile import FeatureSpec, ReferenceProfile, TaskKind
from clipdrift_trainer.lineage import Lineage
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import Rows, Task, encode

_log = logging.getLogger(__name__)
PROFILE_KEY = "clipdrift.profile"
LINEAGE_KEY = "clipdrift.lineage"
TEMPERATURE_KEY = "clipdrift.temperature"
_OPSET = 17
_TOLERANCE = 1e-5
_CHECK_BATCHES = (1, 2, 7, 128)
_SCORE_ROWS = 4_096
_TORCH_FOLDER = Path(torch.__file__).parent
_CODE_SUFFIX = "__code"


class ExportError(ClipdriftError):
    """The exported file does not say what torch says; it must not be served."""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A model file and what stands in its metadata."""

    path: Path
    digest: str
    profile: ReferenceProfile
    lineage: Lineage
    temperature: float

    @property
    def uri(self) -> str:
        return self.path.resolve().as_uri()


class _Exported(nn.Module):
    """The module with positional inputs (what the exporter understands) and its last step inside."""

    def __init__(self, module: nn.Module, names: Sequence[str], kind: TaskKind, temperature: float) -> None:
        super().__init__()
        self._module = module
        self._names = tuple(names)
        self._kind = kind
        self._temperature = temperature

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._module(dict(zip(self._names, tensors, strict=True)))
        return output if self._kind == "regression" else torch.softmax(output / self._temperature, dim=1)


def export_onnx(
    task: Task,
    module: nn.Module,
    rows: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    *,
    profile: ReferenceProfile,
    lineage: Lineage,
    temperature: float,
    path: Path,
) -> Artifact:
    """Write `module` to `path` and return it only when it agrees with torch on real rows.

    The same module gives the same bytes. The batch is the only dynamic axis: the exporter silently freezes others.

    Args:
        task: Names the features.
        module: Takes encoded features, gives logits or values.
        rows: Real rows to check with; at least two.
        vocabularies: Categories of each categorical feature.
        profile: Goes into the metadata, like lineage and temperature.
        lineage: See `profile`.
        temperature: Divides the logits; 1 for regression.
        path: The file to write; its folder is made.

    Raises:
        ExportError: The graph cannot be exported, differs from torch by more than 1e-5 (relative, for values above 1), or
            `path` exists with other content.
    """
    if len(rows) < 2:
        raise ExportError(f"an export needs at least 2 rows to check with, got {len(rows)}")
    module.eval()
    graph = _trace(task, module, rows, vocabularies, temperature)
    _encode_labels(graph, task.features, vocabularies)
    metadata = {
        PROFILE_KEY: msgspec.json.encode(profile).decode(),
        LINEAGE_KEY: msgspec.json.encode(lineage).decode(),
        TEMPERATURE_KEY: repr(temperature),
    }
    helper.set_model_props(graph, metadata)
    graph.producer_name, graph.producer_version = "clipdrift", ""
    onnx.checker.check_model(graph)
    content = graph.SerializeToString(deterministic=True)
    _compare(task, module, rows, vocabularies, temperature, content)
    _write_once(path, content)
    return Artifact(path=path, digest=digest_of(content), profile=profile, lineage=lineage, temperature=temperature)


def read_artifact(path: Path) -> Artifact:
    """What is written in a model file's metadata.

    Raises:
        ExportError: There is no such file, or it was not written by `export_onnx`.
    """
    try:
        return parse_artifact(path, path.read_bytes())
    except OSError as error:
        raise ExportError(f"model file {path} cannot be read: {error}") from error


def parse_artifact(path: Path, content: bytes) -> Artifact:
    """As `read_artifact`, for a file at `path` whose bytes are at hand.

    Raises:
        ExportError: The bytes were not written by `export_onnx`.
    """
    try:
        metadata = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
        return Artifact(
            path=path,
            digest=digest_of(content),
            profile=msgspec.json.decode(metadata[PROFILE_KEY], type=ReferenceProfile),
            lineage=msgspec.json.decode(metadata[LINEAGE_KEY], type=Lineage),
            temperature=float(metadata[TEMPERATURE_KEY]),
        )
    except Exception as error:  # protobuf and msgspec raise many types; each means that the file is not ours
        raise ExportError(f"{path} is not a model that Clipdrift exported: {type(error).__name__}: {error}") from error


def score_rows(content: bytes, features: Sequence[FeatureSpec], rows: Rows) -> npt.NDArray[np.float64]:
    """What an exported model answers for raw rows: class probabilities [N, K] or values [N, 1]."""
    return _answer(_session(content), features, rows)


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _answer(session: onnxruntime.InferenceSession, features: Sequence[FeatureSpec], rows: Rows) -> npt.NDArray[np.float64]:
    if not len(rows):  # a GRU on an empty batch kills the process: ONNX Runtime divides by zero
        return np.zeros((0, session.get_outputs()[0].shape[1]))
    pieces = [
        session.run(None, {spec.name: _raw(spec, rows, slice(start, start + _SCORE_ROWS)) for spec in features})[0]
        for start in range(0, len(rows), _SCORE_ROWS)
    ]
    joined: npt.NDArray[np.float64] = np.concatenate(pieces).astype(np.float64)
    return joined


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _write_once(path: Path, content: bytes) -> None:
    """A version's file never changes: it may be in service, and its digest is its name."""
    if path.exists():
        if path.read_bytes() != content:
            raise ExportError(
                f"{path} exists with other content; a version is never overwritten: move it away to train it again"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def _trace(
    task: Task, module: nn.Module, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]], temperature: float
) -> onnx.ModelProto:
    names = [spec.name for spec in task.features]
    tensors = encode(task, rows.select(np.arange(min(len(rows), 8))), vocabularies)
    inputs = [
        name + _CODE_SUFFIX if spec.kind == "categorical" else name for name, spec in zip(names, task.features, strict=True)
    ]
    output = "value" if task.kind == "regression" else "probabilities"
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            # The older exporter is tens of times faster here (docs/design/trainer.md) and as faithful.
            torch.onnx.export(
                _Exported(module, names, task.kind, temperature),
                tuple(tensors[name] for name in names),
                buffer,  # type: ignore[arg-type]  # a buffer is allowed, the annotation is behind
                dynamo=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=[output],
                dynamic_axes={name: {0: "batch"} for name in (*inputs, output)},
            )
    except Exception as error:  # the exporter raises whatever its passes raise; the user needs the reason
        raise ExportError(f"torch cannot export this module: {type(error).__name__}: {error}") from error
    for warning in raised:  # the others are about the exporter itself, or about torch's own layers, which it knows
        is_the_users = not Path(warning.filename).is_relative_to(_TORCH_FOLDER)
        if issubclass(warning.category, TracerWarning) and is_the_users:
            _log.warning("the export freezes a decision of the module as it fell for the example: %s", warning.message)
    return onnx.load_from_string(buffer.getvalue())


def _encode_labels(
    graph: onnx.ModelProto, features: Sequence[FeatureSpec], vocabularies: Mapping[str, tuple[str, ...]]
) -> None:
    """Put a LabelEncoder before every categorical input, so that the graph takes strings under the user's own name."""
    inputs = {value.name: value for value in graph.graph.input}
    nodes = []
    for spec in features:
        code = spec.name + _CODE_SUFFIX
        if spec.kind != "categorical" or code not in inputs:
            continue
        words = vocabularies[spec.name]
        graph.graph.input.remove(inputs[code])
        graph.graph.input.append(helper.make_tensor_value_info(spec.name, TensorProto.STRING, ["batch"]))
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [spec.name],
                [code],
                name=f"encode_{spec.name}",
                domain="ai.onnx.ml",
                keys_strings=list(words),
                values_int64s=list(range(len(words))),
                default_int64=len(words),
            )
        )
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)
    if nodes:
        graph.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def _compare(
    task: Task,
    module: nn.Module,
    rows: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    temperature: float,
    content: bytes,
) -> None:
    session = _session(content)
    for value in session.get_inputs():
        spec = next(spec for spec in task.features if spec.name == value.name)
        if value.shape != ["batch", *spec.shape]:
            raise ExportError(f"input {value.name!r} was frozen to shape {value.shape}, expected ['batch', {list(spec.shape)}]")
    missing = {spec.name for spec in task.features} - {value.name for value in session.get_inputs()}
    if missing:
        raise ExportError(f"the module never reads its features {sorted(missing)}; drop them from the task")
    for num_rows in _CHECK_BATCHES:
        some = _with_hard_cases(task, rows.select(np.arange(num_rows) % len(rows)))
        logits = predict_logits(module, encode(task, some, vocabularies))
        expected = to_scores(logits, task.kind, temperature)
        difference = float(np.abs(_answer(session, task.features, some) - expected).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ExportError(
                f"the exported model differs from torch by {difference:.2g} at batch {num_rows} (allowed {_TOLERANCE})"
            )


def _with_hard_cases(task: Task, rows: Rows) -> Rows:
    """The same rows, the first with every nullable number missing and every category unknown."""
    features = {name: column.copy() for name, column in rows.features.items()}
    for spec in task.features:
        if spec.kind == "categorical":
            features[spec.name][0] = "never seen before"
        elif spec.nullable:
            features[spec.name][0] = np.nan
    return Rows(features, rows.label, rows.time_ms, rows.label_time_ms)


def _raw(spec: FeatureSpec, rows: Rows, part: slice) -> npt.NDArray[np.generic]:
    column = rows.features[spec.name][part]
    return column.astype(str).astype(object) if spec.kind == "categorical" else column.astype(np.float32)
