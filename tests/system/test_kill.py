"""kill -9 of serving, monitor and retraining job in the middle of a replay: the same final counts, one retrain, nothing lost.

Each replay is compared with one that nobody disturbed. The points are drawn from a seed, in time they fall where they fall.
"""

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from small_loop import NUM_REPLAY_DAYS, Loop, MakeLoop, Outcome, kill

from clipdrift_contract.events import LABELS
from clipdrift_monitor.store.store import Store

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
NUM_REQUESTS = 2 * 6 * NUM_REPLAY_DAYS  # at least so many inferences and hand-ins of labels


class Kills:
    """Sends its signals a little later, from threads, so that they fall into the middle of something."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._timers: list[threading.Timer] = []
        self.num_done = 0

    def later(self, most_seconds: float, what: Callable[[], object]) -> None:
        def hit() -> None:
            if what() is not False:
                self.num_done += 1

        timer = threading.Timer(self.random.uniform(0.0, most_seconds), hit)
        self._timers.append(timer)
        timer.start()

    def join(self) -> None:
        for timer in self._timers:
            timer.join()


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> Iterator[Kills]:
    made = Kills(seed=len(request.node.name))
    yield made
    made.join()


def once(what: Callable[[], bool]) -> Callable[[], None]:
    """Calls `what` until it has said yes."""
    is_done = False

    def call() -> None:
        nonlocal is_done
        is_done = is_done or what()

    return call


def live_through(loop: Loop, kills: Kills) -> None:
    """The whole replay with its kills, and then rest."""
    loop.run()
    kills.join()
    loop.recover()
    loop.replay.settle()


def assert_nothing_differs(loop: Loop, reference: Outcome) -> None:
    """What the client was told it has handed in, what is on the bus and what the monitor counted are one and the same, and
    what followed from it is what follows without kills."""
    outcome, num_rows = loop.outcome("valve"), len(loop.streams["valve"].rows)
    acknowledged, recorded = loop.acknowledged("valve"), loop.recorded("valve")
    assert loop.client.num_errors == 0, loop.client.last_error
    assert len(acknowledged) == num_rows
    assert acknowledged <= recorded, "an answered prediction is lost"
    assert len(recorded - acknowledged) <= loop.client.num_unanswered_rows
    assert loop.watcher.progress()["models"]["valve"]["num_predictions"] == len(recorded)
    assert loop.recorded("valve", LABELS) == acknowledged, "an accepted label is lost, or one was made up"
    assert outcome.accuracy == loop.recount("valve")
    assert outcome == reference
    assert list(outcome.retrains.values()) == ["pass"]
    assert [generation for generation, _ in outcome.deployments] == [1, 2, 3, 4, 5], "shadow, canary, promoted, alone"
    assert loop.client.generation("valve") == 5
    assert loop.get("/api/v1/audit/verify")["is_intact"] is True


def test_serving_is_killed_at_random_requests(make_loop: MakeLoop, kills: Kills, reference: Outcome) -> None:
    loop = make_loop("valve")
    sixth = NUM_REQUESTS // 6
    doomed = {i * sixth + kills.random.randrange(5, sixth) for i in range(6)}
    num_asked = 0

    def strike() -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked in doomed:
            kills.later(0.004, lambda: loop.running.kill("serving"))

    loop.on_request.append(strike)
    live_through(loop, kills)

    assert kills.num_done == 6
    assert len({epoch for epoch, _ in loop.acknowledged("valve")}) == 7, "each life of the process has answered"
    assert_nothing_differs(loop, reference)


def test_the_monitor_is_killed_at_random_and_between_deciding_and_starting(
    make_loop: MakeLoop, kills: Kills, reference: Outcome
) -> None:
    loop = make_loop("valve")
    (key,) = reference.retrains
    folder = loop.project.jobs / key
    folder.mkdir(parents=True)
    os.mkfifo(folder / "log.txt")  # to open it for writing blocks until somebody reads: the monitor cannot start the job
    jobs_before_the_start: list[list[int]] = []

    def num_attempts() -> int:
        """As written down, just before the engine hangs at the pipe."""
        with contextlib.closing(Store(loop.project.store_url)) as store:
            row = store.retrain(key)
        return row.attempts if row is not None else 0

    def strike_in_between() -> bool:
        if not (folder / "request.json").exists() or not num_attempts():
            return False
        loop.running.kill("monitor")
        jobs_before_the_start.append(loop.job_pids())
        (folder / "log.txt").unlink()
        return True

    def strike_soon() -> None:
        loop.on_poll.append(once(lambda: kills.later(0.3, lambda: loop.running.kill("monitor")) is None))

    for day in kills.random.sample(range(1, NUM_REPLAY_DAYS), 2):
        loop.on_day[day] = strike_soon
    loop.on_poll.append(once(strike_in_between))
    live_through(loop, kills)

    assert jobs_before_the_start == [[]], "it was killed after the order was written and before its process began"
    assert kills.num_done == 2
    assert_nothing_differs(loop, reference)
    assert num_attempts() == 1


def test_the_retraining_job_is_killed_at_random(make_loop: MakeLoop, kills: Kills, reference: Outcome) -> None:
    loop = make_loop("valve")
    known: set[int] = set()

    def strike() -> None:
        pids = loop.job_pids()
        if pids and pids[0] not in known and len(known) < 2:
            known.update(pids)
            kills.later(1.5, lambda: kill(pids[0]))

    loop.on_poll.append(strike)
    live_through(loop, kills)

    assert kills.num_done == 2
    assert_nothing_differs(loop, reference)
    assert loop.get("/api/v1/models/valve/retrains")["items"][0]["attempts"] == 3


def test_all_of_them_are_killed_at_once_while_the_job_runs(make_loop: MakeLoop, kills: Kills, reference: Outcome) -> None:
    loop = make_loop("valve")

    def fall() -> bool:
        pids = loop.job_pids()
        hit = [kill(pid) for pid in pids]
        loop.running.kill("monitor")
        loop.running.kill("serving")
        return any(hit)

    loop.on_poll.append(once(lambda: bool(loop.job_pids()) and kills.later(1.5, fall) is None))
    live_through(loop, kills)

    assert kills.num_done == 1
    assert_nothing_differs(loop, reference)
    assert loop.get("/api/v1/models/valve/retrains")["items"][0]["attempts"] == 2
