"""Jobs as processes: found again by their folder, reaped, and never the end of the monitor."""

import sys

import pytest
from dialogue import outcome

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import ClipSpec, RetrainRequest
from clipdrift_contract.jobs import JobFolder
from clipdrift_monitor.actions.local_process import LocalProcesses

REQUEST = RetrainRequest(
    key="k1", model="pump", cause="drift", decision_id="d", requested_at_ms=0, as_of_ms=0, data_start_ms=0,
    champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1, arms=(),
)  # fmt: skip
SLEEPER = (sys.executable, "-c", "import sys; print('at work', flush=True); sys.stdin.read(); import signal; signal.pause()")
TALKER = (sys.executable, "-c", "import sys; print('one'); print('two'); print('a last word'); print(sys.argv[1])")


def ended(jobs, key):
    """Wait for the job's own process."""
    child = jobs._children[key]
    child.wait(30)
    return child


def test_an_order_is_left_once_and_a_job_nobody_works_on_is_requested(tmp_path):
    jobs = LocalProcesses(tmp_path, TALKER)
    before = jobs.state("k1")
    jobs.order(REQUEST)
    jobs.order(RetrainRequest(**{name: getattr(REQUEST, name) for name in REQUEST.__struct_fields__} | {"cause": "other"}))

    assert (before, jobs.state("k1")) == ("absent", "requested")
    assert JobFolder(tmp_path, "k1").read_request().cause == "drift"


def test_a_started_job_runs_until_its_process_ends_and_leaves_no_zombie(tmp_path):
    jobs = LocalProcesses(tmp_path, SLEEPER)
    jobs.order(REQUEST)
    jobs.start("k1")
    child = jobs._children["k1"]
    during = jobs.state("k1")
    child.kill()
    child.wait(30)

    assert during == "running"
    assert jobs.state("k1") == "requested"
    assert jobs._children == {}


def test_a_job_gets_its_folder_and_its_log_says_how_it_ended(tmp_path):
    jobs = LocalProcesses(tmp_path, TALKER)
    jobs.order(REQUEST)
    before = jobs.log_words("k1")
    jobs.start("k1")
    ended(jobs, "k1")

    assert before == f"there is no log at {tmp_path / 'k1' / 'log.txt'}"
    assert jobs.log_words("k1") == f"its log, {tmp_path / 'k1' / 'log.txt'}, ends with: two / a last word / {tmp_path / 'k1'}"


def test_a_job_of_an_earlier_life_is_known_by_its_lock_and_one_that_still_publishes_is_not_finished(tmp_path):
    jobs, folder = LocalProcesses(tmp_path, TALKER), JobFolder(tmp_path, "k1")
    jobs.order(REQUEST)
    with folder.claim():
        working = jobs.state("k1")
        folder.write_outcome(outcome(REQUEST))
        publishing = jobs.state("k1")

    assert (working, publishing) == ("running", "running")
    assert jobs.state("k1") == "finished"


@pytest.mark.parametrize("command", [("/no/such/program",), ("/etc/passwd",)])
def test_a_command_that_cannot_be_started_is_a_job_that_died(tmp_path, command):
    jobs = LocalProcesses(tmp_path, command)
    jobs.order(REQUEST)

    jobs.start("k1")

    assert jobs.state("k1") == "requested"


def test_an_order_that_cannot_be_written_may_be_tried_again(tmp_path):
    (tmp_path / "jobs").write_text("a file where the folder should be")

    with pytest.raises(RetryableError, match="order of a retrain cannot be written"):
        LocalProcesses(tmp_path / "jobs", TALKER).order(REQUEST)
