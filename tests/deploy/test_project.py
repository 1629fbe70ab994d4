"""The project file and the environment: what is read, what is refused, and in which words."""

import stat
import subprocess
from pathlib import Path

import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.project import Environment, Secrets, open_project, read_environment

GOOD = """
[project]
name = "pumps"
[models.pump]
task = "task:Pumps"
clip = {kind = "global_norm", max_norm = 1.0}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "clipdrift.toml").write_text(text)
    return folder


def test_everything_is_embedded_below_the_state_folder_unless_said_otherwise(tmp_path: Path) -> None:
    project = open_project(write(tmp_path, GOOD), Environment())

    assert project.bus_url == f"sqlite:///{tmp_path}/.clipdrift/bus.db"
    assert project.store_url == f"sqlite:///{tmp_path}/.clipdrift/store.db"
    assert project.model("pump").clip.max_norm == 1.0


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = GOOD.replace('name = "pumps"', 'name = "pumps"\nbus_url = "kafka://file:9092"')

    project = open_project(write(tmp_path, text), read_environment({"CLIPDRIFT_BUS_URL": "kafka://env:9092", "HOME": "/"}))

    assert project.bus_url == "kafka://env:9092"


def test_a_relative_address_is_relative_to_the_project(tmp_path: Path) -> None:
    text = GOOD.replace('name = "pumps"', 'name = "pumps"\nstore_url = "sqlite:///data/store.db"')

    assert open_project(write(tmp_path, text), Environment()).store_url == f"sqlite:///{tmp_path}/data/store.db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project]\nname = 'x'\n[models.m]\ntask = 't:T'\n[extra]\n", "extra"),
        (GOOD.replace("max_norm = 1.0", "max_norm = 'tight'"), "max_norm"),
        (GOOD.replace('task = "task:Pumps"', ""), "task"),
        ("[project\n", "not valid TOML"),
        ("[project]\nname = 'x'\n[models]\n", "at least one"),
        (GOOD + "[extra]\n", "extra is no section; there are: project, models, serving"),
        (GOOD + "[models.pump2]\ntask = 5\n", r"\[models.pump2\] task: expected `str`, got 5"),
        (GOOD.replace("global_norm", "norm"), r"\[models.pump.clip\] kind: expected one of off, global_norm, .* got 'norm'"),
        (GOOD.replace("max_norm", "maxnorm"), r"\[models.pump.clip\] maxnorm is no setting; did you mean max_norm"),
        (GOOD.replace("[models.pump]", '[models."a/b"]'), "a model's name is letters, digits"),
        (GOOD.replace("name =", "nam ="), r"\[project\] nam is no setting; did you mean name"),
        ("serving = 5\n" + GOOD, r"serving must be a table, \[serving\], got 5"),
        ("[project]\nname = 'x'\n[models]\npump = 5\n", r"models.pump must be a table, \[models.pump\], got 5"),
    ],
)
def test_a_wrong_file_is_refused_and_the_message_says_where(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_project(write(tmp_path, text), Environment())


def test_a_missing_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clipdrift init"):
        open_project(tmp_path, Environment())


def test_an_unknown_model_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has: pump"):
        open_project(write(tmp_path, GOOD), Environment()).model("pumpe")


def test_an_unknown_clipdrift_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="CLIPDRIFT_BUS_ULR"):
        read_environment({"CLIPDRIFT_BUS_ULR": "kafka://x"})


def test_secrets_are_made_once_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    project = open_project(write(tmp_path, GOOD), Environment())

    first = project.secrets()

    assert project.secrets() == first
    assert len(first.receipt_key) == 64
    assert stat.S_IMODE((tmp_path / ".clipdrift/secrets.json").stat().st_mode) == 0o600


def test_git_takes_no_secret_into_a_projects_repository(tmp_path: Path) -> None:
    open_project(write(tmp_path, GOOD), Environment()).secrets()
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "--all"], check=True)
    taken = subprocess.run(["git", "-C", tmp_path, "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    assert taken == ["clipdrift.toml"]


def test_secrets_never_print() -> None:
    assert "hush" not in repr(Secrets(admin_token="hush", api_token="hush", receipt_key="hush"))


def test_a_damaged_secrets_file_says_what_to_do(tmp_path: Path) -> None:
    project = open_project(write(tmp_path, GOOD), Environment())
    project.secrets()
    (tmp_path / ".clipdrift/secrets.json").write_text("{")

    with pytest.raises(ConfigError, match="delete it"):
        project.secrets()


def test_a_wrong_value_in_the_environment_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="CLIPDRIFT_LOG_LEVEL in the environment"):
        read_environment({"CLIPDRIFT_LOG_LEVEL": "LOUD"})


def test_models_without_a_version_are_known(tmp_path: Path) -> None:
    project = open_project(write(tmp_path, GOOD + '[models.other]\ntask = "task:Pumps"\n'), Environment())
    version = project.artifacts / "pump/1/model.onnx"
    version.parent.mkdir(parents=True)
    version.write_bytes(b"")

    assert project.untrained() == ("other",)


def test_a_path_that_is_no_folder_is_refused_like_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="name the folder with --project"):
        open_project(tmp_path / "file", Environment())
