import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import euclidean

from clipdrift_monitor.detectors.catalogue import detector_of
from clipdrift_monitor.detectors.detector import Bins

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "howto" / "write-a-detector.md"
SUITE = ROOT / "tests" / "conformance" / "detectors" / "test_detectors.py"


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """The page's code, read as the files that it tells to write."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    path = tmp_path_factory.mktemp("howto") / "hellinger_of_the_page.py"
    path.write_text("\n".join(blocks))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "monitor/clipdrift_monitor/detectors/hellinger.py"), (1, "tests/monitor/detectors/test_hellinger.py")],
)
def test_the_code_of_the_howto_is_clean_where_it_is_to_stand(number, name):
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    ignored = ["--ignore=F821"] if number else []  # the test's imports are those of the file above
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check", *ignored], ["format", "--diff"]):
        done = subprocess.run(
            [ruff, *command, "--stdin-filename", name, "-"], input=code, cwd=ROOT, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_howto_pass(scope):
    names = [name for name in vars(scope) if name.startswith("test_")]
    assert len(names) == 2
    for name in names:
        getattr(scope, name)()


def test_the_example_of_the_howto_gives_what_it_says(scope):
    results = doctest.testmod(scope)
    assert (results.attempted, results.failed) == (1, 0)


def test_the_detector_of_the_howto_is_the_distance_that_it_claims(scope):
    reference, current = np.array([30.0, 20.0, 50.0]), np.array([5.0, 5.0, 1.0])
    by_scipy = euclidean(np.sqrt(reference / 100), np.sqrt(current / 11)) / np.sqrt(2)
    assert scope.Hellinger().compare(Bins(reference, current)).score == pytest.approx(by_scipy)


def test_the_file_of_the_howto_is_loaded_by_the_name_that_it_tells_to_write(scope, monkeypatch):
    monkeypatch.chdir(Path(scope.__file__).parent)
    assert detector_of("hellinger_of_the_page.py:Hellinger").name == "hellinger"


def test_the_detector_of_the_howto_passes_the_suite_over_every_detector(scope):
    spec = importlib.util.spec_from_file_location("conformance_suite_of_detectors", SUITE)
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    detector, num_run = scope.Hellinger(), 0
    for name, test in vars(suite).items():
        marks = {mark.args[0]: mark.args[1] for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"}
        if not name.startswith("test_") or "detector" not in marks:
            continue
        others = [(names, values) for names, values in marks.items() if names != "detector"]
        cases = [{}] if not others else [_arguments(names, one) for names, values in others for one in values]
        for case in cases:
            test(detector=detector, **case)
            num_run += 1
    assert num_run >= 12


def _arguments(names, values):
    return {names: values} if isinstance(names, str) else dict(zip(names, values, strict=True))
