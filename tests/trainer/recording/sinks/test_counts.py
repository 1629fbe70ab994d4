"""The Prometheus counts of a window."""

import sys

import pytest
from sink_fakes import window

from clipdrift_contract.events import Fault, LayerNorms, SliceGradient
from clipdrift_contract.metrics import TRAINER_GRAD_NORM, MetricSet
from clipdrift_trainer.recording.sinks.counts import WindowCounts


def series(metrics, name):
    """Value by the last label of each series called `name`."""
    return {
        sample.labels.get("kind") or sample.labels.get("group") or sample.labels.get("slice") or "": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def counted(*windows, num_steps=100):
    metrics = MetricSet()
    counts = WindowCounts(metrics, num_steps)
    for one in windows:
        counts.add(one)
    return metrics


def group(name, norm):
    return LayerNorms(name=name, norm_sum=50 * norm, norm_sq_sum=50 * norm**2, norm_max=norm)


def slice_mass(name, mass):
    return SliceGradient(slice=name, num_samples=1, grad_mass_sum=mass, loss_sum=0.0)


def test_skipped_steps_and_faults_by_kind_are_added_up():
    faults = (Fault(kind="nan", step=3, num_steps=2), Fault(kind="frozen_layer", step=0, num_steps=50))
    metrics = counted(window(0, num_skipped=3, faults=faults), window(50, num_skipped=1, faults=faults[:1]))
    assert series(metrics, "clipdrift_trainer_skipped_steps_total") == {"": 4}
    assert series(metrics, "clipdrift_trainer_faults_total") == {"nan": 4, "frozen_layer": 50}


def test_the_histogram_of_norms_is_what_observing_each_norm_gives():
    norms = {-400: 3, -8: 5, 0: 1, 3: 70, 4: 20, 60: 2}
    expected = MetricSet()
    for bucket, count in norms.items():
        for _ in range(2 * count):
            expected.histogram(TRAINER_GRAD_NORM).labels("m").observe(2.0 ** ((bucket + 0.5) / 4))
    found = counted(window(0, norm_histogram=norms), window(50, norm_histogram=norms))

    def lines(metrics):
        text = metrics.exposition().decode().splitlines()
        return [line.rsplit(" ", 1) for line in text if line.startswith("clipdrift_trainer_grad_norm_")]

    named = {name: float(value) for name, value in lines(expected) if "removed" not in name}
    assert len(named) > 5
    assert {name: float(value) for name, value in lines(found) if "removed" not in name} == pytest.approx(named)


def test_a_window_by_sample_is_counted_without_a_pause():
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    counts = WindowCounts(MetricSet(), 100)
    sys.setprofile(count)
    try:
        counts.add(window(0, norm_histogram=dict.fromkeys(range(20), 10_000)))
    finally:
        sys.setprofile(None)
    assert calls < 2_000  # not one a sample


def test_learning_rates_are_means_of_the_last_window():
    changes = {"learning_rate_sum": 5.0, "effective_learning_rate_sum": 2.0, "num_nonfinite": 10}
    metrics = counted(window(0, learning_rate_sum=50.0), window(50, **changes))
    assert series(metrics, "clipdrift_trainer_learning_rate") == {"": pytest.approx(0.1)}
    assert series(metrics, "clipdrift_trainer_effective_learning_rate") == {"": pytest.approx(2 / 40)}


def test_twelve_groups_are_shown_at_most_and_the_rest_is_one_norm():
    metrics = counted(window(0, groups=(*(group(f"block{i}", 3.0) for i in range(10)), group("head", 1.0))))
    assert series(metrics, "clipdrift_trainer_group_grad_norm") == {f"block{i}": 3.0 for i in range(10)} | {"head": 1.0}
    crowded = counted(window(0, groups=tuple(group(f"block{i}", 3.0 if i < 12 else 4.0) for i in range(20))))
    shown = series(crowded, "clipdrift_trainer_group_grad_norm")
    assert len(shown) == 13
    assert shown["(other)"] == pytest.approx(4.0 * 8**0.5)  # eight tensors of norm 4 at right angles


def test_fifty_slices_are_counted_at_most_and_the_rest_together():
    slices = tuple(slice_mass(f"airport {i}", 1.0) for i in range(60))
    shown = series(
        counted(window(0, slices=slices), window(50, slices=slices[::-1])), "clipdrift_trainer_slice_grad_mass_total"
    )
    assert len(shown) == 51
    assert (shown["airport 0"], shown["(other)"]) == (2.0, 20.0)


def test_a_window_without_a_finite_step_counts_and_divides_by_nothing():
    metrics = counted(window(0, num_nonfinite=50, norm_histogram={}, groups=(group("a", 0.0),)))
    assert series(metrics, "clipdrift_trainer_nonfinite_steps_total") == {"": 50}
    assert series(metrics, "clipdrift_trainer_loss") == {"": 0.0}


def test_progress_never_passes_one():
    assert series(counted(window(500)), "clipdrift_trainer_progress_ratio") == {"": 1.0}


def test_no_bound_is_infinite():
    assert series(counted(window(0, max_norm_last=None)), "clipdrift_trainer_clip_bound") == {"": float("inf")}
