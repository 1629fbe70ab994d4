"""`clipdrift watch` and `clipdrift clip-report` as a user meets them."""

import re
from pathlib import Path

import pytest
from made_runs import rich_end, window

from clipdrift_contract.clock import ManualClock
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
