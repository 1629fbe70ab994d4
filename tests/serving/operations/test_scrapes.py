"""What several workers' metrics come to together."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import OPENMETRICS, MetricSet, encoded
from clipdrift_serving.operations.scrapes import Scrapes


def told(scrapes: Scrapes) -> bytes:
    return encoded([scrapes], OPENMETRICS)[0]


def series(text: bytes) -> dict:
    families = text_string_to_metric_families(text.decode())
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def worker(rows: int, seconds: list[float], *, queue: int = 0, generation: int = 1, refused: int = 0) -> str:
    metrics = MetricSet()
    metrics.counter(names.SERVING_ROWS).labels("toy", "v1", "champion").inc(rows)
    for one in seconds:
        metrics.histogram(names.SERVING_LATENCY).labels("toy").observe(one)
    metrics.gauge(names.SERVING_RECORDER_QUEUE).set(queue)
    metrics.gauge(names.SERVING_GENERATION).labels("toy").set(generation)
    metrics.gauge(names.SERVING_REFUSED).labels("toy").set(refused)
    return encoded([metrics.registry], OPENMETRICS)[0].decode()


@pytest.fixture
def scrapes():
    return Scrapes()


def test_two_workers_are_what_one_would_have_been_that_did_all(scrapes):
    scrapes.update(0, worker(3, [0.0002, 0.003], queue=2))
    scrapes.update(1, worker(4, [0.02, 9.0], queue=5))
    assert series(told(scrapes)) == series(worker(7, [0.0002, 0.003, 0.02, 9.0], queue=7).encode())


def test_a_generation_is_in_service_when_the_last_worker_has_it_and_a_refusal_of_one_shows(scrapes):
    scrapes.update(0, worker(0, [], generation=4, refused=1))
    scrapes.update(1, worker(0, [], generation=3))
    found = series(told(scrapes))
    assert found["clipdrift_serving_generation", "toy"] == 3
    assert found["clipdrift_serving_deployment_refused", "toy"] == 1


def test_what_an_ended_worker_counted_stays_and_its_gauges_go(scrapes):
    scrapes.update(0, worker(3, [0.01], queue=9))
    scrapes.update(1, worker(4, [0.01]))
    scrapes.end(0)
    assert series(told(scrapes))["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 7
    assert series(told(scrapes))["clipdrift_serving_recorder_queue_rows",] == 0
    scrapes.update(0, worker(1, [0.01]))
    found = series(told(scrapes))
    assert found["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 8
    assert found["clipdrift_serving_request_duration_seconds_count", "toy"] == 3


def test_a_worker_that_ends_twice_is_counted_once(scrapes):
    scrapes.update(0, worker(3, []))
    scrapes.end(0)
    scrapes.end(0)
    assert series(told(scrapes))["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 3


def slow(request: str, seconds: float) -> str:
    """A worker's text with one request that has a name."""
    metrics = MetricSet()
    metrics.histogram(names.SERVING_LATENCY).labels("toy").observe(seconds, {"request": request})
    return encoded([metrics.registry], OPENMETRICS)[0].decode()


def test_of_several_workers_exemplars_the_newest_of_each_bucket_is_told(scrapes):
    scrapes.update(0, slow("toy/first", 0.02))
    scrapes.update(1, slow("toy/second", 0.02))
    scrapes.update(2, slow("toy/other bucket", 2.0))
    found = {
        sample.exemplar.labels["request"]
        for family in text_string_to_metric_families(told(scrapes).decode())
        for sample in family.samples
        if sample.exemplar
    }
    assert found == {"toy/second", "toy/other bucket"}


def test_who_accepts_no_openmetrics_is_told_the_text_format_without_exemplars(scrapes):
    scrapes.update(0, slow("toy/first", 0.02))
    body, kind = encoded([scrapes], "text/plain")
    assert kind.startswith("text/plain; version=0.0.4")
    assert b"toy/first" not in body
    assert b'clipdrift_serving_request_duration_seconds_count{model="toy"} 1.0' in body
