"""A monitor, a CI and its jobs in one seeded schedule: the monitor is killed round its dispatches, requests and answers are
lost, the CI shows runs late, begins them twice, fails them and forgets them, jobs hang, webhooks come or do not.

Store, memory, course and backends are the real ones; the clock, the CI's server and the jobs are simulated, and a kill throws
away everything but the store's file and the CI.
"""

import os
import random
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
from backend_places import NOW_MS, Place, request_of
from ci_fakes import FakeRun

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, RetrainOutcome, RunEnd
from clipdrift_contract.files import lock_file
from clipdrift_contract.jobs import JobFolder
from clipdrift_monitor.actions.backends.local_process import LocalProcesses
from clipdrift_monitor.actions.config import CiConfig
from clipdrift_monitor.actions.errands import carry_out
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.retrains import NotYoursError, Runs, order
from clipdrift_monitor.store.store import Store

SECOND, MINUTE = 1_000, 60_000
NO_PID = 2**22  # no process has this number, or a greater one
VISIBLE_MS = 90 * SECOND  # the CI shows a run so soon after it took the order, by the settings
RUN_HOURS = 2.0  # then the monitor ends a run that hangs
CI_HOURS = 4.0  # then the CI does, as its pipeline's file says: the only end of a duplicate that hangs before its claim
CHANGES = ("lost request", "timeout after", "500 before", "500 after", "429", "connect", "403", "reset", "html")
READS = ("connect", "lost request", "500 before", "429", "html")
POINTS = (
    "before the order is saved", "after the order is saved", "before a start is saved", "after a start is saved",
    "in a dispatch, before it", "in a dispatch, after it", "after a dispatch", "before its end is saved",
    "after its end is saved",
)  # fmt: skip


@cache
def empty_store():
    """The file of a store in which nothing is, so that not every schedule makes its tables."""
    with tempfile.TemporaryDirectory() as folder:
        Store(f"sqlite:///{folder}/store.db").close()
        return (Path(folder) / "store.db").read_bytes()


class Killed(BaseException):
    """The monitor is gone at this point."""


class Job:
    """A run of the CI: claims, trains, beats, tells, ends. It hears nothing while the monitor is down or an answer is lost."""

    def __init__(self, world, run):
        self.world, self.run = world, run
        self.name = f"run-{run.number}"
        self.begins_ms = world.clock.now_ms() + world.random.randrange(2, 120) * SECOND
        self.ends_ms = self.begins_ms + world.random.randrange(1, 12) * MINUTE
        self.dies_ms = self.ends_ms - world.random.randrange(50) * SECOND if world.random.random() < world.death_rate else None
        self.hangs = world.random.choice(("before its claim", "at work", "once it has told")) if self.is_hanging() else ""
        self.has_key = self.has_told = self.is_effective = False
        self.next_beat_ms = 0

    def is_hanging(self):
        return self.world.random.random() < self.world.hang_rate

    @property
    def is_over(self):
        return self.run.state in ("succeeded", "failed", "cancelled")

    def step(self):
        now_ms = self.world.clock.now_ms()
        if self.is_over or now_ms < self.begins_ms:
            return
        self.world.ci.work(self.run)
        if self.is_stuck:
            if now_ms - self.begins_ms > CI_HOURS * 60 * MINUTE:
                self.end("failed")
            return
        if self.dies_ms is not None and now_ms >= self.dies_ms:
            self.end("failed")
            self.run.is_deleted = self.world.random.random() < 0.3  # with the machine that it ran on
        elif not self.has_key:
            self.claim()
        elif now_ms >= self.ends_ms:
            self.tell()
        elif now_ms >= self.next_beat_ms:
            self.beat(now_ms)

    @property
    def is_stuck(self):
        """Does nothing any more, and does not end."""
        return {"": False, "before its claim": True, "at work": self.has_key, "once it has told": self.has_told}[self.hangs]

    def claim(self):
        self.has_key = self.asked(lambda runs, draft: runs.claim(draft, self.run.key, self.name, "https://ci/1")) is not None
        if self.has_key:
            self.world.trained.append(self)

    def beat(self, now_ms):
        self.next_beat_ms = now_ms + MINUTE
        self.asked(lambda runs, draft: runs.beat(draft, self.run.key, self.name) or True)

    def tell(self):
        key = self.run.key
        taken = self.asked(lambda runs, draft: runs.report(draft, key, self.name, outcome_of(key), run_end_of(key)))
        if taken is not None:
            self.has_told, self.is_effective = True, taken.is_taken
            if not self.is_stuck:
                self.end("succeeded")

    def asked(self, what):
        """A call over HTTP: None without an answer; it is repeated at the next step."""
        try:
            return self.world.call(what)
        except NotYoursError:
            return self.end("succeeded")  # a duplicate has nothing to do

    def end(self, state):
        self.world.ci.end(self.run, state)


class LocalJob(Job):
    """A process of this machine: its claim is a lock that the kernel lets go of when it ends, its outcome goes onto the bus."""

    handle = None
    has_written = False

    def claim(self):
        self.handle = lock_file(self.folder.lock_path)
        if self.handle is None:
            return self.end("succeeded")
        self.has_key = True
        if self.folder.read_outcome() is None:
            self.world.trained.append(self)
        else:
            self.ends_ms = 0  # it only publishes again
        return None

    def beat(self, now_ms):
        """The lock is."""

    def tell(self):
        key = self.run.key
        if self.folder.read_outcome() is None:
            self.folder.write_outcome(outcome_of(key))
            self.has_written = True
        if self.world.random.random() < 0.9:  # else the bus is away
            self.world.bus.append((f"retrain-outcome-{key}", outcome_of(key)))
            trained = [job for job in self.world.trained if job.run.key == key and job.has_written]
            trained[0].is_effective = True  # whoever publishes it again
        self.has_told = True
        if not self.is_stuck:
            self.end("succeeded")

    def end(self, state):
        super().end(state)
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    @property
    def folder(self):
        return JobFolder(self.world.folder / "jobs", self.run.key)


class LocalCi:
    """Processes of this machine. They live on when the monitor is killed."""

    def __init__(self, world):
        self.world, self.runs = world, []

    def spawn(self, key):
        run = FakeRun(len(self.runs) + 1, "pump", key, "", self.world.clock.now_ms())
        self.runs.append(run)
        self.world.jobs.append(LocalJob(self.world, run))
        return run

    def work(self, run):
        run.state = "running"

    def end(self, run, state):
        run.state = state


class Child:
    """What Popen gives."""

    def __init__(self, run):
        self.run, self.pid = run, NO_PID + run.number

    def poll(self):
        return 0 if self.run.state in ("succeeded", "failed", "cancelled") else None


class SimulatedProcesses(LocalProcesses):
    def __init__(self, world):
        super().__init__(world.folder / "jobs", ("true",))
        self._world = world

    def _spawn(self, command, log):
        self._world.point("in a dispatch, before it")
        run = self._world.ci.spawn(command[-1].rpartition("/")[2])
        self._world.point("in a dispatch, after it")
        return Child(run)

    def _is_alive(self, started):
        return self._world.ci.runs[started.pid - NO_PID - 1].state in ("queued", "running")

    def cancel(self, attempt, run_id):
        """Its process has no number here that a signal could go to."""
        for job in self._world.jobs:
            if job.run.key == run_id and not job.is_over:
                (job.folder.path / "cancelled").touch()
                job.end("cancelled")


class World:
    """One schedule."""

    def __init__(self, folder, name, seed):
        self.folder, self.name = folder, name
        self.random = random.Random(f"{name}-{seed}")
        self.clock = ManualClock(now_ms=NOW_MS)
        self.bus, self.jobs, self.trained, self.concluded = [], [], [], []
        self.death_rate = self.random.choice([0.0, 0.0, 0.3])
        self.hang_rate = self.random.choice([0.0, 0.0, 0.0, 0.0, 0.3])
        self.dies_at = self.random.choice(POINTS)
        self.dies_in = self.random.randrange(1, 4)  # at this time that it comes there
        self.kill_rate = self.random.choice([0.0, 0.01])
        self.num_kills = 0
        self.may_repeat = self.name == "local"  # a process that is begun and not written down yet is not known
        self.down_until_ms = 0
        self.store_url = f"sqlite:///{folder / 'store.db'}"
        (folder / "store.db").write_bytes(empty_store())
        self.ci = LocalCi(self) if name == "local" else self.make_ci()
        self.live()

    def make_ci(self):
        ci = Place(self.name, self.clock).ci
        ci.shows_after_ms = self.random.choice([0, 20, 60, 60, 200]) * SECOND  # the last: later than it is trusted to
        ci.changes.extend(self.fault(CHANGES, 0.5) for _ in range(8))
        ci.reads.extend(self.fault(READS, 0.15) for _ in range(60))
        ci.on_begin = self.begun
        ci.on_change = lambda request: self.point("in a dispatch, before it")
        twice = self.random.random() < 0.15 and self.name not in ("kubernetes", "webhook")
        self.begins_twice = twice  # a proxy that repeats a request
        self.may_repeat = twice or ci.shows_after_ms > VISIBLE_MS
        return ci

    def fault(self, kinds, share):
        return self.random.choice(kinds) if self.random.random() < share else ""

    def begun(self, run):
        self.jobs.append(Job(self, run))
        if self.begins_twice:
            self.begins_twice = False
            self.ci.begin(run.model, run.key, run.attempt, **run.extra)
        self.point("in a dispatch, after it")

    # --- lives of the monitor ---

    def live(self):
        self.store = Store(self.store_url)
        if self.name == "local":
            backend, ci_config = SimulatedProcesses(self), CiConfig(max_run_hours=RUN_HOURS)
        else:
            place = Place(self.name, self.clock, self.ci, max_run_hours=RUN_HOURS)
            backend, ci_config = place.backend, place.config
        self.backend, config = backend, MonitorConfig(ci=ci_config)
        self.memory = Memory(self.store, self.clock)
        self.memory.load()
        self.runs = Runs(config, self.memory, self.store, self.clock, lambda run: None, self.conclude)
        self.noted = []
        self.is_up = True

    def kill(self):
        self.num_kills += 1
        self.is_up = False
        self.store.close()
        self.down_until_ms = self.clock.now_ms() + self.random.choice([1, 30, 300, 1_200]) * SECOND

    def point(self, name):
        """Somewhere that the monitor may be killed at."""
        if name == self.dies_at:
            self.dies_in -= 1
            if self.dies_in == 0:
                raise Killed
        if self.random.random() < self.kill_rate:
            raise Killed

    # --- the engine's turn ---

    def order(self, key):
        draft = Draft(self.clock)
        order(request_of(key), self.memory, draft, self.clock.now_ms())
        self.save(draft, "the order")

    def turn(self):
        draft = Draft(self.clock)
        taken = len(self.bus)  # gone from there once this turn is saved
        for event_id, event in self.bus:
            if isinstance(event, RetrainOutcome) and event_id not in self.store.has_seen([event_id]):
                draft.changes.seen_ids[event_id] = self.clock.now_ms()
                self.conclude(event, draft)
        saves_end = bool(self.noted)
        for errand, seen in self.noted:
            self.runs.observe(draft, errand, seen)
        self.noted.clear()
        if self.random.random() < 0.2:  # a webhook
            self.runs.wake({run.run_id for run in self.memory.ci_runs.values()})
        errands = self.runs.advance(draft, 0)
        starts = any(errand.kind == "start" for errand in errands)
        self.save(draft, "a start" if starts else "its end" if saves_end else "", taken)
        for errand in errands:
            seen = carry_out(self.backend, errand, self.runs.is_current)
            self.point("after a dispatch" if errand.kind == "start" else "")
            if seen is not None:
                self.noted.append((errand, seen))

    def save(self, draft, what, taken=0):
        self.point(f"before {what} is saved")
        bus = self.bus[taken:]
        if not draft.changes.is_empty:
            self.store.commit(draft.changes)
            for entry in self.store.outbox():
                kind = {"RetrainOutcome": RetrainOutcome, "RunEnd": RunEnd}.get(entry.kind)
                if kind is not None:
                    bus.append((entry.event_id, msgspec.msgpack.decode(entry.body, type=kind)))
            self.store.done([entry.event_id for entry in self.store.outbox()])
        self.bus = bus
        self.point(f"after {what} is saved")

    def conclude(self, outcome, draft):
        if self.memory.unfinished.pop(outcome.key, None) is not None:
            draft.changes.outcomes.append(outcome)
            self.concluded.append(outcome)

    def call(self, what):
        """A job's call; None where it gets no answer."""
        if not self.is_up or self.random.random() < 0.1:
            return None
        try:
            draft = Draft(self.clock)
            answer = what(self.runs, draft)
            self.save(draft, "")
        except Killed:
            self.kill()
            return None
        return None if self.random.random() < 0.1 else answer

    # --- time ---

    def go(self, keys, hours=60):
        """Order, and let time pass until everything has come to its end."""
        waiting, deadline_ms = list(keys), self.clock.now_ms() + hours * 60 * MINUTE
        while self.clock.now_ms() < deadline_ms:
            self.clock.advance_ms(self.random.choice([1_000, 5_000, 20_000, 50_000]))
            if not self.is_up and self.clock.now_ms() >= self.down_until_ms:
                self.live()
            for job in list(self.jobs):
                job.step()
            if self.is_up:
                self.live_on(waiting)
            if self.is_over(waiting):
                return
        raise AssertionError(f"not over after {hours} h: {self.memory.ci_runs}, {[run.state for run in self.ci.runs]}")

    def live_on(self, waiting):
        try:
            if waiting:
                with suppress(IndexError):
                    key = waiting[0]
                    if self.store.retrain(key) is None:
                        self.order(key)
                    waiting.pop(0)
            self.turn()
        except Killed:
            self.kill()

    def is_over(self, waiting):
        is_quiet = not waiting and self.is_up and not self.memory.ci_runs and not self.memory.unfinished and not self.bus
        return is_quiet and all(job.is_over for job in self.jobs)


def outcome_of(key):
    return RetrainOutcome(
        key=key, model="pump", finished_at_ms=1, verdict="pass", reasons=("better",), candidate_version=f"v-{key}"
    )  # fmt: skip


def run_end_of(key):
    return RunEnd(
        run_id=f"r-{key}", model="pump", version=f"v-{key}", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1,
        as_of_ms=1, data_digest="", code_revision="", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=9,
        retrain_key=key,
    )  # fmt: skip
