"""`clipdrift check-data`: what it prints, how it ends, and that a training and a retrain are stopped by the same words."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from clipdrift_contract.events import RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder
from clipdrift_deploy.training import carry_out, train_model
from clipdrift_trainer.quality.checking import QualityError

DAY = 86_400_000


@pytest.fixture
def check(clipdrift):
    return lambda project, *words: clipdrift("check-data", "pump", "--project", project.folder, "--until", "1970-01-31", *words)


def leaking(task: str) -> str:
    return task.replace('{"pressure": pressure,', '{"pressure": (2 * label - 1).astype("f4"),')


def train(project) -> RunEnd:
    return train_model(project, "pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, console=Console(file=io.StringIO()))


def test_clean_rows_end_with_0_and_every_check_has_a_line(check, make_project) -> None:
    result = check(make_project())

    assert result.exit_code == 0, result.output
    assert "single_feature" in result.stdout
    assert "no number changed its unit" in " ".join(result.stdout.split())


def test_a_warning_ends_with_1_only_where_it_is_asked_for(check, make_project) -> None:
    project = make_project("[training.quality.schema]\nbounds = {pressure = [-1, 1]}\n")

    assert (check(project).exit_code, check(project, "--strict").exit_code) == (0, 1)


def test_a_leak_ends_with_3_and_is_named_as_json(check, make_project, small_task: str) -> None:
    result = check(make_project(task=leaking(small_task)), "--json")

    found = {one["name"]: one for one in json.loads(result.stdout)}
    assert result.exit_code == 3
    assert (found["single_feature"]["outcome"], found["single_feature"]["features"]) == ("stop", ["pressure"])


def test_labels_are_looked_at_where_it_is_asked_for(check, make_project) -> None:
    project = make_project()

    plain, asked = (
        {one["name"]: one for one in json.loads(check(project, "--json", *words).stdout)}["label_errors"]
        for words in ((), ("--labels",))
    )
    assert "switched off" in plain["words"]
    assert "switched off" not in asked["words"]


def test_checks_that_are_switched_off_are_said_to_be(check, make_project) -> None:
    result = check(make_project('[training.quality]\nmode = "off"\n'))

    assert result.exit_code == 2
    assert 'set "warn" or "enforce"' in result.stderr


def test_a_setting_that_does_not_exist_is_named(check, make_project) -> None:
    result = check(make_project("[training.quality.units]\nany_faktor = 3\n"))

    assert "[training.quality.units] any_faktor is no setting; did you mean any_factor?" in result.stderr


TOO_FEW = ("1970-01-03", "98 rows on 2 days are too few: training holds out one day in 5, so at least 5 days")
NONE = ("1970-01-01T00:05", "load() gave no rows from 1970-01-01T00:00 to 1970-01-01T00:05 with labels known by")


@pytest.mark.parametrize(
    ("command", "until", "words"),
    [("check-data", *TOO_FEW), ("train", *TOO_FEW), ("ablate", *TOO_FEW), ("check-data", *NONE)],
    ids=["check-data", "train", "ablate", "no rows"],
)
def test_a_window_of_too_few_rows_is_the_users_and_no_fault_of_the_task(
    clipdrift, make_project, command: str, until: str, words: str
) -> None:
    project = make_project()

    result = clipdrift(command, "pump", "--project", project.folder, "--until", until)

    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "failed" not in result.stderr
    assert not list(project.folder.rglob("*-error.txt"))


def test_what_the_task_raises_while_rows_are_checked_leaves_the_traceback_of_a_training_alone(check, make_project) -> None:
    project = make_project()
    path = project.folder / "clipdrift.toml"
    path.write_text(path.read_text() + 'options = {breaks_at = "load"}\n')

    result = check(project)

    assert result.exit_code == 2
    assert "checking the data of pump failed in load" in " ".join(result.stderr.split())
    assert [one.name for one in project.folder.rglob("*-error.txt")] == ["check-data-pump-error.txt"]


def test_a_training_on_leaking_rows_says_which_feature(make_project, small_task: str) -> None:
    with pytest.raises(QualityError, match="single_feature: pressure"):
        train(make_project(task=leaking(small_task)))


def test_a_retrain_on_leaking_rows_fails_at_the_gate_and_says_why(make_project, small_task: str) -> None:
    champion = train(make_project('[training.quality]\nmode = "off"\n'))
    project = make_project(task=leaking(small_task))
    folder = JobFolder(project.jobs, "order-1")
    folder.write_request(
        RetrainRequest(
            key="order-1",
            model="pump",
            cause="test",
            decision_id="d",
            requested_at_ms=60 * DAY,
            as_of_ms=60 * DAY,
            data_start_ms=0,
            champion_version=champion.version,
            champion_uri=champion.artifact_uri,
            champion_digest=champion.artifact_digest,
            champion_clip=champion.clip,
            generation=1,
            arms=champion.candidates[:1],
        )
    )

    outcome = carry_out(project, folder.path)

    assert outcome is not None
    assert (outcome.verdict, outcome.candidate_version) == ("fail", "")
    assert "not fit to train on. single_feature: pressure" in outcome.reasons[0]
    (check,) = outcome.checks
    assert (check.name, check.outcome, check.is_decisive) == ("data", "fail", True)
    assert msgspec.json.decode((folder.path / "outcome.json").read_bytes())["verdict"] == "fail"
