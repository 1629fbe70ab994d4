"""What the probe adds to a retrain, and that it never takes anything away."""

from pathlib import Path
from typing import Any

import pytest
from toy_task import DAY, Toy

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import Arm, ClipSpec, RetrainOutcome, RetrainRequest
from clipdrift_contract.jobs import JobFolder
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.retraining.job import RetrainingConfig, run_retrain
from clipdrift_trainer.training import Order, TrainingConfig, train
from clipdrift_trainer.weights import WEIGHTS_NAME

CLIP = ClipSpec(kind="global_norm", max_norm=0.1)
AS_OF = 40 * DAY


def retrained(folder: Path, task: Any = None, *, keep_weights: bool = True) -> RetrainOutcome:
    champion = train(
        Toy(turn_day=20), TrainingConfig(), Order(model="pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, clip=CLIP),
        artifacts=folder, registry=NoRegistry(), publisher=None, clock=ManualClock(), metrics=MetricSet(),
    ).run_end  # fmt: skip
    if not keep_weights:
        (folder / "pump" / champion.version / WEIGHTS_NAME).unlink()
    job = JobFolder(folder / "jobs", "order-1")
    request = RetrainRequest(
        key="order-1", model="pump", cause="test", decision_id="d", requested_at_ms=AS_OF, as_of_ms=AS_OF, data_start_ms=0,
        champion_version=champion.version, champion_uri=champion.artifact_uri, champion_digest=champion.artifact_digest,
        champion_clip=CLIP, generation=1, arms=(Arm(name="same", clip=CLIP),),
    )  # fmt: skip
    job.write_request(request)
    bus = SqliteBus(folder / "bus.db")
    publisher = EventPublisher(bus.publisher(), source="test", clock=ManualClock())
    outcome = run_retrain(
        job, task or Toy(turn_day=20), RetrainingConfig(max_workers=1), artifacts=folder, registry=NoRegistry(),
        publisher=publisher, clock=ManualClock(), metrics=MetricSet(),
    )  # fmt: skip
    publisher.close()
    bus.close()
    assert outcome is not None
    return outcome


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RetrainOutcome:
    return retrained(tmp_path_factory.mktemp("probed"))


def test_the_outcome_says_what_was_foretold_and_what_was_seen(outcome: RetrainOutcome) -> None:
    probe = outcome.probe
    assert probe is not None
    assert (probe.model, probe.clip) == ("pump", CLIP)
    assert probe.recent[0].num_rows > 1_000
    assert probe.recent[0].norm_p50 > probe.trained[0].norm_p50
    assert probe.seen_norm_p50 is not None
    assert probe.seen_norm_p50 > 0
    assert 0 < (probe.seen_removed_mass_ratio or 0) < 1


def test_a_model_whose_weights_are_gone_is_retrained_all_the_same(outcome: RetrainOutcome, tmp_path: Path) -> None:
    without = retrained(tmp_path, keep_weights=False)
    assert without.probe is None
    assert (without.verdict, without.candidate_version) == (outcome.verdict, outcome.candidate_version)


def test_a_probe_that_fails_in_the_users_code_never_fails_the_retrain(outcome: RetrainOutcome, tmp_path: Path) -> None:
    class Forgetful(Toy):
        """Its oldest rows are gone from where they could be loaded for the model's own window."""

        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Any:
            if end_ms == 20 * DAY:
                raise OSError("the archive is away")
            return super().load(start_ms, end_ms, as_of_ms)

    forgetful = retrained(tmp_path, Forgetful(turn_day=20))
    assert forgetful.probe is None
    assert forgetful.verdict == outcome.verdict
