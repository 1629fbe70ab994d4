"""How many series a scrape has: a bound holds however many models, inputs and slices there are, and the worst are kept."""

import msgspec
import pytest
from crowd_reader import CrowdReader
from prometheus_client.parser import text_string_to_metric_families

from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.series_budget import SERIES_PER_SLICE, ExportConfig
from clipdrift_monitor.config import MonitorConfig

OF_A_MODEL = 60
"""Series that a model has without inputs and slices, at most."""


def scraped(num_models: int, num_features: int, num_slices: int, **limits: int):
    """The samples of one scrape."""
    config = MonitorConfig(export=ExportConfig(**limits))
    exporter = Exporter(CrowdReader(num_models, num_features, num_slices), MetricSet(), config)
    return [one for family in text_string_to_metric_families(exporter.exposition().decode()) for one in family.samples]


def of_parts(samples):
    """Those of an input or of a slice."""
    return [one for one in samples if "feature" in one.labels or one.labels.get("slice")]


def named(samples, metric, label):
    return {
        one.labels[label] for one in samples if one.name == f"clipdrift_model_{metric}" and one.labels["model"] == "model-000"
    }


@pytest.mark.parametrize(
    ("num_models", "num_features", "num_slices"), [(1, 50, 20), (200, 50, 20), (200, 500, 300), (900, 50, 20)]
)
def test_the_bound_holds(num_models, num_features, num_slices):
    samples = scraped(num_models, num_features, num_slices)
    limits = ExportConfig()
    assert len(of_parts(samples)) <= limits.max_series
    assert len(samples) - len(of_parts(samples)) <= num_models * OF_A_MODEL
    assert len(named(samples, "feature_drift_score", "feature")) <= limits.max_features
    assert len(named(samples, "live_accuracy_ratio", "slice")) <= limits.max_slices + 1
    assert {one.labels["model"] for one in of_parts(samples)} == {f"model-{index:03d}" for index in range(num_models)}


def test_200_models_with_50_inputs_and_20_slices_are_told_with_all_their_slices():
    samples = scraped(200, 50, 20)
    assert len(of_parts(samples)) == 200 * (20 + SERIES_PER_SLICE * 20) == 24_000
    assert len(named(samples, "validated_accuracy_ratio", "slice")) == 21


def test_those_that_moved_and_lost_most_are_kept_and_what_is_left_out_is_counted():
    samples = scraped(2, 50, 20, max_features=3, max_slices=2)
    assert named(samples, "feature_drift_score", "feature") == {"input 47", "input 48", "input 49"}
    for metric in ("live_accuracy_ratio", "live_accuracy_low_ratio", "live_accuracy_high_ratio", "validated_accuracy_ratio"):
        assert named(samples, metric, "slice") == {"", "slice 18", "slice 19"}
    left_out = {one.labels["what"]: one.value for one in samples if one.name == "clipdrift_monitor_parts_left_out"}
    assert left_out == {"features": 2 * 47, "slices": 2 * 18}


def test_the_share_that_moved_is_of_all_inputs_also_of_those_left_out():
    samples = scraped(1, 50, 1, max_features=3)
    (share,) = [one.value for one in samples if one.name == "clipdrift_model_features_moved_ratio"]
    assert share == 40 / 50  # inputs 10 to 49 stand at 0.10 and more


def test_many_models_share_the_series_and_each_keeps_the_worst():
    samples = scraped(100, 50, 20, max_series=1_000)
    assert named(samples, "feature_drift_score", "feature") == {"input 49"}
    assert named(samples, "live_accuracy_ratio", "slice") == {"", "slice 19"}
    assert len(of_parts(samples)) == 100 * (1 + SERIES_PER_SLICE)


def test_what_is_no_longer_among_the_worst_is_told_no_more():
    reader = CrowdReader(1, 5, 1)
    exporter = Exporter(reader, MetricSet(), MonitorConfig(export=ExportConfig(max_features=1)))
    assert b'feature="input 4"' in exporter.exposition()
    state = reader.snapshot.models["model-000"]
    calm = msgspec.structs.replace(state.drift, features={**state.drift.features, "input 2": 0.9})
    reader.snapshot.models["model-000"] = msgspec.structs.replace(state, drift=calm)
    text = exporter.exposition()
    assert b'feature="input 2"' in text
    assert b'feature="input 4"' not in text


@pytest.mark.parametrize("name", ["max_features", "max_slices", "max_series"])
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"monitor.export.{name} must be >= 1, got 0"):
        ExportConfig(**{name: 0})
