"""One loaded version: an ONNX Runtime session, what its inputs accept, and the reference profile from its metadata."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

# ONNX Runtime sends usage data home unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import InputSpec, Tensor, datatype_of_onnx

_PROFILE_KEY = "clipdrift.profile"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # it stands in addresses, and in receipts with a length of one byte


class ArtifactError(ClipdriftError):
    """A model file that must not be served: missing, changed, or not readable by ONNX Runtime."""


class Measured(NamedTuple):
    """What a trial found out."""

    is_batchable: bool = True
    seconds_per_run: float = 0.0


class Head:
    """An output that is watched."""

    def __init__(self, name: str, model: "LoadedModel") -> None:
        self.name = name
        self.profile = model.profile
        self._model = model
        self.output = model._score_output
        first = model.outputs[model._score_output][1]
        self.is_value = (model.profile is not None and model.profile.task == "regression") or first[-1] == 1 or len(first) == 1

    def scores(self, outputs: Mapping[str, Tensor], num_rows: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        return self._model.predictions(outputs, num_rows)


class LoadedModel:
    """Ready to answer. Immutable; `infer` may be called from one thread at a time.

    Raises:
        ArtifactError: The file is missing, its digest is not the deployment's, or the runtime refuses it.
    """

    def __init__(self, name: str, served: ServedVersion) -> None:
        self.name = name
        self.served = served
        self.version = served.version
        for word in (name, served.version):
            if not _NAME.fullmatch(word):
                raise ArtifactError(f"names of models and versions are 1 to 64 of A-Z a-z 0-9 _ . -, got {word[:100]!r}")
        content = _read_checked(served)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # no slower, and memory stays flat after one large batch
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.profile = (
                msgspec.json.decode(metadata[_PROFILE_KEY], type=ReferenceProfile) if _PROFILE_KEY in metadata else None
            )
            self.inputs = {
                value.name: InputSpec(
                    value.name, datatype_of_onnx(value.type), value.shape, is_nullable=value.name in self._nullable()
                )
                for value in self._session.get_inputs()
            }
            self.outputs = {
                value.name: (datatype_of_onnx(value.type), [d if isinstance(d, int) else -1 for d in value.shape])
                for value in self._session.get_outputs()
            }
        except Exception as error:  # the runtime raises many types; each means that this file cannot be served
            raise ArtifactError(f"{served.uri} cannot be loaded: {type(error).__name__}: {error}") from error
        self._output_names = list(self.outputs)
        self._score_output = self._find_scores(served)
        self.measured = Measured()
        self.heads = (Head(name, self),)
        if not self.inputs:
            raise ArtifactError(f"{served.uri} has no input")

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run checked inputs through the graph.

        Raises:
            RequestError: The graph refuses these inputs (a fixed batch size, an index out of range).
        """
        try:
            values = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # the runtime raises many types; the graph is the one that was admitted
            reason = f"{type(error).__name__}: {str(error)[:300]}"
            raise RequestError("bad_input", f"model {self.name!r} cannot run these inputs: {reason}") from error
        return dict(zip(self._output_names, values, strict=True))

    def slice_index(self, inputs: Mapping[str, Tensor], num_rows: int) -> npt.NDArray[np.int16]:
        """Index of each row's slice; 0 where the model declares none."""
        if self.profile is None or self.profile.slices is None:
            return np.zeros(num_rows, np.int16)
        return self.profile.slices.index(inputs[self.profile.slices.feature])

    def predictions(
        self, outputs: Mapping[str, Tensor], num_rows: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """What was predicted [N] (class index or value) and the scores [N, K].

        They are the output `probabilities` or `value`, else the first of floats.

        Raises:
            RequestError: The model's answer is not finite, so it is none; or it is not one row for each row.
        """
        first: npt.NDArray[Any] = outputs[self._score_output]
        scores_NK = first.reshape(len(first) if first.ndim else 1, -1).astype(np.float32)
        if len(scores_NK) != num_rows:
            raise RequestError("no_answer", f"model {self.name!r} answers {len(scores_NK)} rows to {num_rows}")
        is_finite_N = np.isfinite(scores_NK).all(axis=1)
        if not is_finite_N.all():
            row = int(np.argmin(is_finite_N))
            raise RequestError("no_answer", f"model {self.name!r} has no finite answer to row {row}; its values are extreme")
        is_value = self.profile is not None and self.profile.task == "regression"
        if is_value or scores_NK.shape[1] == 1:
            return scores_NK[:, 0].astype(np.float64), scores_NK
        return scores_NK.argmax(axis=1).astype(np.float64), scores_NK

    def _find_scores(self, served: ServedVersion) -> str:
        floats = [name for name, (kind, _) in self.outputs.items() if kind in ("FP16", "FP32", "FP64")]
        if not floats:
            raise ArtifactError(f"{served.uri} has no output of floats, so nothing that can be watched: {self.outputs}")
        return next((name for name in ("probabilities", "value") if name in floats), floats[0])

    def _nullable(self) -> frozenset[str]:
        if self.profile is None:
            return frozenset()
        return frozenset(feature.spec.name for feature in self.profile.features if feature.spec.nullable)


def _read_checked(served: ServedVersion) -> bytes:
    try:
        parts = urlsplit(served.uri)
        path = Path(url2pathname(parts.path))
        content = path.read_bytes() if parts.scheme == "file" else None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"model file {served.uri!r} cannot be read: {error}") from error
    if content is None:
        raise ArtifactError(f"a model's address must be file:///..., got {served.uri!r}")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest != served.digest:
        raise ArtifactError(f"model file {path} was changed: its digest is {digest}, the deployment says {served.digest}")
    return content
