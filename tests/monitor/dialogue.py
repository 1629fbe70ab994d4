"""A monitor's engine on a bus and a store of its own, driven turn by turn, with jobs whose states the test sets."""

from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import numpy as np

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR, ManualClock
from clipdrift_contract.columns import Column
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import (
    TOPICS,
    Arm,
    ArmResult,
    BlockScore,
    ClipSpec,
    Contrast,
    ErrorClustering,
    FeatureColumn,
    LabelBatch,
    PredictionBatch,
    RetrainOutcome,
    RunEnd,
    SliceScore,
)
from clipdrift_contract.metrics import MONITOR_EVENTS, MetricSet
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_monitor.actions.backends.backend import CiRun
from clipdrift_monitor.actions.errands import carry_out
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.engine.engine import Engine
from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import HarmConfig
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.store.store import Changes, Store

DAY = MS_PER_DAY
TODAY = 200  # the clock's day; events are of days before
POLICY = Policy(
    budget=Budget(days_per_false_page=100.0, days_per_false_ticket=10.0), harm=HarmConfig(min_block_labels=20), min_labels=100,
    rollout=RolloutPolicy(steps=(), predecessor_days=0.0),  # at once: those who test rollouts say so
)  # fmt: skip
SLICES = SliceSpec(feature="site", categories=("north", "south"))
PRESSURE = FeatureProfile(
    spec=FeatureSpec(name="pressure", kind="numeric", nullable=True), edges=(-0.5, 0.5), counts=(310, 380, 310)
)
SITE = FeatureProfile(
    spec=FeatureSpec(name="site", kind="categorical"), categories=("north", "south"), counts=(500, 500, 0)
)  # fmt: skip


class TestJobs:
    """Jobs that only the test moves on."""

    __test__ = False

    def __init__(self):
        self.states = {}
        self.requests = {}
        self.started = []
        self.dies_at_once = False

    def find(self, attempt):
        state = self.states.get(attempt.request.key)
        if state == "running" or (state == "finished" and attempt.number == 1):
            return self._run(attempt)
        return None

    def dispatch(self, attempt):
        key = attempt.request.key
        self.requests[key] = attempt.request
        self.started.append(key)
        if self.states.get(key) != "finished":
            self.states[key] = "dead" if self.dies_at_once else "running"
        return self._run(attempt)

    def look(self, attempt, run_id):
        return self._run(attempt)

    def cancel(self, attempt, run_id):
        self.states[run_id] = "cancelled"

    def log_tail(self, attempt, run_id):
        return f"its log ends with the last words of {run_id[:4]}"

    def close(self):
        pass

    def _run(self, attempt):
        key = attempt.request.key
        ends = {"running": "running", "finished": "succeeded", "cancelled": "cancelled"}
        return CiRun(run_id=key, url=f"https://ci.example/{key[:4]}", state=ends.get(self.states[key], "failed"))


class Dialogue:
    """What is told to a monitor and what comes of it. `restart` is a kill and a new life on the same bus and store."""

    def __init__(
        self,
        folder: Path,
        *,
        store_type=Store,
        bus_type=SqliteBus,
        policy=POLICY,
        num_partitions=4,
        now_ms=TODAY * DAY,
        store_url="",
        clock_type=ManualClock,
        writer="monitor",
        **settings,
    ):
        self.config = MonitorConfig(policy=policy, evidence_dir=folder / "evidence", project_name="pumps", **settings)
        self.clock = clock_type(now_ms=now_ms)
        self.bus = bus_type(folder / "bus.db", num_partitions=num_partitions)
        self.store = store_type(store_url or f"sqlite:///{folder / 'store.db'}")
        self.jobs = TestJobs()
        self.writer = writer
        self.told_alarms = []
        self._raw = self.bus.publisher()
        self._publisher = EventPublisher(self._raw, source="test", clock=self.clock)
        self._session = ExitStack()
        self.new_life()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()
        self._publisher.close()
        self.store.close()

    def new_life(self):
        self.metrics = MetricSet()
        self.engine = Engine(
            self.config, self.bus, self.store, self._at_the_ci, self.metrics, self.clock,
            on_alarm=lambda told, state, run: self.told_alarms.append(told), writer=self.writer,
        )  # fmt: skip
        self._turn = None

    def _at_the_ci(self, errand):
        """What the dispatcher's thread does, at once; the next turn hears of it."""
        seen = carry_out(self.jobs, errand, self.engine.runs.is_current)
        if seen is not None:
            self.engine.note(errand, seen)

    def restart(self):
        self._session.close()
        self.new_life()

    def tell(self, *events, ids=None):
        for event, event_id in zip(events, ids or [None] * len(events), strict=True):
            self._publisher.publish(event, event_id=event_id)
        self._publisher.flush(10.0)

    def tell_raw(self, topic, value, headers):
        self._raw.publish(topic, b"key", headers, value, timestamp_ms=self.clock.now_ms())
        self._raw.flush(10.0)

    def turn(self, num_turns=1, wait_seconds=0.0):
        """Take turns; an error of one ends the session, as it ends `Engine.run`'s."""
        try:
            for _ in range(num_turns):
                if self._turn is None:
                    self._turn = self._session.enter_context(self.engine.session())
                self.clock.advance_ms(300)
                self._turn(wait_seconds)
        except BaseException:
            self._turn = None
            self._session.close()
            raise

    def go(self, *events, ids=None):
        """Tell events and take turns until all is read, and a few more."""
        self.tell(*events, ids=ids)
        for _ in range(200):
            self.turn()
            if not self.engine.snapshot.lag:
                break
        self.turn(3)
        return self

    def ask(self, command, *arguments):
        """A person's command, carried out by the next turn."""
        future = self.engine.command(lambda draft: command(draft, *arguments))
        self.turn()
        return future.result(0)

    @property
    def state(self):
        return self.engine.snapshot.models["pump"]

    def published(self, kind=None):
        """Ids and events on the bus, each id once."""
        consumer = self.bus.consumer(None, TOPICS)
        found = {}
        while records := consumer.poll(500, 0.0):
            for record in records:
                with suppress(PoisonError):
                    envelope, event = decode(record.headers, record.value)
                    found[envelope.id] = event
        consumer.close()
        return {name: event for name, event in found.items() if kind is None or isinstance(event, kind)}

    def num_records(self, topic):
        consumer = self.bus.consumer(None, [topic])
        num_records = 0
        while records := consumer.poll(500, 0.0):
            num_records += len(records)
        consumer.close()
        return num_records

    def counted(self, topic, outcome):
        return self.metrics.counter(MONITOR_EVENTS).labels(topic, outcome)._value.get()

    def sums(self):
        """Every window's vector, as the store has it."""
        return {key: sums.tolist() for key, sums in self.store.windows("pump", 0, 10_000 * DAY)}

    def audit_words(self):
        return [row.action for row in self.store.audit()]


class OnceFailingStore(Store):
    """Fails at a commit when told to, before or after it has written."""

    fails = ""

    def commit(self, changes: Changes) -> None:
        from clipdrift_contract.errors import RetryableError

        fails, self.fails = self.fails, ""
        if fails == "before":
            raise RetryableError("the test's store is locked")
        super().commit(changes)
        if fails == "after":
            raise RetryableError("the test's store has written, and its answer was lost")


# --- what happened ---


def profile(**changed):
    known = ReferenceProfile(
        task="binary", classes=("fine", "failed"), features=(PRESSURE, SITE), slices=SLICES, slice_counts=(500, 500, 0),
        score_edges=(0.25, 0.5, 0.75), score_counts=(500, 0, 0, 500), label_counts=(500, 500), num_rows=1_000,
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def run_end(version="v1", *, retrain_key="", day=1, **changed):
    days = tuple(
        BlockScore(start_ms=i * DAY, num_rows=200, num_errors=40 + i % 3, nll_sum=100.0, brier_sum=32.0 + i % 2)
        for i in range(8)
    )
    known = RunEnd(
        run_id=f"run-{version}", model="pump", version=version, started_at_ms=0, ended_at_ms=day * DAY, data_start_ms=0,
        data_end_ms=day * DAY, as_of_ms=day * DAY, data_digest="d", code_revision="c", seed=0,
        optimizer="SGD", learning_rate=0.1, clip=ClipSpec(kind="global_norm", max_norm=0.5),
        num_steps=100, num_checked=10, removed_mass_ratio=0.8,
        clip_rate_ratio=0.9,
        candidates=(Arm(name="same", clip=ClipSpec(kind="global_norm", max_norm=0.5)),),
        validation=(
            SliceScore(slice="", num_rows=1_600, num_correct=1_280, nll_sum=800.0, brier_sum=256.0, ece=0.01),
            SliceScore(slice="north", num_rows=800, num_correct=640, nll_sum=400.0, brier_sum=128.0, ece=0.01),
            SliceScore(slice="south", num_rows=800, num_correct=640, nll_sum=400.0, brier_sum=128.0, ece=0.01),
        ),
        clustering=(
            ErrorClustering(slice="", lag1_autocorrelation=0.0, between_hour_variance=0.0, between_day_variance=0.0, days=days),
        ),
        profile=profile(), artifact_uri=f"file:///models/{version}.onnx", artifact_digest=f"sha256:{version}",
        retrain_key=retrain_key,
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def rows(day, num_rows=200, *, seed=0, accuracy=0.8):
    """Rows of one day: the model says 0.8 or 0.2, and is right as often as `accuracy` says."""
    random = np.random.default_rng([day, seed])
    is_high = random.random(num_rows) < 0.5
    predicted = is_high.astype(float)
    p = np.where(is_high, 0.8, 0.2)
    label = np.where(random.random(num_rows) < accuracy, predicted, 1 - predicted)
    site = random.integers(0, 2, num_rows)
    return {
        "time_ms": day * DAY + np.sort(random.integers(0, DAY, num_rows)), "slice": site, "predicted": predicted,
        "scores": np.stack([1 - p, p], axis=1), "label": label, "pressure": random.normal(size=num_rows),
        "site": np.array(["north", "south"], object)[site],
    }  # fmt: skip


def predictions(columns, *, version="v1", epoch="e", first=0, **changed):
    num_rows = len(columns["label"])
    known = PredictionBatch(
        model="pump", version=version, epoch=epoch, sequence=Column.of(np.arange(first, first + num_rows, dtype="u8")),
        event_time_ms=Column.of(columns["time_ms"].astype("i8")), slice_index=Column.of(columns["slice"].astype("i2")),
        predicted=Column.of(columns["predicted"].astype("f8")), scores=Column.of(columns["scores"].astype("f4")),
        features=(
            FeatureColumn(name="pressure", values=Column.of(columns["pressure"])),
            FeatureColumn(name="site", values=Column.of(columns["site"])),
        ),
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def labels(columns, *, version="v1", epoch="e", first=0, delay_ms=MS_PER_HOUR, **changed):
    num_rows = len(columns["label"])
    known = LabelBatch(
        model="pump", version=version, epoch=epoch, sequence=Column.of(np.arange(first, first + num_rows, dtype="u8")),
        event_time_ms=Column.of(columns["time_ms"].astype("i8")), slice_index=Column.of(columns["slice"].astype("i2")),
        predicted=Column.of(columns["predicted"].astype("f8")), scores=Column.of(columns["scores"].astype("f4")),
        label=Column.of(columns["label"].astype("f8")),
        label_time_ms=Column.of((columns["time_ms"] + delay_ms).astype("i8")),
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def day_of(day, *, version="v1", accuracy=0.8, num_rows=200, epoch="e"):
    """Predictions and labels of one day."""
    columns = rows(day, num_rows, accuracy=accuracy)
    first = day * 10_000
    return predictions(columns, version=version, first=first, epoch=epoch), labels(
        columns, version=version, first=first, epoch=epoch
    )


def outcome(request, *, verdict="pass", version="v2", **changed):
    """What a job found; "pass" comes with a candidate of the given version."""
    scores = (SliceScore(slice="", num_rows=400, num_correct=340, nll_sum=150.0, brier_sum=60.0, ece=0.01),)
    against = (Contrast(slice="", num_rows=400, num_blocks=10, metric="brier", difference=-0.02, low=-0.03, high=-0.01),)
    arms = tuple(
        ArmResult(
            arm=Arm(name=name, clip=ClipSpec(kind="global_norm", max_norm=norm)), run_id=f"r-{name}", version=version,
            artifact_uri="", artifact_digest="", removed_mass_ratio=0.1, validation=scores,
            against_same=against if name != "same" else (), against_champion=against,
        )
        for name, norm in (("same", 0.5), ("q90", 3.0))
    )  # fmt: skip
    known = RetrainOutcome(
        key=request.key, model=request.model, finished_at_ms=0, verdict=verdict, reasons=(f"the gate says {verdict}",),
        arms=arms, winner="q90", candidate_version=version if verdict == "pass" else "",
        candidate_uri=f"file:///models/{version}.onnx", candidate_digest=f"sha256:{version}",
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)
