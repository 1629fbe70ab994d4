"""The folder of a retraining job: one order, one holder, whole files."""

import os
import signal
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from write_golden import example

from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder, JobTakenError

HOLD = """
import sys
from pathlib import Path
from clipdrift_contract.jobs import JobFolder
with JobFolder(Path(sys.argv[1]), "key").claim():
    print("held", flush=True)
    sys.stdin.read()
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
import msgspec
from clipdrift_contract.events import RetrainOutcome
from clipdrift_contract.jobs import JobFolder
outcome = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=RetrainOutcome)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
JobFolder(Path(sys.argv[1]), "key").write_outcome(outcome)
"""


@pytest.fixture
def folder(tmp_path):
    return JobFolder(tmp_path, "key")


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_job_goes_from_absent_to_finished(folder):
    assert folder.state() == "absent"
    folder.write_request(example(RetrainRequest))
    assert folder.state() == "requested"
    with folder.claim():
        assert folder.state() == "running"
    assert folder.state() == "requested", "a job that ended without an outcome waits for the next one to carry it out"
    folder.write_outcome(example(RetrainOutcome))
    assert folder.state() == "finished"


def test_what_is_written_is_read(folder):
    assert folder.read_outcome() is None
    folder.write_request(example(RetrainRequest))
    assert folder.read_run_end() is None
    folder.write_run_end(example(RunEnd))
    folder.write_outcome(example(RetrainOutcome))
    assert folder.read_request() == example(RetrainRequest)
    assert folder.read_run_end() == example(RunEnd)
    assert folder.read_outcome() == example(RetrainOutcome)


def test_the_same_order_twice_changes_nothing(folder):
    folder.write_request(example(RetrainRequest))
    folder.write_request(msgspec.structs.replace(example(RetrainRequest), cause="another"))
    assert folder.read_request() == example(RetrainRequest)


def test_a_job_held_by_another_process_cannot_be_claimed(folder, holder):
    folder.write_request(example(RetrainRequest))
    assert folder.state() == "running"
    with pytest.raises(JobTakenError, match="another process"), folder.claim():
        pass


def test_a_killed_holder_lets_go(folder, holder):
    folder.write_request(example(RetrainRequest))
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert folder.state() == "requested"
    with folder.claim():
        pass


def test_a_file_appears_whole_or_not_at_all(folder, tmp_path):
    folder.write_request(example(RetrainRequest))
    outcome = tmp_path / "outcome"
    outcome.write_bytes(msgspec.json.encode(example(RetrainOutcome)))

    run = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path, outcome], capture_output=True, text=True)

    assert "File too large" in run.stderr
    assert folder.read_outcome() is None
    assert folder.state() == "requested"


@pytest.mark.parametrize("key", ["", "a/b", "..", "a.b", "a\\b", "x" * 129])
def test_a_key_that_could_leave_the_folder_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="a job key is"):
        JobFolder(tmp_path, key)


@given(st.text("abcXYZ019-_:@ ", min_size=1, max_size=128))
def test_a_key_names_a_folder_right_below_the_root(tmp_path_factory, key):
    root = tmp_path_factory.getbasetemp()
    assert JobFolder(root, key).path.parent == root
