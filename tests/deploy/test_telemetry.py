"""`[training.telemetry]`: which sinks a project's trainings get, and that a real training reaches them."""

import io

import pytest
from rich.console import Console

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import GradWindow, RunEnd
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy.telemetry import TelemetrySection, sinks_of
from clipdrift_deploy.training import train_model, training_section
from clipdrift_trainer.recording.sinks.lines import LinesReader


def sinks(project, **settings):
    return sinks_of(project, "pump", TelemetrySection(**settings), MetricSet(), ManualClock(now_ms=1_362_096_000_000))


def test_nothing_but_the_bus_is_the_default(make_project) -> None:
    assert sinks(make_project()) == []


def test_each_setting_brings_its_sink(make_project) -> None:
    pytest.importorskip("tensorboard")
    found = sinks(make_project(), jsonl_folder="runs", pushgateway_url="http://gate:9091", tensorboard_folder="board")
    assert [sink.name for sink in found] == ["jsonl", "pushgateway", "tensorboard"]


def test_a_file_is_named_by_model_and_moment_and_never_shared(make_project) -> None:
    project = make_project()
    (first,) = sinks(project, jsonl_folder="runs")
    assert first.path == project.folder / "runs" / "pump-20130301T0000.jsonl"
    first.path.parent.mkdir()
    first.path.touch()
    (second,) = sinks(project, jsonl_folder="runs")
    assert second.path.name == "pump-20130301T0000-2.jsonl"


def test_mlflow_without_a_registry_is_refused(make_project) -> None:
    with pytest.raises(ConfigError, match="registry_url is none"):
        sinks(make_project(), mlflow=True)


def test_an_address_without_its_scheme_is_refused(make_project) -> None:
    project = make_project('[training.telemetry]\npushgateway_url = "gate:9091"\n')
    with pytest.raises(ConfigError, match="must begin with http:// or https://, got 'gate:9091'"):
        training_section(project)


def test_a_training_leaves_its_windows_and_its_end_in_the_file(make_project) -> None:
    project = make_project('[training.telemetry]\njsonl_folder = "runs"\n')
    run = train_model(
        project, "pump", start_ms=0, end_ms=30 * 86_400_000, as_of_ms=30 * 86_400_000, console=Console(file=io.StringIO())
    )
    (path,) = (project.folder / "runs").iterdir()
    events = LinesReader(path).read()
    assert [type(event) for event in events] == [GradWindow, GradWindow, RunEnd]
    assert events[-1] == run
    assert list((project.state / "spool").iterdir()) == []
