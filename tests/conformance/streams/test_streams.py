"""One suite over every detector on a stream of errors."""

import numpy as np
import pytest

from clipdrift_monitor.detectors.streams import NAMES, error_drifts, stream_detector

every_detector = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def river(request):
    if "adwin" in request.node.name:
        pytest.importorskip("river")


def errors(rates, seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate([random.random(num) < rate for rate, num in rates]).astype(np.uint8)


def alarms(name, stream, window=500):
    detector, body, found = stream_detector(name), b"", []
    for start in range(0, len(stream), window):
        body, first, _ = detector.run(body, stream[start : start + window])
        found += [] if first is None else [start + first]
    return found


@every_detector
def test_a_rise_is_seen_after_it_and_soon(name):
    for seed in range(10):
        (first, *_) = alarms(name, errors([(0.1, 2_000), (0.3, 2_000)], seed))
        assert 2_000 <= first < 2_600


@every_detector
def test_independent_errors_raise_hardly_an_alarm(name):
    assert sum(bool(alarms(name, errors([(0.1, 5_000)], seed))) for seed in range(20)) <= 1


@every_detector
def test_fewer_errors_are_no_drift(name):
    assert not any(alarms(name, errors([(0.2, 1_000), (0.02, 3_000)], seed)) for seed in range(5))


@every_detector
def test_the_cut_into_windows_changes_nothing(name):
    stream = errors([(0.1, 1_500), (0.35, 1_000)])
    detector = stream_detector(name)
    _, whole, _ = detector.run(b"", stream)
    assert whole is not None
    assert alarms(name, stream, 173)[0] == alarms(name, stream, 1_000)[0] == whole


@every_detector
def test_what_is_remembered_is_bytes_that_another_life_goes_on_from(name):
    stream = errors([(0.1, 3_000)])
    body, _, before = stream_detector(name).run(b"", stream[:2_000])
    assert isinstance(body, bytes)
    assert before is None
    _, _, rate = stream_detector(name).run(body, stream[2_000:])
    assert rate == pytest.approx(0.1, abs=0.03)


@every_detector
def test_no_errors_change_nothing_that_is_said(name):
    body, first, _ = stream_detector(name).run(b"", np.zeros(0, np.uint8))
    assert first is None
    assert stream_detector(name).run(body, errors([(0.1, 100)]))[1:] == stream_detector(name).run(b"", errors([(0.1, 100)]))[1:]


@every_detector
def test_another_version_of_the_model_begins_anew(name):
    _, states = error_drifts((name,), {}, "v1", errors([(0.1, 2_000)]))
    assert states[name].num_seen == 2_000
    (found,), again = error_drifts((name,), states, "v2", errors([(0.3, 500)]))
    assert (found.is_drift, found.rate_before, again[name].num_seen) == (False, None, 500)
    (found,), _ = error_drifts((name,), states, "v1", errors([(0.4, 1_000)]))
    assert found.is_drift
    assert "takes errors for independent" in found.words
