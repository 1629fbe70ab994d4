"""Processes that make packs: one at a time, each order once, nothing half done. The processes here are small and real."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipdrift_contract.clock import ManualClock
from clipdrift_monitor.evidence.order import EvidenceOrder, read_order
from clipdrift_monitor.evidence.starter import EvidenceStarter, Finished

MakeOrder = Callable[..., EvidenceOrder]
# Waits until the test opens the pipe named after the signal, where there is one; then says its priority in the report.
SCRIPT = """
import json, os, pathlib, sys
order = json.loads(pathlib.Path(sys.argv[1]).read_text())
print("at work on", order["signal_id"], flush=True)
pipe = pathlib.Path(sys.argv[1]).with_suffix(".pipe")
word = pipe.open().read() if pipe.exists() else "go"
if word == "go":
    pathlib.Path(order["html_path"]).write_text(str(os.nice(0)))
sys.exit(0 if word == "go" else 3)
"""
COMMAND = (sys.executable, "-c", SCRIPT)


class Folder:
    """A folder for evidence, with starters on it and pipes that hold their processes back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.starters: list[EvidenceStarter] = []

    def starter(self, command: tuple[str, ...] = COMMAND, **given: Any) -> EvidenceStarter:
        self.starters.append(EvidenceStarter(self.path, command, **given))
        return self.starters[-1]

    def hold(self, signal_id: str) -> None:
        os.mkfifo(self.path / f"{signal_id}.pipe")

    def release(self, signal_id: str, word: str = "go") -> None:
        """Returns only when the process was really at work: opening the pipe waits for its other end."""
        with (self.path / f"{signal_id}.pipe").open("w") as pipe:
            pipe.write(word)

    def has_begun(self, signal_id: str) -> bool:
        return (self.path / f"{signal_id}.log").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "evidence")
    yield made
    for starter in made.starters:
        starter.close()


def _end_of_next(starter: EvidenceStarter) -> Finished:
    """Polls until something has ended, waiting for the processes in between."""
    while not (finished := starter.poll()):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    return finished[0]


def test_an_order_becomes_a_report_at_the_lowest_priority(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    starter = folder.starter()

    assert starter.order(make_order("a"))
    folder.release("a")

    assert _end_of_next(starter) == Finished("a", starter.html_path("a"))
    assert (folder.path / "a.html").read_text() == "19"
    assert "at work on a" in (folder.path / "a.log").read_text()
    assert (starter.num_made, starter.num_failed, starter.is_idle) == (1, 0, True)


def test_the_order_is_on_disk_whole_and_says_where_the_report_goes(folder: Folder, make_order: MakeOrder) -> None:
    starter = folder.starter()
    starter.order(make_order("a", why="said"))

    order = read_order(folder.path / "a.json")

    assert (order.signal_id, order.why, order.html_path) == ("a", "said", str(folder.path / "a.html"))
    assert not list(folder.path.glob("*.partial"))


def test_one_process_runs_at_a_time(folder: Folder, make_order: MakeOrder) -> None:
    for name in "ab":
        folder.hold(name)
    starter = folder.starter()
    starter.order(make_order("a"))
    starter.order(make_order("b"))

    assert starter.poll() == ()
    assert (folder.has_begun("b"), starter.num_queued) == (False, 1)
    folder.release("a")
    assert _end_of_next(starter).signal_id == "a"
    folder.release("b")
    assert _end_of_next(starter).signal_id == "b"


def test_a_process_of_an_earlier_life_is_not_joined_by_a_second(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    first = folder.starter()
    first.order(make_order("a"))  # this monitor is killed now: nothing is told to the process

    second = folder.starter()
    second.order(make_order("b"))
    assert second.poll() == ()
    assert not folder.has_begun("b")

    folder.release("a")
    assert _end_of_next(first).html == folder.path / "a.html"
    assert _end_of_next(second).html == folder.path / "b.html"


def test_the_same_order_twice_is_one(folder: Folder, make_order: MakeOrder) -> None:
    starter = folder.starter()

    assert starter.order(make_order("a"))
    assert not starter.order(make_order("a"))
    _end_of_next(starter)
    assert not starter.order(make_order("a"))
    assert (starter.num_made, starter.num_refused) == (1, 0)


def test_a_failure_is_counted_told_and_does_not_stop_the_next(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    starter = folder.starter()
    starter.order(make_order("a"))
    starter.order(make_order("b"))
    folder.release("a", "fail")

    failed = _end_of_next(starter)

    assert (failed.signal_id, failed.html) == ("a", None)
    assert "ended with 3" in failed.problem
    assert _end_of_next(starter).html == folder.path / "b.html"
    assert (starter.num_made, starter.num_failed) == (1, 1)


def test_a_command_that_is_not_there_fails_its_order_only(folder: Folder, make_order: MakeOrder) -> None:
    starter = folder.starter(("/no/such/program",))

    assert starter.order(make_order("a"))
    assert [(one.signal_id, one.html) for one in starter.poll()] == [("a", None)]
    assert (starter.num_failed, starter.is_idle) == (1, True)


def test_a_folder_that_went_away_costs_the_reports_and_never_the_monitor(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    starter = folder.starter()
    starter.order(make_order("a"))
    starter.order(make_order("b"))
    folder.release("a", "fail")
    _wait_for_lock(folder)
    shutil.rmtree(folder.path)

    assert {(one.signal_id, one.html) for one in (_end_of_next(starter), *starter.poll())} >= {("a", None)}
    assert not starter.order(make_order("c"))
    assert (starter.num_failed, starter.num_refused, starter.is_idle) == (2, 1, True)


def test_too_many_orders_are_refused_and_counted(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    starter = folder.starter(max_queued=2)

    assert [starter.order(make_order(name)) for name in "abcd"] == [True, True, True, False]
    assert (starter.num_refused, (folder.path / "d.json").exists()) == (1, False)


def test_a_process_that_hangs_is_ended(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    clock = ManualClock()
    starter = folder.starter(clock=clock, max_seconds=60)
    starter.order(make_order("a"))

    clock.advance_ms(60_000)
    assert starter.poll() == ()
    clock.advance_ms(1)
    (finished,) = starter.poll()

    assert f"ended with {-signal.SIGKILL}" in finished.problem
    assert _lock_is_free(folder)


def test_an_order_that_was_never_tried_is_taken_up_by_the_next_life(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    first = folder.starter()
    first.order(make_order("a"))
    first.order(make_order("b"))
    folder.release("a")
    _wait_for_lock(folder)  # killed here: "a" is made, "b" waits

    second = folder.starter()

    assert _end_of_next(second) == Finished("b", folder.path / "b.html")
    assert second.is_idle


def test_an_order_that_failed_is_not_tried_again(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    first = folder.starter()
    first.order(make_order("a"))
    folder.release("a", "fail")
    _end_of_next(first)

    assert folder.starter().is_idle


def test_what_close_cut_off_is_tried_once_more_and_not_twice(folder: Folder, make_order: MakeOrder) -> None:
    folder.hold("a")
    first = folder.starter()
    first.order(make_order("a"))
    first.close()
    first.close()
    assert _lock_is_free(folder)

    second = folder.starter()
    assert second.num_queued == 1
    second.poll()
    second.close()

    assert folder.starter().is_idle
    assert not (folder.path / "a.html").exists()


def test_a_file_that_is_no_order_is_passed_over(folder: Folder) -> None:
    (folder.path / "x.json").write_text('{"signal_id": ')

    assert folder.starter().is_idle


def test_the_monitors_side_never_loads_evidently_pandas_or_what_they_bring() -> None:
    heavy = ("evidently", "pandas", "plotly")
    code = f"import sys, clipdrift_monitor.evidence.starter; print([n for n in {heavy} if n in sys.modules])"

    told = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"


def _wait_for_lock(folder: Folder) -> None:
    with (folder.path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _lock_is_free(folder: Folder) -> bool:
    with (folder.path / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
