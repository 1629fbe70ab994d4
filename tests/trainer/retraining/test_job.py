"""The retraining job: what it decides, and that killing it at any point changes nothing."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from toy_task import DAY, TooSure, Toy

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_contract.events import RETRAINING, TRAINING, Arm, ArmResult, ClipSpec, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.quality.policy import QualityPolicy
from clipdrift_trainer.registering.card import CardGate, CardParent, card_digest, decode_card
from clipdrift_trainer.registering.describing import Describing
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.retraining.job import RetrainingConfig, run_retrain
from clipdrift_trainer.tasks.task import Rows
from clipdrift_trainer.training import Order, TrainingConfig, train

MODEL = "pump"
AS_OF = 90 * DAY
CLIP = ClipSpec(kind="global_norm", max_norm=0.5)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class World:
    """State on disk that outlives a killed process: bus, job folder, artifacts."""

    def __init__(self, root: Path, task: Toy | None = None) -> None:
        self.root = root
        self.task = task or Toy()
        self.bus = SqliteBus(root / "bus.db")
        self.champion = self._train_champion()
        self.folder = JobFolder(root / "jobs", "order-1")
        self.folder.write_request(self.request())

    def _train_champion(self) -> RunEnd:
        order = Order(model=MODEL, start_ms=0, end_ms=30 * DAY, as_of_ms=30 * DAY, clip=CLIP)
        return train(
            self.task, TrainingConfig(), order, artifacts=self.root / "models", registry=NoRegistry(), publisher=None,
            clock=ManualClock(), metrics=MetricSet(), quality=QualityPolicy(mode="off"),  # the retrain's own checks run
        ).run_end  # fmt: skip

    def request(self, **changes: Any) -> RetrainRequest:
        asked = RetrainRequest(
            key="order-1", model=MODEL, cause="test", decision_id="d", requested_at_ms=AS_OF, as_of_ms=AS_OF, data_start_ms=0,
            champion_version=self.champion.version, champion_uri=self.champion.artifact_uri,
            champion_digest=self.champion.artifact_digest, champion_clip=CLIP, generation=1, arms=self.champion.candidates,
        )  # fmt: skip
        return msgspec.structs.replace(asked, **changes)

    def order(self, **changes: Any) -> None:
        self.folder.request_path.unlink()
        self.folder.write_request(self.request(**changes))

    def run(self, *, task: Any = None, registry: Any = None, folder: Any = None, max_workers: int = 1) -> RetrainOutcome | None:
        publisher = EventPublisher(self.bus.publisher(), source="test", clock=ManualClock())
        try:
            return run_retrain(
                folder or self.folder, task or self.task, RetrainingConfig(max_workers=max_workers),
                artifacts=self.root / "models", registry=registry or NoRegistry(), publisher=publisher, clock=ManualClock(),
                metrics=MetricSet(),
            )  # fmt: skip
        finally:
            publisher.close()

    def events(self) -> list[tuple[str, Any]]:
        consumer = self.bus.consumer(None, (TRAINING, RETRAINING))
        found = []
        while records := consumer.poll(500, 0.05):
            found += [decode(record.headers, record.value) for record in records]
        consumer.close()
        return [(envelope.id, event) for envelope, event in found]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def killed(target: Callable[[], Any]) -> None:
    """Run `target` in a process of its own, which must end by SIGKILL."""
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_a_model_whose_world_turned_is_beaten_and_the_candidate_passes(world: World) -> None:
    outcome = world.run()

    assert outcome is not None
    assert (outcome.verdict, {arm.arm.name for arm in outcome.arms}) == ("pass", {"same", "q90"})
    winner = winner_of(outcome)
    assert winner.against_champion[0].high < 0
    assert winner.artifact_digest == outcome.candidate_digest
    assert [arm.version for arm in outcome.arms if arm.arm.name != outcome.winner] == [""]
    run_end = next(event for _, event in world.events() if isinstance(event, RunEnd))
    assert (run_end.version, run_end.retrain_key, run_end.arm) == (outcome.candidate_version, "order-1", outcome.winner)


def winner_of(outcome: RetrainOutcome) -> ArmResult:
    return next(arm for arm in outcome.arms if arm.arm.name == outcome.winner)


def test_a_described_candidate_has_a_card_of_the_gates_own_checks_and_the_outcome_names_it(world: World) -> None:
    publisher = EventPublisher(world.bus.publisher(), source="test", clock=ManualClock())
    outcome = run_retrain(
        world.folder, world.task, RetrainingConfig(max_workers=1), artifacts=world.root / "models", registry=NoRegistry(),
        publisher=publisher, clock=ManualClock(), metrics=MetricSet(), describing=Describing(),
    )  # fmt: skip
    publisher.close()

    assert outcome is not None
    content = (world.root / "models" / MODEL / outcome.candidate_version / "card.json").read_bytes()
    card = decode_card(content)
    assert (outcome.card_digest, outcome.is_signed) == (card_digest(content), False)
    assert card.gate == CardGate(verdict=outcome.verdict, reasons=outcome.reasons, checks=outcome.checks)
    assert card.origin.parent == CardParent(version=world.champion.version, digest=world.champion.artifact_digest)
    run_end = world.folder.read_run_end()
    assert run_end is not None
    assert run_end.card_digest == outcome.card_digest


def test_only_rows_newer_than_the_champions_data_face_the_gate(world: World) -> None:
    outcome = world.run()

    assert outcome is not None
    whole = winner_of(outcome).against_champion[0]
    assert whole.num_blocks == 12, "days 34, 39, ... 89: every fifth, none of the champion's thirty"


def test_where_nothing_changed_the_gate_does_not_pass_for_lack_of_a_difference(tmp_path: Path) -> None:
    outcome = World(tmp_path, Toy(turn_day=1_000)).run()

    assert outcome is not None
    assert outcome.verdict != "pass" or winner_of(outcome).against_champion[0].high < 0
    assert outcome.winner == "same" or winner_of(outcome).against_same[0].difference < 0


def test_arms_are_judged_on_the_newest_quarter_of_the_days(world: World) -> None:
    outcome = world.run()

    assert outcome is not None
    q90 = next(arm for arm in outcome.arms if arm.arm.name == "q90")
    assert q90.against_same[0].num_blocks == 18, "of the 72 of 90 days that are not held out"


def test_an_order_of_one_arm_trains_once_and_has_nothing_to_choose(world: World) -> None:
    trained: list[int] = []

    class Counting(Toy):
        def optimizer(self, module: Any) -> Any:
            trained.append(1)
            return super().optimizer(module)

    world.order(arms=world.champion.candidates[:1], seeds=(0, 1))

    outcome = world.run(task=Counting())

    assert outcome is not None
    assert (outcome.verdict, outcome.winner, len(outcome.arms)) == ("pass", "same", 1)
    assert outcome.arms[0].against_same == ()
    assert len(trained) <= 2, "one training, and the gradient probe's look at the optimizer"


def test_workers_in_processes_give_the_same_bytes_as_one_process(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")

    alone, together = world.run(max_workers=1), other.run(max_workers=3)

    assert alone is not None
    assert together is not None
    assert (alone.candidate_version, alone.candidate_digest) == (together.candidate_version, together.candidate_digest)
    assert [arm.against_same for arm in alone.arms] == [arm.against_same for arm in together.arms]


@pytest.mark.slow
def test_a_retrain_of_samples_clipped_one_by_one_gets_a_temperature_and_keeps_its_rule(world: World) -> None:
    pytest.importorskip("opacus")
    tight, loose = (ClipSpec(kind="per_sample", max_norm=bound) for bound in (0.01, 1.0))
    arms = (Arm(name="same", clip=tight), Arm(name="q90", clip=loose))
    world.order(champion_clip=tight, arms=arms, data_start_ms=30 * DAY)

    outcome = world.run(task=TooSure(learning_rate=0.3))

    assert outcome is not None
    assert outcome.winner == "q90"
    (run_end,) = (event for _, event in world.events() if isinstance(event, RunEnd))
    assert run_end.clip == loose
    assert run_end.temperature != 1.0
    assert {arm.clip.kind for arm in run_end.candidates} == {"per_sample"}
    assert winner_of(outcome).against_champion[0].num_blocks == 6, "of the twelve fresh days half went to the temperature"


@pytest.mark.slow
@pytest.mark.parametrize("champion_clip", [CLIP, ClipSpec(kind="per_sample", max_norm=0.01)], ids=lambda clip: clip.kind)
def test_arms_clipped_by_sample_and_by_batch_are_judged_on_the_same_rows(world: World, champion_clip: ClipSpec) -> None:
    pytest.importorskip("opacus")
    arms = (Arm(name="same", clip=CLIP), Arm(name="by sample", clip=ClipSpec(kind="per_sample", max_norm=1.0)))
    world.order(champion_clip=champion_clip, arms=arms, data_start_ms=30 * DAY)

    outcome = world.run(task=TooSure(learning_rate=0.3))

    assert outcome is not None
    assert len(outcome.arms) == 2, outcome.reasons
    same, by_sample = outcome.arms
    assert by_sample.against_same[0].num_blocks == 6, "of the twelve newest days half went to the temperatures"
    assert same.validation[0].num_rows == by_sample.validation[0].num_rows
    (run_end,) = (event for _, event in world.events() if isinstance(event, RunEnd))
    assert winner_of(outcome).against_champion[0].num_blocks == 6
    assert (run_end.clip, run_end.temperature != 1.0) == (winner_of(outcome).arm.clip, True)


class DyingRegistry(NoRegistry):
    def __init__(self, at: str) -> None:
        self._at = at

    def prepare(self) -> None:
        if self._at == "arms are being fitted":
            die()

    def register(self, run: RunEnd) -> str:
        if self._at == "exported":
            die()
        return ""


class DyingFolder(JobFolder):
    """Dies when the outcome is about to be written, or right after."""

    def __init__(self, world: World, at: str) -> None:
        super().__init__(world.root / "jobs", "order-1")
        self._at = at

    def write_outcome(self, outcome: RetrainOutcome) -> None:
        if self._at == "run end written":
            die()
        super().write_outcome(outcome)
        if self._at == "outcome written":
            die()


class DyingTask(Toy):
    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        die()
        raise AssertionError


POINTS = ("rows are being loaded", "arms are being fitted", "exported", "run end written", "outcome written")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RetrainOutcome | None:
    return World(tmp_path_factory.mktemp("undisturbed")).run()


@pytest.mark.parametrize("point", POINTS)
def test_a_job_killed_at_any_point_ends_as_if_it_had_not_been(
    world: World, undisturbed: RetrainOutcome | None, point: str
) -> None:
    task = DyingTask() if point == "rows are being loaded" else None

    killed(lambda: world.run(task=task, registry=DyingRegistry(point), folder=DyingFolder(world, point)))
    outcome = world.run()
    again = world.run()

    assert undisturbed is not None
    assert outcome is not None
    assert again == outcome
    assert (outcome.candidate_version, outcome.candidate_digest) == (
        undisturbed.candidate_version,
        undisturbed.candidate_digest,
    )
    by_id: dict[str, set[bytes]] = {}
    for event_id, event in world.events():
        if isinstance(event, RunEnd | RetrainOutcome):
            by_id.setdefault(event_id, set()).add(msgspec.json.encode(event))
    assert {event_id: len(contents) for event_id, contents in by_id.items()} == {
        "run-end-order-1": 1,
        "retrain-outcome-order-1": 1,
    }


def test_workers_of_a_killed_job_die_with_it_and_let_go_of_the_lock(world: World) -> None:
    slow = Toy()
    slow.num_steps = 1_000_000
    world.order(seeds=(0, 1, 2))
    parent = multiprocessing.get_context("fork").Process(target=lambda: world.run(task=slow, max_workers=2))
    parent.start()
    wait_until(lambda: len(children_of(parent.pid)) == 2, "two workers")

    parent.kill()
    parent.join(10)

    assert parent.exitcode == -signal.SIGKILL
    wait_until(lambda: world.folder.state() == "requested", "a free lock")


def children_of(pid: int | None) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_second_process_leaves_a_job_that_is_being_carried_out_alone(world: World) -> None:
    with world.folder.claim():
        assert world.run() is None


def test_a_folder_without_an_order_says_so(world: World) -> None:
    world.folder.request_path.unlink()

    with pytest.raises(ClipdriftError, match="no readable order"):
        world.run()


class FailingTask(Toy):
    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        raise RuntimeError("the warehouse is on fire")


class EmptyTask(Toy):
    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        return super().load(0, DAY, end_ms).select(np.zeros(0, np.int64))


class RenamedTask(Toy):
    classes = ("ok", "broken")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (FailingTask(), "RuntimeError: the warehouse is on fire"),
        (EmptyTask(), "too few"),
        (RenamedTask(), "they cannot be compared"),
    ],
)
def test_whatever_the_task_does_wrong_the_order_ends_with_a_reason(world: World, task: Toy, words: str) -> None:
    outcome = world.run(task=task)

    assert outcome is not None
    assert outcome.verdict == "inconclusive"
    assert words in outcome.reasons[0]
    assert str(world.folder.log_path) in outcome.reasons[0]
    assert [event for _, event in world.events() if isinstance(event, RetrainOutcome)] == [outcome]


def test_a_champion_that_is_missing_or_changed_is_named(world: World) -> None:
    path = Path(world.champion.artifact_uri.removeprefix("file://"))
    world.order(champion_digest="sha256:0")
    changed = world.run()
    world.folder.outcome_path.unlink()
    path.unlink()
    missing = world.run()

    assert changed is not None
    assert "is not the file that was deployed" in changed.reasons[0]
    assert missing is not None
    assert "cannot be read" in missing.reasons[0]
    assert "restore it, or deploy another" in missing.reasons[0]


def test_with_a_window_that_holds_no_new_days_nothing_is_decided(world: World) -> None:
    world.order(as_of_ms=31 * DAY)

    outcome = world.run()

    assert outcome is not None
    assert outcome.verdict == "inconclusive"
    assert "neither model was trained on" in outcome.reasons[0]


class AwayBus:
    """A publisher whose broker never answers."""

    def publish(self, *_: Any, **__: Any) -> None: ...

    def flush(self, timeout_seconds: float) -> None:
        raise RetryableError("the bus is away")

    def num_queued(self) -> int:
        return 1

    def close(self, timeout_seconds: float = 10.0) -> None: ...


@pytest.mark.slow
def test_a_bus_that_is_away_loses_no_work_the_next_start_only_publishes(world: World) -> None:
    with pytest.raises(RetryableError):
        run_retrain(
            world.folder, world.task, RetrainingConfig(max_workers=1), artifacts=world.root / "models", registry=NoRegistry(),
            publisher=EventPublisher(AwayBus(), source="test", clock=ManualClock()), clock=ManualClock(), metrics=MetricSet(),
        )  # fmt: skip
    written = world.folder.read_outcome()

    outcome = world.run(task=DyingTask())  # would die if it loaded anything

    assert outcome == written is not None
    kinds = [type(event) for _, event in world.events() if isinstance(event, RunEnd | RetrainOutcome)]
    assert sorted(kinds, key=str) == sorted([RunEnd, RetrainOutcome], key=str)


def test_the_time_spent_counts_the_workers_too(world: World) -> None:
    outcome = world.run(max_workers=2)

    assert outcome is not None
    assert outcome.wall_seconds > 0
    assert outcome.cpu_seconds > 0
