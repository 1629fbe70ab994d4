"""The command as a user meets it: what it says when all is well, and one sentence with the next step when it is not."""

import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import Result

from clipdrift_contract.access.keys import ApiKeys
from clipdrift_contract.clock import ManualClock
from clipdrift_deploy.cli import app


def sentence(result: Result) -> str:
    """What a failed command wrote on standard error; one line, without a traceback."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("clipdrift: ")
    return lines[0]


def test_init_prints_the_steps_that_follow_and_where(clipdrift, tmp_path: Path) -> None:
    result = clipdrift("init", tmp_path / "my pumps")

    assert result.exit_code == 0
    steps = [line.split("   ")[0].strip() for line in result.stdout.partition("Next:")[2].splitlines() if line.startswith("  ")]
    assert steps[0] == f"cd '{tmp_path}/my pumps'"
    assert " train pump --until 20" in steps[1]
    assert [step.split()[-1] for step in steps[2:]] == ["up", "send.py", "status"]


def test_init_where_files_are_says_which_and_what_to_do(clipdrift, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("mine")

    assert "already has task.py; give another folder, or --force" in sentence(clipdrift("init", tmp_path))


def test_train_says_version_accuracy_what_clipping_removed_and_the_file(clipdrift, make_project) -> None:
    project = make_project()

    result = clipdrift("train", "pump", "-p", project.folder, "--until", "1970-01-21")

    assert result.exit_code == 0, result.output
    version = next((project.artifacts / "pump").iterdir()).name
    assert f"pump version {version}: accuracy 0." in result.stdout
    assert "on 198 held-out rows" in result.stdout
    assert "clipping removed" in result.stdout
    assert f"file://{project.artifacts}/pump/{version}/model.onnx" in result.stdout


def test_train_uses_labels_known_at_until_unless_as_of_is_given(clipdrift, make_project) -> None:
    project = make_project()

    later = clipdrift("train", "pump", "-p", project.folder, "--until", "1970-01-21", "--as-of", "1970-01-22")

    assert "on 200 held-out rows" in later.stdout, "two labels of the last evening came after midnight"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "pumpe"), "no model 'pumpe' in {folder}/clipdrift.toml; it has: pump"),
        (("train", "pump", "--until", "tomorrow"), "a moment is written like 2013-03-01"),
        (("train", "pump", "--until", "1970-01-03"), "at least 5 days with rows are needed"),
        (("train", "pump", "--from", "1970-01-09", "--until", "1970-01-03"), "data must begin before they end"),
        (("retrain",), "name either a MODEL to order a retrain of, --job FOLDER"),
        (("retrain", "pump", "--job", "x"), "name either a MODEL to order a retrain of, --job FOLDER"),
        (("retrain", "pump"), "needs a reason: --why"),
        (("retrain", "pumpe", "--why", "x"), "no model 'pumpe'"),
        (("retrain", "--job", "nowhere"), "nowhere holds no order"),
        (("rollback", "pumpe", "--why", "x"), "no model 'pumpe'"),
        (("status",), "is `clipdrift up` running?"),
        (("report",), "is `clipdrift up` running?"),
        (("rollback", "pump", "--why", "x"), "is `clipdrift up` running?"),
        (("cancel", "k1", "--why", "x"), "is `clipdrift up` running?"),
    ],
)
def test_what_goes_wrong_is_one_sentence_that_says_what_to_do(clipdrift, make_project, arguments, words: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        project = make_project(f"[monitor]\nport = {probe.getsockname()[1]}\n")

        said = sentence(clipdrift(*arguments, "--project", project.folder))

    assert words.format(folder=project.folder) in said


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (
            '{kind = "zclip", options = {z_treshold = 3}}',
            "unknown field `z_treshold`; its options are alpha (0.97), z_threshold",
        ),
        ('{kind = "per_sample", max_norm = 1.0, options = {noise = 1.1}}', "unknown field `noise`; its options are bound,"),
        ('{kind = "per_sample", options = {noise_multiplier = 1.1}}', "needs a finite max_norm > 0, got None"),
    ],
)
def test_a_wrong_clipping_rule_is_said_before_rows_are_loaded(clipdrift, make_project, clip: str, words: str) -> None:
    project = make_project(f'[models.other]\ntask = "small_task:Small"\nclip = {clip}\noptions = {{breaks_at = "load"}}\n')

    said = sentence(clipdrift("train", "other", "--project", project.folder))

    assert "clipdrift.toml: [models.other] clip: clipping by " in said
    assert words in said


@pytest.mark.parametrize("command", ["serve", "monitor", "up", "status", "report"])
def test_without_a_project_every_command_says_how_to_make_one(clipdrift, command: str, tmp_path: Path) -> None:
    assert "`clipdrift init` writes one, or name the folder with --project" in sentence(clipdrift(command, "-p", tmp_path))


@pytest.mark.parametrize(
    ("command", "setting"),
    [("serve", "--port or [serving] port"), ("monitor", "--port or [monitor] port"), ("up", "[serving] port")],
)
def test_a_taken_port_is_said_with_the_setting_that_changes_it(clipdrift, make_project, command: str, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        project = make_project(f"[serving]\nport = {port}\n[monitor]\nport = {port}\n")

        said = sentence(clipdrift(command, "-p", project.folder))

    assert f"port {port} of 127.0.0.1 is taken" in said
    assert setting in said


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_wrong_setting_is_said_before_anything_starts(clipdrift, make_project, command: str) -> None:
    project = make_project("[serving]\nprot = 1\n")

    assert "[serving] prot is no setting; did you mean port?" in sentence(clipdrift(command, "-p", project.folder))


def test_what_the_task_raises_is_said_with_its_line(clipdrift, make_project) -> None:
    project = make_project()
    path = project.folder / "clipdrift.toml"
    path.write_text(path.read_text() + 'options = {breaks_at = "load"}\n')

    said = sentence(clipdrift("train", "pump", "-p", project.folder, "--until", "1970-01-21"))

    assert "in load (small_task.py, line " in said
    assert "KeyError: 'state'" in said
    assert f"{project.logs}/train-pump-error.txt" in said


def test_brackets_in_a_message_are_shown_and_not_read_as_colour(clipdrift, make_project) -> None:
    project = make_project("[serving]\nport = 'red'\n")

    assert "[serving] port: expected `int`, got 'red'" in sentence(clipdrift("serve", "-p", project.folder))


def test_an_unknown_variable_in_the_environment_is_an_error(clipdrift, make_project) -> None:
    result = clipdrift("status", "-p", make_project().folder, environment={"CLIPDRIFT_STROE_URL": "x"})

    assert "unknown setting CLIPDRIFT_STROE_URL" in sentence(result)


def test_the_environment_names_the_project_where_no_option_does(clipdrift, make_project) -> None:
    project = make_project()

    result = clipdrift("train", "pumpe", environment={"CLIPDRIFT_PROJECT": str(project.folder)})

    assert str(project.folder) in sentence(result)


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    clipdrift, make_project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as Python has it where a package is missing
    monkeypatch.delitem(sys.modules, "clipdrift_serving.server", raising=False)

    said = sentence(clipdrift("serve", "-p", make_project().folder))

    assert "this command needs uvloop: pip install 'clipdrift[serving]'" in said


def test_a_key_is_shown_once_with_the_lines_that_let_it_in(clipdrift, tmp_path) -> None:
    shown = clipdrift("key", "billing", "--scope", "infer", "--scope", "feedback", "--model", "pump*").stdout

    secret = next(line.strip() for line in shown.splitlines() if line.strip().startswith("clipdrift_"))
    file = tmp_path / "keys.toml"
    file.write_text(shown.partition("Add to the file of keys:")[2])
    keys = ApiKeys(ManualClock(now_ms=0), file)
    assert keys.check(f"Bearer {secret}".encode(), "infer", "pump-1") == "billing"
    assert "scopes must be of" in sentence(clipdrift("key", "x", "--scope", "everything"))
    assert "a day such as 2027-01-31" in sentence(clipdrift("key", "x", "--scope", "infer", "--expires", "tomorrow"))


def test_the_version_is_the_distributions(clipdrift) -> None:
    assert clipdrift("--version").stdout == f"clipdrift {version('clipdrift')}\n"


def test_help_of_every_command_ends_with_examples(clipdrift) -> None:
    for name in get_command(app).commands:
        shown = clipdrift(name, "--help").stdout
        assert f"$ clipdrift {name}" in shown or name == "dashboards", name


def test_the_module_is_the_command_too(make_project) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "clipdrift_deploy", "status", "-p", make_project("[monitor]\nport = 9\n").folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "does not answer" in ended.stderr


@pytest.mark.slow
def test_the_starter_project_trains_as_its_printed_step_says(clipdrift, tmp_path: Path) -> None:
    steps = clipdrift("init", tmp_path).stdout
    until = steps.partition("--until ")[2][:10]

    result = clipdrift("train", "pump", "-p", tmp_path, "--until", until)

    assert result.exit_code == 0, result.output
    accuracy = float(result.stdout.partition("accuracy ")[2][:5])
    assert accuracy > 0.8, "the starter model learns its data"
