"""Arms against each other and the winner against the model in service, on made-up answers whose truth is known."""

import msgspec
import numpy as np
import pytest
import torch

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ArmResult, ClipSpec, GradWindow
from clipdrift_trainer.retraining.arms import FittedArm
from clipdrift_trainer.retraining.gate import GatePolicy
from clipdrift_trainer.retraining.judging import HeldOut, judge_arms
from clipdrift_trainer.tasks.fitting import Fit

DAY = 86_400_000
NUM_DAYS, ROWS_A_DAY = 20, 100
LABEL_N = np.random.default_rng(0).integers(0, 2, NUM_DAYS * ROWS_A_DAY).astype(float)
TIME_MS = np.repeat(np.arange(NUM_DAYS) * DAY, ROWS_A_DAY)


def answers(trust: float, noise_seed: int = 0) -> np.ndarray:
    """Probabilities that lean to the truth by `trust`."""
    noise = np.random.default_rng(noise_seed).normal(0, 0.05, len(LABEL_N))
    one_N = np.clip(0.5 + trust * (LABEL_N - 0.5) + noise, 0.01, 0.99)
    return np.stack([1 - one_N, one_N], axis=1)


def arm(name: str, scores: np.ndarray, seed: int = 0) -> FittedArm:
    window = GradWindow(
        run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=1, num_clipped=1, norm_sum=2.0,
        norm_removed_sum=1.0,
    )  # fmt: skip
    fit = Fit(torch.nn.Linear(1, 1), "SGD", 0.1, 2, None, window)
    return FittedArm(arm=Arm(name=name, clip=ClipSpec()), seed=seed, fit=fit, windows=[], scores=scores)


def held_out(champion: np.ndarray, fresh_from_day: int = 5) -> HeldOut:
    is_fresh = fresh_from_day * DAY <= TIME_MS
    return HeldOut(
        kind="binary", label=LABEL_N, time_ms=TIME_MS, slice_index=np.tile(np.array([0, 1], np.int16), len(LABEL_N) // 2),
        slice_names=("a", "b"), is_fresh=is_fresh, champion_scores=champion[is_fresh],
    )  # fmt: skip


def test_the_better_arm_wins_and_faces_the_gate_on_fresh_rows_only() -> None:
    judgement = judge_arms([arm("same", answers(0.3)), arm("q90", answers(0.6, 1))], held_out(answers(0.2, 2)), GatePolicy())

    assert (judgement.winner, judgement.verdict.verdict) == ("q90", "pass")
    same, q90 = judgement.results
    assert same.against_same == ()
    assert q90.against_same[0].num_rows == 2_000
    assert q90.against_champion[0].num_rows == 1_500
    assert q90.removed_mass_ratio == 0.5


def test_a_champion_that_is_better_keeps_its_place() -> None:
    judgement = judge_arms([arm("same", answers(0.3))], held_out(answers(0.6, 1)), GatePolicy())

    assert judgement.verdict.verdict == "fail"


def test_a_diverged_arm_has_no_figures_cannot_win_and_is_named() -> None:
    lost = np.full((len(LABEL_N), 2), np.nan)

    judgement = judge_arms([arm("same", answers(0.3)), arm("wild", lost)], held_out(answers(0.1)), GatePolicy())

    assert judgement.winner == "same"
    assert "arm wild diverged and is out" in judgement.verdict.reasons
    wild = judgement.results[1]
    assert (wild.validation, wild.against_same, wild.against_champion) == ((), (), ())
    for result in judgement.results:  # NaN would be written as null and never be read again
        assert msgspec.json.decode(msgspec.json.encode(result), type=ArmResult) == result


def test_when_same_diverged_the_best_of_the_others_faces_the_gate() -> None:
    lost = np.full((len(LABEL_N), 2), np.nan)
    arms = [arm("same", lost), arm("q90", answers(0.3)), arm("autoclip_p10", answers(0.6))]

    judgement = judge_arms(arms, held_out(answers(0.1, 2)), GatePolicy())

    assert (judgement.winner, judgement.verdict.verdict) == ("autoclip_p10", "pass")


def test_when_every_arm_diverged_the_user_is_told_what_to_change() -> None:
    with pytest.raises(ClipdriftError, match="lower the task's learning rate"):
        judge_arms([arm("same", np.full((len(LABEL_N), 2), np.nan))], held_out(answers(0.1)), GatePolicy())


def test_only_the_seed_that_is_exported_faces_the_gate() -> None:
    arms = [arm("same", answers(0.3), seed=0), arm("same", answers(0.9, 1), seed=1)]

    judgement = judge_arms(arms, held_out(answers(0.6, 2)), GatePolicy())

    assert judgement.verdict.verdict == "fail"
    assert judgement.results[0].seeds == (0, 1)


def test_without_the_arm_same_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="'same'"):
        judge_arms([arm("q90", answers(0.3))], held_out(answers(0.1)), GatePolicy())
