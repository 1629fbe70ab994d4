"""Adds what predictions and labels say to windows and to the state of their model. No I/O but through the two books."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.state import ModelState, OpenBlock
from clipdrift_monitor.windows.window import Layout, label_sums, losses_of, prediction_sums


class Taken(NamedTuple):
    """What became of a batch: rows counted, and rows that were counted before or came after their block was judged."""

    num_rows: int
    num_duplicate: int = 0
    num_late: int = 0


class Intake:
    """Takes in the rows of a batch.

    Args:
        windows: Where sums go.
        labels: Which receipts were redeemed.
        window_ms: Width of a window.
        max_ordered_labels: Labels of a block that are kept in order for the test for sudden breaks.
    """

    def __init__(self, windows: WindowBook, labels: LabelBook, window_ms: int, max_ordered_labels: int) -> None:
        self._windows = windows
        self._labels = labels
        self._window_ms = window_ms
        self._max_ordered_labels = max_ordered_labels

    def take_predictions(self, state: ModelState, layout: Layout, batch: PredictionBatch, latest_ms: int) -> Taken:
        """Count a batch of predictions. The watermark never passes `latest_ms`, whatever time a client claims.

        Raises:
            PoisonError, ValueError, IndexError: The columns do not fit each other or the profile; nothing was counted.
        """
        num_rows = len(batch.sequence)
        for key, sums in prediction_sums(layout, batch, self._window_ms):
            self._windows.add(batch.model, key, sums)
        state.num_predictions += num_rows
        state.num_unrecorded += batch.num_unrecorded
        if num_rows:
            _move_on(state, int(batch.event_time_ms.array().max()), latest_ms)
        return Taken(num_rows)

    def take_labels(self, state: ModelState, layout: Layout, batch: LabelBatch, latest_ms: int) -> Taken:
        """Count the labels of a batch whose receipts were not redeemed before; otherwise as `take_predictions`."""
        sequence_N, time_N = batch.sequence.array(), batch.event_time_ms.array()
        losses_of(layout.profile, batch, np.ones(len(sequence_N), bool))  # a batch that cannot be read redeems nothing
        is_first_N = self._labels.first_time(batch.model, batch.epoch, sequence_N)
        num_rows, num_late = int(is_first_N.sum()), 0
        if num_rows:
            for key, sums in label_sums(layout, batch, is_first_N, self._window_ms):
                self._windows.add(batch.model, key, sums)
            state.num_labels += num_rows
            num_late = self._keep_order(state, layout, batch, is_first_N)
            _move_on(state, max(int(time_N.max()), int(batch.label_time_ms.array().max())), latest_ms)
        return Taken(num_rows, len(sequence_N) - num_rows, num_late)

    def _keep_order(self, state: ModelState, layout: Layout, batch: LabelBatch, is_first_N: npt.NDArray[np.bool_]) -> int:
        """Keep the errors of the version in service by block; how many came after their block was judged."""
        if state.in_service is None or batch.version != state.in_service.version:
            return 0
        time_N = batch.event_time_ms.array()[is_first_N]
        is_error_N = ~losses_of(layout.profile, batch, is_first_N).is_correct
        start_N = time_N // self._window_ms * self._window_ms
        is_open_N = start_N >= state.judged_until_ms
        blocks: Mapping[int, OpenBlock] = state.open_blocks
        changed = dict(blocks)
        for start_ms in np.unique(start_N[is_open_N]).tolist():
            chosen = start_N == start_ms
            known = changed.get(start_ms, OpenBlock())
            changed[start_ms] = known.with_labels(time_N[chosen], is_error_N[chosen], self._max_ordered_labels)
        state.open_blocks = changed
        return int((~is_open_N).sum())


def _move_on(state: ModelState, newest_ms: int, latest_ms: int) -> None:
    state.watermark_ms = max(state.watermark_ms, min(newest_ms, latest_ms))
