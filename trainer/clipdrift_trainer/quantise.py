"""8-bit weights for a model with LSTM layers, kept only where it is smaller and answers as well. Needs no torch.

Whether it is faster depends on the CPU, so the result says how long a row takes before and after. A perceptron becomes slower
and a GRU is not quantised at all, so only LSTM nodes are touched.

Activations are scaled by the largest of the whole batch, so a row's answer depends a little on its neighbours: serving sees
that and does not batch such a model, and the check here looks at rows alone and together.

Axes: N rows, K classes.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.inference import open_session  # first of those that import onnxruntime: it sets what that must find

# isort: split
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

QUANTISED_KEY = "clipdrift.quantised"
RawRows: TypeAlias = Mapping[str, npt.NDArray[Any]]
_TOGETHER = 512  # rows
_TIMED_RUNS = 200
_FLOOR = 1e-12  # of a probability in a logarithm


class QuantiseError(ClipdriftError):
    """There is no 8-bit model that may take this one's place; the message says why."""


class QuantisePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the 8-bit model may lose on the validation rows."""

    max_accuracy_loss: float = 0.005
    """Classification: accuracy may fall by so much."""
    max_nll_increase: float = 0.005
    """Classification: negative log-likelihood (nats a row) may rise by so much."""
    max_error_increase_ratio: float = 0.01
    """Regression: root mean squared error may rise by this share of itself."""
    min_rows: int = 500
    """Fewer validation rows are too few to tell."""

    def __post_init__(self) -> None:
        for name in ("max_accuracy_loss", "max_nll_increase", "max_error_increase_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be 0 or more and below 1, got {getattr(self, name)!r}")
        if self.min_rows < 1:
            raise ValueError(f"min_rows must be >= 1, got {self.min_rows!r}")


class Quality(NamedTuple):
    """How well a model answers the validation rows; what does not apply is NaN."""

    accuracy: float
    nll: float  # nats a row
    rmse: float


class Quantised(NamedTuple):
    """The 8-bit model beside its original."""

    content: bytes
    digest: str
    num_bytes_before: int
    num_bytes: int
    quality_before: Quality
    quality: Quality  # of rows alone
    answers: npt.NDArray[np.float64]  # to the validation rows, each alone
    seconds_before: float  # one row, the median, on one thread; both models in turn
    seconds: float


def quantise(content: bytes, rows: RawRows, labels: npt.ArrayLike, policy: QuantisePolicy | None = None) -> Quantised:
    """An 8-bit model that answers the validation rows as well as `content` does, within the policy.

    Weights of LSTM nodes become 8-bit whole numbers, activations as they come (dynamic quantisation). Metadata is kept, and
    `clipdrift.quantised` names the original's digest.

    Args:
        content: An ONNX file with the output `probabilities` [N, K] or `value` [N, 1].
        rows: Validation rows as the model takes them: an array for each input, N first.
        labels: Class indices 0..K-1, or values; [N], finite.
        policy: Tolerances.

    Raises:
        QuantiseError: It has no LSTM node, or the 8-bit model is not smaller, or answers worse than the policy allows.
        ValueError: Rows and labels do not fit each other or the model.
    """
    policy = policy or QuantisePolicy()
    label_N = _checked_labels(rows, labels, policy)
    made = _to_int8(content)
    if len(made) >= len(content):
        raise QuantiseError(f"8 bits do not make it smaller: {len(made)} bytes, the original {len(content)}; keep the original")
    before, after = open_session(content), open_session(made)
    quality_before = _quality(_answers(before, rows, len(label_N), _TOGETHER), label_N)
    together, alone = (_answers(after, rows, len(label_N), num_rows) for num_rows in (_TOGETHER, 1))
    quality = _quality(alone, label_N)
    for found in (_quality(together, label_N), quality):
        _check_quality(quality_before, found, policy)
    seconds_before, seconds = _seconds_in_turn(before, after, {name: column[:1] for name, column in rows.items()})
    digest = f"sha256:{hashlib.sha256(made).hexdigest()}"
    return Quantised(made, digest, len(content), len(made), quality_before, quality, alone[1], seconds_before, seconds)


class Choice(NamedTuple):
    """Which of the two models is kept, and why in words."""

    content: bytes
    precision: Literal["float32", "int8"]
    words: str
    answers: npt.NDArray[np.float64] | None  # of the 8-bit model to the validation rows; None: the original is kept


def quantise_when_it_passes(
    content: bytes, rows: RawRows, labels: npt.ArrayLike, policy: QuantisePolicy | None = None
) -> Choice:
    """The 8-bit model where `quantise` makes one, else the original with the reason."""
    try:
        made = quantise(content, rows, labels, policy)
    except (QuantiseError, ValueError) as error:
        return Choice(content, "float32", str(error), None)
    return Choice(made.content, "int8", _words(made), made.answers)


def _words(made: Quantised) -> str:
    before, after = made.quality_before, made.quality
    figures = (
        f"rmse {before.rmse:.4g} -> {after.rmse:.4g}"
        if np.isnan(after.accuracy)
        else f"accuracy {before.accuracy:.4f} -> {after.accuracy:.4f}, log loss {before.nll:.4f} -> {after.nll:.4f}"
    )
    size = f"{made.num_bytes_before / 1000:.0f} -> {made.num_bytes / 1000:.0f} kB"
    speed = f"one row {made.seconds_before * 1e6:.0f} -> {made.seconds * 1e6:.0f} µs here"
    return f"8-bit weights of its LSTM layers: {size}, {figures}, {speed}"


def _checked_labels(rows: RawRows, labels: npt.ArrayLike, policy: QuantisePolicy) -> npt.NDArray[np.float64]:
    label_N = np.asarray(labels, np.float64)
    counts = {name: len(column) for name, column in rows.items()}
    if label_N.ndim != 1 or set(counts.values()) != {len(label_N)}:
        raise ValueError(f"rows and labels must be equally many: labels {label_N.shape}, rows {counts}")
    if len(label_N) < policy.min_rows:
        raise ValueError(f"validation needs at least {policy.min_rows} rows (min_rows), got {len(label_N)}")
    if not np.isfinite(label_N).all():
        raise ValueError(f"labels must be finite; row {int(np.argmin(np.isfinite(label_N)))} is not")
    return label_N


def _to_int8(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    operators = {node.op_type for node in model.graph.node}
    if "LSTM" not in operators:
        has_gru = "; a GRU cannot be quantised by ONNX Runtime" if "GRU" in operators else ""
        raise QuantiseError(f"8 bits pay only for LSTM layers, and this model has none{has_gru}; keep the original")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    # It would warn that shapes were not inferred first, which the weights of an LSTM do not need.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        try:
            quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
            made = onnx.load(path)
        except Exception as error:  # the library raises many types; the user needs the reason
            raise QuantiseError(f"ONNX Runtime cannot quantise it: {type(error).__name__}: {str(error)[:300]}") from error
    if all(node.op_type != "DynamicQuantizeLSTM" for node in made.graph.node):
        raise QuantiseError("ONNX Runtime left its LSTM as it was (its weights are no constants); keep the original")
    del made.metadata_props[:]
    original = hashlib.sha256(content).hexdigest()
    onnx.helper.set_model_props(made, {**metadata, QUANTISED_KEY: f"int8 of sha256:{original}"})
    serialised: bytes = made.SerializeToString(deterministic=True)
    return serialised


def _check_quality(before: Quality, after: Quality, policy: QuantisePolicy) -> None:
    """Raises QuantiseError where the 8-bit model is worse; a figure that is NaN on one side only is worse."""
    limits = (
        ("accuracy", before.accuracy - after.accuracy, policy.max_accuracy_loss, before.accuracy, after.accuracy),
        ("negative log-likelihood", after.nll - before.nll, policy.max_nll_increase, before.nll, after.nll),
        ("rmse", after.rmse - before.rmse, policy.max_error_increase_ratio * before.rmse, before.rmse, after.rmse),
    )
    for name, loss, allowed, old, new in limits:
        if np.isnan(old) and np.isnan(new):
            continue
        if not loss <= allowed + 1e-12:  # shares of whole rows are not exact in floats
            raise QuantiseError(
                f"8 bits make it worse: {name} {old:.5g} -> {new:.5g}, allowed is a change of {allowed:.2g}; keep the original"
            )


def _answers(
    session: onnxruntime.InferenceSession, rows: RawRows, num_rows: int, num_together: int
) -> tuple[str, npt.NDArray[np.float64]]:
    """The name of the model's output and its answers [N, K]."""
    outputs = [value.name for value in session.get_outputs()]
    output = next((name for name in ("probabilities", "value") if name in outputs), None)
    if output is None:
        raise ValueError(f"the model needs an output named probabilities or value, it has {outputs}")
    pieces = [
        session.run([output], {name: column[start : start + num_together] for name, column in rows.items()})[0]
        for start in range(0, num_rows, num_together)
    ]
    return output, np.concatenate(pieces).astype(np.float64).reshape(num_rows, -1)


def _quality(answered: tuple[str, npt.NDArray[np.float64]], label_N: npt.NDArray[np.float64]) -> Quality:
    output, answer_NK = answered
    if not np.isfinite(answer_NK).all():
        return Quality(np.nan, np.nan, np.nan) if output == "value" else Quality(0.0, np.inf, np.nan)
    if output == "value":
        return Quality(np.nan, np.nan, float(np.sqrt(np.mean((answer_NK[:, 0] - label_N) ** 2))))
    label_index_N = label_N.astype(np.int64)
    if (label_index_N != label_N).any() or not ((label_N >= 0) & (label_N < answer_NK.shape[1])).all():
        raise ValueError(f"labels must be class indices 0 to {answer_NK.shape[1] - 1}")
    own_N = np.clip(answer_NK[np.arange(len(label_N)), label_index_N], _FLOOR, 1.0)
    return Quality(float((answer_NK.argmax(axis=1) == label_index_N).mean()), float(-np.log(own_N).mean()), np.nan)


def _seconds_in_turn(
    before: onnxruntime.InferenceSession, after: onnxruntime.InferenceSession, row: RawRows
) -> tuple[float, float]:
    taken: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(_TIMED_RUNS):
        for place, session in enumerate((before, after)):
            started = perf_counter()
            session.run(None, dict(row))
            taken[place].append(perf_counter() - started)
    return median(taken[0]), median(taken[1])
