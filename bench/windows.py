"""Rows per second into the monitor's windows, against the same sums by pandas; answers compared, rounds interleaved.

One core, batches of 512 labelled rows of a binary model with 20 numeric features of 16 bins, three slices, two days. The peer
is plain pandas on the same arrays: `pd.cut`, then `groupby(...).size()` for counts and `groupby(...).sum()` for sums. Argument:
rows (default 100,000). The last line is one JSON object.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd

from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_monitor.windows.window import SCORE_EDGES, Floats, Layout, WindowKey, label_sums, prediction_sums

_NUM_FEATURES, _NUM_BINS, _BATCH_ROWS, _ROUNDS = 20, 16, 512, 3
_DAY_MS = 86_400_000
_EDGES = tuple(np.linspace(-2, 2, _NUM_BINS - 1).tolist())
_NAMES = tuple(f"f{n}" for n in range(_NUM_FEATURES))
_HEAD = ("num_correct", "nll_sum", "brier_sum", "delay_seconds_sum", "absolute_error_sum")
Batch = tuple[PredictionBatch, LabelBatch]
Windows = dict[WindowKey, Floats]


def layout_of() -> Layout:
    features = tuple(
        FeatureProfile(spec=FeatureSpec(name=name, kind="numeric"), edges=_EDGES, counts=(1,) * _NUM_BINS) for name in _NAMES
    )
    return Layout(
        ReferenceProfile(
            task="binary", classes=("no", "yes"), features=features, slices=SliceSpec(feature="f0", edges=(-0.5, 0.5)),
            slice_counts=(1, 1, 1, 0), score_edges=(0.25, 0.5, 0.75), score_counts=(1,) * 4, num_rows=4,
        )
    )  # fmt: skip


def batches_of(num_rows: int) -> list[Batch]:
    random = np.random.default_rng(0)
    made = []
    for first in range(0, num_rows, _BATCH_ROWS):
        size = min(_BATCH_ROWS, num_rows - first)
        values_NF = random.normal(size=(size, _NUM_FEATURES))
        p_N = 1 / (1 + np.exp(-1.5 * values_NF[:, 1]))
        columns = {
            "model": "m", "version": "v", "epoch": "e", "sequence": Column.of(np.arange(first, first + size, dtype="u8")),
            "event_time_ms": Column.of((first + np.arange(size)) * (2 * _DAY_MS // num_rows)),
            "slice_index": Column.of(np.searchsorted((-0.5, 0.5), values_NF[:, 0], side="right").astype("i2")),
            "predicted": Column.of((p_N > 0.5).astype("f8")), "scores": Column.of(np.stack([1 - p_N, p_N], 1).astype("f4")),
        }  # fmt: skip
        features = tuple(FeatureColumn(name=name, values=Column.of(values_NF[:, n])) for n, name in enumerate(_NAMES))
        known = {
            "label": Column.of((random.random(size) < p_N).astype("f8")),
            "label_time_ms": Column.of(columns["event_time_ms"].array() + 60_000),
        }
        made.append((PredictionBatch(**columns, features=features), LabelBatch(**columns, **known)))
    return made


def by_clipdrift(layout: Layout, batches: list[Batch]) -> Windows:
    windows: Windows = defaultdict(layout.zeros)
    for predictions, labels in batches:
        for key, sums in prediction_sums(layout, predictions, _DAY_MS):
            windows[key] += sums
        for key, sums in label_sums(layout, labels, np.ones(len(labels.label), bool), _DAY_MS):
            windows[key] += sums
    return windows


def by_pandas(layout: Layout, batches: list[Batch]) -> Windows:
    windows: Windows = defaultdict(layout.zeros)
    for predictions, labels in batches:
        _add_frame(layout, windows, _frame(predictions, labels))
    return windows


def by_pandas_at_once(layout: Layout, batches: list[Batch]) -> Windows:
    """The peer's best case: all rows in one frame, which a stream never gives it."""
    windows: Windows = defaultdict(layout.zeros)
    _add_frame(layout, windows, pd.concat([_frame(*batch) for batch in batches], ignore_index=True))
    return windows


def _frame(predictions: PredictionBatch, labels: LabelBatch) -> pd.DataFrame:
    score, label = labels.scores.array()[:, 1].astype("f8"), labels.label.array()
    time_ms = predictions.event_time_ms.array()
    hit_score = np.where(label == 1, score, labels.scores.array()[:, 0].astype("f8"))
    return pd.DataFrame(
        {column.name: column.values.array() for column in predictions.features}
        | {
            "start_ms": time_ms // _DAY_MS * _DAY_MS, "slice": predictions.slice_index.array(), "score": score, "hits": label,
            "num_correct": (labels.predicted.array() == label).astype(float), "nll_sum": -np.log(np.clip(hit_score, 1e-7, 1)),
            "brier_sum": (score - label) ** 2, "delay_seconds_sum": (labels.label_time_ms.array() - time_ms) / 1000,
            "absolute_error_sum": (labels.predicted.array() != label).astype(float),
        }
    )  # fmt: skip


def _add_frame(layout: Layout, windows: Windows, frame: pd.DataFrame) -> None:
    keys = ["start_ms", "slice"]
    by_window = frame.groupby(keys)[list(_HEAD)].sum().assign(n=frame.groupby(keys).size())
    for (start_ms, part), row in by_window.iterrows():
        sums = windows[WindowKey("v", int(part), int(start_ms))]
        sums[layout.head["num_predictions"]] += row["n"]
        sums[layout.head["num_labels"]] += row["n"]
        for name in _HEAD:
            sums[layout.head[name]] += row[name]
    frame["bin"] = _cut(frame["score"], SCORE_EDGES)
    by_bin = frame.groupby([*keys, "bin"]).agg(n=("hits", "size"), hits=("hits", "sum"), score_sum=("score", "sum"))
    for (start_ms, part, k), row in by_bin.iterrows():
        sums = windows[WindowKey("v", int(part), int(start_ms))]
        for name, value in (("predictions", "n"), ("labels", "n"), ("hits", "hits"), ("score_sum", "score_sum")):
            sums[layout.by_score[name]][int(k)] += row[value]
    parts = {"score": (layout.score_reference, layout.profile.score_edges)}
    parts |= {name: (layout.features[name], _EDGES) for name in _NAMES}
    for name, (place, edges) in parts.items():
        frame["bin"] = _cut(frame[name], edges)
        for (start_ms, part, k), count in frame.groupby([*keys, "bin"]).size().items():
            windows[WindowKey("v", int(part), int(start_ms))][place][int(k)] += count


def _cut(values: pd.Series, edges: object) -> pd.Series:
    return pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=False)


def largest_difference(ours: Windows, theirs: Windows) -> float:
    """Over all entries, relative to entries above 1: scores are 4-byte numbers, so two probabilities add up to 1 to 1e-7."""
    assert ours.keys() == theirs.keys(), "not the same windows"
    return max(float((np.abs(ours[key] - theirs[key]) / np.maximum(1.0, theirs[key])).max()) for key in ours)


if __name__ == "__main__":
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    layout, batches = layout_of(), batches_of(num_rows)
    ways: dict[str, Callable[[Layout, list[Batch]], Windows]] = {
        "clipdrift": by_clipdrift, "pandas": by_pandas, "pandas_at_once": by_pandas_at_once
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Windows] = {}
    for _ in range(_ROUNDS):
        for name, sum_up in ways.items():
            started = time.perf_counter()
            answers[name] = sum_up(layout, batches)
            seconds[name].append(time.perf_counter() - started)
    difference = max(largest_difference(answers["clipdrift"], answers[name]) for name in ways)
    assert difference < 1e-6, f"the sums differ by {difference}"
    results: dict[str, object] = {"bench": "windows", "rows": num_rows, "largest_difference": difference}
    results["rows_per_second"] = {name: round(num_rows / min(times)) for name, times in seconds.items()}
    results["seconds_over_clipdrift"] = {
        name: round(float(np.median(np.divide(times, seconds["clipdrift"]))), 1) for name, times in seconds.items()
    }
    print(
        f"{num_rows:,} rows, {_NUM_FEATURES} features, batches of {_BATCH_ROWS}: rows per second {results['rows_per_second']}"
    )
    print(json.dumps(results))
