"""What the arms of a retrain are trained and judged on."""

import numpy as np
import pytest
from toy_task import DAY, Toy

from clipdrift_contract.events import Arm, ClipSpec, RetrainRequest
from clipdrift_trainer.retraining.arms import Work, in_time_order, training_for
from clipdrift_trainer.training import TooFewRowsError, TrainingConfig, prepare

BATCH, SAMPLE = (Arm(name=kind, clip=ClipSpec(kind=kind, max_norm=1.0)) for kind in ("global_norm", "per_sample"))


def work(num_days: int, config: TrainingConfig | None = None) -> Work:
    task, training, end_ms = Toy(), config or TrainingConfig(), num_days * DAY
    request = RetrainRequest(
        key="k", model="m", cause="test", decision_id="d", requested_at_ms=end_ms, as_of_ms=end_ms, data_start_ms=0,
        champion_version="", champion_uri="", champion_digest="", champion_clip=BATCH.clip, generation=1, arms=(BATCH,),
    )  # fmt: skip
    return Work(task=task, training=training, prepared=prepare(task, training, 0, end_ms, end_ms), request=request)


def days_of(one: Work, part: np.ndarray) -> set[int]:
    return set((one.prepared.rows.time_ms[part] // DAY).tolist())


@pytest.mark.parametrize("num_days", [5, 6, 7, 23, 90])
def test_days_that_choose_an_arm_and_days_that_gate_it_are_disjoint(num_days: int) -> None:
    whole = work(num_days)
    older = in_time_order(whole)
    gating, choosing = days_of(whole, whole.prepared.held_out), days_of(older, older.prepared.held_out)

    assert gating
    assert choosing
    assert not gating & (choosing | days_of(older, older.prepared.train))
    assert choosing | days_of(older, older.prepared.train) == days_of(whole, whole.prepared.train)
    assert min(choosing) > max(days_of(older, older.prepared.train))


def test_a_single_training_day_leaves_nothing_to_choose_by() -> None:
    with pytest.raises(TooFewRowsError, match="on 2 days are too few: choosing between arms"):
        in_time_order(work(2, TrainingConfig(hold_out_every=2, hold_out_offset=1)))


@pytest.mark.parametrize(
    ("arms", "calibrated"), [((BATCH,), False), ((SAMPLE,), True), ((BATCH, SAMPLE), True), ((SAMPLE, BATCH), True)]
)
def test_where_one_arm_needs_a_temperature_all_get_one(arms: tuple[Arm, ...], calibrated: bool) -> None:
    assert training_for(arms, TrainingConfig()).calibrate is calibrated
    assert training_for(arms, TrainingConfig(calibrate=True)).calibrate
