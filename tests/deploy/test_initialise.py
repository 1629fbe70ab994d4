"""The starter project: what is written, that its data tell the story, and that nothing of a user's is overwritten."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.initialise import (
    NUM_REPLAY_DAYS,
    NUM_TRAINING_DAYS,
    OTHER_MAKE_DAYS,
    ROWS_A_DAY,
    initialise,
    split_moment_ms,
)
from clipdrift_deploy.project import Environment, open_project
from clipdrift_deploy.tasks import load_task
from clipdrift_trainer.tasks.task import load_as_of

NOW = 1_790_000_000_000


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "data.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_a_project_whose_settings_and_task_are_good(tmp_path: Path) -> None:
    initialise(tmp_path / "new/pumps", NOW)

    project = open_project(tmp_path / "new/pumps", Environment())
    rows = load_as_of(load_task(project, "pump"), 0, split_moment_ms(project.folder), split_moment_ms(project.folder))
    assert NUM_TRAINING_DAYS * ROWS_A_DAY * 0.97 < len(rows) < NUM_TRAINING_DAYS * ROWS_A_DAY, "some labels are not known yet"


def test_the_replay_ends_yesterday_and_the_split_is_a_midnight(tmp_path: Path) -> None:
    initialise(tmp_path, NOW)

    times = [int(row["time_ms"]) for row in rows_of(tmp_path)]
    assert times == sorted(times)
    assert split_moment_ms(tmp_path) % MS_PER_DAY == 0
    assert NOW - 2 * MS_PER_DAY < times[-1] < NOW
    assert sum(time >= split_moment_ms(tmp_path) for time in times) == NUM_REPLAY_DAYS * ROWS_A_DAY


def test_labels_come_an_hour_to_a_day_later(tmp_path: Path) -> None:
    initialise(tmp_path, NOW)

    delays = [int(row["label_time_ms"]) - int(row["time_ms"]) for row in rows_of(tmp_path)]
    assert MS_PER_HOUR <= min(delays) < max(delays) < MS_PER_DAY


def test_some_days_after_training_vibration_means_something_else_in_the_harbour_alone(tmp_path: Path) -> None:
    initialise(tmp_path, NOW)
    turn = split_moment_ms(tmp_path) + OTHER_MAKE_DAYS * MS_PER_DAY
    found: dict[tuple[bool, bool], list[float]] = {}
    for row in rows_of(tmp_path):
        if row["vibration"] and row["state"] == "fine":
            found.setdefault((row["site"] == "harbour", int(row["time_ms"]) >= turn), []).append(float(row["vibration"]))

    mean = {key: sum(values) / len(values) for key, values in found.items()}
    assert mean[True, False] == pytest.approx(mean[False, False], abs=0.1)
    assert mean[False, True] == pytest.approx(mean[False, False], abs=0.1)
    assert mean[True, True] > mean[True, False] + 2


def test_the_data_are_the_same_every_time_but_for_the_date(tmp_path: Path) -> None:
    initialise(tmp_path / "a", NOW)
    initialise(tmp_path / "b", NOW + 7 * MS_PER_DAY)

    first, second = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert [int(row["time_ms"]) + 7 * MS_PER_DAY for row in first] == [int(row["time_ms"]) for row in second]
    assert [row["state"] for row in first] == [row["state"] for row in second]
    assert min(Counter(row["state"] for row in first).values()) > 2_000


def test_a_users_file_is_never_overwritten_unless_they_say_so(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("mine")

    with pytest.raises(ConfigError, match=r"already has task\.py; give another folder, or --force"):
        initialise(tmp_path, NOW)
    assert (tmp_path / "task.py").read_text() == "mine"
    assert not (tmp_path / "clipdrift.toml").exists()

    initialise(tmp_path, NOW, force=True)
    assert "class Pumps" in (tmp_path / "task.py").read_text()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be made"):
        initialise(tmp_path / "file/below", NOW)
