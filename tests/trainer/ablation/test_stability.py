import msgspec
import pytest
from ablation.studies import PRESENT, make_study

from clipdrift_contract.events import NormQuantiles
from clipdrift_trainer.ablation.stability import StabilityPolicy, growth_of, judge_stability, spike_of
from clipdrift_trainer.ablation.trial import Job, Trial, run_trial

POLICY = StabilityPolicy()
CALM = NormQuantiles(p10=0.8, p50=1.0, p90=1.2, p99=2.0)


@pytest.fixture(scope="module")
def trial() -> Trial:
    made = run_trial(make_study(), Job(arm="a", clip=PRESENT, seed=0))
    return msgspec.structs.replace(made, norm_means=(3.0, 2.0, 1.0, 1.0, 1.0, 1.0), norm_quantiles=CALM)


def judge(own: Trial, hot: Trial | None, present_loss: float | None = None):
    loss = own.validation.mean("brier") if present_loss is None else present_loss
    return judge_stability([own], [hot] if hot is not None else [], loss, "brier", 0.004, POLICY)


def test_norms_that_stay_and_a_raised_learning_rate_that_costs_nothing_are_stable(trial: Trial) -> None:
    found = judge(trial, trial)

    assert found.is_stable
    assert "last third over middle third: 1.00" in found.reasons[0]


def test_norms_that_grow_in_the_end_are_not(trial: Trial) -> None:
    growing = msgspec.structs.replace(trial, norm_means=(1.0, 1.0, 1.0, 1.0, 2.0, 2.0))

    assert growth_of(growing) == 2.0
    assert "norms grow" in judge(growing, trial).reasons[0]


def test_norms_that_fall_from_their_first_size_do_not_count_as_growing(trial: Trial) -> None:
    assert growth_of(msgspec.structs.replace(trial, norm_means=(9.0, 9.0, 2.0, 2.0, 1.0, 1.0))) == 0.5


def test_norms_that_jump_are_not(trial: Trial) -> None:
    jumping = msgspec.structs.replace(trial, norm_quantiles=msgspec.structs.replace(CALM, p99=12.0))

    assert spike_of(jumping) == 12.0
    assert "norms jump" in judge(jumping, trial).reasons[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"validation": None}, "it diverges"), ({"num_nonfinite": 3}, "3 steps were not finite")],
)
def test_what_breaks_at_the_raised_learning_rate_is_not(trial: Trial, changes: dict, words: str) -> None:
    found = judge(trial, msgspec.structs.replace(trial, **changes))

    assert not found.is_stable
    assert words in found.reasons[0]


def test_where_the_present_policy_diverges_the_candidate_is_compared_with_itself(trial: Trial) -> None:
    found = judge_stability([trial], [trial], None, "brier", 0.004, POLICY)

    assert found.is_stable
    assert "no worse than the candidate at its usual one" in found.reasons[0]


def test_what_is_worse_than_the_present_policy_at_the_raised_learning_rate_is_not(trial: Trial) -> None:
    loss = trial.validation.mean("brier")

    assert judge(trial, trial, present_loss=loss - 0.0039).is_stable
    assert "above the" in judge(trial, trial, present_loss=loss - 0.0041).reasons[0]


def test_what_nobody_tried_is_not_stable(trial: Trial) -> None:
    assert "nobody tried it" in judge(trial, None).reasons[0]


def test_a_run_too_short_to_have_thirds_does_not_grow(trial: Trial) -> None:
    assert growth_of(msgspec.structs.replace(trial, norm_means=(1.0, 5.0))) == 1.0
