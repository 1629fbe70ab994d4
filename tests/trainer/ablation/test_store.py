from pathlib import Path

import msgspec
import pytest
from ablation.studies import PRESENT, make_study
from toy_task import Toy

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.ablation.store import Identity, Store, identity_of, opened
from clipdrift_trainer.ablation.trial import Failure, Job, run_trial

IDENTITY = Identity(task="t", data="d", later_data="none", held_out_days="5", num_steps="60", versions="1")
JOB = Job(arm="present", clip=PRESENT, seed=0)


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    trial = run_trial(make_study(), JOB)
    with opened(tmp_path, IDENTITY) as store:
        assert store.read(JOB) is None
        store.write(JOB, trial)
        assert store.read(JOB) == trial


@pytest.mark.parametrize(
    "changes",
    [{"clip": ClipSpec(kind="global_norm", max_norm=0.06)}, {"seed": 1}, {"learning_rate_factor": 2.0}],
)
def test_another_policy_seed_or_learning_rate_is_another_trial(tmp_path: Path, changes: dict) -> None:
    store = Store(tmp_path, IDENTITY)
    assert store.path_of(msgspec.structs.replace(JOB, **changes)) != store.path_of(JOB)


def test_the_name_of_an_arm_does_not_matter(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY)
    assert store.path_of(msgspec.structs.replace(JOB, arm="other")) == store.path_of(JOB)


@pytest.mark.parametrize("field", Identity.__struct_fields__)
def test_a_folder_of_something_else_is_refused_and_the_change_is_named(tmp_path: Path, field: str) -> None:
    with opened(tmp_path, IDENTITY):
        pass
    other = msgspec.structs.replace(IDENTITY, **{field: "changed"})

    with pytest.raises(ConfigError, match="changed since are") as refused, opened(tmp_path, other):
        pass
    assert str(refused.value).count(",") == 1, "one change is named, and no other"
    assert Store(tmp_path, other).path_of(JOB) != Store(tmp_path, IDENTITY).path_of(JOB)


def test_rows_task_and_held_out_days_are_part_of_the_identity() -> None:
    study = make_study()
    same = identity_of(make_study(), "a")

    assert identity_of(study, "a") == same
    for other in (
        identity_of(study, "b"),
        identity_of(make_study(Toy(turn_day=9)), "a"),
        identity_of(make_study(later_days=2), "a"),
    ):
        assert other.digest != same.digest


@pytest.mark.parametrize("content", [b"", b"\xc1", b"{}"])
def test_a_damaged_trial_counts_as_not_done(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, IDENTITY) as store:
        store.path_of(JOB).write_bytes(content)
        assert store.read(JOB) is None


def test_a_trial_that_cannot_be_read_counts_as_not_done(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY) as store:
        store.path_of(JOB).mkdir()
        assert store.read(JOB) is None


def test_an_identity_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "study.json").mkdir()
    with pytest.raises(ClipdriftError, match="cannot be used"), opened(tmp_path, IDENTITY):
        pass


def test_tracebacks_go_with_the_next_start_and_not_with_one_that_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY) as store:
        store.note(JOB, Failure(reason="r", trace="a trace"))
    told = tmp_path / "trials" / "failures.txt"

    with pytest.raises(ConfigError), opened(tmp_path, msgspec.structs.replace(IDENTITY, data="other")):
        pass
    assert told.read_text() == "present, seed 0\na trace\n"
    with opened(tmp_path, IDENTITY):
        assert not told.exists()


def test_a_damaged_identity_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ConfigError, match="--out"), opened(tmp_path, IDENTITY):
        pass


def test_two_ablations_in_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY), pytest.raises(ClipdriftError, match="another ablation"), opened(tmp_path, IDENTITY):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClipdriftError, match="cannot be written to"), opened(tmp_path / "file" / "out", IDENTITY):
        pass
