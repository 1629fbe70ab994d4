"""Rows are compared on demand, in a process of its own that may fail without anybody else."""

import sys

import numpy as np
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.errors import ClipdriftError
from clipdrift_monitor.evidence.compare import compare
from clipdrift_monitor.evidence.comparison import RowOrder, compare_rows
from clipdrift_monitor.evidence.rows import read_rows


def record(recorded, shift, num_rows=300):
    random = np.random.default_rng(1)
    for first, moved in ((0, 0.0), (20 * MS_PER_DAY, shift)):
        time_N = first + np.arange(num_rows)
        features = {
            "pressure": random.normal(moved, 1, num_rows),
            "site": random.choice(np.array(["a", "b"], object), num_rows),
        }
        recorded.predictions(time_N, first + np.arange(num_rows), features=features)
    recorded.flush()


def test_rows_that_moved_are_found_by_mmd_in_a_process_of_its_own(recorded, tmp_path):
    record(recorded, 1.0)
    found = compare_rows(RowOrder(rows=recorded.order(tmp_path), detectors=("mmd",)))
    assert (found.num_reference, found.num_current) == (300, 300)
    (one,) = found.findings
    assert one.is_drift
    assert "Together, 2 inputs" in one.words


def test_rows_as_before_are_no_drift(recorded, tmp_path):
    record(recorded, 0.0)
    order = RowOrder(rows=recorded.order(tmp_path), detectors=("mmd",))
    (one,) = compare(order, read_rows(recorded.bus, order.rows)).findings
    assert not one.is_drift


def test_where_no_rows_were_recorded_it_says_not_watched(recorded, tmp_path):
    recorded.predictions([1, 2], [1, 2])
    recorded.flush()
    order = RowOrder(rows=recorded.order(tmp_path), detectors=("mmd",))
    found = compare(order, read_rows(recorded.bus, order.rows))
    assert found.findings == ()
    assert found.words.startswith("Not watched: 2 recorded rows before and 0 now")


@pytest.mark.parametrize(
    ("code", "words"),
    [("import sys; sys.exit('no memory left')", "ended with 1: no memory left"), ("pass", "ended with 0: it said nothing")],
)
def test_a_process_that_fails_is_an_error_with_its_last_words(recorded, tmp_path, code, words):
    with pytest.raises(ClipdriftError, match=words):
        compare_rows(RowOrder(rows=recorded.order(tmp_path), detectors=("mmd",)), (sys.executable, "-c", code))


def test_a_process_that_hangs_is_killed(recorded, tmp_path):
    command = (sys.executable, "-c", "import signal; signal.pause()")
    with pytest.raises(ClipdriftError, match=r"more than 0 s; choose a shorter window"):
        compare_rows(RowOrder(rows=recorded.order(tmp_path), detectors=("mmd",)), command, max_seconds=0.3)


@pytest.mark.slow
def test_evidentlys_tests_are_known_by_name_and_one_that_cannot_say_says_so(recorded, tmp_path):
    record(recorded, 1.0)
    names = ("evidently:ks", "evidently:wasserstein", "evidently:nonsense")
    found = compare_rows(RowOrder(rows=recorded.order(tmp_path), detectors=names))
    by_name = {(one.detector, one.feature): one for one in found.findings}
    assert by_name["evidently:ks", "pressure"].is_drift
    assert by_name["evidently:ks", "pressure"].value < 0.05
    assert by_name["evidently:wasserstein", "pressure"].value == pytest.approx(1.0, abs=0.3)
    assert not by_name["evidently:wasserstein", "site"].is_drift
    assert "Evidently could not say" in by_name["evidently:nonsense", "pressure"].words
