"""What the server says of itself and its models, as plain values in the shape that both transports send."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from clipdrift_serving.dataplane.model import LoadedModel
from clipdrift_serving.dataplane.repository import InService, ModelRepository
from clipdrift_serving.dataplane.tensors import BYTES
from clipdrift_serving.dataplane.usage import Usage

VERSION = metadata.version("clipdrift")
PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("model_configuration", "model_repository", "statistics")
UsageByVersion = Mapping[tuple[str, str], Usage]


def server_metadata(*extensions: str) -> dict[str, Any]:
    """Name, version, and what a transport offers beyond the protocol; `extensions`: besides what all of them do."""
    return {"name": "clipdrift", "version": VERSION, "extensions": [*_EXTENSIONS, *extensions]}


def model_metadata(repository: ModelRepository, name: str, version: str = "") -> dict[str, Any]:
    """Inputs and outputs of a model, batch dimension included.

    Raises:
        RequestError: The model or the version is not in service.
    """
    serving, model = found(repository, name, version)
    return {
        "name": name,
        "versions": [loaded.version for loaded in serving.versions()],
        "platform": PLATFORM,
        "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in model.inputs.values()],
        "outputs": [{"name": key, "datatype": kind, "shape": shape} for key, (kind, shape) in model.outputs.items()],
    }


def model_config(repository: ModelRepository, name: str, version: str = "", *, max_rows: int) -> dict[str, Any]:
    """A model's configuration as Triton writes it: dimensions without the batch's.

    Raises:
        RequestError: The model or the version is not in service.
    """
    _, model = found(repository, name, version)
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": max_rows,
        "input": [_tensor(spec.name, spec.datatype, spec.row_shape) for spec in model.inputs.values()],
        "output": [_tensor(key, kind, shape[1:]) for key, (kind, shape) in model.outputs.items()],
    }


def statistics(repository: ModelRepository, usage: UsageByVersion, name: str = "", version: str = "") -> dict[str, Any]:
    """What was asked of each version in this process's life, as Triton writes it; without a name, of all models.

    Times are nanoseconds. What is not measured on its own (reading inputs, writing outputs) has a count of 0. A batch size is
    the rows of a run rounded up to a power of two.

    Raises:
        RequestError: The model or the version is not in service.
    """
    listed = []
    for one in [name] if name else repository.names():
        serving, model = found(repository, one, version)
        for shown in [model] if version else serving.versions():
            listed.append(_statistics(one, shown.version, usage.get((one, shown.version)) or Usage()))
    return {"model_stats": listed}


def index(repository: ModelRepository, *, is_ready_only: bool = False) -> list[dict[str, str]]:
    """Each version in service, and each model that was announced and is not."""
    ready = [
        {"name": name, "version": model.version, "state": "READY", "reason": ""}
        for name in repository.names()
        for model in repository.get(name).versions()
    ]
    gone = {} if is_ready_only else repository.unavailable()
    return ready + [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": gone[name]} for name in sorted(gone)]


def found(repository: ModelRepository, name: str, version: str) -> tuple[InService, LoadedModel]:
    if not version:  # the champion, without a ticket: a question must not move the canary's share
        serving = repository.get(name)
        return serving, serving.champion
    serving, model, _ = repository.route(name, version)
    return serving, model


def _tensor(name: str, datatype: str, row_shape: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "data_type": "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"}
    if not row_shape:  # the format knows no tensor without dimensions: a column is one of 1
        return {**entry, "dims": [1], "reshape": {"shape": []}}
    return {**entry, "dims": list(row_shape)}


def _statistics(name: str, version: str, usage: Usage) -> dict[str, Any]:
    nothing = _duration(0, 0)
    return {
        "name": name,
        "version": version,
        "last_inference": usage.last_ms,
        "inference_count": usage.num_rows,
        "execution_count": usage.num_runs,
        "inference_stats": {
            "success": _duration(usage.num_requests, usage.total_ns),
            "fail": _duration(usage.num_failed, 0),
            "queue": _duration(usage.num_requests, usage.queue_ns),
            "compute_input": nothing,
            "compute_infer": _duration(usage.num_runs, usage.compute_ns),
            "compute_output": nothing,
        },
        "batch_stats": [
            {"batch_size": size, "compute_input": nothing, "compute_infer": _duration(*runs), "compute_output": nothing}
            for size, runs in sorted(usage.runs_by_rows.items())
        ],
    }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
