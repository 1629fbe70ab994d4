import pickle

import numpy as np
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.detectors import streams
from clipdrift_monitor.detectors.streams import PageHinkley, stream_detector

drift = pytest.importorskip("river.drift")


@pytest.mark.parametrize("seed", range(5))
def test_page_hinkley_raises_rivers_alarms(seed):
    random = np.random.default_rng(seed)
    errors_N = (random.random(6_000) < np.repeat([0.1, 0.3, 0.6], 2_000)).astype(np.uint8)
    theirs, expected = drift.PageHinkley(mode="up"), []
    for place, error in enumerate(errors_N.tolist()):
        theirs.update(error)
        expected += [place] if theirs.drift_detected else []
    ours, body, found = PageHinkley(), b"", []
    for place in range(len(errors_N)):
        body, first, _ = ours.run(body, errors_N[place : place + 1])
        found += [] if first is None else [place]
    assert found == expected
    assert found


def test_adwin_is_rivers_and_its_bytes_hold_nothing_else():
    errors_N = (np.random.default_rng(0).random(3_000) < np.repeat([0.1, 0.4], 1_500)).astype(np.uint8)
    theirs, expected = drift.ADWIN(), None
    for place, error in enumerate(errors_N.tolist()):
        theirs.update(error)
        expected = place if expected is None and theirs.drift_detected else expected
    body, first, _ = stream_detector("adwin").run(b"", errors_N)
    assert first == expected
    made_by, _, _ = body.partition(b"\n")
    with pytest.raises(pickle.UnpicklingError, match="holds only itself"):
        stream_detector("adwin").run(made_by + b"\n" + pickle.dumps(print), errors_N)


def test_adwin_of_another_river_begins_anew():
    body, _, _ = stream_detector("adwin").run(b"", np.ones(100, np.uint8))
    assert stream_detector("adwin").run(b"0.0.1" + body, np.ones(10, np.uint8))[2] is None


def test_an_unknown_name_is_answered_with_what_there_is():
    with pytest.raises(ConfigError, match="no detector 'ddm'; there are page_hinkley, adwin"):
        stream_detector("ddm")


def test_without_river_the_extra_is_named(monkeypatch):
    def away(name):
        raise ImportError("No module named 'river'")

    monkeypatch.setattr(streams, "import_module", away)
    with pytest.raises(ConfigError, match=r"pip install 'clipdrift\[streams\]'"):
        stream_detector("adwin")


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="threshold > 0"):
        PageHinkley(threshold=0.0)
