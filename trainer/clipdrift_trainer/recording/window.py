"""Windows as sums: built from recorded steps, and merged as if their steps had been recorded together.

Axes: S steps, P tensors. Columns behind the P norms of a row: see `Column`.
"""

from collections.abc import Sequence
from enum import IntEnum

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Fault, GradWindow, LayerNorms, SliceGradient, Spike
from clipdrift_contract.norm_histogram import BUCKET_LIMIT, BUCKETS_PER_OCTAVE

Floats = npt.NDArray[np.float64]
_MOST_SPIKES = 64


class Column(IntEnum):
    """What stands behind the norms of the tensors in a recorded row, counted from the end."""

    TOTAL = -6
    AFTER = -5
    COEFFICIENT = -4
    BOUND = -3
    LOSS = -2
    CONSUMED = -1  # the norm that the optimizer met; NaN: not looked at


NUM_COLUMNS = len(Column)


def build_window(
    rows: Floats,
    names: Sequence[str],
    *,
    run_id: str,
    model: str,
    step_first: int,
    started_at_ms: int,
    ended_at_ms: int,
    learning_rate_S: Floats | None = None,
    groups: Sequence[str] = (),
) -> GradWindow:
    """The window of the steps that an optimizer took.

    Args:
        rows: [S, P + 6] norms of the tensors before clipping, then the columns of `Column`; not finite where a step was not.
        names: Names of the P tensors.
        run_id: Of the run, like `model`.
        model: See `run_id`.
        step_first: Index of the first step.
        started_at_ms: When the window began.
        ended_at_ms: When it ended.
        learning_rate_S: The learning rate of each step; None: not known.
        groups: For each tensor the group of layers that it belongs to; empty: no groups.
    """
    total_S = rows[:, Column.TOTAL]
    is_finite_S = np.isfinite(total_S)
    norm_S, coefficient_S = total_S[is_finite_S], rows[is_finite_S, Column.COEFFICIENT]
    layer_SP = np.where(np.isfinite(rows[:, :-NUM_COLUMNS]), rows[:, :-NUM_COLUMNS], 0.0)
    loss_S = rows[:, Column.LOSS]
    rate_S = np.zeros(len(rows)) if learning_rate_S is None else learning_rate_S
    last_bound = float(rows[-1, Column.BOUND]) if len(rows) else float("inf")
    return GradWindow(
        run_id=run_id,
        model=model,
        started_at_ms=started_at_ms,
        ended_at_ms=ended_at_ms,
        step_first=step_first,
        num_steps=len(rows),
        # A bound on entries or tensors leaves a larger norm alone when nothing is above it.
        num_clipped=int(((norm_S > rows[is_finite_S, Column.BOUND]) & (coefficient_S < 1.0)).sum()),
        num_nonfinite=int((~is_finite_S).sum()),
        num_zero=int((norm_S == 0).sum()),
        max_norm_last=last_bound if np.isfinite(last_bound) else None,
        learning_rate_sum=float(rate_S.sum()),
        effective_learning_rate_sum=float((rate_S[is_finite_S] * coefficient_S).sum()),
        norm_sum=float(norm_S.sum()),
        norm_sq_sum=float((norm_S**2).sum()),
        norm_min=float(norm_S.min()) if len(norm_S) else None,
        norm_max=float(norm_S.max()) if len(norm_S) else 0.0,
        norm_removed_sum=float(np.maximum(0.0, norm_S - rows[is_finite_S, Column.AFTER]).sum()),
        coefficient_sum=float(coefficient_S.sum()),
        coefficient_min=float(coefficient_S.min()) if len(norm_S) else 1.0,
        norm_after_max=float(rows[is_finite_S, Column.AFTER].max()) if len(norm_S) else 0.0,
        loss_sum=float(loss_S[is_finite_S & np.isfinite(loss_S)].sum()),
        norm_histogram=norm_histogram(norm_S),
        layers=_layers(names, layer_SP),
        groups=_layers(*_grouped(groups, layer_SP)) if groups else (),
    )


def _layers(names: Sequence[str], norm_SP: Floats) -> tuple[LayerNorms, ...]:
    sums, squares = norm_SP.sum(axis=0), (norm_SP**2).sum(axis=0)
    largest = norm_SP.max(axis=0) if len(norm_SP) else np.zeros(len(names))
    return tuple(
        LayerNorms(name=name, norm_sum=float(a), norm_sq_sum=float(b), norm_max=float(c))
        for name, a, b, c in zip(names, sums, squares, largest, strict=True)
    )


def _grouped(groups: Sequence[str], norm_SP: Floats) -> tuple[list[str], Floats]:
    """The norm over all tensors of each group, the groups in the order in which they first appear."""
    names = list(dict.fromkeys(groups))
    index = [names.index(group) for group in groups]
    square_SG = np.zeros((len(norm_SP), len(names)))
    np.add.at(square_SG.T, index, (norm_SP**2).T)
    return names, np.sqrt(square_SG)


def norm_histogram(norm_S: Floats) -> dict[int, int]:
    """Counts by bucket b, norms in [2**(b/4), 2**((b+1)/4)), b clipped to -80..80; zeros are in bucket -80.

    Example:
        >>> norm_histogram(np.array([1.0, 1.1, 2.0]))
        {0: 2, 4: 1}
    """
    with np.errstate(divide="ignore"):
        bucket_S = np.floor(np.log2(norm_S) * BUCKETS_PER_OCTAVE)
    buckets, counts = np.unique(np.clip(bucket_S, -BUCKET_LIMIT, BUCKET_LIMIT).astype(int), return_counts=True)
    return {int(b): int(c) for b, c in zip(buckets, counts, strict=True)}


def merge(first: GradWindow, second: GradWindow) -> GradWindow:
    """Two windows of one run, `first` being the earlier, as if their steps had been recorded together.

    Faults are those of both, each kind and layer once; of the spikes the 64 largest stay, each with its own window's typical
    norm.
    """
    if (first.run_id, first.model) != (second.run_id, second.model):
        raise ValueError(f"windows of different runs do not merge: {first.run_id!r} and {second.run_id!r}")
    summed = {name: getattr(first, name) + getattr(second, name) for name in _SUMS}
    histogram = dict(first.norm_histogram)
    for bucket, count in second.norm_histogram.items():
        histogram[bucket] = histogram.get(bucket, 0) + count
    minima = [norm for norm in (first.norm_min, second.norm_min) if norm is not None]
    return msgspec.structs.replace(
        second,
        started_at_ms=first.started_at_ms,
        step_first=first.step_first,
        norm_min=min(minima) if minima else None,
        norm_max=max(first.norm_max, second.norm_max),
        coefficient_min=min(first.coefficient_min, second.coefficient_min),
        norm_after_max=max(first.norm_after_max, second.norm_after_max),
        norm_histogram=histogram,
        layers=_merged_layers(first.layers, second.layers),
        groups=_merged_layers(first.groups, second.groups),
        slices=merge_slices(first.slices, second.slices),
        spikes=_largest(first.spikes + second.spikes),
        faults=_merged_faults(first.faults + second.faults),
        **summed,
    )


_SUMS = (
    "num_steps", "num_clipped", "num_nonfinite", "num_skipped", "num_zero", "num_ineffective", "num_checked",
    "learning_rate_sum", "effective_learning_rate_sum", "norm_sum", "norm_sq_sum", "norm_removed_sum", "coefficient_sum",
    "loss_sum",
)  # fmt: skip


def _merged_layers(first: Sequence[LayerNorms], second: Sequence[LayerNorms]) -> tuple[LayerNorms, ...]:
    merged = {layer.name: layer for layer in first}
    for layer in second:
        known = merged.get(layer.name)
        merged[layer.name] = layer if known is None else _merge_layer(known, layer)
    return tuple(merged.values())


def _merge_layer(a: LayerNorms, b: LayerNorms) -> LayerNorms:
    return LayerNorms(
        name=a.name,
        norm_sum=a.norm_sum + b.norm_sum,
        norm_sq_sum=a.norm_sq_sum + b.norm_sq_sum,
        norm_max=max(a.norm_max, b.norm_max),
    )


def _largest(spikes: tuple[Spike, ...]) -> tuple[Spike, ...]:
    if len(spikes) <= _MOST_SPIKES:
        return spikes
    by_height = sorted(spikes, key=lambda spike: float("inf") if spike.norm is None else spike.norm, reverse=True)
    return tuple(sorted(by_height[:_MOST_SPIKES], key=lambda spike: spike.step))


def _merged_faults(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    merged: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        known = merged.setdefault((fault.kind, fault.layer), fault)
        if known is not fault:
            step, num_steps = min(known.step, fault.step), known.num_steps + fault.num_steps
            merged[fault.kind, fault.layer] = msgspec.structs.replace(known, step=step, num_steps=num_steps)
    return tuple(merged.values())


def merge_slices(first: Sequence[SliceGradient], second: Sequence[SliceGradient]) -> tuple[SliceGradient, ...]:
    """Slices of both by name and kind, summed."""
    merged = {(one.slice, one.kind): one for one in first}
    for one in second:
        known = merged.get((one.slice, one.kind))
        merged[one.slice, one.kind] = one if known is None else _merge_slice(known, one)
    return tuple(merged.values())


def _merge_slice(a: SliceGradient, b: SliceGradient) -> SliceGradient:
    return SliceGradient(
        slice=a.slice,
        kind=a.kind,
        num_samples=a.num_samples + b.num_samples,
        grad_mass_sum=a.grad_mass_sum + b.grad_mass_sum,
        grad_mass_removed_sum=a.grad_mass_removed_sum + b.grad_mass_removed_sum,
        loss_sum=a.loss_sum + b.loss_sum,
        num_clipped=a.num_clipped + b.num_clipped,
    )
