import importlib.metadata

import numpy as np
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.detectors import catalogue
from clipdrift_monitor.detectors.catalogue import BUILT_IN, detector_of
from clipdrift_monitor.detectors.detector import Bins
from clipdrift_monitor.detectors.window_drift import DriftConfig, check_detectors

GOOD = """
import numpy as np
from clipdrift_monitor.detectors.binned import ByDistance

class Mine(ByDistance):
    name = "mine"
    min_effect = 0.2

    def distance(self, reference_K, current_K):
        p_K, q_K = (side / side.sum(axis=-1, keepdims=True) for side in (reference_K, current_K))
        return np.abs(p_K - q_K).max(axis=-1)
"""


@pytest.fixture
def written(tmp_path):
    """Writes a file and gives the name of a detector in it."""

    def write(text, name="Mine"):
        path = tmp_path / f"file_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return f"{path}:{name}"

    return write


def test_every_detector_that_is_built_in_is_known_by_its_name():
    assert [detector_of(one.name) for one in BUILT_IN] == list(BUILT_IN)


def test_a_class_in_a_file_is_a_detector_and_is_read_once(written):
    name = written(GOOD)
    found = detector_of(name)
    assert found is detector_of(name)
    assert found.compare(Bins(np.array([500.0, 500.0]), np.array([90.0, 10.0]))).score == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("def distance", "def distanze"), "has no distance"),
        (('name = "mine"', 'name = "psi"'), "has the name of a detector that is built in"),
        (("min_effect = 0.2", 'kinds = {"sorted"}'), "kinds of .* must be of ordered, unordered"),
        ((".max(axis=-1)", ".max()"), "must have the shape"),
        ((".max(axis=-1)", ".max(axis=-1) - 9"), "must give a score >= 0"),
        (("import numpy as np", "import numpyy as np"), "cannot be loaded: ModuleNotFoundError"),
        (("class Mine", "class Thine"), "has no class 'Mine'; it has: .*Thine"),
        (("min_effect = 0.2", "def __init__(self, level): ..."), "cannot be made without arguments .* give each a default"),
        (("def distance(self", "def compare(self, bins): return 0.3\n    def distance(self"), "must give a Drift, got float"),
    ],
)
def test_what_is_wrong_with_a_detector_of_ones_own_is_said_at_the_start(written, change, words):
    with pytest.raises(ConfigError, match=words):
        detector_of(written(GOOD.replace(*change)))


def test_what_lacks_a_method_is_no_detector(written):
    with pytest.raises(ConfigError, match=r"has no 'kinds'; docs/howto/write-a-detector\.md"):
        detector_of(written("class Mine:\n    name = 'mine'\n"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kolmogorov", "no detector 'kolmogorov'; built in are chi_square, .* FILE.py:CLASS"),
        ("nowhere.py:Mine", "there is no file .*nowhere.py"),
        ("mine:Mine", "named FILE.py:CLASS, got 'mine:Mine'"),
        ("evidently:psi", "reads rows and not bins"),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_what_there_is(name, words):
    with pytest.raises(ConfigError, match=words):
        detector_of(name)


def test_an_installed_package_offers_detectors_as_entry_points(monkeypatch):
    entry = importlib.metadata.EntryPoint("theirs", "clipdrift_monitor.detectors.binned:ByDistance", catalogue.ENTRY_POINTS)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [entry] if group == catalogue.ENTRY_POINTS else [])
    with pytest.raises(ConfigError, match="'theirs' has no 'name'"):
        detector_of("theirs")


def test_a_policy_is_tried_whole(written):
    check_detectors(
        DriftConfig(detectors=("jensen_shannon", written(GOOD)), numeric=("ks",), min_effect={"mine": 0.3, "ks": 0.2})
    )
    with pytest.raises(ConfigError, match="min_effect is set for wasserstein; in use are jensen_shannon"):
        check_detectors(DriftConfig(min_effect={"wasserstein": 0.2}))
    with pytest.raises(ConfigError, match="must hold one that reads unordered bins, got ks"):
        check_detectors(DriftConfig(detectors=("ks",)))


@pytest.mark.parametrize(
    "setting",
    [{"detectors": ()}, {"min_score": -0.1}, {"min_effect": {"ks": float("nan")}}, {"min_rows": 0}, {"min_share": -1.0}],
)
def test_settings_that_mean_nothing_are_refused(setting):
    with pytest.raises(ValueError, match=r"policy\.drift"):
        DriftConfig(**setting)
