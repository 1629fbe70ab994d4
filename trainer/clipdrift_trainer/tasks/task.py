"""The task: how a user's data and model come in, and the guard that nothing from the future comes with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.profile import FeatureSpec, SliceSpec, TaskKind

Columns = dict[str, npt.NDArray[Any]]


class LeakError(ClipdriftError):
    """A task handed out rows that could not have been known at the time asked for."""


@dataclass(frozen=True)
class Rows:
    """N labelled rows: raw features by the user's own names, labels, when each row happened and when its label was known.

    `label` holds class indices, or values for regression. Times are milliseconds since 1970 UTC.
    """

    features: Columns
    label: npt.NDArray[np.float64]
    time_ms: npt.NDArray[np.int64]
    label_time_ms: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {"label": len(self.label), "time_ms": len(self.time_ms), "label_time_ms": len(self.label_time_ms)}
        lengths |= {name: len(column) for name, column in self.features.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.label)

    def select(self, index: npt.NDArray[Any]) -> "Rows":
        """The rows at `index` (positions or a mask), in that order."""
        features = {name: column[index] for name, column in self.features.items()}
        return Rows(features, self.label[index], self.time_ms[index], self.label_time_ms[index])


@dataclass(frozen=True)
class BuildContext:
    """What a model may be built from: the training rows (for normalisation) and the categories they hold."""

    rows: Rows
    vocabularies: Mapping[str, tuple[str, ...]]


@runtime_checkable
class Task(Protocol):
    """What Clipdrift asks of a user's task. `BaseTask` brings everything but `load` and `build`."""

    kind: ClassVar[TaskKind]
    classes: ClassVar[tuple[str, ...]]
    features: ClassVar[tuple[FeatureSpec, ...]]
    slices: ClassVar[SliceSpec | None]
    num_steps: int
    batch_size: int

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        """Rows that happened in [start, end) and whose label was known by `as_of`, in any order."""
        ...

    def build(self, context: BuildContext) -> nn.Module:
        """A fresh module: dict of tensors by feature name in, logits [N, K] (or the value [N, 1]) out."""
        ...

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer: ...

    def loss(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The scalar to minimise; `label` is long [N] for classes, float [N] for values."""
        ...


class BaseTask:
    """Defaults for a task: cross-entropy or squared error, Adam, 1,000 steps of 128 rows."""

    kind: ClassVar[TaskKind] = "binary"
    classes: ClassVar[tuple[str, ...]] = ("0", "1")
    features: ClassVar[tuple[FeatureSpec, ...]] = ()
    slices: ClassVar[SliceSpec | None] = None
    num_steps: int = 1_000
    batch_size: int = 128

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        raise NotImplementedError(
            f"{type(self).__name__} must say how rows are loaded: load(start_ms, end_ms, as_of_ms) -> Rows"
        )

    def build(self, context: BuildContext) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} must say what the model is: build(context) -> nn.Module")

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=1e-3)

    def loss(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        if self.kind == "regression":
            return nn.functional.mse_loss(output.squeeze(-1), label)
        return nn.functional.cross_entropy(output, label)


def load_as_of(task: Task, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
    """Load a window of labelled rows exactly as they could have been known at `as_of_ms`, in time order.

    The only way in which the trainer loads anything. What it checks: every declared feature is there, has its shape and is
    finite unless nullable; labels are valid; no row lies outside the window; no label was known only later.

    Raises:
        LeakError: A row or a label comes from outside what was asked for; the message says how many and which first.
        ValueError: A column is missing or has the wrong shape, type or values.
    """
    rows = task.load(start_ms, end_ms, as_of_ms)
    _check_forms(rows)
    _check_leaks(rows, start_ms, end_ms, as_of_ms)
    features = {spec.name: _checked_column(spec, rows) for spec in task.features}
    label = np.asarray(rows.label, np.float64)
    _check_labels(task, label)
    checked = Rows(features, label, np.asarray(rows.time_ms, np.int64), np.asarray(rows.label_time_ms, np.int64))
    return checked.select(np.argsort(checked.time_ms, kind="stable"))


def _check_forms(rows: Rows) -> None:
    """A label of shape [N, 1] would be broadcast against [N] outputs, and a NaN time is after nothing and before nothing."""
    for name in ("label", "time_ms", "label_time_ms"):
        column = np.asarray(getattr(rows, name))
        if column.ndim != 1:
            raise ValueError(f"{name} must have shape [N], got {column.shape}; flatten it")
        if name != "label" and column.dtype.kind == "f" and not np.isfinite(column).all():
            num_missing = int((~np.isfinite(column)).sum())
            raise ValueError(
                f"{name} must be known for every row, it is NaN or infinite for {num_missing}; leave those rows out"
            )


def _check_leaks(rows: Rows, start_ms: int, end_ms: int, as_of_ms: int) -> None:
    faults = (
        (rows.time_ms < start_ms, f"happened before the window begins ({start_ms})"),
        (rows.time_ms >= end_ms, f"happened at or after the window's end ({end_ms})"),
        (rows.label_time_ms > as_of_ms, f"have a label that was known only after as_of ({as_of_ms})"),
        (rows.label_time_ms < rows.time_ms, "have a label that was known before the row happened"),
    )
    for is_fault_N, words in faults:
        if np.any(is_fault_N):
            first = int(np.argmax(is_fault_N))
            raise LeakError(
                f"{int(is_fault_N.sum())} of {len(rows)} rows {words}; the first is row {first} "
                f"(time {int(rows.time_ms[first])}, label known {int(rows.label_time_ms[first])})"
            )


def _checked_column(spec: FeatureSpec, rows: Rows) -> npt.NDArray[Any]:
    if spec.name not in rows.features:
        raise ValueError(f"load() gave no column {spec.name!r}; it gave {sorted(rows.features)}")
    column = rows.features[spec.name]
    if spec.kind == "categorical":
        return column.astype(str).astype(object)
    expected = (len(rows), *spec.shape)
    if column.shape != expected:
        raise ValueError(f"feature {spec.name!r} must have shape {expected}, got {column.shape}")
    numbers = column.astype(np.float32)
    if np.isinf(numbers).any() or (not spec.nullable and np.isnan(numbers).any()):
        allowed = "finite or NaN" if spec.nullable else "finite (declare it nullable to allow NaN)"
        raise ValueError(f"feature {spec.name!r} must be {allowed}; {int((~np.isfinite(numbers)).sum())} values are not")
    return numbers


def _check_labels(task: Task, label_N: npt.NDArray[np.float64]) -> None:
    if task.kind == "regression":
        if not np.isfinite(label_N).all():
            raise ValueError("labels must be finite numbers")
        return
    if len(task.classes) < 2:
        raise ValueError(f"a {task.kind} task names at least two classes, got {task.classes!r}")
    allowed = np.arange(len(task.classes))
    if not np.isin(label_N, allowed).all():
        wrong = label_N[~np.isin(label_N, allowed)][0]
        raise ValueError(f"labels must be class indices 0..{len(task.classes) - 1}, got {wrong!r}")


def vocabularies_of(task: Task, rows: Rows, max_categories: int = 64) -> dict[str, tuple[str, ...]]:
    """The categories of each categorical feature, most frequent first, at most `max_categories`; rarer ones share the last
    code."""
    found = {}
    for spec in task.features:
        if spec.kind == "categorical":
            names, counts = np.unique(rows.features[spec.name].astype(str), return_counts=True)
            order = np.lexsort((names, -counts))[:max_categories]
            found[spec.name] = tuple(names[order].tolist())
    return found


def encode(task: Task, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]]) -> dict[str, torch.Tensor]:
    """Tensors by feature name: float32 [N, ...] for numbers, int64 codes [N] for categories (unknown: one past the last)."""
    tensors = {}
    for spec in task.features:
        column = rows.features[spec.name]
        if spec.kind == "categorical":
            lookup = {name: code for code, name in enumerate(vocabularies[spec.name])}
            words, inverse_N = np.unique(column.astype(str), return_inverse=True)
            codes = np.array([lookup.get(str(word), len(lookup)) for word in words], np.int64)
            tensors[spec.name] = torch.from_numpy(codes[inverse_N] if len(words) else np.zeros(0, np.int64))
        else:
            tensors[spec.name] = torch.from_numpy(np.ascontiguousarray(column, np.float32))
    return tensors
