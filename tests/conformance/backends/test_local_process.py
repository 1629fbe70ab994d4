"""Jobs as processes: found again by their folder, bounded, reaped, ended with all that they started, and never the end of the
monitor."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from backend_places import attempt_of, request_of

from clipdrift_contract.events import RetrainOutcome
from clipdrift_contract.jobs import JobFolder
from clipdrift_monitor.actions.backends.backend import AwayError
from clipdrift_monitor.actions.backends.local_process import LocalProcesses
from clipdrift_monitor.actions.config import LocalConfig

ATTEMPT = attempt_of()
SLEEPER = (sys.executable, "-c", "import signal; print('at work', flush=True); signal.pause()")
TALKER = (sys.executable, "-c", "import sys; print('one'); print('two'); print('a last word'); print(sys.argv[1])")
LIMITS = """
import json, os, resource, sys, time
deadline = time.monotonic() + 20
while resource.getrlimit(resource.RLIMIT_AS)[0] != 900 << 20 and time.monotonic() < deadline:
    time.sleep(0.01)
print(json.dumps([resource.getrlimit(resource.RLIMIT_AS)[0] >> 20, resource.getrlimit(resource.RLIMIT_CPU)[0],
                  os.getpriority(os.PRIO_PROCESS, 0)]))
"""
FAMILY = (
    sys.executable, "-c",
    "import signal, subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); signal.pause()",
)  # fmt: skip


def ended(jobs):
    """Wait for the job's own process."""
    child = jobs._children["k1"]
    child.wait(30)
    return child


def outcome():
    return RetrainOutcome(key="k1", model="pump", finished_at_ms=1, verdict="fail", reasons=("no better",))


def until(is_so):
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def test_an_order_is_left_once(tmp_path):
    jobs = LocalProcesses(tmp_path, TALKER)
    before = jobs.find(ATTEMPT)
    jobs.dispatch(ATTEMPT)
    ended(jobs)
    other = msgspec.structs.replace(ATTEMPT, request=msgspec.structs.replace(request_of(), cause="other"))
    jobs.dispatch(other)
    ended(jobs)

    assert before is None
    assert JobFolder(tmp_path, "k1").read_request().cause == "drift"


def test_a_started_job_runs_until_its_process_ends_and_leaves_no_zombie(tmp_path):
    jobs = LocalProcesses(tmp_path, SLEEPER)
    jobs.dispatch(ATTEMPT)
    child = jobs._children["k1"]
    during = jobs.look(ATTEMPT, "k1").state
    child.kill()
    child.wait(30)

    assert during == "running"
    assert jobs.look(ATTEMPT, "k1").state == "failed"
    assert jobs._children == {}


def test_a_job_gets_its_folder_and_its_log_says_how_it_ended(tmp_path):
    jobs = LocalProcesses(tmp_path, TALKER)
    before = jobs.log_tail(ATTEMPT, "k1")
    begun = jobs.dispatch(ATTEMPT)
    ended(jobs)
    log = tmp_path / "k1" / "log.txt"

    assert before == f"there is no log at {log}"
    assert begun.url == log.as_uri()
    assert jobs.log_tail(ATTEMPT, "k1") == f"its log, {log}, ends with: two / a last word / {tmp_path / 'k1'}"


def test_a_job_of_an_earlier_life_is_known_by_its_lock_and_one_that_still_publishes_has_not_ended(tmp_path):
    jobs, folder = LocalProcesses(tmp_path, TALKER), JobFolder(tmp_path, "k1")
    folder.write_request(request_of())
    with folder.claim():
        working = jobs.find(ATTEMPT).state
        folder.write_outcome(outcome())
        publishing = jobs.find(ATTEMPT).state

    assert (working, publishing) == ("running", "running")
    assert jobs.look(ATTEMPT, "k1").state == "succeeded"


def test_what_an_earlier_attempt_left_is_not_the_next_one_s_so_that_it_is_published_again(tmp_path):
    folder = JobFolder(tmp_path, "k1")
    folder.write_request(request_of())
    folder.write_outcome(outcome())
    jobs = LocalProcesses(tmp_path, TALKER)
    of_first, of_second = jobs.find(attempt_of(1)), jobs.find(attempt_of(2))
    jobs.dispatch(attempt_of(2))
    ended(jobs)

    assert (of_first.state, of_second) == ("succeeded", None)
    assert jobs.find(attempt_of(2)).state == "succeeded"


@pytest.mark.skipif(sys.platform != "linux", reason="processes of an earlier life are known by Linux' own words")
def test_a_job_of_an_earlier_life_that_has_not_claimed_yet_is_at_work_and_not_begun_again(tmp_path):
    first = LocalProcesses(tmp_path, SLEEPER)
    first.dispatch(ATTEMPT)
    later = LocalProcesses(tmp_path, SLEEPER)
    during = later.find(ATTEMPT), later.look(ATTEMPT, "k1")
    child = first._children["k1"]
    child.kill()
    dead = until(lambda: " Z " in Path(f"/proc/{child.pid}/stat").read_text())  # ended, and nobody asked how
    after = later.find(ATTEMPT), later.look(ATTEMPT, "k1")
    child.wait(30)

    assert dead
    assert [one.state for one in during] == ["running", "running"]
    assert (after[0], after[1].state) == (None, "failed")


@pytest.mark.parametrize("command", [("/no/such/program",), ("/etc/passwd",)])
def test_a_command_that_cannot_be_started_is_a_job_that_died(tmp_path, command):
    jobs = LocalProcesses(tmp_path, command)

    assert jobs.dispatch(ATTEMPT).state == "failed"
    assert jobs.look(ATTEMPT, "k1").state == "failed"


def test_an_order_that_cannot_be_written_is_surely_not_begun(tmp_path):
    (tmp_path / "jobs").write_text("a file where the folder should be")

    with pytest.raises(AwayError, match="order of a retrain cannot be written"):
        LocalProcesses(tmp_path / "jobs", TALKER).dispatch(ATTEMPT)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a running process need Linux")
def test_a_job_may_take_so_much_memory_and_time_and_yields_to_others(tmp_path):
    jobs = LocalProcesses(tmp_path, (sys.executable, "-c", LIMITS), LocalConfig(memory_mb=900, cpu_hours=0.5, nice=7))
    jobs.dispatch(ATTEMPT)
    ended(jobs)

    assert json.loads((tmp_path / "k1" / "log.txt").read_text()) == [900, 1800, 7]


@pytest.mark.skipif(sys.platform != "linux", reason="processes of an earlier life are known by Linux' own words")
def test_a_job_of_an_earlier_life_is_cancelled_with_all_that_it_started(tmp_path):
    first = LocalProcesses(tmp_path, FAMILY)
    first.dispatch(ATTEMPT)
    log = tmp_path / "k1" / "log.txt"
    assert until(lambda: log.read_text().strip())
    child = Path(f"/proc/{int(log.read_text())}")
    later = LocalProcesses(tmp_path, FAMILY)
    later.cancel(ATTEMPT, "k1")
    ended(first)

    assert until(lambda: not child.exists() or " Z " in (child / "stat").read_text())
    assert later.look(ATTEMPT, "k1").state == "cancelled"
    later.cancel(ATTEMPT, "k1")  # nothing is left to end


def test_another_process_of_the_same_number_is_never_ended(tmp_path):
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    jobs = LocalProcesses(tmp_path, TALKER)
    jobs.dispatch(ATTEMPT)
    ended(jobs)
    path = tmp_path / "k1" / "process.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": bystander.pid}))
    jobs.cancel(ATTEMPT, "k1")
    is_alive = bystander.poll() is None
    os.kill(bystander.pid, signal.SIGKILL)
    bystander.wait(30)

    assert is_alive
