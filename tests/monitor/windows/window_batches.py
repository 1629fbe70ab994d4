"""Batches of predictions and labels, and the profile they fit."""

import numpy as np

from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec

DAY_MS = 86_400_000
NUMERIC = FeatureProfile(
    spec=FeatureSpec(name="distance", kind="numeric", nullable=True), edges=(-0.5, 0.5), counts=(30, 40, 30), num_missing=2
)
CATEGORICAL = FeatureProfile(spec=FeatureSpec(name="carrier", kind="categorical"), categories=("AA", "UA"), counts=(50, 40, 10))


def profile(task="binary", num_classes=2):
    return ReferenceProfile(
        task=task, classes=tuple(str(k) for k in range(num_classes)) if task != "regression" else (),
        features=(NUMERIC, CATEGORICAL), slices=SliceSpec(feature="carrier", categories=("AA", "UA")),
        slice_counts=(50, 40, 10), score_edges=(0.25, 0.5, 0.75), score_counts=(40, 30, 20, 10), num_rows=100,
        label_low=-2.0, label_high=6.0,
    )  # fmt: skip


def rows(num_rows, seed, task="binary", num_classes=2):
    """Columns of labelled rows over three days."""
    random = np.random.default_rng(seed)
    if task == "regression":
        label = random.normal(2, 2, num_rows)
        predicted = label + random.normal(0, 1, num_rows)
        scores = predicted[:, None]
    else:
        logits = random.normal(0, 1.5, (num_rows, num_classes))
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        predicted = scores.argmax(axis=1).astype(float)
        label = np.array([random.choice(num_classes, p=row) for row in scores], float)
    time_ms = random.integers(0, 3 * DAY_MS, num_rows)
    distance = random.normal(size=num_rows)
    distance[random.random(num_rows) < 0.1] = np.nan
    carrier = random.integers(0, 3, num_rows)
    return {
        "time_ms": time_ms, "slice": carrier, "scores": scores, "predicted": predicted, "label": label, "distance": distance,
        "carrier": np.array(["AA", "UA", "XX"], object)[carrier],
    }  # fmt: skip


def predictions(columns, chosen=slice(None)):
    part = {name: values[chosen] for name, values in columns.items()}
    return PredictionBatch(
        model="m", version="v1", epoch="e", sequence=Column.of(np.arange(len(part["label"]), dtype="u8")),
        event_time_ms=Column.of(part["time_ms"].astype("i8")), slice_index=Column.of(part["slice"].astype("i2")),
        predicted=Column.of(part["predicted"].astype("f8")), scores=Column.of(part["scores"].astype("f8")),
        features=(
            FeatureColumn(name="distance", values=Column.of(part["distance"])),
            FeatureColumn(name="carrier", values=Column.of(part["carrier"])),
            FeatureColumn(name="unheard_of", values=Column.of(part["distance"])),
        ),
    )  # fmt: skip


def labels(columns, chosen=slice(None)):
    part = {name: values[chosen] for name, values in columns.items()}
    return LabelBatch(
        model="m", version="v1", epoch="e", sequence=Column.of(np.arange(len(part["label"]), dtype="u8")),
        event_time_ms=Column.of(part["time_ms"].astype("i8")), slice_index=Column.of(part["slice"].astype("i2")),
        predicted=Column.of(part["predicted"].astype("f8")), scores=Column.of(part["scores"].astype("f8")),
        label=Column.of(part["label"].astype("f8")), label_time_ms=Column.of((part["time_ms"] + 90_000).astype("i8")),
    )  # fmt: skip
