"""Rows become sums: what a batch adds, and that a batch is taken whole or not at all."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from dialogue import DAY, labels, predictions, profile, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.intake.intake import Intake, Taken
from clipdrift_monitor.intake.joining import grouped, join
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.windows.window import Layout

FAR_MS = 10_000 * DAY


class Desk:
    """An intake on empty books, with the state of one model."""

    def __init__(self, max_ordered_labels=1_000):
        self.windows = WindowBook(lambda model, key: None)
        self.labels = LabelBook(lambda model, epoch, chunk: None)
        self.intake = Intake(self.windows, self.labels, DAY, max_ordered_labels)
        self.state = ModelState(model="pump", in_service=ServedVersion(version="v1", uri="", digest=""))
        self.layout = Layout(profile())

    def take(self, batch, latest_ms=FAR_MS, layout=None):
        take = self.intake.take_labels if hasattr(batch, "label") else self.intake.take_predictions
        return take(self.state, layout or self.layout, batch, latest_ms)

    def sum_of(self, name):
        return sum(self.layout.value(sums, name) for sums in self.windows.changes().values())


def test_counts_follow_from_the_rows_alone():
    desk, columns = Desk(), rows(2, 300)

    taken = desk.take(predictions(columns)), desk.take(labels(columns))

    is_right = columns["predicted"] == columns["label"]
    assert taken == (Taken(300), Taken(300, 0, 0))
    assert desk.sum_of("num_predictions") == desk.sum_of("num_labels") == 300
    assert desk.sum_of("num_correct") == is_right.sum()
    assert desk.sum_of("brier_sum") == pytest.approx(np.where(is_right, 0.04, 0.64).sum(), rel=1e-6)
    assert desk.sum_of("delay_seconds_sum") == 300 * 3_600
    by_slice = {key.slice_index: sums[1] for (_, key), sums in desk.windows.changes().items()}
    assert by_slice == {index: (columns["slice"] == index).sum() for index in (0, 1)}


def test_predictions_that_were_answered_and_not_recorded_are_counted():
    desk = Desk()
    desk.take(predictions(rows(2, 5), num_unrecorded=7))

    assert (desk.state.num_predictions, desk.state.num_unrecorded) == (5, 7)


def test_the_watermark_is_the_newest_time_seen_never_goes_back_and_does_not_follow_what_cannot_be_yet():
    desk, columns = Desk(), rows(4, 50)
    desk.take(labels(columns, delay_ms=500))
    newest = desk.state.watermark_ms
    desk.take(predictions(rows(3, 50)))
    after_older = desk.state.watermark_ms
    mixed = rows(900, 50)
    mixed["time_ms"][10] = newest + 7
    desk.take(predictions(mixed), latest_ms=5 * DAY)

    assert newest == after_older == columns["time_ms"].max() + 500
    assert desk.state.watermark_ms == newest + 7


def test_errors_are_kept_by_block_for_the_version_in_service_alone_and_up_to_a_number():
    desk, columns = Desk(max_ordered_labels=30), rows(2, 50)
    desk.take(labels(columns))
    desk.take(labels(columns, epoch="other", version="v0"))

    kept = desk.state.open_blocks
    assert list(kept) == [2 * DAY]
    assert list(kept[2 * DAY].errors_in_order()) == (columns["predicted"] != columns["label"])[:30].tolist()


def test_labels_of_judged_blocks_are_late_and_blocks_beyond_now_are_not_kept_open():
    desk = Desk()
    desk.state.judged_until_ms = 3 * DAY

    late = desk.take(labels(rows(2, 20), epoch="a"))
    future = desk.take(labels(rows(50, 20), epoch="b"), latest_ms=10 * DAY)

    assert (late, future) == (Taken(20, 0, 20, 0, 1), Taken(20, 0, 0))
    assert desk.state.open_blocks == {}
    assert desk.sum_of("num_labels") == 40


def test_values_are_taken_without_scores_and_their_losses_are_within_the_validated_range():
    desk = Desk()
    layout = Layout(
        ReferenceProfile(task="regression", score_edges=(0.0,), score_counts=(1, 1), label_low=0.0, label_high=10.0)
    )
    columns = rows(2, 4)
    columns |= {
        "slice": np.zeros(4, int), "predicted": np.array([0.0, 5.0, 10.0, 50.0]), "label": np.array([0.0, 0.0, 0.0, 0.0]),
        "scores": np.zeros((4, 0)),
    }  # fmt: skip

    desk.take(labels(columns), layout=layout)

    (sums,) = desk.windows.changes().values()
    assert layout.value(sums, "absolute_error_sum") == 65.0
    assert layout.value(sums, "brier_sum") == pytest.approx(0 + 0.25 + 1 + 1)
    assert layout.value(sums, "nll_sum") == 0.0


def test_a_window_that_was_kept_with_another_profile_is_not_added_to_and_no_receipt_is_redeemed():
    desk, columns = Desk(), rows(2, 10)
    desk.take(predictions(columns))
    other = Layout(profile(score_edges=(0.5,), score_counts=(1, 1)))

    with pytest.raises(PoisonError, match="kept with another profile"):
        desk.take(labels(columns), layout=other)

    assert desk.sum_of("num_labels") == desk.state.num_labels == 0
    assert desk.take(labels(columns)) == Taken(10, 0, 0)


def test_sequence_numbers_of_any_size_and_whole_type_are_told_apart():
    desk, columns = Desk(), rows(2, 4)
    numbers = np.array([2**64 - 1, 2**64 - 2, 2**53, 2**53 + 1], "u8")

    desk.take(msgspec.structs.replace(labels(columns), sequence=Column.of(numbers)))
    again = desk.take(msgspec.structs.replace(labels(columns), sequence=Column.of(np.array([2**53, 2**53 + 1, 1, 2], "i8"))))

    assert again == Taken(2, 2, 0, 1, 0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_sums_and_state_are_the_same_however_rows_are_batched_and_batches_grouped(sizes, max_rows, seed):
    columns = rows(2, sum(sizes), seed=seed % 5)
    ends = np.cumsum([0, *sizes])
    parts = [({name: values[first:last] for name, values in columns.items()}, int(first)) for first, last in pairwise(ends)]
    batches = [make(part, first=first) for part, first in parts for make in (predictions, labels)]
    batches += [batches[1]]  # a label batch that comes twice
    one_by_one, together = Desk(), Desk()
    for batch in batches:
        one_by_one.take(batch)
    for group in grouped(batches, max_rows):
        together.take(join(group))

    assert one_by_one.windows.changes().keys() == together.windows.changes().keys()
    for place, sums in one_by_one.windows.changes().items():
        np.testing.assert_allclose(together.windows.changes()[place], sums, rtol=1e-12, atol=1e-12)
    assert one_by_one.state == together.state
    assert one_by_one.labels.changes() == together.labels.changes()
