"""Makes the reference profile: what held-out inputs and outputs looked like when the model was trained, as bin counts."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.profile import (
    BlockSpread,
    FeatureProfile,
    FeatureSpec,
    ReferenceProfile,
    Summary,
    bin_index,
    block_spread,
    summarise,
)
from clipdrift_trainer.tasks.task import Rows, Task

_NUM_BINS = 16
_EMBEDDING_SIZE = 32  # a vector of so many numbers is taken for an embedding
_TEXT_LENGTH = 16  # words of so many characters on average are taken for texts
_MISSING_EDGES = (1e-6, 0.25, 0.5, 0.75, 1.0)  # none, some, ..., all steps of a row
_SCORE_EDGES = tuple(round(i / 20, 2) for i in range(1, 20))


def slice_index(task: Task, rows: Rows) -> npt.NDArray[np.int16]:
    """Index of each row's slice; all 0 where the task declares no slices."""
    if task.slices is None:
        return np.zeros(len(rows), np.int16)
    return task.slices.index(rows.features[task.slices.feature])


def slice_names(task: Task) -> tuple[str, ...]:
    return task.slices.names if task.slices is not None else ("all",)


def make_profile(
    task: Task, rows: Rows, scores_NK: npt.NDArray[np.float64], vocabularies: Mapping[str, tuple[str, ...]]
) -> ReferenceProfile:
    """The profile of `rows` (held-out rows, so that it shows what the model does on rows it has not seen).

    Numeric edges are quantiles, so that each bin holds about as many rows; equal edges collapse. How much days differ beyond
    chance is kept with the counts: a window of one day is no sample of independent rows.

    Args:
        task: Names the features and slices.
        rows: N reference rows.
        scores_NK: The model's class probabilities or values for them.
        vocabularies: Categories of each categorical feature.
    """
    is_regression = task.kind == "regression"
    score_N = scores_NK[:, 0] if is_regression else scores_NK[:, 1] if task.kind == "binary" else scores_NK.max(axis=1)
    score_edges = _quantile_edges(score_N) if is_regression else _SCORE_EDGES
    slices = slice_index(task, rows)
    score_bins = np.searchsorted(score_edges, score_N, side="right")
    _, day_N = np.unique(rows.time_ms // MS_PER_DAY, return_inverse=True)
    low, high = (float(q) for q in np.quantile(rows.label, (0.01, 0.99))) if is_regression and len(rows) else (0.0, 1.0)
    return ReferenceProfile(
        task=task.kind,
        classes=() if is_regression else task.classes,
        features=tuple(_profile_feature(spec, rows.features[spec.name], vocabularies, day_N) for spec in task.features),
        derived=tuple(one for spec in task.features for one in _derived(spec, rows.features[spec.name], day_N)),
        slices=task.slices,
        slice_counts=_counts(slices, len(slice_names(task))),
        score_edges=score_edges,
        score_counts=_counts(score_bins, len(score_edges) + 1),
        label_counts=() if is_regression else _counts(rows.label.astype(int), len(task.classes)),
        num_rows=len(rows),
        label_low=low,
        label_high=high if high > low else low + 1.0,
        score_spread=_spread(score_bins, len(score_edges) + 1, day_N),
        slice_spread=_spread(slices, len(slice_names(task)), day_N),
    )


def _profile_feature(
    spec: FeatureSpec, column: npt.NDArray[Any], vocabularies: Mapping[str, tuple[str, ...]], day_N: npt.NDArray[Any]
) -> FeatureProfile:
    if spec.kind == "categorical":
        empty = FeatureProfile(spec=spec, categories=vocabularies[spec.name])
    else:
        empty = FeatureProfile(spec=spec, edges=_quantile_edges(summarise(column.astype(np.float64))))
    return _counted(empty, column, day_N)


def _derived(spec: FeatureSpec, column: npt.NDArray[Any], day_N: npt.NDArray[Any]) -> Iterator[FeatureProfile]:
    """Further numbers of an input that are watched: of a sequence its last step, of a long vector (an embedding) its norm, the
    share of missing steps where there may be some, and the length of texts."""
    summaries: list[Summary] = []
    if spec.kind == "sequence":
        summaries.append("norm" if len(spec.shape) == 1 and spec.shape[0] >= _EMBEDDING_SIZE else "last")
        summaries += ["missing"] if spec.nullable else []
    elif spec.kind == "categorical" and len(column):
        lengths_N = np.char.str_len(column.astype(str)).astype(np.float64)
        if lengths_N.mean() >= _TEXT_LENGTH:
            yield _of_numbers(spec, "length", lengths_N, column, day_N)
    for summary in summaries:
        yield _of_numbers(spec, summary, summarise(column.astype(np.float64), summary), column, day_N)


def _of_numbers(
    spec: FeatureSpec, summary: Summary, number_N: npt.NDArray[np.float64], column: npt.NDArray[Any], day_N: npt.NDArray[Any]
) -> FeatureProfile:
    of = FeatureSpec(name=f"{spec.name} ({summary})", kind="numeric", nullable=True)
    edges = _MISSING_EDGES if summary == "missing" else _quantile_edges(number_N)
    empty = FeatureProfile(spec=of, edges=edges, summary=summary, column=spec.name)
    return _counted(empty, column, day_N)


def _counted(empty: FeatureProfile, column: npt.NDArray[Any], day_N: npt.NDArray[Any]) -> FeatureProfile:
    """The profile with the counts of its rows."""
    bins = bin_index(empty, column)
    return msgspec.structs.replace(
        empty,
        counts=_counts(bins[bins >= 0], empty.num_bins),
        num_missing=int((bins < 0).sum()),
        spread=_spread(np.where(bins < 0, empty.num_bins, bins), empty.num_bins + 1, day_N),
    )


def _quantile_edges(values_N: npt.NDArray[np.float64]) -> tuple[float, ...]:
    finite = values_N[np.isfinite(values_N)]
    if not len(finite):
        return (0.0,)
    # values that occur, not between them: a feature of a few values gets a bin each and none that is empty by construction
    shares = np.linspace(0, 1, _NUM_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(finite, shares, method="inverted_cdf").astype(np.float32))
    return tuple(float(edge) for edge in edges)


def _spread(bins: npt.NDArray[Any], num_bins: int, day_N: npt.NDArray[Any]) -> BlockSpread:
    if not len(bins):
        return BlockSpread()
    num_days = int(day_N.max()) + 1
    flat = np.bincount(day_N * num_bins + bins.astype(np.int64), minlength=num_days * num_bins)
    return block_spread(flat.reshape(num_days, num_bins))


def _counts(bins: npt.NDArray[Any], num_bins: int) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(bins.astype(np.int64), minlength=num_bins))
