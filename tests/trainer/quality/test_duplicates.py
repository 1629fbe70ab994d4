"""Copies across the split, equal or nearly so, and rows that only look like them."""

import numpy as np
import pytest
from toy_table import table

from clipdrift_trainer.quality.duplicates import DuplicatesPolicy, check_duplicates
from clipdrift_trainer.quality.intervals import wilson
from clipdrift_trainer.quality.near_duplicates import NearDuplicatesPolicy, check_near_duplicates, estimate_dimension
from clipdrift_trainer.quality.row_keys import row_keys
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.tasks.task import Rows

GENERATOR = np.random.default_rng(5)
NUMBERS = {f"x{i}": GENERATOR.normal(size=2_000) for i in range(6)} | {
    "site": GENERATOR.choice(["north", "south"], 2_000),
    "trace": GENERATOR.normal(size=(2_000, 3, 2)),
}
LABEL = (GENERATOR.random(2_000) < 0.4).astype(float)


def with_copies(share: float, jitter: float = 0.0, *, with_label: bool = True) -> tuple[Table, np.ndarray]:
    """Held-out rows overwritten by training rows, and which they are."""
    clean = table(NUMBERS, LABEL)
    generator = np.random.default_rng(9)
    held_out, train = np.flatnonzero(clean.is_held_out_N), np.flatnonzero(~clean.is_held_out_N)
    number = round(share * len(held_out))
    ours, theirs = generator.choice(held_out, number, replace=False), generator.choice(train, number, replace=False)
    features = {name: column.copy() for name, column in clean.rows.features.items()}
    for column in features.values():
        column[ours] = column[theirs]
        if column.dtype != object:
            column[ours] += (jitter * generator.normal(size=column[ours].shape)).astype(np.float32)
    label = clean.rows.label.copy()
    label[ours] = label[theirs] if with_label else 1 - label[theirs]
    rows = Rows(features, label, clean.rows.time_ms, clean.rows.label_time_ms)
    return Table(clean.task, rows, clean.is_held_out_N), np.sort(ours)


def test_independent_rows_have_no_copies() -> None:
    clean = table(NUMBERS, LABEL)

    assert check_duplicates(clean, DuplicatesPolicy()).level == "pass"
    assert check_near_duplicates(clean, NearDuplicatesPolicy()).level == "pass"


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_every_copy_and_no_other_row_is_named(share: float) -> None:
    planted, copies = with_copies(share)

    found = check_duplicates(planted, DuplicatesPolicy())

    assert found.level == "warn"
    assert np.sort(found.rows).tolist() == copies.tolist()
    assert found.figures["share_low"] <= share <= found.figures["share_high"]


def test_more_than_a_fifth_of_copies_stops_even_a_training_that_only_wants_to_be_warned() -> None:
    found = check_duplicates(with_copies(0.25)[0], DuplicatesPolicy())

    assert (found.level, found.is_unmistakable) == ("stop", True)


def test_equal_rows_with_other_labels_are_no_copies() -> None:
    planted, _ = with_copies(0.05, with_label=False)

    assert check_duplicates(planted, DuplicatesPolicy()).level == "pass"


def test_rows_of_few_categories_repeat_by_nature() -> None:
    generator = np.random.default_rng(0)
    shop, hour = generator.choice(["a", "b", "c"], 2_000), generator.integers(0, 24, 2_000)
    label = generator.random(2_000) < 0.3 + 0.2 * (shop == "a")

    coarse = table({"shop": shop, "hour": hour}, label)

    assert check_duplicates(coarse, DuplicatesPolicy()).level == "pass"
    assert check_near_duplicates(coarse, NearDuplicatesPolicy()).level in ("pass", "skipped")


def test_jittered_copies_are_near_and_exact_ones_are_not_counted_among_them() -> None:
    near, copies = with_copies(0.05, jitter=0.005)
    exact, _ = with_copies(0.05)

    found = check_near_duplicates(near, NearDuplicatesPolicy())

    assert found.level == "warn"
    assert set(found.rows.tolist()) == set(copies.tolist())
    assert check_duplicates(near, DuplicatesPolicy()).level == "pass"
    assert check_near_duplicates(exact, NearDuplicatesPolicy()).level == "pass"


def test_rows_on_a_line_lie_near_each_other_and_nothing_is_said() -> None:
    line = np.linspace(0, 1, 2_000)[np.random.default_rng(0).permutation(2_000)]

    assert (
        check_near_duplicates(table({"a": line, "b": 2 * line, "c": -line}, LABEL), NearDuplicatesPolicy()).level == "skipped"
    )


@pytest.mark.parametrize("num_dimensions", [1, 2, 3, 4])
def test_the_dimension_of_evenly_spread_rows_is_estimated_without_bias(num_dimensions: int) -> None:
    point_ND = np.random.default_rng(num_dimensions).random((20_000, num_dimensions)).astype(np.float32)
    is_inner_N = (np.abs(point_ND - 0.5) < 0.25).all(axis=1)  # at the edges half of the neighbours are missing
    some = np.flatnonzero(is_inner_N)[:400]
    others = np.setdiff1d(np.arange(len(point_ND)), some)

    found = estimate_dimension(point_ND, some, others)

    assert found == pytest.approx(num_dimensions, rel=0.06)


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential"])
@pytest.mark.parametrize("num_features", [2, 3])
def test_rows_of_few_features_that_tell_the_label_are_no_copies(num_features: int, draw: str) -> None:
    for seed in range(3):
        point_ND = getattr(np.random.default_rng(seed), draw)(size=(2_000, num_features))
        sum_N = point_ND.sum(axis=1)
        clean = table({f"x{i}": point_ND[:, i] for i in range(num_features)}, sum_N > np.median(sum_N))

        assert check_near_duplicates(clean, NearDuplicatesPolicy()).level == "pass"


def test_what_chance_brings_about_is_taken_off_the_share_and_off_both_ends_of_its_interval() -> None:
    generator = np.random.default_rng(3)
    point_ND = generator.normal(size=(2_000, 3))
    clean = table({f"x{i}": point_ND[:, i] for i in range(3)}, point_ND.sum(axis=1) > 0)
    held_out, train = np.flatnonzero(clean.is_held_out_N), np.flatnonzero(~clean.is_held_out_N)
    features = {name: column.copy() for name, column in clean.rows.features.items()}
    for column in features.values():
        column[held_out[:40]] = column[train[:40]] + 1e-4
    label = clean.rows.label.copy()
    label[held_out[:40]] = label[train[:40]]
    rows = Rows(features, label, clean.rows.time_ms, clean.rows.label_time_ms)

    figures = check_near_duplicates(Table(clean.task, rows, clean.is_held_out_N), NearDuplicatesPolicy()).figures

    by_nature, num_twins = figures["share_by_nature"], round((figures["share"] + figures["share_by_nature"]) * len(held_out))
    assert by_nature == pytest.approx(0.0003)
    assert figures["share"] == pytest.approx(num_twins / len(held_out) - by_nature)
    low, high = wilson(num_twins, len(held_out))
    assert (figures["share_low"], figures["share_high"]) == (pytest.approx(low - by_nature), pytest.approx(high - by_nature))
    assert figures["share_low"] <= 0.1 <= figures["share_high"]


def test_a_missing_category_is_the_word_that_loading_makes_of_it() -> None:
    words = np.array([None, "None", "a"], object)
    one = table({"x": np.zeros(3), "word": words.astype(str)}, [0, 1, 0])
    rows = Rows({**one.rows.features, "word": words}, one.rows.label, one.rows.time_ms, one.rows.label_time_ms)

    assert row_keys(one.task, rows).tolist() == one.keys.tolist()


def test_keys_take_nan_for_nan_and_minus_zero_for_zero_and_differ_otherwise() -> None:
    one = table({"x": [np.nan, 0.0, 1.0], "word": ["a", "b", "c"]}, [0, 1, 0])
    other = table({"x": [-np.float32("nan"), -0.0, 1.0], "word": ["a", "b", "d"]}, [0, 1, 0])

    assert (one.keys == other.keys).tolist() == [True, True, False]
    assert len(set(row_keys(one.task, one.rows, without="word"))) == 3


def test_different_rows_have_different_keys() -> None:
    big = table({"x": np.arange(300_000) % 600, "y": np.arange(300_000) // 600}, np.zeros(300_000))

    assert len(np.unique(big.keys)) == 300_000
