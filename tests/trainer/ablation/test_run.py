"""A whole ablation of the toy task: what is made, what is kept, what goes wrong on the way."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from ablation.studies import Exploding, Moody, make_question, make_study
from toy_task import Toy

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.ablation.result import AblationResult, check_later, figures_of
from clipdrift_trainer.ablation.run import RESULT_FILE, Question, Step, ablate
from clipdrift_trainer.ablation.runners import Run, in_processes
from clipdrift_trainer.ablation.trial import Job, Outcome, Study, attempt

NAMES = ["present", "off", "global norm 5", "AutoClip, 10th percentile", "q90"]


def carry_out(
    folder: Path, question: Question | None = None, study: Study | None = None, runner=None
) -> tuple[AblationResult, list[Step]]:
    steps: list[Step] = []
    result = ablate(question or make_question(), study or make_study(), "code", folder, runner or in_processes(1), steps.append)
    return result, steps


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AblationResult, list[Step]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, *carry_out(folder, study=make_study(later_days=5))


def test_every_arm_is_tried_with_every_seed_and_compared_with_the_present_policy(finished) -> None:
    _, result, _ = finished

    assert [one.arm.name for one in result.arms] == NAMES
    assert {one.seeds for one in result.arms} == {(0, 1)}
    assert all(one.gain is not None and one.gain.num_seeds == 2 for one in result.arms[1:])
    assert all(one.later is not None and one.later.num_days == 5 for one in result.arms)
    assert {one.metric for one in result.arms[1].validation.against_present} == {"brier", "nll", "error", "ece"}


def test_the_result_on_disk_is_the_result(finished) -> None:
    folder, result, _ = finished
    assert msgspec.json.decode((folder / RESULT_FILE).read_bytes(), type=AblationResult) == result


def test_a_second_start_makes_nothing_and_gives_the_same_bytes(finished) -> None:
    folder, _, _ = finished
    before = contents(folder)

    _, steps = carry_out(folder, study=make_study(later_days=5))

    assert all(step.was_kept for step in steps)
    assert contents(folder) == before


def test_processes_give_the_same_bytes_as_none(finished, tmp_path: Path) -> None:
    carry_out(tmp_path, study=make_study(later_days=5), runner=in_processes(2))
    assert contents(tmp_path) == contents(finished[0])


def test_later_months_have_no_say(finished, tmp_path: Path) -> None:
    _, result, _ = finished

    without, _ = carry_out(tmp_path)

    assert without.recommendation == result.recommendation
    assert [one.gain for one in without.arms] == [one.gain for one in result.arms]
    assert without.later_check is None
    assert result.later_check is not None


def test_more_seeds_make_only_the_new_ones(tmp_path: Path) -> None:
    carry_out(tmp_path, make_question(seeds=(0,)))

    _, steps = carry_out(tmp_path, make_question(seeds=(0, 1)))

    assert {step.job.seed for step in steps if not step.was_kept and step.job.learning_rate_factor == 1.0} == {1}


def test_a_start_after_an_interrupt_makes_only_what_is_missing_and_comes_to_the_same(finished, tmp_path: Path) -> None:
    study, done = make_study(later_days=5), []

    def interrupt(step: Step) -> None:
        done.append(step.job)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(make_question(), study, "code", tmp_path, in_processes(1), interrupt)
    _, steps = carry_out(tmp_path, study=study)

    assert sorted(msgspec.json.encode(step.job) for step in steps if step.was_kept) == sorted(map(msgspec.json.encode, done))
    assert contents(tmp_path) == contents(finished[0])


def test_progress_counts_up_to_the_total(finished) -> None:
    _, _, steps = finished
    assert [step.num_done for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].num_total == len(steps)
    assert steps[4].num_total == len(NAMES) * 2


def test_arms_that_raise_are_recorded_and_tried_again_and_the_rest_goes_on(tmp_path: Path) -> None:
    question = make_question(present=ClipSpec(kind="global_norm", max_norm=0.001), thresholds=(0.002, 5.0))

    result, _ = carry_out(tmp_path, question, make_study(Moody()))
    _, again = carry_out(tmp_path, question, make_study(Moody()))

    status = {one.arm.name: one.status for one in result.arms}
    assert (status["present"], status["global norm 0.002"], status["global norm 5"]) == ("done", "done", "failed")
    assert "ArithmeticError: the weights ran off" in next(one.reason for one in result.arms if one.status == "failed")
    assert {step.job.arm for step in again if not step.was_kept} == {
        one.arm.name for one in result.arms if one.status == "failed"
    }


def test_arms_that_diverge_are_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    question = make_question(present=ClipSpec(kind="global_norm", max_norm=1e-40), thresholds=(1e-39, 5.0))

    result, _ = carry_out(tmp_path, question, make_study(Exploding()))

    status = {one.arm.name: one.status for one in result.arms}
    assert (status["present"], status["off"], status["global norm 5"]) == ("done", "diverged", "diverged")
    assert all(one.validation is None for one in result.arms if one.status == "diverged")


def test_where_every_first_run_raises_it_ends_at_once_with_the_reason(tmp_path: Path) -> None:
    class Broken(Toy):
        def build(self, context):
            raise KeyError("layers")

    steps: list[Step] = []
    with pytest.raises(ClipdriftError, match="KeyError: 'layers'"):
        ablate(make_question(), make_study(Broken()), "code", tmp_path, in_processes(1), steps.append)
    assert len(steps) == 2


def test_a_full_disk_loses_the_keeping_and_not_the_work(finished, tmp_path: Path) -> None:
    """No file may grow beyond 600 bytes until the last trial is made: the kernel refuses it as it refuses a full disk."""
    folder, _, finished_steps = finished
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    unwritten = []

    def make_room_at_the_end(step: Step) -> None:
        unwritten.append(step.unwritten)
        if step.num_done == len(finished_steps):
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        ablate(make_question(), make_study(later_days=5), "code", tmp_path, in_processes(1), make_room_at_the_end)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert all(unwritten)
    assert list((tmp_path / "trials").iterdir()) == []
    assert (tmp_path / RESULT_FILE).read_bytes() == (folder / RESULT_FILE).read_bytes()


def test_a_full_disk_loses_a_traceback_and_not_the_work(tmp_path: Path) -> None:
    limits, unwritten = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def fill_the_disk(step: Step) -> None:
        unwritten.append(step.unwritten)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]) if step.num_done < len(NAMES) else limits)

    question = make_question(present=ClipSpec(kind="global_norm", max_norm=0.001), thresholds=(5.0,), seeds=(0,))
    try:
        result = ablate(question, make_study(Moody()), "code", tmp_path, in_processes(1), fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert {one.arm.name for one in result.arms if one.status == "failed"} >= {"global norm 5"}
    assert unwritten[2] == "File too large"


def test_a_result_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).mkdir()
    with pytest.raises(ClipdriftError, match=r"result\.json cannot be written"):
        carry_out(tmp_path, make_question(thresholds=(5.0,), seeds=(0,)))


def test_workers_that_die_are_told_from_trials_that_raise(tmp_path: Path) -> None:
    with pytest.raises(ClipdriftError, match="fewer --workers"):
        carry_out(tmp_path, study=make_study(Dying()), runner=in_processes(2))


class Dying(Toy):
    def build(self, context):
        import os

        os._exit(9)


def test_a_raised_bound_is_tried_at_a_higher_learning_rate_before_it_is_recommended(tmp_path: Path) -> None:
    held_back = make_question(present=ClipSpec(kind="global_norm", max_norm=0.001), thresholds=(0.02, 5.0))

    result, steps = carry_out(tmp_path, held_back, make_study(Toy(turn_day=99), num_days=40, num_steps=60))

    assert result.recommendation.verdict == "use"
    assert result.recommendation.clip.kind != "off"
    hot = [step.job for step in steps if step.job.learning_rate_factor == 2.0]
    assert {job.arm for job in hot} >= {result.recommendation.arm}
    assert any(words.startswith("Stable") for words in result.recommendation.reasons)


def test_arms_that_diverge_later_with_seeds_that_do_not_meet_are_not_compared_there(finished) -> None:
    _, result, steps = finished
    trials: dict[str, dict] = {}
    for step in steps:
        if step.job.learning_rate_factor == 1.0:
            later = None if (step.job.arm, step.job.seed) in (("present", 0), ("off", 1)) else step.found.later
            trials.setdefault(step.job.arm, {})[step.job.seed] = msgspec.structs.replace(step.found, later=later)
    arms = figures_of([one.arm for one in result.arms[:2]], trials, None, "brier")

    assert check_later(arms, trials, "present", "brier") is None
    assert check_later(arms, trials, "off", "brier") is None


def test_seeds_are_different_and_at_least_one() -> None:
    for seeds in ((), (1, 1)):
        with pytest.raises(ValueError, match="seeds must be"):
            make_question(seeds=seeds)


def test_values_are_judged_by_their_squared_error(tmp_path: Path) -> None:
    class Regression(Toy):
        kind = "regression"

    result, _ = carry_out(tmp_path, make_question(thresholds=(5.0,)), make_study(Regression(learning_rate=0.001)))

    assert result.metric == "brier"
    assert all(one.validation.accuracy is None and one.validation.ece is None for one in result.arms if one.validation)


def test_a_runner_may_give_trials_in_any_order(finished, tmp_path: Path) -> None:
    @contextmanager
    def backwards(study: Study) -> Iterator[Run]:
        def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            return ((job, attempt(study, job)) for job in reversed(jobs))

        yield run

    carry_out(tmp_path, study=make_study(later_days=5), runner=backwards)
    assert contents(tmp_path) == contents(finished[0])
