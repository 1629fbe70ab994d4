"""Arms against each other and the winner against the model in service, on made-up answers whose truth is known."""

import msgspec
import numpy as np
import pytest
import torch

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ArmResult, ClipSpec, GradWindow
from clipdrift_trainer.retraining.arms import FittedArm
from clipdrift_trainer.retraining.gate import GatePolicy
from clipdrift_trainer.retraining.judging import HeldOut, choose_arm, judge_candidate, judgement_of, only_arm
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


def arm(
    name: str, scores: np.ndarray, seed: int = 0, clip: ClipSpec | None = None, losses: tuple[float, ...] = ()
) -> FittedArm:
    window = GradWindow(
        run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=1, num_clipped=1, norm_sum=2.0,
        norm_removed_sum=1.0,
    )  # fmt: skip
    fit = Fit(torch.nn.Linear(1, 1), "SGD", 0.1, 2, None, window)
    windows = [msgspec.structs.replace(window, loss_sum=loss) for loss in losses]
    bounded = Arm(name=name, clip=clip or ClipSpec(kind="global_norm", max_norm=1.0))
    return FittedArm(arm=bounded, seed=seed, fit=fit, windows=windows, scores=scores)


def held_out(champion: np.ndarray, fresh_from_day: int = 5) -> HeldOut:
    is_fresh = fresh_from_day * DAY <= TIME_MS
    return HeldOut(
        kind="binary", label=LABEL_N, time_ms=TIME_MS, slice_index=np.tile(np.array([0, 1], np.int16), len(LABEL_N) // 2),
        slice_names=("a", "b"), is_fresh=is_fresh, champion_scores=champion[is_fresh],
    )  # fmt: skip


ROWS = held_out(answers(0.1))
LOOSE = ClipSpec(kind="global_norm", max_norm=9.0)


def test_the_better_arm_wins_by_all_rows_that_judge() -> None:
    choice = choose_arm([arm("same", answers(0.3)), arm("q90", answers(0.6, 1))], ROWS, GatePolicy())

    same, q90 = choice.results
    assert choice.winner == "q90"
    assert same.against_same == ()
    assert q90.against_same[0].num_rows == 2_000
    assert q90.removed_mass_ratio == 0.5


def test_the_winner_faces_the_model_in_service_on_fresh_rows_only_and_the_others_do_not() -> None:
    choice = choose_arm([arm("same", answers(0.3)), arm("q90", answers(0.6, 1))], ROWS, GatePolicy())

    judgement = judgement_of(choice, arm("q90", answers(0.6, 1)), held_out(answers(0.2, 2)), GatePolicy())

    same, q90 = judgement.results
    assert judgement.verdict.verdict == "pass"
    assert (same.against_champion, q90.against_champion[0].num_rows) == ((), 1_500)


def test_a_champion_that_is_better_keeps_its_place() -> None:
    _, verdict = judge_candidate(arm("same", answers(0.3)), held_out(answers(0.6, 1)), GatePolicy())

    assert verdict.verdict == "fail"


def test_a_candidate_that_diverged_when_it_was_fitted_on_all_days_decides_nothing() -> None:
    found, verdict = judge_candidate(arm("same", np.full((len(LABEL_N), 2), np.nan)), ROWS, GatePolicy())

    assert (found, verdict.verdict) == ((), "inconclusive")
    assert "lower the task's learning rate" in verdict.reasons[0]


def test_a_diverged_arm_has_no_figures_cannot_win_and_is_named() -> None:
    lost = np.full((len(LABEL_N), 2), np.nan)

    choice = choose_arm([arm("same", answers(0.3)), arm("wild", lost)], ROWS, GatePolicy())

    assert (choice.winner, choice.notes) == ("same", ("arm wild diverged and is out",))
    wild = choice.results[1]
    assert (wild.validation, wild.against_same, wild.against_champion) == ((), (), ())
    for result in choice.results:  # NaN would be written as null and never be read again
        assert msgspec.json.decode(msgspec.json.encode(result), type=ArmResult) == result


def test_when_same_diverged_the_best_of_the_others_wins() -> None:
    lost = np.full((len(LABEL_N), 2), np.nan)
    arms = [arm("same", lost), arm("q90", answers(0.3)), arm("autoclip_p10", answers(0.6))]

    assert choose_arm(arms, ROWS, GatePolicy()).winner == "autoclip_p10"


def test_when_every_arm_diverged_the_user_is_told_what_to_change() -> None:
    with pytest.raises(ClipdriftError, match="lower the task's learning rate"):
        choose_arm([arm("same", np.full((len(LABEL_N), 2), np.nan))], ROWS, GatePolicy())


def test_a_looser_bound_whose_loss_leapt_cannot_win_however_well_it_validates() -> None:
    calm, wild = (0.7, 0.5, 0.4), (0.7, 0.5, 1.1)
    same, loose = arm("same", answers(0.3), losses=calm), arm("q90", answers(0.6, 1), clip=LOOSE, losses=wild)

    choice = choose_arm([same, loose], ROWS, GatePolicy())

    assert choice.winner == "same"
    assert choice.notes == ("arm q90 is out: with its looser bound its loss leapt to 2.2 times what it had been",)
    assert choice.results[1].against_same[0].high < 0, "what it would have brought is still told"


@pytest.mark.parametrize(
    "old",
    [
        ClipSpec(kind="autoclip", percentile=10.0),
        ClipSpec(kind="per_tensor", max_norm=10.0),
        ClipSpec(kind="value", max_norm=0.01),
    ],
    ids=lambda clip: clip.kind,
)
def test_an_arm_of_another_kind_must_stay_stable_whatever_number_the_old_rule_had(old: ClipSpec) -> None:
    calm, wild = (0.7, 0.5, 0.4), (0.7, 0.5, 1.1)
    same, loose = arm("same", answers(0.3), clip=old, losses=calm), arm("q90", answers(0.6, 1), clip=LOOSE, losses=wild)

    choice = choose_arm([same, loose], ROWS, GatePolicy())

    assert (choice.winner, choice.notes) == (
        "same",
        ("arm q90 is out: with its other rule its loss leapt to 2.2 times what it had been",),
    )


def test_a_lower_bound_of_the_same_kind_needs_no_proof_of_stability() -> None:
    calm, wild = (0.7, 0.5, 0.4), (0.7, 0.5, 1.1)
    same, tight = arm("same", answers(0.3), clip=LOOSE, losses=calm), arm("q90", answers(0.6, 1), losses=wild)

    assert choose_arm([same, tight], ROWS, GatePolicy()).winner == "q90"


def test_where_same_diverged_and_the_rest_was_unstable_nothing_wins_and_the_reasons_are_told() -> None:
    wild = (0.7, 0.5, 1.1)
    same = arm("same", np.full((len(LABEL_N), 2), np.nan), losses=wild)  # its own leap excuses nobody's
    loose = arm("q90", answers(0.6, 1), clip=LOOSE, losses=wild)

    with pytest.raises(
        ClipdriftError, match=r"no arm can be trusted.*same diverged.*q90 is out: with its looser bound its loss leapt"
    ):
        choose_arm([same, loose], ROWS, GatePolicy())


def test_what_the_old_bound_shows_too_is_not_held_against_a_looser_one() -> None:
    wild = (0.7, 0.5, 1.1)
    same, loose = arm("same", answers(0.3), losses=wild), arm("q90", answers(0.6, 1), clip=LOOSE, losses=wild)

    assert choose_arm([same, loose], ROWS, GatePolicy()).winner == "q90"


def test_an_arm_that_a_slice_pays_for_cannot_win() -> None:
    is_b = ROWS.slice_index == 1
    better_on_a = np.where(is_b[:, None], answers(0.1, 1), answers(0.9, 1))

    choice = choose_arm([arm("same", answers(0.3)), arm("q90", better_on_a)], ROWS, GatePolicy())

    assert choice.results[1].against_same[0].high < 0, "better over all rows"
    assert (choice.winner, choice.notes) == ("same", ("arm q90 is out: worse than same on b",))


def test_only_the_seed_that_is_exported_faces_the_gate() -> None:
    arms = [arm("same", answers(0.3), seed=0), arm("same", answers(0.9, 1), seed=1)]
    choice = choose_arm(arms, ROWS, GatePolicy())

    judgement = judgement_of(choice, arms[0], held_out(answers(0.6, 2)), GatePolicy())

    assert judgement.verdict.verdict == "fail"
    assert judgement.results[0].seeds == (0, 1)


def test_an_arm_alone_is_the_choice() -> None:
    choice = only_arm(arm("same", answers(0.3)), ROWS)

    assert (choice.winner, len(choice.results), choice.results[0].validation[0].num_rows) == ("same", 1, 2_000)


def test_without_the_arm_same_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="'same'"):
        choose_arm([arm("q90", answers(0.3))], ROWS, GatePolicy())
