import numpy as np
import pytest
import torch
from ablation.studies import PRESENT, Exploding, Traced, make_study
from toy_task import Toy

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.ablation.trial import Failure, Job, attempt, run_trial
from clipdrift_trainer.evaluation.scores import score_slices
from clipdrift_trainer.tasks.fitting import fit, predict_logits, to_scores
from clipdrift_trainer.tasks.task import encode

OFF = ClipSpec(kind="off")


@pytest.mark.parametrize("other", [OFF, ClipSpec(kind="autoclip"), ClipSpec(kind="value", max_norm=0.01)])
def test_all_arms_of_a_seed_share_initial_weights_and_batches(other: ClipSpec) -> None:
    first, second = Traced(), Traced()

    run_trial(make_study(first), Job(arm="a", clip=PRESENT, seed=3))
    run_trial(make_study(second), Job(arm="b", clip=other, seed=3))

    assert all(torch.equal(a, b) for a, b in zip(first.initial, second.initial, strict=True))
    assert len(first.batches) == first.num_steps
    assert all(torch.equal(a, b) for a, b in zip(first.batches, second.batches, strict=True))


def test_another_seed_has_other_weights_and_batches() -> None:
    first, second = Traced(), Traced()

    run_trial(make_study(first), Job(arm="a", clip=PRESENT, seed=3))
    run_trial(make_study(second), Job(arm="a", clip=PRESENT, seed=4))

    assert not torch.equal(first.initial[0], second.initial[0])
    assert not torch.equal(first.batches[0], second.batches[0])


def test_the_figures_are_those_of_a_training_by_hand() -> None:
    study = make_study(later_days=3)
    prepared, task = study.prepared, study.task
    fitted = fit(task, prepared.rows.select(prepared.train), prepared.vocabularies, PRESENT, 1)

    trial = run_trial(study, Job(arm="present", clip=PRESENT, seed=1))

    for sums, rows in ((trial.validation, prepared.rows.select(prepared.held_out)), (trial.later, study.later)):
        scores = to_scores(predict_logits(fitted.module, encode(task, rows, prepared.vocabularies)), task.kind)
        whole = score_slices(scores, rows.label, np.zeros(len(rows)), ["all"], task.kind)[0]
        assert sums.num_rows == whole.num_rows
        assert sums.mean("brier") == pytest.approx(whole.brier_sum / whole.num_rows)
    assert trial.removed_mass_ratio == fitted.removed_mass_ratio
    assert trial.num_steps == task.num_steps


def test_a_trial_made_again_is_the_same() -> None:
    job = Job(arm="present", clip=PRESENT, seed=1)
    assert run_trial(make_study(), job) == run_trial(make_study(), job)


def test_a_hotter_trial_has_the_learning_rate_of_its_factor_and_the_same_start() -> None:
    cool, hot = Traced(), Traced()

    run_trial(make_study(cool), Job(arm="a", clip=PRESENT, seed=1))
    trial = run_trial(make_study(hot), Job(arm="a", clip=PRESENT, seed=1, learning_rate_factor=2.0))

    assert trial.learning_rate == pytest.approx(2 * cool.learning_rate)
    assert all(torch.equal(a, b) for a, b in zip(cool.batches, hot.batches, strict=True))


def test_a_model_whose_answers_are_not_finite_has_diverged_and_is_no_error() -> None:
    found = attempt(make_study(Exploding()), Job(arm="off", clip=OFF, seed=0)).found

    assert found.has_diverged
    assert found.later is None


def test_what_raises_is_told_in_one_line_with_its_place_in_the_task() -> None:
    class Broken(Toy):
        def build(self, context):
            raise KeyError("layers")

    found = attempt(make_study(Broken()), Job(arm="off", clip=OFF, seed=0)).found

    assert isinstance(found, Failure)
    assert found.reason.startswith("KeyError: 'layers' (in build, line ")
    assert "Traceback" in found.trace
