"""`clipdrift watch`, `clip-report` and `run-metrics` as a user meets them."""

import re
import subprocess
from pathlib import Path

import pytest
from made_runs import rich_end, window

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.clip_report.gathering import RunRecord
from clipdrift_deploy.run_metrics import write_run_metrics
from clipdrift_deploy.telemetry import TelemetrySection
from clipdrift_trainer.recording.sinks.lines import LinesSink

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "send-training-telemetry.md"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    sink = LinesSink(tmp_path / "run.jsonl", clock=ManualClock())
    sink.send([window(0), window(50), rich_end()])
    sink.close()
    return sink.path


def test_a_report_is_written_from_a_file_without_a_project(clipdrift, run: Path) -> None:
    to = run.with_name("out") / "report.html"
    result = clipdrift("clip-report", run, "--out", to)
    assert result.exit_code == 0, result.output
    assert result.stdout.replace("\n", "").startswith("Clipping is unlikely to be the problem herewrote ")
    assert "<h1>Clipping of pump, version 20130301-abc</h1>" in to.read_text()


def test_what_is_not_there_is_one_sentence(clipdrift, run: Path, make_project) -> None:
    for arguments in (("clip-report", run, "--run", "x"), ("clip-report", "pump", "-p", make_project().folder)):
        result = clipdrift(*arguments)
        assert result.exit_code == 2
        assert re.match(r"clipdrift: (no run has|there is no run)", result.stderr)
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["clip-report", "watch"])
def test_a_file_of_another_kind_is_one_sentence(clipdrift, command: str, tmp_path: Path) -> None:
    other = tmp_path / "notes.jsonl"
    other.write_text("a note\nanother\n")
    result = clipdrift(command, other)
    assert result.exit_code == 2
    assert result.stderr.startswith("clipdrift: ")
    assert "there is no run in" in result.stderr.replace("\n", "")


def test_a_file_that_is_not_there_says_where_such_files_are_written(clipdrift, tmp_path: Path) -> None:
    result = clipdrift("clip-report", tmp_path / "missing.jsonl")
    assert result.exit_code == 2
    assert "missing.jsonl cannot be read" in result.stderr
    assert "[training.telemetry] jsonl_folder" in result.stderr


def test_a_run_that_has_ended_is_shown_once(clipdrift, run: Path) -> None:
    result = clipdrift("watch", run)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2].startswith("training pump: 100 of 1,500 steps, loss 0.5, norm 2, removed 50%")
    assert result.stdout.splitlines()[-1].endswith("ended, version 20130301-abc")


def test_the_settings_of_the_howto_are_settings() -> None:
    (table,) = re.findall(r"```toml\n\[training.telemetry\]\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert {line.split()[0] for line in table.splitlines()} <= set(TelemetrySection.__struct_fields__)


def test_a_run_that_nobody_scraped_becomes_openmetrics_at_its_own_times(clipdrift, run: Path) -> None:
    to = run.with_name("out") / "run.om"
    result = clipdrift("run-metrics", run, "--out", to)
    assert result.exit_code == 0, result.output
    assert "2 windows at 2 moments in" in result.stdout
    steps = [line for line in to.read_text().splitlines() if line.startswith("clipdrift_trainer_optimizer_steps_total{")]
    assert steps == [
        'clipdrift_trainer_optimizer_steps_total{model="pump"} 50.0 1362096000.050',
        'clipdrift_trainer_optimizer_steps_total{model="pump"} 100.0 1362096000.100',
    ]
    assert to.read_text().endswith("# EOF\n")


def test_windows_of_one_moment_are_one_scrape(tmp_path: Path) -> None:
    windows = (window(0), window(50, ended_at_ms=window(0).ended_at_ms), window(100))
    to = tmp_path / "run.om"
    assert write_run_metrics(RunRecord(run_id="run-1", model="pump", windows=windows), to) == 2
    assert 'clipdrift_trainer_optimizer_steps_total{model="pump"} 100.0 1362096000.050' in to.read_text()


def test_a_run_without_windows_has_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no windows of run run-1"):
        write_run_metrics(RunRecord(run_id="run-1", model="pump", windows=()), tmp_path / "run.om")


@pytest.mark.prometheus
def test_promtool_takes_what_is_written(clipdrift, run: Path, tmp_path: Path) -> None:
    clipdrift("run-metrics", run, "--out", tmp_path / "run.om")
    make = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "run.om"), str(tmp_path / "tsdb")]
    subprocess.run(make, check=True, capture_output=True)
    (tmp_path / "tsdb" / "wal").mkdir()  # without which promtool does not read a folder
    told = subprocess.run(
        ["promtool", "tsdb", "dump", str(tmp_path / "tsdb")], check=True, capture_output=True, text=True
    ).stdout
    assert '{__name__="clipdrift_trainer_loss", model="pump"} 0.5 1362096000050' in told
