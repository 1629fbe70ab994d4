"""The closed list of metrics keeps Prometheus's naming rules (prometheus.io/docs/practices/naming)."""

import re

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from clipdrift_contract.metrics import BUS_POISON, METRICS, MetricSet

every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
COMPONENTS = ("trainer", "serving", "model", "monitor", "bus")
OTHER_UNITS = re.compile(r"_(ms|milliseconds|minutes|hours|percent|pct|kb|mb|mib|kilobytes|megabytes)(_|$)")
ID_LABELS = {"id", "run_id", "run", "epoch", "prediction_id", "request_id", "event_id", "user", "path", "key", "pod"}


def test_names_are_unique():
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@every_metric
def test_a_name_says_product_component_and_what(metric):
    assert re.fullmatch(rf"clipdrift_({'|'.join(COMPONENTS)})_[a-z0-9]+(_[a-z0-9]+)*", metric.name)


@every_metric
def test_counters_and_only_counters_end_in_total(metric):
    assert metric.name.endswith("_total") == (metric.kind == "counter")


@every_metric
def test_info_metrics_end_in_info(metric):
    assert metric.name.endswith("_info") == (metric.kind == "info")


@every_metric
def test_units_are_base_units(metric):
    assert not OTHER_UNITS.search(metric.name)


@every_metric
def test_a_time_or_duration_is_in_seconds(metric):
    if re.search(r"timestamp|duration|delay|latency", metric.name):
        assert metric.name.endswith("_seconds")


@every_metric
def test_no_label_holds_an_id(metric):
    assert not ID_LABELS & set(metric.labels)


@every_metric
def test_versions_are_labels_only_where_their_number_is_small(metric):
    """A series per version is fine on info metrics, and on serving's counters, which end with the process."""
    if "version" in metric.labels:
        assert metric.kind == "info" or metric.name.startswith("clipdrift_serving_")


@every_metric
def test_help_is_a_sentence(metric):
    assert metric.help[0].isupper() or metric.help.startswith("1 w")  # a gauge of 0 and 1 says when it is 1
    assert metric.help.endswith(".")


@every_metric
def test_buckets_rise_and_belong_to_histograms(metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert len(metric.buckets) <= 12


@every_metric
def test_what_prometheus_sees_is_the_name_in_the_list(metric):
    metrics = MetricSet()
    make = {"counter": metrics.counter, "histogram": metrics.histogram}.get(metric.kind, metrics.gauge)
    made = make(metric)
    child = made.labels(*metric.labels) if metric.labels else made
    child.observe(1) if metric.kind == "histogram" else child.inc()

    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))

    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    suffix = "_count" if metric.kind == "histogram" else ""
    assert metric.name + suffix in {sample.name for sample in samples}
    assert {name for sample in samples for name in sample.labels} - {"le"} == set(metric.labels)


def test_the_same_metric_twice_is_one_object():
    metrics = MetricSet()
    counter = next(metric for metric in METRICS if metric.kind == "counter")
    assert metrics.counter(counter) is metrics.counter(counter)


def test_two_sets_do_not_share_figures():
    counter = next(metric for metric in METRICS if metric.kind == "counter" and not metric.labels)
    one, two = MetricSet(), MetricSet()
    one.counter(counter).inc(3)
    assert two.counter(counter)._value.get() == 0


def test_the_exposition_holds_no_series_that_is_in_no_list():
    metrics = MetricSet()
    metrics.counter(BUS_POISON).labels("t").inc()
    assert b"clipdrift_bus_poison_total" in metrics.exposition()
    assert b"_created" not in metrics.exposition()
