"""What several workers' metrics come to together."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.operations.scrapes import Scrapes


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
    return metrics.exposition().decode()


@pytest.fixture
def scrapes():
    return Scrapes()


def test_two_workers_are_what_one_would_have_been_that_did_all(scrapes):
    scrapes.update(0, worker(3, [0.0002, 0.003], queue=2))
    scrapes.update(1, worker(4, [0.02, 9.0], queue=5))
    assert series(scrapes.exposition()) == series(worker(7, [0.0002, 0.003, 0.02, 9.0], queue=7).encode())


def test_a_generation_is_in_service_when_the_last_worker_has_it_and_a_refusal_of_one_shows(scrapes):
    scrapes.update(0, worker(0, [], generation=4, refused=1))
    scrapes.update(1, worker(0, [], generation=3))
    found = series(scrapes.exposition())
    assert found["clipdrift_serving_generation", "toy"] == 3
    assert found["clipdrift_serving_deployment_refused", "toy"] == 1


def test_what_an_ended_worker_counted_stays_and_its_gauges_go(scrapes):
    scrapes.update(0, worker(3, [0.01], queue=9))
    scrapes.update(1, worker(4, [0.01]))
    scrapes.end(0)
    assert series(scrapes.exposition())["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 7
    assert series(scrapes.exposition())["clipdrift_serving_recorder_queue_rows",] == 0
    scrapes.update(0, worker(1, [0.01]))
    found = series(scrapes.exposition())
    assert found["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 8
    assert found["clipdrift_serving_request_duration_seconds_count", "toy"] == 3


def test_a_worker_that_ends_twice_is_counted_once(scrapes):
    scrapes.update(0, worker(3, []))
    scrapes.end(0)
    scrapes.end(0)
    assert series(scrapes.exposition())["clipdrift_serving_rows_total", "champion", "toy", "v1"] == 3
