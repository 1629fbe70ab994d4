"""Batches joined are the same rows in the same order, and what does not fit is found."""

import msgspec
import numpy as np
import pytest
from dialogue import labels, predictions, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError
from clipdrift_monitor.intake.joining import grouped, join, join_columns, kind_of


def test_rows_keep_their_order_and_unrecorded_predictions_are_added():
    parts = [predictions(rows(day, 10 + day), num_unrecorded=day) for day in range(3)]
    whole = join(parts)

    for name in ("sequence", "event_time_ms", "slice_index", "predicted", "scores"):
        np.testing.assert_array_equal(
            getattr(whole, name).array(), np.concatenate([getattr(one, name).array() for one in parts])
        )
    for i, column in enumerate(whole.features):
        assert column.values.array().tolist() == [v for one in parts for v in one.features[i].values.array().tolist()]
    assert whole.num_unrecorded == 3


def test_labels_of_one_process_are_joined_and_those_of_another_are_not():
    one, two = labels(rows(1, 5), epoch="a"), labels(rows(1, 5), epoch="b")
    assert kind_of(one) == kind_of(labels(rows(2, 9), epoch="a"))
    assert kind_of(one) != kind_of(two)
    assert join([one, labels(rows(2, 9), epoch="a")]).label_time_ms.array().shape == (14,)


def test_columns_of_another_type_or_shape_or_name_keep_a_batch_apart():
    batch = predictions(rows(1, 4))
    other_type = msgspec.structs.replace(batch, predicted=Column.of(batch.predicted.array().astype("f4")))
    other_classes = msgspec.structs.replace(batch, scores=Column.of(np.zeros((4, 3), "f4")))
    fewer = msgspec.structs.replace(batch, features=batch.features[:1])
    assert len({kind_of(one) for one in (batch, other_type, other_classes, fewer, labels(rows(1, 4)))}) == 5


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_groups_hold_every_batch_once_in_order_and_no_more_rows_than_allowed_unless_it_is_one(sizes, max_rows):
    batches = [predictions(rows(1, size), version=f"v{i % 2}", generation=i) for i, size in enumerate(sizes)]
    groups = [[batch.generation for batch in group] for group in grouped(batches, max_rows)]
    assert sorted(number for group in groups for number in group) == list(range(len(sizes)))
    for numbers in groups:
        assert numbers == sorted(numbers)
        assert len({number % 2 for number in numbers}) == 1
        assert len(numbers) == 1 or sum(sizes[number] for number in numbers) <= max_rows


@given(st.lists(st.lists(st.sampled_from(["a", "b", "", "\0", "é"]), max_size=5), min_size=1, max_size=6))
def test_words_are_the_same_words_whatever_codes_they_came_in(parts):
    whole = join_columns([Column.of(np.array(words, object)) for words in parts])
    assert whole.array().tolist() == [word for words in parts for word in words]


@pytest.mark.parametrize(
    "bad",
    [
        Column(dtype="<f4", shape=(3,), data=b"\0" * 8),
        Column(dtype="<f4", shape=(), data=b"\0" * 4),
        Column(dtype="<x9", shape=(2,), data=b"\0" * 8),
    ],
)
def test_a_column_that_does_not_hold_what_its_shape_says_is_poison(bad):
    with pytest.raises(PoisonError, match="bytes"):
        join_columns([bad, bad])


def test_a_code_without_a_word_is_poison():
    bad = Column(dtype="str", shape=(1,), data=np.array([7], "<i4").tobytes(), strings=("a",))
    with pytest.raises(PoisonError, match="outside"):
        join_columns([Column.of(np.array(["b"], object)), bad])
