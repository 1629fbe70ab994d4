"""Classes, slices, effective numbers of rows, and the note on drift."""

from dataclasses import replace

import numpy as np
import pytest
from toy_table import DAY, given, table, table_of

from clipdrift_contract.profile import SliceSpec
from clipdrift_trainer.quality.balance import BalancePolicy, check_balance
from clipdrift_trainer.quality.effective_size import (
    EffectiveSizePolicy,
    SlicesPolicy,
    check_effective_size,
    check_slices,
    effective_rows,
)
from clipdrift_trainer.quality.shift import ShiftPolicy, check_shift

N = 2_000
X = np.random.default_rng(0).normal(size=N)
YES = (np.random.default_rng(1).random(N) < 0.4).astype(float)


def test_a_class_of_half_a_percent_warns_and_says_how_many_rows_it_has() -> None:
    label = (np.arange(N) % 200 == 0).astype(float)

    found = check_balance(table({"x": X}, label), BalancePolicy())

    assert found.level == "warn"
    assert found.figures["minority_share"] == pytest.approx(0.005, abs=0.001)
    assert "yes" in found.words


def test_a_class_that_is_declared_and_never_seen_reaches_the_stop_threshold() -> None:
    assert check_balance(table({"x": X}, YES, ("no", "yes", "maybe")), BalancePolicy()).level == "stop"


def test_even_classes_and_spread_values_pass_and_equal_values_do_not() -> None:
    assert check_balance(table({"x": X}, YES), BalancePolicy()).level == "pass"
    assert check_balance(table({"x": X}, X, ()), BalancePolicy()).level == "pass"
    assert check_balance(table({"x": X}, np.ones(N), ()), BalancePolicy()).level == "stop"
    tenths = np.full(N, 0.1)
    assert tenths.std() > 0  # by rounding
    assert check_balance(table({"x": X}, tenths, ()), BalancePolicy()).level == "stop"


def test_rows_that_are_alike_within_a_day_are_worth_their_days() -> None:
    assert effective_rows(np.repeat(np.arange(12), 100), 1.0) == pytest.approx(12)
    assert effective_rows(np.repeat(np.arange(12), 100), 0.0) == 1_200
    assert effective_rows(np.zeros(0, int), 0.5) == 0.0


def test_labels_that_go_by_the_day_make_few_effective_rows() -> None:
    task = given({"x": X}, YES)
    by_day = (task.rows.time_ms // DAY % 2).astype(float)
    task.rows = replace(task.rows, label=by_day)

    found = check_effective_size(table_of(task), EffectiveSizePolicy())

    assert found.level == "stop"
    assert found.figures["held_out_effective_rows"] == pytest.approx(4, abs=0.5)
    assert check_effective_size(table({"x": X}, YES), EffectiveSizePolicy()).level == "pass"


def test_a_slice_with_few_held_out_rows_is_named_and_an_empty_one_is_not() -> None:
    site = np.where(np.arange(N) % 100 == 0, "small", "large")
    task = given({"site": site}, YES)
    task.slices = SliceSpec(feature="site", categories=("small", "large", "closed"))

    found = check_slices(table_of(task), SlicesPolicy())

    assert found.level == "warn"
    assert "small" in found.words
    assert "closed" not in found.words
    assert check_slices(table({"x": X}, YES), SlicesPolicy()).level == "skipped"


def test_a_shift_of_the_held_out_rows_is_noted_and_never_warns() -> None:
    plain = table({"x": X}, YES)
    moved = table({"x": np.where(plain.is_held_out_N, X + 5, X)}, YES)

    note = check_shift(moved, ShiftPolicy())

    assert note.level == "pass"
    assert note.figures["distance"] > 0.9 > 0.1 > check_shift(plain, ShiftPolicy()).figures["distance"]


def test_no_rows_break_nothing() -> None:
    empty = table({"x": X[:0]}, YES[:0])

    assert {check_balance(empty, BalancePolicy()).level, check_effective_size(empty, EffectiveSizePolicy()).level} == {
        "skipped"
    }
    assert check_shift(empty, ShiftPolicy()).level == "skipped"


def test_a_task_without_features_has_no_shift() -> None:
    assert check_shift(table({}, YES), ShiftPolicy()).level == "skipped"
