"""One loaded version: an ONNX Runtime session, what its inputs accept, and the reference profile from its metadata."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
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
from clipdrift_serving.dataplane.tensors import InputSpec, Tensor, datatype_of_onnx

_PROFILE_KEY = "clipdrift.profile"


class ArtifactError(ClipdriftError):
    """A model file that must not be served: missing, changed, or not readable by ONNX Runtime."""


class LoadedModel:
    """Ready to answer. Immutable; `infer` may be called from one thread at a time.

    Raises:
        ArtifactError: The file is missing, its digest is not the deployment's, or the runtime refuses it.
    """

    def __init__(self, name: str, served: ServedVersion) -> None:
        self.name = name
        self.served = served
        self.version = served.version
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

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run checked inputs through the graph."""
        return dict(zip(self._output_names, self._session.run(self._output_names, dict(inputs)), strict=True))

    def slice_index(self, inputs: Mapping[str, Tensor], num_rows: int) -> npt.NDArray[np.int16]:
        """Index of each row's slice; 0 where the model declares none."""
        if self.profile is None or self.profile.slices is None:
            return np.zeros(num_rows, np.int16)
        return self.profile.slices.index(inputs[self.profile.slices.feature])

    def predictions(self, outputs: Mapping[str, Tensor]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """What was predicted [N] (class index or value) and the scores [N, K], out of the first output."""
        first: npt.NDArray[Any] = outputs[self._output_names[0]]
        scores_NK = first.reshape(len(first), -1).astype(np.float32)
        is_value = self.profile is not None and self.profile.task == "regression"
        if is_value or scores_NK.shape[1] == 1:
            return scores_NK[:, 0].astype(np.float64), scores_NK
        return scores_NK.argmax(axis=1).astype(np.float64), scores_NK

    def _nullable(self) -> frozenset[str]:
        if self.profile is None:
            return frozenset()
        return frozenset(feature.spec.name for feature in self.profile.features if feature.spec.nullable)


def _read_checked(served: ServedVersion) -> bytes:
    parts = urlsplit(served.uri)
    if parts.scheme != "file":
        raise ArtifactError(f"a model's address must be file:///..., got {served.uri!r}")
    path = Path(url2pathname(parts.path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"model file {path} cannot be read: {error}") from error
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest != served.digest:
        raise ArtifactError(f"model file {path} was changed: its digest is {digest}, the deployment says {served.digest}")
    return content
