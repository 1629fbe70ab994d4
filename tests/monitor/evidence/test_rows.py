"""Which rows come into a pack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import PREDICTIONS
from clipdrift_monitor.evidence.rows import Sampler, key_of_rows, read_rows

DAY = MS_PER_DAY


def test_rows_are_taken_by_event_time_and_the_windows_end_is_excluded(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([0, 10 * DAY - 1, 10 * DAY, 20 * DAY, 22 * DAY - 1, 22 * DAY], range(6))
    recorded.flush()

    found = read_rows(recorded.bus, recorded.order(tmp_path))

    assert found.reference.outputs["event_time_ms"].tolist() == [0, 10 * DAY - 1]
    assert found.current.outputs["event_time_ms"].tolist() == [20 * DAY, 22 * DAY - 1]


def test_rows_of_another_model_or_version_stay_out(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([1, 2], [1, 2])
    recorded.predictions([1, 2, 3], [3, 4, 5], model="valve")
    recorded.predictions([1, 2, 3, 4], [6, 7, 8, 9], version="v2")
    recorded.flush()

    assert read_rows(recorded.bus, recorded.order(tmp_path)).reference.num_rows == 2
    assert read_rows(recorded.bus, recorded.order(tmp_path, model="valve")).reference.num_rows == 3


def test_a_model_that_nobody_recorded_has_no_rows(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([1, 2], [1, 2])
    recorded.flush()

    found = read_rows(recorded.bus, recorded.order(tmp_path, model="ghost"))

    assert [(side.num_rows, side.num_sampled, side.num_labelled) for side in found] == [(0, 0, 0), (0, 0, 0)]


def test_an_order_for_a_slice_takes_its_rows_only(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([1, 2, 3], [1, 2, 3], slice_index=np.array([0, 1, 1], "i2"))
    recorded.flush()

    assert read_rows(recorded.bus, recorded.order(tmp_path, slice="south")).reference.outputs["event_time_ms"].tolist() == [
        2,
        3,
    ]
    assert read_rows(recorded.bus, recorded.order(tmp_path)).reference.num_rows == 3


def test_a_batch_that_was_delivered_twice_counts_once(recorded: Any, tmp_path: Path) -> None:
    for _ in range(2):
        recorded.predictions([1, 2], [1, 2], event_id="same")
    recorded.flush()

    assert read_rows(recorded.bus, recorded.order(tmp_path)).reference.num_rows == 2


def test_labels_find_their_rows_by_epoch_and_sequence_and_the_first_counts(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([1, 2, 3], [7, 8, 9])
    recorded.labels([3, 1], [9, 7], [1, 0])
    recorded.labels([3], [9], [0])  # the same receipt again
    recorded.labels([2], [8], [1], epoch="another life")
    recorded.flush()

    label_N = read_rows(recorded.bus, recorded.order(tmp_path)).reference.outputs["label"]

    np.testing.assert_array_equal(label_N, [0.0, np.nan, 1.0])


def test_a_sequence_is_summarised_by_the_mean_of_its_finite_values(recorded: Any, tmp_path: Path) -> None:
    history = np.array([[[1, 2], [3, np.nan]], [[np.nan, np.nan], [np.nan, np.nan]]], "f4")
    recorded.predictions([1, 2], [1, 2], features={"history": history})
    recorded.flush()

    np.testing.assert_array_equal(
        read_rows(recorded.bus, recorded.order(tmp_path)).reference.features["history"], [2.0, np.nan]
    )


def test_a_feature_that_some_batches_lack_is_missing_there(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions([1], [1], features={"flow": np.array([0.5]), "site": np.array(["north"], object)})
    recorded.predictions([2], [2], features={"flow": np.array([0.7])})
    recorded.flush()

    features = read_rows(recorded.bus, recorded.order(tmp_path)).reference.features

    assert features["flow"].tolist() == [0.5, 0.7]
    assert features["site"].tolist() == ["north", None]


def test_what_cannot_be_read_is_left_out_and_the_rest_is_taken(recorded: Any, tmp_path: Path) -> None:
    recorded.publisher.publish(PREDICTIONS, b"pump/e1", {"ce_subject": b"pump"}, b"\xc1", timestamp_ms=100 * DAY)
    recorded.predictions([1, 2], [1, 2, 3])  # columns of two lengths
    recorded.predictions([3], [4])
    recorded.flush()

    assert read_rows(recorded.bus, recorded.order(tmp_path)).reference.outputs["event_time_ms"].tolist() == [3]


def test_a_sample_is_in_time_order_and_counts_the_rows_it_was_drawn_from(recorded: Any, tmp_path: Path) -> None:
    for first in range(0, 1000, 100):
        recorded.predictions(np.arange(first, first + 100)[::-1], range(first, first + 100))
    recorded.flush()

    side = read_rows(recorded.bus, recorded.order(tmp_path), max_rows=50).reference

    assert (side.num_rows, side.num_sampled) == (1000, 50)
    assert (np.diff(side.outputs["event_time_ms"]) > 0).all()


def test_the_sample_is_the_same_in_whatever_order_the_rows_come() -> None:
    key_N, x_N = key_of_rows("e1", np.arange(5000)), np.arange(5000.0)
    forward, backward = Sampler(100), Sampler(100)
    for first in range(0, 5000, 70):
        forward.add(key_N[first : first + 70], {"x": x_N[first : first + 70]})
        backward.add(key_N[::-1][first : first + 70], {"x": x_N[::-1][first : first + 70]})

    assert sorted(forward.sample()[1]["x"].tolist()) == sorted(backward.sample()[1]["x"].tolist())
    assert len(forward.sample()[0]) == 100


def test_every_row_is_as_likely_to_be_sampled_as_any_other() -> None:
    # 200 epochs, 1,000 consecutive sequence numbers, 100 of them sampled: by thirds of the range 333.3 in 1,000 each
    thirds = np.zeros(3)
    for epoch in range(200):
        sampler = Sampler(100)
        sampler.add(key_of_rows(f"e{epoch}", np.arange(999)), {"x": np.arange(999)})
        thirds += np.bincount(sampler.sample()[1]["x"] // 333, minlength=3)

    # chi-square with 2 degrees of freedom: 13.8 is exceeded once in 1,000
    expected = thirds.sum() / 3
    assert ((thirds - expected) ** 2 / expected).sum() < 13.8


def test_a_bus_without_records_gives_no_rows_and_does_not_wait(recorded: Any, tmp_path: Path) -> None:
    assert read_rows(recorded.bus, recorded.order(tmp_path)).current.num_rows == 0


@pytest.mark.parametrize("sequence", [0, 2**63, 2**64 - 1])
def test_keys_span_all_sequence_numbers(sequence: int) -> None:
    assert key_of_rows("e1", np.array([sequence], "u8")).dtype == np.uint64
