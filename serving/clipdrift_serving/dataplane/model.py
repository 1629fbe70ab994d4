"""One loaded version: an ONNX Runtime session, what its inputs accept, and the outputs that are watched.

Axes: N rows, K columns of scores.
"""

import hashlib
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Mapping
from math import isfinite, prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# ONNX Runtime sends usage data home unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import ReferenceProfile, SliceSpec
from clipdrift_contract.version_files import file_at
from clipdrift_serving.dataplane.admission import AdmissionPolicy, ArtifactError, check_form, try_out
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.measuring import Measured, measure, rows_that_run
from clipdrift_serving.dataplane.tensors import InputSpec, Tensor, datatype_of_onnx

__all__ = ["AdmissionPolicy", "ArtifactError", "Graph", "Head", "LoadedModel", "Measured"]

_PROFILE_KEY = "clipdrift.profile"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # it stands in addresses, and in receipts with a length of one byte
_HEAD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_F4, _F8 = np.dtype(np.float32), np.dtype(np.float64)
_FEW_COLUMNS = 16  # up to here one row is scored faster by plain Python than by array calls
_MEASURE_SECONDS = 0.02  # in the server's own process, where nothing was tried


class Graph:
    """A session, and what its inputs, outputs and metadata say. Raises whatever the runtime raises."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # no slower, and memory stays flat after one large batch
        options.log_severity_level = 4  # what is wrong is raised
        options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, not what the bytes look like
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.profiles = {
            key.removeprefix(_PROFILE_KEY).removeprefix("."): msgspec.json.decode(text, type=ReferenceProfile)
            for key, text in sorted(metadata.items())
            if key == _PROFILE_KEY or key.startswith(f"{_PROFILE_KEY}.")
        }
        self.profile = self.profiles.get("")
        nullable = {feature.spec.name for one in self.profiles.values() for feature in one.features if feature.spec.nullable}
        given = self.session.get_inputs()
        if not given:
            raise ValueError("it has no input")
        scalars = [value.name for value in given if not value.shape]
        if scalars:
            raise ValueError(f"inputs {scalars[:5]} have no axis for the rows")
        self.inputs = {
            value.name: InputSpec(value.name, datatype_of_onnx(value.type), value.shape, is_nullable=value.name in nullable)
            for value in given
        }
        self.outputs = {
            value.name: (datatype_of_onnx(value.type), [size if isinstance(size, int) else -1 for size in value.shape])
            for value in self.session.get_outputs()
        }
        fixed = {value.shape[0] for value in given if isinstance(value.shape[0], int)}
        if len(fixed) > 1:
            raise ValueError(f"its inputs are fixed to different numbers of rows: {sorted(fixed)}")
        self.fixed_rows: int = fixed.pop() if fixed else 0

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        return dict(zip(self.outputs, self.session.run(None, inputs), strict=True))


class Head:
    """An output that is watched under a name of its own.

    Attributes:
        name: The model's for the main head, `<model>.<output>[.<column>]` for a further one.
        output: Which output.
        column: Which column of it; None: all.
        profile: Reference profile; None: nothing was declared.
        is_value: Whether a value is predicted, not a class.
    """

    def __init__(
        self,
        name: str,
        output: str,
        column: int | None,
        profile: ReferenceProfile | None,
        num_columns: int | None,
    ) -> None:
        self.name = name
        self.output = output
        self.column = column
        self.profile = profile
        is_regression = profile is not None and profile.task == "regression"
        self.is_value = is_regression or column is not None or num_columns == 1
        if profile is not None and not self.is_value and num_columns not in (None, len(profile.classes)):
            raise ArtifactError(f"output {output!r} has {num_columns} columns, its profile {len(profile.classes)} classes")
        if profile is not None and not is_regression and self.is_value:
            raise ArtifactError(f"the profile of {name!r} has classes, so its output needs a column for each; got one column")

    def scores(self, outputs: Mapping[str, Tensor], num_rows: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """What was predicted [N] (class index or value) and the scores [N, K].

        Raises:
            RequestError: The model's answer is not finite, so it is none; or it is not one row for each row.
        """
        found = outputs[self.output]
        if found.ndim != 2:
            found = found.reshape(len(found) if found.ndim else 1, -1)
        if self.column is not None:
            found = found[:, self.column : self.column + 1]
        if len(found) != num_rows:
            raise RequestError("no_answer", f"{self.name!r} answers {len(found)} rows to {num_rows}")
        scores_NK: npt.NDArray[np.float32] = found if found.dtype is _F4 else _as_f4(found)
        if num_rows == 1 and 0 < scores_NK.shape[1] <= _FEW_COLUMNS:
            values = scores_NK[0].tolist()
            if isfinite(sum(values)):  # so few float32 cannot overflow a float64: the sum is finite when each is
                predicted = found[0, 0] if self.is_value else values.index(max(values))
                return np.array([predicted], _F8), scores_NK
        return self._scores_of_many(found, scores_NK)

    def _scores_of_many(
        self, found: npt.NDArray[Any], scores_NK: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        is_finite_NK = np.isfinite(scores_NK)
        if not is_finite_NK.all():
            row = int(np.argmin(is_finite_NK.all(axis=1)))
            raise RequestError("no_answer", f"{self.name!r} has no finite answer to row {row}; its values are extreme")
        if self.is_value:
            return found[:, 0].astype(_F8), scores_NK
        return scores_NK.argmax(axis=1).astype(_F8), scores_NK


class LoadedModel:
    """Ready to answer. Immutable; `infer` may be called from one thread at a time.

    Args:
        name: The model's.
        served: Which file, and its digest.
        admission: What the file must fulfil; None: it is loaded here untried, as tests and tools do with files of their own.

    Raises:
        ArtifactError: The file is missing, its digest is not the deployment's, it is refused, or the runtime refuses it.
    """

    def __init__(
        self,
        name: str,
        served: ServedVersion,
        admission: AdmissionPolicy | None = None,
        tried: Measured | None = None,
    ) -> None:
        self.name = name
        self.served = served
        self.version = served.version
        for word in (name, served.version):
            if not _NAME.fullmatch(word):
                raise ArtifactError(f"names of models and versions are 1 to 64 of A-Z a-z 0-9 _ . -, got {word[:100]!r}")
        content = _read_checked(served, admission or AdmissionPolicy())
        if tried is None and admission is not None and admission.is_trial_required:
            tried = try_out(content, served.uri, admission)
        try:
            graph = Graph(content)
        except Exception as error:  # the runtime raises many types; each means that this file cannot be served
            raise ArtifactError(f"{served.uri} cannot be loaded: {type(error).__name__}: {error}") from error
        self._run = graph.session.run
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self.profile = graph.profile
        self._output_names = list(self.outputs)
        self._slice = None if self.profile is None or self.profile.slices is None else _Slicer(self.profile.slices)
        self.measured, answered = _warm_up(graph, tried)
        self.heads = _heads(name, graph, answered)
        slicing = None if self._slice is None else self._slice.feature
        if slicing is not None and slicing not in self.inputs:
            raise ArtifactError(
                f"{served.uri}: its profile slices by {slicing!r}, which is no input: {sorted(self.inputs)[:20]}"
            )

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run checked inputs through the graph.

        Raises:
            RequestError: The graph refuses these inputs (a fixed batch size, an index out of range).
        """
        try:
            values = self._run(self._output_names, inputs if type(inputs) is dict else dict(inputs))
        except Exception as error:  # the runtime raises many types; the graph is the one that was admitted
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise RequestError("bad_input", f"model {self.name!r} cannot run these inputs: {reason}") from error
        return dict(zip(self._output_names, values, strict=True))

    def slice_index(self, inputs: Mapping[str, Tensor], num_rows: int) -> npt.NDArray[np.int16]:
        """Index of each row's slice; 0 where the model declares none."""
        if self._slice is None:
            return np.zeros(num_rows, np.int16)
        return self._slice.index(inputs[self._slice.feature])

    def predictions(
        self, outputs: Mapping[str, Tensor], num_rows: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """The main head's `scores`."""
        return self.heads[0].scores(outputs, num_rows)


class _Slicer:
    """`SliceSpec.index`, made ready once, and quick for one row."""

    def __init__(self, spec: SliceSpec) -> None:
        self.feature = spec.feature
        self._spec = spec
        self._index_of = {name: index for index, name in enumerate(spec.categories)}
        self._edges = spec.edges

    def index(self, values_N: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        if self._index_of:
            find, other = self._index_of.get, len(self._index_of)
            if values_N.dtype.kind == "O":  # strings as they came
                return np.array([find(str(value), other) for value in values_N.tolist()], np.int16)
        elif len(values_N) == 1 and values_N.ndim == 1:
            value = float(values_N[0])
            return np.array([len(self._edges) + 1 if value != value else bisect_right(self._edges, value)], np.int16)
        return self._spec.index(values_N)


def _warm_up(graph: Graph, tried: Measured | None) -> tuple[Measured, dict[str, Tensor]]:
    """Run the graph once or more before the first request does; returns what was measured and what it answered last.

    A file that was not tried and runs on no made-up row is served one request at a time.
    """
    answered: dict[str, Tensor] = {}

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = graph.run(inputs)
        answered.clear()
        answered.update(outputs)
        return outputs

    try:
        if tried is not None:
            rows_that_run(run, graph.inputs, graph.fixed_rows, graph.profile)
            return tried, answered
        return measure(
            run, graph.inputs, fixed_rows=graph.fixed_rows, profile=graph.profile, budget_seconds=_MEASURE_SECONDS
        ), answered
    except ValueError:
        return tried or Measured(is_batchable=False), answered


def _heads(name: str, graph: Graph, answered: Mapping[str, Tensor]) -> tuple[Head, ...]:
    """The main head, then one for each profile of a further output or column."""
    floats = [output for output, (kind, _) in graph.outputs.items() if kind in ("FP16", "FP32", "FP64")]
    if not floats:
        raise ArtifactError(f"model {name!r} has no output of floats, so nothing that can be watched: {graph.outputs}")
    main = next((output for output in ("probabilities", "value") if output in floats), floats[0])
    heads = [Head(name, main, None, graph.profile, _num_columns(graph, main, answered))]
    for key, profile in graph.profiles.items():
        if key:
            heads.append(_further_head(name, key, profile, graph, floats, answered))
    return tuple(heads)


def _further_head(
    name: str, key: str, profile: ReferenceProfile, graph: Graph, floats: list[str], answered: Mapping[str, Tensor]
) -> Head:
    output, column = key, None
    if key not in graph.outputs:
        output, _, digits = key.rpartition(".")
        column = int(digits) if digits.isdecimal() and len(digits) < 6 else None
    num_columns = _num_columns(graph, output, answered) if output in floats else None
    if output not in floats or (output != key and column is None):
        raise ArtifactError(f"metadata {_PROFILE_KEY}.{key[:100]} names no output of floats; the model has {floats[:20]}")
    if column is not None and num_columns is not None and column >= num_columns:
        raise ArtifactError(f"metadata {_PROFILE_KEY}.{key[:100]}: output {output!r} has {num_columns} columns, counted from 0")
    if not _HEAD_NAME.fullmatch(f"{name}.{key}"):
        raise ArtifactError(f"watched outputs are named with A-Z a-z 0-9 _ . -, got {key[:100]!r}; rename the output")
    return Head(f"{name}.{key}", output, column, profile, num_columns)


def _num_columns(graph: Graph, output: str, answered: Mapping[str, Tensor]) -> int | None:
    """Numbers a row in an output: as declared, else as answered; None where neither says."""
    declared = graph.outputs[output][1][1:]
    if all(size >= 0 for size in declared):
        return prod(declared)
    found = answered.get(output)
    return None if found is None or found.ndim == 0 else prod(found.shape[1:])


def _as_f4(found: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
        return found.astype(_F4)


def _read_checked(served: ServedVersion, admission: AdmissionPolicy) -> bytes:
    try:
        if urlsplit(served.uri).scheme != "file":
            raise ArtifactError(f"a model's address must be file:///..., got {served.uri!r}")
        path = file_at(served.uri)
        content = _read(path, admission.max_model_bytes)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"model file {served.uri!r} cannot be read: {error}") from error
    check_form(content, served.uri, admission.max_model_bytes)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest != served.digest:
        raise ArtifactError(f"model file {served.uri} was changed: its digest is {digest}, the deployment says {served.digest}")
    if admission.public_key_files:
        # packages that most servers do not have
        from clipdrift_serving.dataplane.signed import check_signature  # noqa: PLC0415

        check_signature(path, served.version, digest, admission)
    return content


def _read(path: Path, max_bytes: int) -> bytes:
    """At most one byte more than is allowed; a pipe or a device, which may never end, is not opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        return file.read(max_bytes + 1)
