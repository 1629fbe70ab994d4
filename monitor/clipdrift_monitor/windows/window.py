"""A window is one vector of sums, so windows of hours, slices, replicas and monitors merge by addition.

Axes: N rows of a batch, G windows that they fall into, B score bins, D entries of a window's vector.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_contract.profile import FeatureProfile, ReferenceProfile, bin_index

Floats = npt.NDArray[np.float64]
PROBABILITY_FLOOR = 1e-7
NUM_SCORE_BINS = 128
_MAX_LOGIT = 9.0
# Bins of equal width in log-odds: a recalibration is a straight line there, and the tails keep their detail.
SCORE_EDGES: Floats = 1.0 / (1.0 + np.exp(-np.linspace(-_MAX_LOGIT, _MAX_LOGIT, NUM_SCORE_BINS - 1)))

_HEAD = ("num_predictions", "num_labels", "num_correct", "nll_sum", "brier_sum", "delay_seconds_sum", "absolute_error_sum")
_BY_SCORE = ("predictions", "labels", "hits", "score_sum")  # hits: sum of what `score` foretells, see Losses


class WindowKey(NamedTuple):
    """Which rows a window holds: those of one version and slice whose prediction was made in [start, start + width)."""

    version: str
    slice_index: int
    start_ms: int


class Layout:
    """Where each sum stands in a window's vector of length `size`; follows from the version's reference profile."""

    def __init__(self, profile: ReferenceProfile) -> None:
        self.profile = profile
        self.head = {name: position for position, name in enumerate(_HEAD)}
        position = len(_HEAD)
        self.by_score: dict[str, slice] = {}
        for name in _BY_SCORE:
            self.by_score[name] = slice(position, position + NUM_SCORE_BINS)
            position += NUM_SCORE_BINS
        self.score_reference = slice(position, position + len(profile.score_counts))
        position += len(profile.score_counts)
        self.features: dict[str, slice] = {}  # the last entry of each counts missing values
        for feature in profile.features:
            self.features[feature.spec.name] = slice(position, position + feature.num_bins + 1)
            position += feature.num_bins + 1
        self.size = position

    def zeros(self) -> Floats:
        return np.zeros(self.size)

    def value(self, vector: Floats, name: str) -> float:
        """One of the head's sums: num_predictions, num_labels, num_correct, nll_sum, brier_sum, delay_seconds_sum, ..."""
        return float(vector[self.head[name]])

    def counts(self, vector: Floats, name: str) -> Floats:
        """One of the sums by score bin: predictions, labels, hits, score_sum; shape [B]."""
        counts: Floats = vector[self.by_score[name]]
        return counts


def prediction_sums(layout: Layout, batch: PredictionBatch, window_ms: int) -> Iterator[tuple[WindowKey, Floats]]:
    """What a batch of predictions adds to each window that it touches."""
    time_N, slice_N = batch.event_time_ms.array(), batch.slice_index.array()
    keys, group_N = _groups(batch.version, time_N, slice_N, window_ms)
    sums_GD = np.zeros((len(keys), layout.size))
    sums_GD[:, layout.head["num_predictions"]] = np.bincount(group_N, minlength=len(keys))
    score_N = scores_of(layout.profile, batch.predicted.array(), batch.scores.array())
    _add_counts(sums_GD, layout.by_score["predictions"], group_N, _fine_bin(layout.profile, score_N))
    coarse_N = np.searchsorted(np.asarray(layout.profile.score_edges), score_N, side="right")
    _add_counts(sums_GD, layout.score_reference, group_N, coarse_N)
    known = {feature.spec.name: feature for feature in layout.profile.features}
    for column in batch.features:
        if column.name in known:
            _add_counts(sums_GD, layout.features[column.name], group_N, _feature_bin(known[column.name], column.values.array()))
    yield from zip(keys, sums_GD, strict=True)


def label_sums(
    layout: Layout, batch: LabelBatch, chosen: npt.NDArray[np.bool_], window_ms: int
) -> Iterator[tuple[WindowKey, Floats]]:
    """What the chosen rows of a batch of labels add to each window; a label belongs to the window of its prediction."""
    time_N, slice_N = batch.event_time_ms.array()[chosen], batch.slice_index.array()[chosen]
    keys, group_N = _groups(batch.version, time_N, slice_N, window_ms)
    sums_GD = np.zeros((len(keys), layout.size))
    losses = losses_of(layout.profile, batch, chosen)
    delay_N = (batch.label_time_ms.array()[chosen] - time_N) / 1000.0
    added = {
        "num_labels": np.ones(len(time_N)),
        "num_correct": losses.is_correct.astype(float),
        "nll_sum": losses.nll,
        "brier_sum": losses.brier,
        "delay_seconds_sum": delay_N,
        "absolute_error_sum": losses.absolute_error,
    }
    for name, values_N in added.items():
        sums_GD[:, layout.head[name]] = np.bincount(group_N, values_N, len(keys))
    bin_N = np.searchsorted(SCORE_EDGES, losses.score, side="right")
    _add_counts(sums_GD, layout.by_score["labels"], group_N, bin_N)
    _add_counts(sums_GD, layout.by_score["hits"], group_N, bin_N, losses.hit)
    _add_counts(sums_GD, layout.by_score["score_sum"], group_N, bin_N, losses.score)
    yield from zip(keys, sums_GD, strict=True)


class Losses(NamedTuple):
    """Of labelled rows: all arrays of length N."""

    is_correct: npt.NDArray[np.bool_]
    nll: Floats
    # binary (p - y)^2; more classes sum_k (p_k - y_k)^2; values: squared error over the squared label range, at most 1
    brier: Floats
    absolute_error: Floats
    score: Floats  # probability of class 1 (binary) or of the predicted class; for values the prediction scaled into 0..1
    hit: Floats  # what `score` foretells: 1 or 0 for the event whose probability it is; for values the label scaled into 0..1


def losses_of(profile: ReferenceProfile, batch: LabelBatch, chosen: npt.NDArray[np.bool_]) -> Losses:
    """The losses of the chosen rows of a batch of labels."""
    predicted_N, label_N = batch.predicted.array()[chosen], batch.label.array()[chosen]
    scores_NK = batch.scores.array()[chosen].astype(np.float64)
    is_correct_N = predicted_N == label_N
    if profile.task == "regression":
        error_N = np.abs(predicted_N - label_N)
        score_N, hit_N = scaled(profile, predicted_N), scaled(profile, label_N)
        loss_N = np.minimum(error_N / (profile.label_high - profile.label_low), 1.0) ** 2
        return Losses(is_correct_N, np.zeros(len(label_N)), loss_N, error_N, score_N, hit_N)
    score_N = scores_of(profile, predicted_N, scores_NK)
    class_N = np.clip(label_N.astype(np.int64), 0, scores_NK.shape[1] - 1)
    chosen_N = np.take_along_axis(scores_NK, class_N[:, None], axis=1)[:, 0]
    nll_N = -np.log(np.clip(chosen_N, PROBABILITY_FLOOR, 1.0))
    brier_N = (scores_NK**2).sum(axis=1) - 2 * chosen_N + 1.0
    is_binary = profile.task == "binary"
    hit_N = (label_N == 1 if is_binary else is_correct_N).astype(float)
    return Losses(is_correct_N, nll_N, brier_N / 2 if is_binary else brier_N, (~is_correct_N).astype(float), score_N, hit_N)


def scaled(profile: ReferenceProfile, values_N: npt.NDArray[Any]) -> Floats:
    """Regression: values as shares of the label's validated range, cut off at its ends."""
    shares_N: Floats = np.clip((values_N - profile.label_low) / (profile.label_high - profile.label_low), 0.0, 1.0)
    return shares_N


def scores_of(profile: ReferenceProfile, predicted_N: npt.NDArray[Any], scores_NK: npt.NDArray[Any]) -> Floats:
    """The one number of each row that calibration and score drift look at."""
    if profile.task == "regression":
        return predicted_N.astype(np.float64)
    column_N = 1 if profile.task == "binary" else np.clip(predicted_N.astype(np.int64), 0, scores_NK.shape[1] - 1)
    score: Floats = scores_NK[np.arange(len(scores_NK)), column_N].astype(np.float64)
    return score


def _fine_bin(profile: ReferenceProfile, score_N: Floats) -> npt.NDArray[np.int64]:
    if profile.task == "regression":
        score_N = scaled(profile, score_N)
    return np.searchsorted(SCORE_EDGES, score_N, side="right")


def _feature_bin(feature: FeatureProfile, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    bins_N = bin_index(feature, values)
    return np.where(bins_N < 0, feature.num_bins, bins_N)


def _groups(
    version: str, time_N: npt.NDArray[Any], slice_N: npt.NDArray[Any], window_ms: int
) -> tuple[list[WindowKey], npt.NDArray[np.int64]]:
    start_N = time_N // window_ms * window_ms
    code_N = start_N * 65_536 + slice_N.astype(np.int64)
    codes, group_N = np.unique(code_N, return_inverse=True)
    return [WindowKey(version, int(code % 65_536), int(code // 65_536)) for code in codes.tolist()], group_N


def _add_counts(
    sums_GD: Floats, part: slice, group_N: npt.NDArray[Any], bin_N: npt.NDArray[Any], weight_N: Floats | None = None
) -> None:
    width = part.stop - part.start
    flat = np.bincount(group_N * width + bin_N, weight_N, len(sums_GD) * width)
    sums_GD[:, part] += flat.reshape(len(sums_GD), width)
