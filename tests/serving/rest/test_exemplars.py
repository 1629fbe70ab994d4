"""Which request is named beside a latency, and which is not."""

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipdrift_contract.metrics import LATENCY_BUCKETS, OPENMETRICS, encoded
from clipdrift_serving.rest.data import DataApp
from clipdrift_serving.rest.exemplars import Exemplars

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = (
    b'{"id": "%s", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}, {"name": "y", "shape": [1], '
    b'"datatype": "FP32", "data": [0.25]}, {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]}]}'
)


@pytest.fixture
def exemplars():
    return Exemplars(LATENCY_BUCKETS)


def test_a_slow_request_is_named_whatever_quick_ones_came_before_it(exemplars):
    named = [exemplars.of("m", 0.0011, 5.0 + index / 1000, f"quick-{index}", b"") for index in range(100)]
    assert named == [{"request": "m/quick-0"}] + [None] * 99
    assert exemplars.of("m", 3.0, 5.1, "slow", b"") == {"request": "m/slow"}
    assert exemplars.of("m", 0.0011, 6.0, "later", b"") == {"request": "m/later"}
    assert exemplars.of("other", 0.0011, 6.0, "its own", b"") is None, "an id that stands in no address"
    assert exemplars.of("other", 0.0011, 6.0, "its-own", b"") == {"request": "other/its-own"}, "the one before took no place"


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "../x", "é", 'a"b', "a\nb", "x" * 200])
def test_an_id_that_cannot_stand_in_an_address_is_not_named(exemplars, request_id):
    assert exemplars.of("m", 0.1, 5.0, request_id, b"") is None
    assert exemplars.of("m", 0.1, 5.0, request_id, TRACE) == {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}


@pytest.mark.parametrize("traceparent", [b"nonsense", TRACE[:-4], b"00-" + b"0" * 32 + TRACE[35:], b"\xff" * 55])
def test_a_trace_that_is_none_is_not_named(exemplars, traceparent):
    assert exemplars.of("m", 0.1, 5.0, "", traceparent) is None


@pytest.mark.parametrize("length", [64, 71, 72])
def test_names_fit_into_what_openmetrics_allows(exemplars, length):
    found = exemplars.of("m" * 9, 0.1, 5.0, "x" * length, TRACE)
    assert sum(len(name) + len(value) for name, value in found.items()) <= 128
    assert ("request" in found) == (length <= 71)


def named_in_a_scrape(service, **config):
    app = DataApp(msgspec.structs.replace(service.config, **config), service.plane, service.metrics)
    status, _, _ = service.request("POST", "/v2/models/toy/infer", BODY % b"mine", {"traceparent": TRACE.decode()}, app)
    assert status == 200
    text = encoded([service.metrics.registry], OPENMETRICS)[0].decode()
    return [
        set(one.exemplar.labels) for family in text_string_to_metric_families(text) for one in family.samples if one.exemplar
    ]


def test_a_request_is_named_by_its_id_and_its_trace(service):
    assert named_in_a_scrape(service) == [{"request", "trace_id"}]


def test_where_no_ids_are_kept_only_the_trace_is_named(service):
    assert named_in_a_scrape(service, request_ids=msgspec.structs.replace(service.config.request_ids, max_requests=0)) == [
        {"trace_id"}
    ]


def test_none_is_named_where_the_operator_wants_none(service):
    assert named_in_a_scrape(service, has_exemplars=False) == []
