"""Days of scores and their labels, as sums, searched for faults one after another. Labels may come days after they are due."""

import numpy as np

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.columns import Column
from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_contract.profile import ReferenceProfile, SliceSpec
from clipdrift_monitor.diagnosis.faults import FaultMemory, PastBlock
from clipdrift_monitor.diagnosis.search import search
from clipdrift_monitor.windows.window import Layout, label_sums, prediction_sums

NUM_ROWS = 400
NEVER = 10_000


class LabelDays:
    """Of a model of two classes, "no" and "yes", with two slices of equal size."""

    def __init__(self):
        self.layout = Layout(
            ReferenceProfile(
                task="binary", classes=("no", "yes"), features=(), slices=SliceSpec(feature="side", categories=("a", "b")),
                slice_counts=(200, 200, 0), score_edges=(0.5,), score_counts=(200, 200), label_counts=(200, 200), num_rows=400,
            )
        )  # fmt: skip
        self.memory, self.day = FaultMemory(), 100
        self.predicted, self.labels = {}, {}  # sums by day and slice; labels by the day on which they come

    def search(self, score_N, label_N, slice_N=None, late_N=None):
        """What is found on the next day."""
        slice_N = np.arange(len(score_N)) % 2 if slice_N is None else slice_N
        late_N = np.zeros(len(score_N), int) if late_N is None else late_N
        common = {
            "model": "m", "version": "v1", "epoch": "e",
            "event_time_ms": Column.of(self.day * MS_PER_DAY + np.arange(len(score_N), dtype="i8")),
        }  # fmt: skip
        self.predicted[self.day] = self._by_slice(prediction_sums, PredictionBatch(**self._columns(common, score_N, slice_N)))
        for late in np.unique(late_N[late_N < NEVER]):
            chosen_N = late_N == late
            batch = LabelBatch(
                **self._columns(common, score_N, slice_N, chosen_N),
                label=Column.of(label_N[chosen_N].astype("f8")),
                label_time_ms=Column.of(np.full(chosen_N.sum(), (self.day + late + 1) * MS_PER_DAY)),
            )
            self.labels.setdefault(self.day + late, []).append((self.day, self._by_slice(label_sums, batch)))
        come = [(day, sums) for arrived, found in self.labels.items() if arrived <= self.day for day, sums in found]
        sums = {day: dict(self.predicted[day]) for day in self.predicted}
        for day, by_slice in come:
            for index, one in by_slice.items():
                sums[day][index] = sums[day].get(index, 0) + one
        past = [
            PastBlock(start_ms=day * MS_PER_DAY, sums=sum(sums[day].values()))
            for day in sorted(sums)
            if self.day - 30 <= day < self.day
        ]
        found, self.memory = search(
            self.layout, sum(sums[self.day].values()), past, self.memory, "v1", self.day * MS_PER_DAY, MS_PER_DAY,
            by_slice=sums[self.day],
        )  # fmt: skip
        self.day += 1
        return found

    def _columns(self, common, score_N, slice_N, chosen_N=slice(None)):
        score_N = score_N[chosen_N]
        return {
            **common,
            "event_time_ms": Column.of(common["event_time_ms"].array()[chosen_N]),
            "sequence": Column.of(np.arange(len(score_N), dtype="u8")),
            "slice_index": Column.of(slice_N[chosen_N].astype("i2")),
            "predicted": Column.of((score_N > 0.5).astype("f8")),
            "scores": Column.of(np.stack([1 - score_N, score_N], 1).astype("f4")),
        }

    def _by_slice(self, sums_of, batch):
        chosen = () if isinstance(batch, PredictionBatch) else (np.ones(len(batch.label.array()), bool),)
        return {key.slice_index: sums for key, sums in sums_of(self.layout, batch, *chosen, MS_PER_DAY)}
