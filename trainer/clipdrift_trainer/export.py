"""Writes a fitted module as one ONNX file that takes the user's raw features by name, and checks it against torch.

Categories come in as strings: an `ai.onnx.ml` LabelEncoder in front of the graph knows the vocabulary. Softmax and temperature
are inside. The reference profile and the lineage are in the file's metadata.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from torch import nn

from clipdrift_contract.files import write_whole
from clipdrift_contract.profile import FeatureSpec, ReferenceProfile
from clipdrift_trainer.conversion import CONVERTERS, Question
from clipdrift_trainer.export_error import ExportError
from clipdrift_trainer.inference import open_session
from clipdrift_trainer.lineage import Lineage
from clipdrift_trainer.quantise import QUANTISED_KEY
from clipdrift_trainer.soundness import check_module, with_hard_cases
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import Rows, Task, encode

_log = logging.getLogger(__name__)
PROFILE_KEY = "clipdrift.profile"
LINEAGE_KEY = "clipdrift.lineage"
TEMPERATURE_KEY = "clipdrift.temperature"
_TOLERANCE = 1e-5
_EXAMPLE_ROWS = 8
_CHECK_BATCHES = (1, 2, 7, 128)
_SPREAD_ROWS = 2_048  # compared besides, from all over the rows
_SCORE_ROWS = 4_096
_CODE_SUFFIX = "__code"


class _UnreadError(ExportError):
    """No other exporter will change that."""


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


def build_onnx(
    task: Task,
    module: nn.Module,
    rows: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    *,
    profile: ReferenceProfile,
    lineage: Lineage,
    temperature: float,
) -> bytes:
    """The file's content, which agrees with torch on real rows.

    The same module gives the same bytes; it is left in evaluation mode. The batch is the only dynamic axis. torch's older
    exporter traces the module; where that fails, would freeze a decision of the module's code or answers otherwise, its newer
    one captures the code.

    Args:
        task: Names the features.
        module: Takes encoded features, gives logits or values.
        rows: Real rows to check with; at least two.
        vocabularies: Categories of each categorical feature.
        profile: Goes into the metadata, like lineage and temperature.
        lineage: See `profile`.
        temperature: Divides the logits; 1 for regression.

    Raises:
        ExportError: The module is not sound (see `check_module`), neither exporter takes it, or what they make differs from
            torch by more than 1e-5 (relative, for values above 1).
    """
    if len(rows) < 2:
        raise ExportError(f"an export needs at least 2 rows to check with, got {len(rows)}")
    module.eval()
    check_module(task, module, rows, vocabularies)
    question = _question(task, module, rows, vocabularies, temperature)
    metadata = {
        PROFILE_KEY: msgspec.json.encode(profile).decode(),
        LINEAGE_KEY: msgspec.json.encode(lineage).decode(),
        TEMPERATURE_KEY: repr(temperature),
    }
    reasons = []
    for convert in CONVERTERS:
        try:
            graph = convert(question)
            _check_reads_all(graph, question)
            content = _finished(graph, task.features, vocabularies, metadata)
            _compare(task, module, rows, vocabularies, temperature, content)
        except _UnreadError:
            raise
        except ExportError as error:
            reasons.append(str(error).rstrip("."))
            _log.info("%s does not give a faithful file: %s", convert.__name__, error)
        else:
            return content
    raise ExportError(
        f"the module cannot be exported faithfully. Its trace: {reasons[0]}. Its code: {reasons[1]}. Choose by torch.where "
        "instead of if, take the number of rows from x.shape[0], and use operators that ONNX has"
    )


def write_artifact(path: Path, content: bytes) -> Artifact:
    """Write an exported model to `path`, whose folder is made, and return what it says of itself.

    Raises:
        ExportError: `path` exists with other content, or the content was not exported here.
    """
    artifact = parse_artifact(path, content)
    _write_once(path, content)
    return artifact


def read_artifact(path: Path) -> Artifact:
    """What is written in a model file's metadata.

    Raises:
        ExportError: There is no such file, or it was not exported here.
    """
    try:
        return parse_artifact(path, path.read_bytes())
    except OSError as error:
        raise ExportError(f"model file {path} cannot be read: {error}") from error


def parse_artifact(path: Path, content: bytes) -> Artifact:
    """As `read_artifact`, for a file at `path` whose bytes are at hand.

    Raises:
        ExportError: The bytes were not exported here.
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
    """What an exported model answers for raw rows: class probabilities [N, K] or values [N, 1]. An 8-bit model is asked row by
    row, as it is in service."""
    return _answer(open_session(content), features, rows)


def raw_columns(features: Sequence[FeatureSpec], rows: Rows) -> dict[str, npt.NDArray[Any]]:
    """Raw rows as a model's inputs take them: float32, or strings as objects."""
    return {spec.name: _raw(spec, rows, slice(None)) for spec in features}


def _answer(session: Any, features: Sequence[FeatureSpec], rows: Rows) -> npt.NDArray[np.float64]:
    if not len(rows):  # a GRU on an empty batch kills the process: ONNX Runtime divides by zero
        return np.zeros((0, session.get_outputs()[0].shape[1]))
    num_together = 1 if QUANTISED_KEY in session.get_modelmeta().custom_metadata_map else _SCORE_ROWS
    pieces = [
        session.run(None, {spec.name: _raw(spec, rows, slice(start, start + num_together)) for spec in features})[0]
        for start in range(0, len(rows), num_together)
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
    write_whole(path, content)


def _question(
    task: Task, module: nn.Module, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]], temperature: float
) -> Question:
    tensors = encode(task, rows.select(np.arange(min(len(rows), _EXAMPLE_ROWS))), vocabularies)
    names = tuple(spec.name for spec in task.features)
    return Question(
        module=module,
        kind=task.kind,
        temperature=temperature,
        features=names,
        inputs=tuple(spec.name + _CODE_SUFFIX if spec.kind == "categorical" else spec.name for spec in task.features),
        output="value" if task.kind == "regression" else "probabilities",
        example=tuple(tensors[name] for name in names),
    )


def _check_reads_all(graph: onnx.ModelProto, question: Question) -> None:
    read = {name for node in graph.graph.node for name in node.input}
    unread = [name for name, given in zip(question.features, question.inputs, strict=True) if given not in read]
    if unread:
        raise _UnreadError(f"the module never reads its features {unread}; drop them from the task")


def _finished(
    graph: onnx.ModelProto,
    features: Sequence[FeatureSpec],
    vocabularies: Mapping[str, tuple[str, ...]],
    metadata: dict[str, str],
) -> bytes:
    _encode_labels(graph, features, vocabularies)
    helper.set_model_props(graph, metadata)
    graph.producer_name, graph.producer_version = "clipdrift", ""
    try:
        onnx.checker.check_model(graph)
    except Exception as error:  # the checker raises several types
        raise ExportError(f"what torch wrote is not valid ONNX: {error}") from error
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


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
    try:
        session = open_session(content)
    except Exception as error:  # ONNX Runtime raises many types
        raise ExportError(
            f"ONNX Runtime cannot run it: {str(error)[:300]} (its CPU kernels are for float32: call .float() on a float64 or "
            "float16 module)"
        ) from error
    for value in session.get_inputs():
        spec = next(spec for spec in task.features if spec.name == value.name)
        if value.shape != ["batch", *spec.shape]:
            raise ExportError(f"input {value.name!r} was frozen to shape {value.shape}, expected ['batch', {list(spec.shape)}]")
    spread = np.unique(np.linspace(0, len(rows) - 1, _SPREAD_ROWS).astype(np.int64))
    for chosen in (*(np.arange(num_rows) % len(rows) for num_rows in _CHECK_BATCHES), spread):
        some = with_hard_cases(task, rows.select(chosen))
        logits = predict_logits(module, encode(task, some, vocabularies))
        expected = to_scores(logits, task.kind, temperature)
        try:
            answers = _answer(session, task.features, some)
        except Exception as error:  # as above
            raise ExportError(f"ONNX Runtime fails at batch {len(some)}: {str(error)[:300]}") from error
        difference = float(np.abs(answers - expected).max()) if answers.shape == expected.shape else float("nan")
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ExportError(
                f"the exported model differs from torch by {difference:.2g} at batch {len(some)} (allowed {_TOLERANCE})"
            )


def _raw(spec: FeatureSpec, rows: Rows, part: slice) -> npt.NDArray[np.generic]:
    column = rows.features[spec.name][part]
    return column.astype(str).astype(object) if spec.kind == "categorical" else column.astype(np.float32)
