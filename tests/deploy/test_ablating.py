"""`clipdrift ablate` on the small project: what it writes and says, how it goes on, and what it refuses in which words."""

import io
import shlex
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_deploy import ablating
from clipdrift_deploy.ablating import REPORT_FILE, Asked, ablate_model
from clipdrift_deploy.project import Project
from clipdrift_deploy.training import TaskError
from clipdrift_trainer.ablation.result import AblationResult
from clipdrift_trainer.ablation.run import RESULT_FILE
from clipdrift_trainer.quality.checking import QualityError

DAY = 86_400_000
TASK = (
    (Path(__file__).parent / "conftest.py")
    .read_text()
    .partition("TASK = '''")[2]
    .partition("'''")[0]
    .replace("num_steps = 100", "num_steps = 15")
)
QUICK = {"start_ms": 0, "end_ms": 15 * DAY, "as_of_ms": 15 * DAY, "thresholds": (0.1,), "num_seeds": 1, "num_workers": 1}


@pytest.fixture
def project(make_project) -> Project:
    return make_project(task=TASK)


def carry_out(project, console: Console | None = None, **changes):
    return ablate_model(project, "pump", Asked(**(QUICK | changes)), console or Console(file=io.StringIO()))


def test_the_result_and_the_report_lie_in_a_folder_of_the_projects_state(project: Project) -> None:

    result, folder = carry_out(project)

    assert folder.is_relative_to(project.state / "ablations")
    assert msgspec.json.decode((folder / RESULT_FILE).read_bytes(), type=AblationResult) == result
    assert "<svg" in (folder / REPORT_FILE).read_text()
    assert result.seeds == (3,), "the project's"


def test_the_command_says_the_answer_its_reasons_and_where_the_report_is(clipdrift, project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["ablate", "pump", "--project", project.folder, "--until", "1970-01-16", "--threshold", "0.1", "--seeds", "2"]

    said = clipdrift(*words, "--workers", "1", "--out", out)

    assert said.exit_code == 0, said.output
    assert "global norm 0.5 (present)" in said.output
    assert str(out / REPORT_FILE) in said.output.replace("\n", "")


def test_progress_is_a_line_for_each_trial_where_there_is_no_terminal(project: Project) -> None:
    shown = io.StringIO()

    carry_out(project, Console(file=shown))

    lines = shown.getvalue().splitlines()
    assert lines[1].startswith("1 of 2: present, seed 3: brier 0.")
    assert [line.partition(" of ")[0] for line in lines[1:]] == [str(i) for i in range(1, len(lines))]
    assert " left" in lines[3]
    assert "best so far" in lines[-1]


def test_progress_is_a_bar_on_a_terminal(project: Project) -> None:
    shown = io.StringIO()

    carry_out(project, Console(file=shown, force_terminal=True, width=120))

    assert "best so far" in shown.getvalue()


def test_what_is_done_is_not_done_again(project: Project) -> None:
    shown = io.StringIO()
    first, _ = carry_out(project)

    again, _ = carry_out(project, Console(file=shown))

    assert again == first
    assert all("made by an earlier start" in line for line in shown.getvalue().splitlines()[1:])


def test_a_changed_task_is_kept_apart_by_itself_and_refused_in_a_folder_that_was_named(
    project: Project, tmp_path: Path
) -> None:
    _, first = carry_out(project)
    carry_out(project, out=tmp_path / "out")

    path = project.folder / "small_task.py"
    path.write_text(path.read_text() + "\n# changed\n")

    assert carry_out(project)[1] != first
    with pytest.raises(ConfigError, match="changed since are the task's code or options"):
        carry_out(project, out=tmp_path / "out")


def test_changed_options_are_a_changed_task(project: Project, tmp_path: Path) -> None:
    carry_out(project, out=tmp_path / "out")
    section = msgspec.structs.replace(project.file.models["pump"], options={"breaks_at": "nowhere"})
    other = msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": section}))

    with pytest.raises(ConfigError, match="changed since are the task's code or options"):
        carry_out(other, out=tmp_path / "out")


def test_other_data_are_refused_in_a_folder_that_was_named(project: Project, tmp_path: Path) -> None:
    carry_out(project, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="changed since are the rows of training and validation"):
        carry_out(project, out=tmp_path / "out", end_ms=16 * DAY, as_of_ms=16 * DAY)


def test_later_months_are_judged_and_what_is_trained_on_ends_with_its_labels_where_they_begin(project: Project) -> None:
    result, _ = carry_out(project, end_ms=20 * DAY, as_of_ms=21 * DAY, later_from_ms=15 * DAY)

    assert result.arms[0].later is not None
    assert result.arms[0].later.num_rows == 5 * 50
    assert result.later_check is not None
    alone, _ = carry_out(project)
    assert result.recommendation == alone.recommendation


def test_ctrl_c_says_how_to_go_on_and_that_command_does(clipdrift, project: Project, tmp_path: Path) -> None:

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("3 of"):
                raise KeyboardInterrupt
            return len(text)

    with pytest.raises(ClipdriftError, match="to go on where it stopped: clipdrift ablate pump") as told:
        carry_out(project, Console(file=Interrupted()), out=tmp_path / "out")

    words = shlex.split(str(told.value).partition("stopped: ")[2])
    said = clipdrift(*words[1:])
    assert said.exit_code == 0, said.output
    assert sum("made by an earlier start" in line for line in said.output.splitlines()) == 3


def test_a_task_that_raises_in_every_run_ends_it_with_the_reason(make_project) -> None:
    broken = TASK.replace("return Net()", 'raise KeyError("layers")')

    with pytest.raises(ClipdriftError, match=r"KeyError: 'layers' \(in build, line \d+ of the task\)"):
        carry_out(make_project(task=broken))


def test_a_task_that_cannot_load_its_rows_is_told_like_in_a_training(project: Project) -> None:
    section = msgspec.structs.replace(project.file.models["pump"], options={"breaks_at": "load"})
    project = msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": section}))

    with pytest.raises(TaskError, match="in load"):
        carry_out(project)


def test_the_traceback_of_a_trial_that_raised_is_kept_and_the_other_seed_goes_on(make_project) -> None:
    moody = TASK.replace("return Net()", 'return Net() if torch.initial_seed() != 4 else int("four")')

    result, folder = carry_out(make_project(task=moody), num_seeds=2)

    assert {one.status for one in result.arms} == {"failed"}
    assert {one.seeds for one in result.arms} == {(3,)}
    assert result.recommendation.verdict == "cannot_tell"
    told = (folder / "trials" / "failures.txt").read_text()
    assert told.startswith("present, seed 4")
    assert "ValueError: invalid literal" in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rules": ("zclpi",)}, "--rule must be one of global_norm, value"),
        ({"rules": ("off",)}, "--rule must be one of"),
        ({"rules": ("value=much",)}, "must be a number, got 'much'"),
        ({"rules": ("value=-1",)}, "must be a positive number"),
        ({"rules": ("zclip", "agc=5")}, "--rule agc=5: clipping by agc takes no max_norm"),
        ({"thresholds": (0.0,)}, "--threshold must be a positive number, got 0"),
        ({"thresholds": (float("nan"),)}, "--threshold must be a positive number"),
        ({"num_seeds": 0}, "--seeds must be at least 1"),
        ({"end_ms": 0}, "must begin before they end"),
        ({"later_from_ms": 15 * DAY}, "--test-from must lie between"),
        ({"start_ms": 14 * DAY}, "too few"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(project: Project, changes: dict, words: str) -> None:
    with pytest.raises((ConfigError, ClipdriftError), match=words):
        carry_out(project, **changes)


def test_no_rule_is_tried_in_the_place_of_a_per_sample_bound(project: Project) -> None:
    private = msgspec.structs.replace(
        project.file.models["pump"], clip=ClipSpec(kind="per_sample", max_norm=1.0, options={"noise_multiplier": 1.0})
    )
    project = msgspec.structs.replace(project, file=msgspec.structs.replace(project.file, models={"pump": private}))

    with pytest.raises(ConfigError, match="per-sample bound, which no --rule can replace"):
        carry_out(project, rules=("zclip",))


def test_a_file_in_the_place_of_the_folder_is_refused_with_what_to_do(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")

    with pytest.raises(ClipdriftError, match="--out"):
        carry_out(project, out=out)
    assert out.read_text() == "mine"


def test_a_refused_start_leaves_the_tracebacks_of_the_running_one_and_a_users_own_file(make_project, tmp_path: Path) -> None:
    moody = make_project(task=TASK.replace("return Net()", 'return Net() if torch.initial_seed() != 4 else int("four")'))
    out = tmp_path / "out"
    out.mkdir()
    (out / "failures.txt").write_text("mine")
    carry_out(moody, num_seeds=2, out=out)
    told = (out / "trials" / "failures.txt").read_text()

    with pytest.raises(ConfigError, match="changed since are"):
        carry_out(moody, num_seeds=2, out=out, end_ms=16 * DAY, as_of_ms=16 * DAY)

    assert (out / "trials" / "failures.txt").read_text() == told
    assert (out / "failures.txt").read_text() == "mine"


def test_what_raised_is_named_once_in_its_line(make_project) -> None:
    shown = io.StringIO()
    moody = TASK.replace("return Net()", 'return Net() if torch.initial_seed() != 4 else int("four")')

    carry_out(make_project(task=moody), Console(file=shown), num_seeds=2)

    line = next(line for line in shown.getvalue().splitlines() if "raised ValueError" in line)
    assert line.count("seed 4") == 1


def test_rows_that_are_not_fit_to_train_on_are_refused_like_in_a_training(make_project) -> None:
    leaking = TASK.replace("(generator.random(50) < 1 / (1 + np.exp(-3 * pressure)))", "(pressure > 0)")
    with pytest.raises(QualityError, match=r"not fit to train on\. single_feature: pressure"):
        carry_out(make_project(task=leaking))


def test_a_duration_is_said_as_people_say_it() -> None:
    assert [ablating._duration(seconds) for seconds in (3.2, 99.0, 600.0, 7200.0)] == ["3 s", "99 s", "10 min", "2.0 h"]
