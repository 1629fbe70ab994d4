"""The paired test on more than two classes (the predicted class's probability) and on values (scaled into 0..1)."""

import msgspec
import numpy as np
import pytest
from dialogue import run_end
from window_batches import DAY_MS, labels, profile, rows

from clipdrift_monitor.decisions.judging import block_of
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import HarmConfig, start, step
from clipdrift_monitor.risk.reference import Reference, reference_of, references_of_slices
from clipdrift_monitor.windows.window import Layout, label_sums
from clipdrift_trainer.evaluation.clustering import cluster_misses

NOTHING = Reference(num_days=0, mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)
TASKS = [("multiclass", 4), ("regression", 0)]


def harmed(columns, task):
    if task == "regression":
        columns["predicted"] = columns["predicted"] + 1.5  # all values are foretold too high
        return columns
    sharpened = columns["scores"] ** 3  # much too sure, with the same predictions
    return columns | {"scores": sharpened / sharpened.sum(axis=1, keepdims=True)}


def day_of(task, num_classes, number, *, is_harmed=False):
    columns = rows(300, number, task, num_classes)
    if is_harmed:
        columns = harmed(columns, task)
    return columns | {"time_ms": np.full(300, number * DAY_MS), "slice": np.zeros(300, int)}


def sums_of(layout, columns):
    ((_, sums),) = label_sums(layout, labels(columns), np.ones(300, bool), DAY_MS)
    return sums


def alarms(task, num_classes, num_days, *, is_harmed, reference=NOTHING):
    layout = Layout(profile(task, num_classes))
    state, found = start(reference, Allotment()), []
    for number in range(num_days):
        sums = sums_of(layout, day_of(task, num_classes, number, is_harmed=is_harmed))
        block = block_of(layout, sums, number * DAY_MS, (number + 1) * DAY_MS, b"\x01" * 300 if task == "regression" else b"")
        found += [one for one in step(state, block, HarmConfig()) if one.is_alarm]
    return found


@pytest.mark.parametrize(("task", "num_classes"), TASKS)
def test_an_honest_model_is_not_called_repairable(task, num_classes):
    assert alarms(task, num_classes, 100, is_harmed=False) == []


@pytest.mark.parametrize(("task", "num_classes"), TASKS)
def test_what_a_recalibration_mends_is_called_repairable(task, num_classes):
    found = alarms(task, num_classes, 100, is_harmed=True)
    assert {one.test for one in found} == {"repairable"}
    assert found[0].effect > 0.01


def validated(num_days=12):
    """What training ships of days of values, as production has them."""
    days = [day_of("regression", 0, 1_000 + number) for number in range(num_days)]
    value_N, label_N, time_N = (np.concatenate([day[name] for day in days]) for name in ("predicted", "label", "time_ms"))
    known = profile("regression")
    span = known.label_high - known.label_low
    return days, cluster_misses(value_N, label_N, time_N, np.zeros(len(value_N), int), ("all",), span)


def test_training_and_production_count_misses_of_values_alike():
    layout = Layout(profile("regression"))
    days, (overall, of_slice) = validated()
    assert [one.brier_sum for one in overall.days] == pytest.approx(
        [layout.value(sums_of(layout, day), "brier_sum") for day in days]
    )
    assert of_slice.days == overall.days
    assert {one.num_errors for one in overall.days} == {0}


def test_values_are_worse_than_validated_by_their_bounded_loss_and_never_broken_at_once():
    run = run_end(profile=profile("regression"), clustering=validated()[1])
    reference = reference_of(run)
    assert (reference.is_usable, reference.has_errors) == (True, False)

    assert alarms("regression", 0, 100, is_harmed=False, reference=reference) == []
    found = alarms("regression", 0, 60, is_harmed=True, reference=reference)
    assert {one.test for one in found} == {"worse_than_validated", "repairable"}
    first = next(one for one in found if one.test == "worse_than_validated")
    assert "squared miss" in first.detail
    assert first.effect > 0


def test_slices_of_values_have_bounds_of_their_own_and_a_version_without_any_has_none():
    overall, of_slice = validated()[1]
    clustering = (overall, msgspec.structs.replace(of_slice, slice="a"))
    run = run_end(profile=profile("regression"), clustering=clustering)
    assert not references_of_slices(run, ("a", "b"), 5)["a"].has_errors
    assert not reference_of(run_end(profile=profile("regression"), clustering=())).is_usable
