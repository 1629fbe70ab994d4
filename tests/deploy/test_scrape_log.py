"""One valid OpenMetrics file from many scrapes: read back by prometheus_client's strict parser."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Summary, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy.scrape_log import ScrapeLog

DAY_MS = 86_400_000
START_MS = 1_362_096_000_000  # 2013-03-01


def written(path: Path, *scrapes: tuple[str, int]) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]]:
    """All samples of the file by series, as (seconds, value)."""
    log = ScrapeLog(path)
    for text, time_ms in scrapes:
        log.add(text, time_ms)
    log.close()
    lines = path.read_text().splitlines()
    heads = [line for line in lines if line.startswith("#")]
    times = dict.fromkeys(line.rpartition(" ")[2] for line in lines if not line.startswith("#"))
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    for time in times:  # one time after another: at several, the parser takes a histogram's later samples for repetitions
        at_time = [line for line in lines if line.startswith("#") or line.endswith(f" {time}")]
        for family in text_string_to_metric_families("\n".join(at_time) + "\n"):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                series.setdefault(key, []).append((float(sample.timestamp), sample.value))
    assert len(heads) == len(set(heads)), "a family comes once"
    return {key: sorted(points) for key, points in series.items()}


def exposed(metrics: MetricSet) -> str:
    return generate_latest(metrics.registry).decode()


def test_every_sample_of_every_scrape_is_in_the_file_at_its_time(tmp_path: Path) -> None:
    metrics = MetricSet()
    scrapes, expected = [], []
    for day in range(4):
        metrics.counter(names.MODEL_LABELS).labels("m").inc(10)
        scrapes.append((exposed(metrics), START_MS + day * DAY_MS))
        expected.append(((START_MS + day * DAY_MS) / 1000, 10.0 * (day + 1)))
    series = written(tmp_path / "m.om", *scrapes)
    assert series == {("clipdrift_model_labels_total", (("model", "m"),)): expected}


def test_a_histogram_keeps_its_buckets_sum_and_count_together(tmp_path: Path) -> None:
    metrics = MetricSet()
    scrapes = []
    for day, seconds in enumerate((0.0002, 0.3, 9.0)):
        for model in ("a", 'b,{le="1"}'):
            metrics.histogram(names.SERVING_LATENCY).labels(model).observe(seconds)
        scrapes.append((exposed(metrics), START_MS + day * DAY_MS))
    series = written(tmp_path / "m.om", *scrapes)
    last = {name: points[-1][1] for (name, labels), points in series.items() if dict(labels)["model"] == "a"}
    assert last["clipdrift_serving_request_duration_seconds_count"] == 3
    assert last["clipdrift_serving_request_duration_seconds_sum"] == pytest.approx(9.3002)
    assert len([1 for name, _ in series if name.endswith("_bucket")]) == 2 * (len(names.LATENCY_BUCKETS) + 1)
    samples = [line for line in (tmp_path / "m.om").read_text().splitlines() if not line.startswith("#")]
    per_point = len(names.LATENCY_BUCKETS) + 3  # +Inf, sum, count
    points = [samples[at : at + per_point] for at in range(0, len(samples), per_point)]
    assert len(points) == 2 * 3
    for point in points:
        assert len({(line.rpartition("model=")[2].partition("}")[0], line.rpartition(" ")[2]) for line in point}) == 1


def test_creation_times_are_left_out(tmp_path: Path) -> None:
    metrics = MetricSet()
    metrics.counter(names.MODEL_LABELS).labels("m").inc()
    metrics.histogram(names.MONITOR_COMMIT_SECONDS).observe(0.1)
    assert "_created" in exposed(metrics)
    assert not [name for name, _ in written(tmp_path / "m.om", (exposed(metrics), START_MS)) if name.endswith("_created")]


def test_a_series_may_come_and_go(tmp_path: Path) -> None:
    metrics = MetricSet()
    info = metrics.gauge(names.MODEL_INFO)
    scrapes = []
    for day, version in enumerate(("1", "2", "1")):
        info.clear()
        info.labels("m", version, "unknown").set(1)
        scrapes.append((exposed(metrics), day * 1000))
    series = written(tmp_path / "m.om", *scrapes)
    times = {dict(labels)["version"]: [time for time, _ in points] for (_, labels), points in series.items()}
    assert times == {"1": [0.0, 2.0], "2": [1.0]}


def test_odd_values_labels_and_help_survive(tmp_path: Path) -> None:
    metrics = MetricSet()
    slice_name = 'a "quoted" \\ back} {slash,\nnew line 7'
    metrics.gauge(names.MODEL_ACCURACY).labels("m", slice_name).set(float("nan"))
    metrics.gauge(names.TRAINER_CLIP_BOUND).labels("m").set(float("inf"))
    metrics.gauge(names.TRAINER_LOSS).labels("m").set(1.5e-9)
    series = {name: (dict(labels), points[0][1]) for (name, labels), points in
              written(tmp_path / "m.om", (exposed(metrics), START_MS)).items()}  # fmt: skip
    labels, value = series["clipdrift_model_live_accuracy_ratio"]
    assert labels["slice"] == slice_name
    assert value != value
    assert series["clipdrift_trainer_clip_bound"][1] == float("inf")
    assert series["clipdrift_trainer_loss"][1] == 1.5e-9


def test_scrapes_of_two_processes_may_share_a_time(tmp_path: Path) -> None:
    monitor, serving = MetricSet(), MetricSet()
    monitor.gauge(names.MODEL_GENERATION).labels("m").set(2)
    serving.gauge(names.SERVING_GENERATION).labels("m").set(1)
    series = written(tmp_path / "m.om", (exposed(monitor), START_MS), (exposed(serving), START_MS))
    assert {name for name, _ in series} == {"clipdrift_model_generation", "clipdrift_serving_generation"}


def test_what_two_processes_tell_is_taken_from_one_of_them(tmp_path: Path) -> None:
    monitor, serving = MetricSet(), MetricSet()
    for metrics in (monitor, serving):
        metrics.counter(names.BUS_POISON).labels("clipdrift.labels").inc()
    serving.gauge(names.SERVING_GENERATION).labels("m").set(1)
    log = ScrapeLog(tmp_path / "m.om")
    log.add(exposed(monitor), START_MS)
    log.add(exposed(serving), START_MS, only="clipdrift_serving_")
    log.close()
    assert {line.partition("{")[0] for line in (tmp_path / "m.om").read_text().splitlines() if line[0] != "#"} == {
        "clipdrift_bus_poison_total", "clipdrift_serving_generation",
    }  # fmt: skip


def test_a_summary_keeps_its_parts_together(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    summary = Summary("wait_seconds", "Waiting.", ["queue"], registry=registry)
    scrapes = []
    for day in range(2):
        for queue in ("a", "b"):
            summary.labels(queue).observe(1.0)
        scrapes.append((generate_latest(registry).decode(), day * 1000))
    series = written(tmp_path / "m.om", *scrapes)
    assert series["wait_seconds_count", (("queue", "b"),)] == [(0.0, 1.0), (1.0, 2.0)]


def test_time_that_stands_still_or_runs_back_is_refused(tmp_path: Path) -> None:
    metrics = MetricSet()
    metrics.gauge(names.MODEL_GENERATION).labels("m").set(1)
    log = ScrapeLog(tmp_path / "m.om")
    log.add(exposed(metrics), START_MS)
    with pytest.raises(ValueError, match="in time order"):
        log.add(exposed(metrics), START_MS)


def test_a_line_that_is_no_sample_is_refused(tmp_path: Path) -> None:
    log = ScrapeLog(tmp_path / "m.om")
    with pytest.raises(ValueError, match="must be like"):
        log.add("# TYPE x gauge\nx y\n", 0)


@pytest.mark.prometheus
def test_prometheus_reads_what_was_written(tmp_path: Path) -> None:
    metrics = MetricSet()
    log = ScrapeLog(tmp_path / "m.om")
    for day in range(3):
        metrics.gauge(names.MODEL_ACCURACY).labels("m", 'a "quoted" slice').set(0.5 + day / 10)
        metrics.histogram(names.SERVING_LATENCY).labels("m").observe(0.3)
        metrics.counter(names.MODEL_LABELS).labels("m").inc(7)
        log.add(exposed(metrics), START_MS + day * DAY_MS)
    log.close()
    blocks = tmp_path / "blocks"
    (blocks / "wal").mkdir(parents=True)  # a database has one, and promtool looks for it
    make = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=8760h", "--quiet", "openmetrics"]
    subprocess.run([*make, str(tmp_path / "m.om"), str(blocks)], check=True, capture_output=True)
    dump = subprocess.run(
        ["promtool", "tsdb", "dump", str(blocks)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    last_ms = START_MS + 2 * DAY_MS
    accuracy = '{__name__="clipdrift_model_live_accuracy_ratio", model="m", slice="a \\"quoted\\" slice"}'
    assert f"{accuracy} 0.7 {last_ms}" in dump
    assert f'{{__name__="clipdrift_model_labels_total", model="m"}} 21 {last_ms}' in dump
    assert f'{{__name__="clipdrift_serving_request_duration_seconds_count", model="m"}} 3 {last_ms}' in dump
    assert len(dump) == 3 * (2 + len(names.LATENCY_BUCKETS) + 3)
