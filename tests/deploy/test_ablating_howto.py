"""The how-to's commands are commands, and its code runs on what an ablation of the small project wrote."""

import re
import shlex
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console

from clipdrift_deploy.ablating import Asked, ablate_model
from clipdrift_deploy.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "ablate.md"
DAY = 86_400_000


def test_the_code_of_the_howto_runs_on_a_result(make_project, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Asked(
        start_ms=0, end_ms=15 * DAY, as_of_ms=15 * DAY, thresholds=(0.1,), num_seeds=2, num_workers=1, out=Path("pump-ablation")
    )
    result, _ = ablate_model(make_project(), "pump", asked, Console(file=StringIO()))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

    exec(compile(code, str(PAGE), "exec"), {})

    said = capsys.readouterr().out.splitlines()
    assert said[0] == result.recommendation.headline
    assert len(said) == len(result.arms)


@pytest.mark.parametrize("line", re.findall(r"^    clipdrift (ablate .*)$", PAGE.read_text(), re.MULTILINE))
def test_every_command_of_the_howto_is_understood(line: str) -> None:
    command = typer.main.get_command(app)
    _, *words = shlex.split(line)

    command.commands["ablate"].make_context("ablate", words)  # type: ignore[attr-defined]


def test_the_howto_names_every_limit_as_it_is() -> None:
    from clipdrift_trainer.ablation.grid import MULTIPLES
    from clipdrift_trainer.ablation.recommendation import AblationPolicy

    page, policy = PAGE.read_text(), AblationPolicy()
    assert ", ".join(f"{one:g}" for one in MULTIPLES) in page
    assert f"{policy.relative_margin:.0%}".replace("%", " %") in page
    assert f"above {policy.stability.most_growth:g}" in page
    assert (policy.stability.learning_rate_factor, policy.stability.num_seeds, policy.stability.most_spike) == (2.0, 2, 10.0)
