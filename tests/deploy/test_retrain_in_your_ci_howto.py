"""The how-to's way from an empty folder: its commands run, and its files and settings are what it says."""

import re
import shlex
import tomllib
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from clipdrift_deploy.cli import app
from clipdrift_deploy.pipeline_files import PIPELINES
from clipdrift_monitor.actions.config import CiConfig

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "retrain-in-your-ci.md").read_text()
COMMANDS = re.findall(r"^\$ clipdrift (.*)$", PAGE, re.MULTILINE)


def test_an_empty_folder_becomes_a_project_with_its_pipeline_a_version_and_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = [CliRunner().invoke(app, shlex.split(line)) for line in COMMANDS[:3]]

    assert [one.exit_code for one in ended] == [0, 0, 0], [one.output for one in ended]
    assert all((tmp_path / place).exists() for place in PIPELINES["github"].files)
    assert list(tmp_path.glob(".clipdrift/models/pump/*/model.onnx"))
    assert 'scopes = ["report"]' in ended[2].output


def test_an_order_is_asked_of_the_monitor_in_the_words_of_the_page() -> None:
    (order,) = COMMANDS[3:]
    assert "--why" in shlex.split(order)


def test_the_settings_of_the_page_are_settings_and_the_ones_that_the_command_names() -> None:
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)

    assert settings.strip() == PIPELINES["github"].settings
    assert msgspec.convert(tomllib.loads(settings)["monitor"]["ci"], CiConfig).backend == "github"


@pytest.mark.parametrize("ci", PIPELINES)
def test_the_page_names_every_file_that_is_written(ci: str) -> None:
    (row,) = re.findall(rf"^\| `{ci}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", row)) == set(PIPELINES[ci].files)
