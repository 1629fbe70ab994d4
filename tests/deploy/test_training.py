"""Trainings of a project's models: what lands on the bus, in the registry and on disk, and what goes wrong in which words."""

import io
import socket
import sqlite3
import urllib.request
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from clipdrift_contract.errors import ConfigError, RetryableError
from clipdrift_contract.events import GradWindow, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder
from clipdrift_deploy.project import Environment
from clipdrift_deploy.training import TaskError, carry_out, retraining_config, train_missing, train_model, training_section
from clipdrift_trainer.export import read_artifact
from clipdrift_trainer.training import TrainingConfig

DAY = 86_400_000


def train(project, console=None, **changes):
    given = {"start_ms": 0, "end_ms": 20 * DAY, "as_of_ms": 20 * DAY, "console": console or Console(file=io.StringIO())}
    return train_model(project, "pump", **(given | changes))


def order_of(champion: RunEnd, **changes) -> RetrainRequest:
    asked = RetrainRequest(
        key="order-1", model="pump", cause="test", decision_id="d",
        requested_at_ms=60 * DAY, as_of_ms=60 * DAY, data_start_ms=0,
        champion_version=champion.version, champion_uri=champion.artifact_uri, champion_digest=champion.artifact_digest,
        champion_clip=champion.clip, generation=1, arms=champion.candidates[:1],
    )  # fmt: skip
    return msgspec.structs.replace(asked, **changes)


def test_windows_and_the_run_end_are_on_the_projects_bus(make_project, events_of) -> None:
    project = make_project()

    run = train(project)

    windows = [event for _, event in events_of(project) if isinstance(event, GradWindow)]
    ends = [event for _, event in events_of(project) if isinstance(event, RunEnd)]
    assert sum(window.num_steps for window in windows) == 100
    assert ends == [run]
    assert {window.run_id for window in windows} == {run.run_id}


def test_the_projects_clipping_and_seed_are_used_unless_another_seed_is_given(make_project) -> None:
    project = make_project()

    own, other = train(project), train(project, seed=4)

    assert (own.seed, other.seed) == (3, 4)
    assert own.clip.max_norm == 0.5
    assert own.version != other.version


def test_the_file_lies_below_the_state_folder(make_project) -> None:
    project = make_project()

    run = train(project)

    assert read_artifact(project.artifacts / "pump" / run.version / "model.onnx").digest == run.artifact_digest


def test_labels_that_came_after_as_of_are_not_used(make_project) -> None:
    project = make_project()

    late, early = train(project), train(project, as_of_ms=10 * DAY)

    rows = [run.validation[0].num_rows + run.validation[0].num_train for run in (late, early)]
    assert rows == [20 * 50 - 2, 10 * 50 - 2], "of the last day's rows two had no label at midnight"


def test_a_run_is_entered_into_the_registry(make_project, tmp_path: Path) -> None:
    project = make_project(environment=Environment(registry_url=f"sqlite:///{tmp_path}/mlflow.db"))

    run = train(project)

    assert run.registry_uri == "models:/pump/1"
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT name, version FROM model_versions").fetchall() == [("pump", 1)]


def test_training_settings_reach_the_trainer(make_project) -> None:
    project = make_project("[training]\nhold_out_every = 4\nhold_out_offset = 3\nmax_workers = 1\ngate = {min_rows = 77}\n")

    config = retraining_config(training_section(project))

    assert config.training == TrainingConfig(hold_out_every=4, hold_out_offset=3)
    assert type(config.training) is TrainingConfig, "its text form is part of a version's name"
    assert (config.max_workers, config.gate.min_rows) == (1, 77)
    assert train(project).validation[0].num_rows == 5 * 50 - 2


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[training]\nhold_out_evry = 4\n", r"\[training\] hold_out_evry is no setting; did you mean hold_out_every"),
        ("[training]\nhold_out_every = 1\n", r"\[training\] hold_out_every must be >= 2"),
        ("[training]\nmax_workers = 0\n", r"\[training\] max_workers must be >= 1"),
        ("[training.gate]\nmin_row = 1\n", r"\[training.gate\] min_row is no setting"),
        ("[training.gate]\nmetric = 'auc'\n", r"\[training.gate\] metric must be"),
    ],
)
def test_a_wrong_training_setting_is_refused_by_file_section_and_key(make_project, toml: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"clipdrift\.toml: {words}"):
        training_section(make_project(toml))


def test_a_clipping_rule_without_its_number_is_refused_before_anything_is_loaded(make_project) -> None:
    project = make_project()
    loose = msgspec.structs.replace(project.file.models["pump"].clip, max_norm=None)
    section = msgspec.structs.replace(project.file.models["pump"], clip=loose, options={"breaks_at": "load"})
    project = msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": section}))

    with pytest.raises(ConfigError, match=r"\[models\.pump\] clip: clipping by global_norm needs max_norm"):
        train(project)


def test_data_that_end_before_they_begin_are_refused(make_project) -> None:
    with pytest.raises(ConfigError, match="must begin before they end"):
        train(make_project(), start_ms=DAY, end_ms=DAY)


def test_what_the_task_raises_is_one_sentence_with_its_line_and_the_traceback_is_kept(make_project) -> None:
    project = make_project()
    section = msgspec.structs.replace(project.file.models["pump"], options={"breaks_at": "load"})
    project = msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": section}))
    line = next(
        i for i, text in enumerate((project.folder / "small_task.py").read_text().splitlines(), 1) if "KeyError" in text
    )

    with pytest.raises(TaskError, match=rf"in load \(small_task\.py, line {line}\): KeyError: 'state'"):
        train(project)
    assert "Traceback" in (project.logs / "train-pump-error.txt").read_text()


def test_a_bus_that_is_locked_is_said_before_anything_is_trained(make_project) -> None:
    project = make_project()
    train(project)
    lock = sqlite3.connect(project.state / "bus.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")

    with pytest.raises(RetryableError, match="locked; nothing was started, try again"):
        train(project)
    lock.close()


def test_a_run_can_be_scraped_while_it_lasts_and_the_port_is_free_again_afterwards(make_project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scraped: list[str] = []

    class Scraping(io.StringIO):
        """Where progress is written: at the first line the metrics are read over HTTP."""

        def write(self, text: str) -> int:
            if not scraped:
                scraped.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
            return len(text)

    train(make_project(), console=Console(file=Scraping()), metrics_port=port)

    assert 'clipdrift_trainer_optimizer_steps_total{model="pump"} 50.0' in scraped[0]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_metrics_port_that_is_taken_is_said(make_project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(ConfigError, match="give another with --metrics-port"):
            train(make_project(), metrics_port=taken.getsockname()[1])


def test_progress_is_plain_lines_where_there_is_no_terminal(make_project) -> None:
    shown = io.StringIO()

    train(make_project(), console=Console(file=shown))

    lines = shown.getvalue().splitlines()
    assert [line.partition(", ")[0] for line in lines] == ["training pump: 50 of 100 steps", "training pump: 100 of 100 steps"]


def test_progress_is_a_view_on_a_terminal(make_project) -> None:
    shown = io.StringIO()

    train(make_project(), console=Console(file=shown, force_terminal=True, width=100))

    assert "100 of 100 steps" in shown.getvalue()


def test_only_models_without_a_version_are_trained(make_project) -> None:
    project = make_project('[models.other]\ntask = "small_task:Small"\n')
    train(project)

    runs = train_missing(project, 20 * DAY, Console(file=io.StringIO()))

    assert [run.model for run in runs] == ["other"]
    assert train_missing(project, 20 * DAY, Console(file=io.StringIO())) == ()


def test_an_order_is_carried_out_once_and_told_again(make_project, events_of) -> None:
    project = make_project("[training]\nmax_workers = 1\n")
    folder = JobFolder(project.jobs, "order-1")
    folder.write_request(order_of(train(project)))

    first, again = carry_out(project, folder.path), carry_out(project, folder.path)

    assert first == again == folder.read_outcome()
    assert first.arms[0].against_champion[0].num_rows == 8 * 50 - 2, "held out, and newer than the champion's data"
    told = [(name, event) for name, event in events_of(project) if isinstance(event, RetrainOutcome)]
    assert told == [("retrain-outcome-order-1", first)] * 2, "the same id, so readers count it once"


def test_an_order_that_another_process_holds_is_left_alone(make_project) -> None:
    project = make_project()
    folder = JobFolder(project.jobs, "order-1")
    folder.write_request(order_of(train(project)))

    with folder.claim():
        assert carry_out(project, folder.path) is None


def test_an_order_whose_task_cannot_be_loaded_ends_and_says_why(make_project) -> None:
    project = make_project()
    folder = JobFolder(project.jobs, "order-1")
    folder.write_request(order_of(train(project)))
    (project.folder / "small_task.py").unlink()

    outcome = carry_out(project, folder.path)

    assert outcome.verdict == "inconclusive"
    assert "there is no" in outcome.reasons[0]
    assert "small_task.py" in outcome.reasons[0]


def test_a_folder_without_an_order_is_refused_with_what_makes_one(make_project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clipdrift retrain MODEL"):
        carry_out(make_project(), tmp_path / "nothing")


def test_an_order_that_cannot_be_read_is_refused(make_project, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job/request.json").write_text("{")

    with pytest.raises(ConfigError, match="no readable order"):
        carry_out(make_project(), tmp_path / "job")
