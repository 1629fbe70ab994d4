"""What serving counts as ints is exposed under the names of the closed list."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipdrift_contract.metrics import METRICS, MetricSet
from clipdrift_serving.dataplane.usage import Usage
from clipdrift_serving.operations.exposed import ExposedUsage
from clipdrift_serving.recording.requests import RequestFigures
from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.ingest import Pairing, decode_logged


class Client:
    """A connection that does nothing."""

    deadline = 0.0

    def on_deadline(self):
        pass

    def drain(self):
        pass

    def abort(self):
        pass


@pytest.fixture
def usage():
    return {}


@pytest.fixture
def gate():
    return Gate(lambda request, reply: None, Limits(max_connections=2, max_in_flight=3))


@pytest.fixture
def pairing():
    return Pairing(max_waiting=1)


@pytest.fixture
def scrape(usage, gate, pairing):
    metrics = MetricSet()
    figures = RequestFigures(num_open=5, num_waiting=2, num_expired=3, num_evicted=4, num_dropped=6, num_bytes=0)
    metrics.registry.register(ExposedUsage(usage, gate, pairing, lambda: figures))

    def scraped():
        families = text_string_to_metric_families(metrics.exposition().decode())
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    return scraped


def test_what_others_logged_is_counted_by_what_became_of_it(pairing, scrape):
    def logged(number, kind, body):
        headers = {b"ce-id": number, b"ce-inferenceservicename": b"m", b"ce-type": b"org.kubeflow.serving.inference." + kind}
        (message,) = decode_logged(headers, body)
        return pairing.add(message, 0.0)

    logged(b"1", b"request", b'{"instances": [1.0]}')
    logged(b"1", b"request", b'{"instances": [1.0]}')
    assert logged(b"1", b"response", b'{"predictions": [0.5]}') is not None
    logged(b"2", b"request", b'{"instances": [1.0]}')
    logged(b"3", b"request", b'{"instances": [1.0]}')  # there is room for one: 2 is given up
    found = scrape()
    outcomes = {"paired": 1, "repeated": 1, "misfit": 0, "room": 1, "age": 0}
    assert {outcome: found["clipdrift_serving_logged_total", outcome] for outcome in outcomes} == outcomes


def test_request_ids_are_told_with_those_that_were_let_go(scrape):
    found = scrape()
    assert found["clipdrift_serving_request_ids",] == 7
    lost = {"expired": 3, "evicted": 4, "dropped": 6}
    assert {reason: found["clipdrift_serving_request_ids_lost_total", reason] for reason in lost} == lost


def test_times_are_seconds_and_each_version_has_its_own_series(usage, scrape):
    for version, factor in (("v1", 1), ("v2", 2)):
        made = usage["toy", version] = Usage()
        made.cpu_ns, made.queue_ns, made.compute_ns = 1_500_000_000 * factor, 250_000_000 * factor, 1_000_000 * factor
        made.num_runs, made.num_bytes_in = 7 * factor, 1024 * factor
    found = scrape()
    for version, factor in (("v1", 1), ("v2", 2)):
        assert found["clipdrift_serving_cpu_seconds_total", "toy", version] == pytest.approx(1.5 * factor)
        assert found["clipdrift_serving_queue_seconds_total", "toy", version] == pytest.approx(0.25 * factor)
        assert found["clipdrift_serving_compute_seconds_total", "toy", version] == pytest.approx(0.001 * factor)
        assert found["clipdrift_serving_runs_total", "toy", version] == 7 * factor
        assert found["clipdrift_serving_request_bytes_total", "toy", version] == 1024 * factor


def test_a_version_that_comes_later_is_in_the_next_scrape(usage, scrape):
    assert ("clipdrift_serving_runs_total", "toy", "v1") not in scrape()
    usage["toy", "v1"] = Usage()
    usage["toy", "v1"].ran(3, 10)
    assert scrape()["clipdrift_serving_runs_total", "toy", "v1"] == 1


def test_what_the_listener_holds_and_refuses_is_counted_by_reason(gate, scrape):
    assert [gate.enter(Client()) for _ in range(3)] == [True, True, False]
    gate.num_in_flight = 3
    assert gate.refusal(b"/v2/models/toy/infer") is not None
    found = scrape()
    assert found["clipdrift_serving_connections",] == 3
    assert found["clipdrift_serving_in_flight_requests",] == 3
    refused = {key[1]: value for key, value in found.items() if key[0] == "clipdrift_serving_refused_total"}
    assert refused == {"connections": 1, "in_flight": 1, "memory": 0, "deadline": 0}


def test_every_name_and_its_labels_are_in_the_closed_list(usage, gate, pairing):
    usage["toy", "v1"] = Usage()
    known = {metric.name: (metric.help, set(metric.labels)) for metric in METRICS}
    for family in ExposedUsage(usage, gate, pairing, lambda: RequestFigures(0, 0, 0, 0, 0, 0)).collect():
        for sample in family.samples:
            assert known[sample.name] == (family.documentation, set(sample.labels))
