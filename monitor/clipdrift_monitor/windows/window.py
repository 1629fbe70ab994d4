"""A window is one vector of sums, so windows of hours, slices, replicas and monitors merge by addition.

Axes: N rows of a batch, G windows that they fall into, B score bins, D entries of a window's vector.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.windows.binning import Bins, Edges, FeatureBins, ProbabilityBins

Floats = npt.NDArray[np.float64]
PROBABILITY_FLOOR = 1e-7
NUM_SCORE_BINS = 128
_MAX_LOGIT = 9.0
_MAX_CODES = 65_536
_MAX_PAIRS = 4_096  # their counts stay in the processor's cache
_MAX_ENTRIES = 2_000_000  # of sums that are made at once: 16 MB
# Bins of equal width in log-odds: a recalibration is a straight line there, and the tails keep their detail.
SCORE_EDGES: Floats = 1.0 / (1.0 + np.exp(-np.linspace(-_MAX_LOGIT, _MAX_LOGIT, NUM_SCORE_BINS - 1)))
_SCORE_BINS = ProbabilityBins(SCORE_EDGES)

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
        # what is derived from an input is watched as a feature of its own
        self.profile = msgspec.structs.replace(profile, features=(*profile.features, *profile.derived), derived=())
        self.head = {name: position for position, name in enumerate(_HEAD)}
        position = len(_HEAD)
        self.by_score: dict[str, slice] = {}
        for name in _BY_SCORE:
            self.by_score[name] = slice(position, position + NUM_SCORE_BINS)
            position += NUM_SCORE_BINS
        self.score_reference = slice(position, position + len(profile.score_counts))
        position += len(profile.score_counts)
        self.features: dict[str, slice] = {}  # the last entry of each counts missing values
        self.of_column: dict[str, list[str]] = {}  # names of the features that are counted of a recorded column
        for feature in self.profile.features:
            self.of_column.setdefault(feature.column or feature.spec.name, []).append(feature.spec.name)
            self.features[feature.spec.name] = slice(position, position + feature.num_bins + 1)
            position += feature.num_bins + 1
        self.size = position
        self.feature_bins = {feature.spec.name: FeatureBins(feature) for feature in self.profile.features}
        self.score_reference_bins = Edges(profile.score_edges)

    def zeros(self) -> Floats:
        return np.zeros(self.size)

    def value(self, vector: Floats, name: str) -> float:
        """One of the head's sums: num_predictions, num_labels, num_correct, nll_sum, brier_sum, delay_seconds_sum, ..."""
        return float(vector[self.head[name]])

    def slice_name(self, index: int) -> str:
        """As the profile calls the slice; one that it does not know has its number."""
        names = self.profile.slice_names
        return names[index] if index < len(names) else f"slice {index}"

    def counts(self, vector: Floats, name: str) -> Floats:
        """One of the sums by score bin: predictions, labels, hits, score_sum; shape [B]."""
        counts: Floats = vector[self.by_score[name]]
        return counts


def prediction_sums(layout: Layout, batch: PredictionBatch, window_ms: int) -> Iterator[tuple[WindowKey, Floats]]:
    """What a batch of predictions adds to each window that it touches."""
    keys, group_N = groups(batch, window_ms)
    score_N = scores_of(layout.profile, batch.predicted.array(), batch.scores.array())
    share_N = scaled(layout.profile, score_N) if layout.profile.task == "regression" else score_N
    binned: list[tuple[slice, Bins]] = [
        (layout.by_score["predictions"], _SCORE_BINS.bins(share_N)),
        (layout.score_reference, layout.score_reference_bins.bins(score_N)),
    ]
    for column in batch.features:
        for name in layout.of_column.get(column.name, ()):
            binned.append((layout.features[name], layout.feature_bins[name].bins(column.values)))
    for some_keys, group_n, chosen in _in_parts(layout, keys, group_N):
        sums_GD = np.zeros((len(some_keys), layout.size))
        sums_GD[:, layout.head["num_predictions"]] = np.bincount(group_n, minlength=len(some_keys))
        _count_all(sums_GD, group_n, [(part, bin_N[chosen]) for part, bin_N in binned])
        yield from zip(some_keys, sums_GD, strict=True)


def label_sums(
    layout: Layout, batch: LabelBatch, chosen: npt.NDArray[np.bool_], window_ms: int
) -> Iterator[tuple[WindowKey, Floats]]:
    """What the chosen rows of a batch of labels add to each window; a label belongs to the window of its prediction."""
    keys, group_N = groups(batch, window_ms, chosen)
    losses = losses_of(layout.profile, batch, chosen)
    delay_N = (batch.label_time_ms.array()[chosen] - batch.event_time_ms.array()[chosen]) / 1000.0
    added = {
        "num_labels": np.ones(len(group_N)),
        "num_correct": losses.is_correct.astype(float),
        "nll_sum": losses.nll,
        "brier_sum": losses.brier,
        "delay_seconds_sum": delay_N,
        "absolute_error_sum": losses.absolute_error,
    }
    is_narrow = batch.scores.dtype == "<f4" and layout.profile.task != "regression"
    bin_N = _SCORE_BINS.bins(losses.score.astype(np.float32) if is_narrow else losses.score)
    by_score = {"labels": None, "hits": losses.hit, "score_sum": losses.score}
    for some_keys, group_n, part in _in_parts(layout, keys, group_N):
        sums_GD = np.zeros((len(some_keys), layout.size))
        for name, values_N in added.items():
            sums_GD[:, layout.head[name]] = np.bincount(group_n, values_N[part], len(some_keys))
        first_n = group_n * NUM_SCORE_BINS
        for name, weight_N in by_score.items():
            _add_counts(sums_GD, layout.by_score[name], first_n, bin_N[part], None if weight_N is None else weight_N[part])
        yield from zip(some_keys, sums_GD, strict=True)


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
    score_N = scores_of(profile, predicted_N, scores_NK).astype(np.float64)
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


def scores_of(profile: ReferenceProfile, predicted_N: npt.NDArray[Any], scores_NK: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The one number of each row that calibration and score drift look at, in the type that the rows have it in."""
    if profile.task == "regression":
        return predicted_N.astype(np.float64)
    if profile.task == "binary":
        return np.ascontiguousarray(scores_NK[:, 1])
    column_N = np.clip(predicted_N.astype(np.int64), 0, scores_NK.shape[1] - 1)
    score_N: npt.NDArray[Any] = scores_NK[np.arange(len(scores_NK)), column_N]
    return score_N


def groups(
    batch: PredictionBatch | LabelBatch, window_ms: int, chosen: npt.NDArray[np.bool_] | slice = slice(None)
) -> tuple[list[WindowKey], npt.NDArray[np.intp]]:
    """The windows that the chosen rows of a batch fall into, in order of time and slice, and which of them each row does."""
    time_N, slice_N = batch.event_time_ms.array()[chosen], batch.slice_index.array()[chosen]
    if not len(time_N):
        return [], np.zeros(0, np.intp)
    first = int(time_N.min()) // window_ms
    num_starts = int(time_N.max()) // window_ms - first + 1
    num_slices = int(slice_N.max()) + 1
    code_N = slice_N.astype(np.intp)
    if num_starts > 1:
        code_N += ((time_N // window_ms).astype(np.intp) - first) * num_slices
    if num_starts * num_slices <= max(_MAX_CODES, len(code_N)):  # most often: counted, not sorted
        codes = np.flatnonzero(np.bincount(code_N, minlength=num_starts * num_slices))
        group_of_code = np.zeros(num_starts * num_slices, np.intp)
        group_of_code[codes] = np.arange(len(codes))
        group_N = group_of_code[code_N]
    else:
        codes, group_N = np.unique(code_N, return_inverse=True)
    return [
        WindowKey(batch.version, code % num_slices, (first + code // num_slices) * window_ms) for code in codes.tolist()
    ], group_N


def _in_parts(
    layout: Layout, keys: list[WindowKey], group_N: npt.NDArray[np.intp]
) -> Iterator[tuple[list[WindowKey], npt.NDArray[np.intp], slice | npt.NDArray[np.intp]]]:
    """Windows, rows' places among them and those rows: so few windows at once that their sums stay small, however far rows lie
    apart."""
    at_once = max(1, _MAX_ENTRIES // layout.size)
    if len(keys) <= at_once:
        if keys:
            yield keys, group_N, slice(None)
        return
    for start in range(0, len(keys), at_once):
        chosen = np.flatnonzero((group_N >= start) & (group_N < start + at_once))
        yield keys[start : start + at_once], group_N[chosen] - start, chosen


def _count_all(sums_GD: Floats, group_N: npt.NDArray[np.intp], binned: list[tuple[slice, Bins]]) -> None:
    """Count rows by window and bin, for every feature. Two of few bins are counted as one of their pairs: half the counting."""
    num_windows, num_rows = len(sums_GD), len(group_N)
    first_N: dict[int, npt.NDArray[np.intp]] = {}  # of each row's window, the place of bin 0, by number of bins
    left = sorted(binned, key=lambda one: one[0].stop - one[0].start)
    while left:
        part, bin_N = left.pop(0)
        width = part.stop - part.start
        other, other_N = left[0] if left else (part, bin_N)
        num_pairs = width * (other.stop - other.start)
        is_paired = bool(left) and num_pairs * num_windows <= num_rows and num_pairs <= _MAX_PAIRS
        size = num_pairs if is_paired else width
        if size not in first_N:
            first_N[size] = group_N * size
        if not is_paired:
            _add_counts(sums_GD, part, first_N[size], bin_N)
            continue
        left.pop(0)
        pair_N = bin_N.astype(np.uint16)
        pair_N *= np.uint16(other.stop - other.start)
        pair_N += other_N.astype(np.uint16)
        counts_GAB = np.bincount(first_N[size] + pair_N, minlength=num_windows * size).reshape(num_windows, width, -1)
        sums_GD[:, part] += counts_GAB.sum(axis=2)
        sums_GD[:, other] += counts_GAB.sum(axis=1)


def _add_counts(
    sums_GD: Floats, part: slice, first_N: npt.NDArray[np.intp], bin_N: Bins, weight_N: Floats | None = None
) -> None:
    width = part.stop - part.start
    flat = np.bincount(first_N + bin_N, weight_N, len(sums_GD) * width)
    sums_GD[:, part] += flat.reshape(len(sums_GD), width)
