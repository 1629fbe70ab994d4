"""Days of two numeric features, as sums, searched for faults one after another."""

import numpy as np

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, PredictionBatch
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, bin_index, block_spread
from clipdrift_monitor.diagnosis.faults import FaultMemory, PastBlock
from clipdrift_monitor.diagnosis.search import search
from clipdrift_monitor.windows.window import Layout, prediction_sums

NUM_ROWS = 400


class FeatureDays:
    """Features "price" and "load"; `validated` are days of their values by name."""

    def __init__(self, validated):
        profiles = []
        for name in ("price", "load"):
            days = [day[name] for day in validated]
            edges = np.quantile(np.concatenate(days), np.linspace(0, 1, 13)[1:-1])
            empty = FeatureProfile(spec=FeatureSpec(name=name, kind="numeric", nullable=True), edges=tuple(np.unique(edges)))
            counts_WK = np.array([np.bincount(bin_index(empty, day), minlength=empty.num_bins) for day in days])
            spread = block_spread(np.column_stack([counts_WK, np.zeros(len(days))]))
            profiles.append(
                FeatureProfile(spec=empty.spec, edges=empty.edges, counts=tuple(counts_WK.sum(axis=0)), spread=spread)
            )
        num_rows = sum(len(day["price"]) for day in validated)
        self.layout = Layout(
            ReferenceProfile(
                task="binary",
                classes=("no", "yes"),
                features=tuple(profiles),
                score_edges=(0.5,),
                score_counts=(num_rows, 0),
                label_counts=(num_rows, 0),
                num_rows=num_rows,
            )
        )
        self.memory, self.past, self.day = FaultMemory(), [], 100

    def search(self, **columns):
        """What is found on the next day, whose values these are."""
        start_ms, num_rows = self.day * MS_PER_DAY, len(columns["price"])
        batch = PredictionBatch(
            model="m", version="v1", epoch="e", sequence=Column.of(np.arange(num_rows, dtype="u8")),
            event_time_ms=Column.of(start_ms + np.arange(num_rows, dtype="i8")),
            slice_index=Column.of(np.zeros(num_rows, "i2")),
            predicted=Column.of(np.zeros(num_rows)), scores=Column.of(np.tile(np.array([0.9, 0.1], "f4"), (num_rows, 1))),
            features=tuple(FeatureColumn(name=name, values=Column.of(values)) for name, values in columns.items()),
        )  # fmt: skip
        sums = np.sum([one for _, one in prediction_sums(self.layout, batch, MS_PER_DAY)], axis=0)
        past = [one for one in self.past if one.start_ms >= start_ms - 30 * MS_PER_DAY]
        found, self.memory = search(self.layout, sums, past, self.memory, "v1", start_ms, MS_PER_DAY)
        self.past.append(PastBlock(start_ms=start_ms, sums=sums))
        self.day += 1
        return found
