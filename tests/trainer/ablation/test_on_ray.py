"""The same ablation on a Ray of two CPUs that is started here, and ended."""

from pathlib import Path

import pytest
from ablation.studies import make_question, make_study

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.ablation.run import RESULT_FILE, ablate
from clipdrift_trainer.ablation.runners import in_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[1]


def test_a_cluster_gives_the_same_bytes_as_processes_do(tmp_path: Path) -> None:
    from clipdrift_trainer.ablation.on_ray import on_ray

    study, steps = make_study(later_days=3), []

    ablate(make_question(), study, "code", tmp_path / "ray", on_ray("local", ROOT), steps.append)
    ablate(make_question(), study, "code", tmp_path / "here", in_processes(1), lambda step: None)

    assert (tmp_path / "ray" / RESULT_FILE).read_bytes() == (tmp_path / "here" / RESULT_FILE).read_bytes()
    assert not any(step.was_kept for step in steps)


def test_where_no_cluster_answers_it_is_said() -> None:
    from clipdrift_trainer.ablation.on_ray import on_ray

    with pytest.raises(ClipdriftError, match="no Ray cluster answers at 'auto'"), on_ray("auto")(make_study()):
        pass
