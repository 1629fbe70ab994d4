"""The paired test on more than two classes (the predicted class's probability) and on values (scaled into 0..1)."""

import numpy as np
import pytest
from window_batches import DAY_MS, labels, profile, rows

from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import Block, HarmConfig, start, step
from clipdrift_monitor.risk.reference import Reference
from clipdrift_monitor.windows.window import Layout, label_sums

NOTHING = Reference(num_days=0, mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)
TASKS = [("multiclass", 4), ("regression", 0)]


def harmed(columns, task):
    if task == "regression":
        columns["predicted"] = columns["predicted"] + 1.5  # all values are foretold too high
        return columns
    sharpened = columns["scores"] ** 3  # much too sure, with the same predictions
    return columns | {"scores": sharpened / sharpened.sum(axis=1, keepdims=True)}


def alarms(task, num_classes, num_days, *, is_harmed):
    layout = Layout(profile(task, num_classes))
    state, found = start(NOTHING, Allotment()), []
    for number in range(num_days):
        columns = rows(300, number, task, num_classes)
        if is_harmed:
            columns = harmed(columns, task)
        columns["time_ms"] = np.full(300, number * DAY_MS)
        columns["slice"] = np.zeros(300, int)
        ((_, sums),) = label_sums(layout, labels(columns), np.ones(300, bool), DAY_MS)
        block = Block(
            start_ms=number * DAY_MS, end_ms=(number + 1) * DAY_MS, num_labels=300.0, brier_sum=layout.value(sums, "brier_sum"),
            labels=layout.counts(sums, "labels").tolist(), hits=layout.counts(sums, "hits").tolist(),
            score_sum=layout.counts(sums, "score_sum").tolist(), errors=b"",
        )  # fmt: skip
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
