"""Adds what predictions and labels say to windows and to the state of their model. No I/O but through the two books."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_monitor.intake.columns import check_labels, check_predictions
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.state import ModelState, OpenBlock
from clipdrift_monitor.windows.window import Layout, WindowKey, groups, label_sums, losses_of, prediction_sums


class Taken(NamedTuple):
    """What became of a batch: rows counted, and rows that were counted before or came after their block was judged; then in how
    many of the batches that it was joined of there were such."""

    num_rows: int
    num_duplicate: int = 0
    num_late: int = 0
    num_duplicate_batches: int = 0
    num_late_batches: int = 0


class Intake:
    """Takes in the rows of a batch.

    Args:
        windows: Where sums go.
        labels: Which receipts were redeemed.
        window_ms: Width of a window.
        max_ordered_labels: Labels of a block that are kept in order for the test for sudden breaks.
        part_ms: Width in which sums are kept, where it is less; 0: that of a window.
    """

    def __init__(
        self, windows: WindowBook, labels: LabelBook, window_ms: int, max_ordered_labels: int, part_ms: int = 0
    ) -> None:
        self._windows = windows
        self._labels = labels
        self._window_ms = window_ms
        self._part_ms = part_ms or window_ms
        self._max_ordered_labels = max_ordered_labels

    def take_predictions(self, state: ModelState, layout: Layout, batch: PredictionBatch, latest_ms: int) -> Taken:
        """Count a batch of predictions. Times after `latest_ms` do not move the watermark. What a shadow answered, nobody got:
        it is checked and stands in no window.

        Raises:
            PoisonError: The columns do not fit each other or the profile; nothing was counted.
        """
        check_predictions(layout.profile, batch)
        num_rows = len(batch.sequence)
        if batch.role == "shadow":
            return Taken(num_rows)
        try:
            sums = list(prediction_sums(layout, batch, self._part_ms))
        except (ValueError, IndexError) as error:  # words where the profile has numbers, say
            raise PoisonError(f"the features do not fit the profile: {error}") from error
        self._check_sizes(layout, batch.model, (key for key, _ in sums))
        for key, added in sums:
            self._windows.add(batch.model, key, added)
        state.num_predictions += num_rows
        state.num_unrecorded += batch.num_unrecorded
        if num_rows:
            _move_on(state, batch.event_time_ms.array(), latest_ms)
        return Taken(num_rows)

    def take_labels(
        self,
        state: ModelState,
        layout: Layout,
        batch: LabelBatch,
        latest_ms: int,
        sizes: Sequence[int] = (),
        on_first: Callable[[npt.NDArray[np.bool_]], object] | None = None,
    ) -> Taken:
        """Count the labels of a batch whose receipts were not redeemed before; otherwise as `take_predictions`.

        `sizes` are the rows of the batches that it was joined of; empty: it is one. `on_first` is told which rows count for the
        first time, shape [N], where any does.
        """
        check_labels(layout.profile, batch)
        # whatever does not fit is found before a receipt is redeemed
        self._check_sizes(layout, batch.model, groups(batch, self._part_ms)[0])
        sequence_N = batch.sequence.array().astype(np.uint64)
        is_first_N = self._labels.first_time(batch.model, batch.epoch, sequence_N, batch.event_time_ms.array())
        num_rows, is_late_N = int(is_first_N.sum()), np.zeros(len(sequence_N), np.bool_)
        if num_rows:
            for key, added in label_sums(layout, batch, is_first_N, self._part_ms):
                self._windows.add(batch.model, key, added)
            state.num_labels += num_rows
            if on_first is not None:
                on_first(is_first_N)
            self._note_delays(state, batch, is_first_N)
            is_late_N[is_first_N] = self._keep_order(state, layout, batch, is_first_N, latest_ms)
            for column in (batch.event_time_ms, batch.label_time_ms):
                _move_on(state, column.array(), latest_ms)
        of_batches = sizes or (len(sequence_N),)
        return Taken(
            num_rows, len(sequence_N) - num_rows, int(is_late_N.sum()), _num_parts(~is_first_N, of_batches),
            _num_parts(is_late_N, of_batches),
        )  # fmt: skip

    def _note_delays(self, state: ModelState, batch: LabelBatch, is_first_N: npt.NDArray[np.bool_]) -> None:
        """How long the labels took, and which judged blocks they are of."""
        time_N = batch.event_time_ms.array()[is_first_N].astype(np.int64)
        delay_N = batch.label_time_ms.array()[is_first_N].astype(np.float64) - time_N
        state.delays = state.delays.with_labels(delay_N, (batch.predicted.array() == batch.label.array())[is_first_N])
        late_N = time_N[time_N < state.judged_until_ms] // self._window_ms * self._window_ms
        if len(late_N):
            found = {(batch.version, start_ms) for start_ms in np.unique(late_N).tolist()}
            state.late_blocks = sorted(found.union(state.late_blocks))

    def _check_sizes(self, layout: Layout, model: str, keys: Iterable[WindowKey]) -> None:
        """Every window that is touched was kept with the same profile."""
        for key in keys:
            known = self._windows.vector(model, key)
            if known is not None and len(known) != layout.size:
                raise PoisonError(f"windows of version {key.version} were kept with another profile than its newest one")

    def _keep_order(
        self, state: ModelState, layout: Layout, batch: LabelBatch, is_first_N: npt.NDArray[np.bool_], latest_ms: int
    ) -> npt.NDArray[np.bool_]:
        """Keep the errors of the version in service by block; which came after their block was judged.

        Blocks that a client claims to lie in the future are not kept open: there is no end to them.
        """
        if state.in_service is None or batch.version != state.in_service.version:
            return np.zeros(int(is_first_N.sum()), np.bool_)
        time_N, slice_N = batch.event_time_ms.array()[is_first_N], batch.slice_index.array()[is_first_N]
        is_error_N = ~losses_of(layout.profile, batch, is_first_N).is_correct
        start_N = time_N.astype(np.int64) // self._window_ms * self._window_ms
        is_open_N = start_N >= state.judged_until_ms
        blocks: Mapping[int, OpenBlock] = state.open_blocks
        changed = dict(blocks)
        for start_ms in np.unique(start_N[is_open_N & (start_N <= latest_ms)]).tolist():
            chosen = start_N == start_ms
            known = changed.get(start_ms, OpenBlock())
            changed[start_ms] = known.with_labels(
                time_N[chosen], is_error_N[chosen], self._max_ordered_labels, slice_N[chosen]
            )  # fmt: skip
        state.open_blocks = changed
        return ~is_open_N


def _num_parts(is_so_N: npt.NDArray[np.bool_], sizes: Sequence[int]) -> int:
    """How many of the parts of those sizes hold a row that is so."""
    return len(np.unique(np.repeat(np.arange(len(sizes)), sizes)[is_so_N])) if is_so_N.any() else 0


def _move_on(state: ModelState, time_ms_N: npt.NDArray[Any], latest_ms: int) -> None:
    """Times that cannot be yet are wrong, and close nothing."""
    newest_ms = int(time_ms_N.max())
    if newest_ms > latest_ms:
        newest_ms = int(time_ms_N[time_ms_N <= latest_ms].max(initial=0))
    state.watermark_ms = max(state.watermark_ms, newest_ms)
