"""All checks together: what the policy makes of them, within their time, and in the record of a run."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_table import DAY, Given, given
from toy_task import Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, DataCheck
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.quality import checking
from clipdrift_trainer.quality.checking import CHECKS, QualityError, check_rows, require_usable
from clipdrift_trainer.quality.columns import ColumnsPolicy
from clipdrift_trainer.quality.duplicates import DuplicatesPolicy
from clipdrift_trainer.quality.label_errors import LabelErrorsPolicy
from clipdrift_trainer.quality.policy import QualityPolicy
from clipdrift_trainer.quality.schema import SchemaPolicy
from clipdrift_trainer.quality.single_feature import SingleFeaturePolicy
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import Rows, Task
from clipdrift_trainer.training import Order, TrainingConfig, inspect, prepare, train

N = 2_000
X = np.random.default_rng(0).normal(size=N)
YES = (np.random.default_rng(1).random(N) < 1 / (1 + np.exp(-2 * X))).astype(float)


def checks_of(task: Given, policy: QualityPolicy | None = None, **further: Any) -> dict[str, DataCheck]:
    _, held_out = hold_out_blocks(task.rows.time_ms)
    found = check_rows(task, task.rows, held_out, policy or QualityPolicy(), **further)
    return {check.name: check for check in found}


def test_every_check_has_a_table_of_its_own_name_and_answers_in_order() -> None:
    tables = {name for name in QualityPolicy.__struct_fields__ if hasattr(getattr(QualityPolicy(), name), "enabled")}

    found = checks_of(given({"x": X}, YES))

    assert set(CHECKS) == tables
    assert list(found) == list(CHECKS)
    assert {check.outcome for check in found.values()} == {"pass", "skipped"}


@pytest.mark.parametrize("num_days", [20, 60])
def test_the_toy_task_is_clean(num_days: int) -> None:
    prepared = prepare(Toy(turn_day=99), TrainingConfig(), 0, num_days * DAY, num_days * DAY)

    checks = inspect(Toy(turn_day=99), prepared, QualityPolicy(label_errors=LabelErrorsPolicy(enabled=True))).checks

    assert [(check.name, check.words) for check in checks if check.outcome in ("warn", "stop")] == []


def test_off_looks_at_nothing_and_one_check_can_be_switched_off() -> None:
    task = given({"x": X, "leak": YES}, YES)

    assert checks_of(task, QualityPolicy(mode="off")) == {}
    off = checks_of(task, QualityPolicy(single_feature=SingleFeaturePolicy(enabled=False)))["single_feature"]
    assert (off.outcome, "switched off" in off.words) == ("skipped", True)


def test_a_finding_that_could_be_meant_stops_only_where_policies_are_enforced() -> None:
    task = given({"x": X, "fixed": np.ones(N)}, YES)
    columns = ColumnsPolicy(warn_count=1, stop_count=1)

    warned = checks_of(task, QualityPolicy(columns=columns))["columns"]
    enforced = checks_of(task, QualityPolicy(mode="enforce", columns=columns))["columns"]

    assert (warned.outcome, enforced.outcome) == ("warn", "stop")


def test_an_unmistakable_leak_stops_by_default_and_says_what_to_do() -> None:
    checks = checks_of(given({"x": X, "leak": YES}, YES))

    with pytest.raises(QualityError, match=r"single_feature: leak .*Leave it out.*\[training.quality.single_feature\]"):
        require_usable(tuple(checks.values()))


def test_a_stop_names_some_of_its_rows() -> None:
    task = given({"x": X, "y": X**2}, YES)
    train_rows, held_out = hold_out_blocks(task.rows.time_ms)
    features = {name: column.copy() for name, column in task.rows.features.items()}
    label = task.rows.label.copy()
    for column in (*features.values(), label):
        column[held_out] = column[train_rows[: len(held_out)]]
    task.rows = replace(task.rows, features=features, label=label)

    checks = checks_of(task, QualityPolicy(max_named_rows=7))

    assert checks["duplicates"].outcome == "stop"
    assert checks["duplicates"].rows == tuple(held_out[:7].tolist())
    with pytest.raises(QualityError, match=rf"\(rows {held_out[0]}, {held_out[1]}, "):
        require_usable(tuple(checks.values()))


def test_what_the_time_does_not_suffice_for_is_skipped_in_words() -> None:
    ticks = iter(range(1_000))

    found = checks_of(given({"x": X}, YES), QualityPolicy(budget_seconds=6), timer=lambda: float(next(ticks)))

    outcomes = [check.outcome for check in found.values()]
    assert outcomes[:3] == ["pass"] * 3
    assert set(outcomes[3:]) == {"skipped"}
    assert "no time left of the 6 s" in found["missing"].words
    assert found["duplicates"].seconds == 1.0


def test_a_check_that_breaks_is_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Breaking(Given):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            raise KeyError("the disk is gone")

    plain = given({"x": X}, YES)

    found = checks_of(Breaking(plain.rows, plain.features, plain.classes))

    assert found["hindsight"].outcome == "skipped"
    assert "KeyError" in found["hindsight"].words
    assert "hindsight broke" in caplog.text


@pytest.mark.parametrize("policy", [SchemaPolicy(bounds={"y": (0, 1)}), SchemaPolicy(categories={"y": ("a",)})])
def test_a_setting_for_a_feature_that_is_not_there_is_refused(policy: SchemaPolicy) -> None:
    with pytest.raises(ValueError, match=r"quality.schema.* names 'y', which is no feature; there are: \['x'\]"):
        checks_of(given({"x": X}, YES), QualityPolicy(schema=policy))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QualityPolicy(budget_seconds=-1), "budget_seconds must be >= 0"),
        (lambda: QualityPolicy(max_rows=0), "max_rows must be >= 1"),
        (lambda: DuplicatesPolicy(warn_share=0.5, stop_share=0.1), "warn_share <= stop_share"),
        (lambda: SchemaPolicy(bounds={"x": (2, 1)}), "lowest, highest"),
        (lambda: LabelErrorsPolicy(num_folds=1), "num_folds >= 2"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("kind", ["empty", "one row", "one day", "one class", "all missing", "no held-out day"])
def test_odd_data_break_no_check(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    number = {"empty": 0, "one row": 1}.get(kind, 300)
    columns: dict[str, Any] = {
        "x": np.full(number, np.nan) if kind == "all missing" else X[:number],
        "site": np.array(["a", "b"] * 150)[:number].astype(str),
        "trace": np.full((number, 3), np.nan) if kind == "all missing" else np.ones((number, 3)),
    }
    label = np.zeros(number) if kind == "one class" else YES[:number]
    task = given(columns, label, num_days=1 if kind == "one day" else 4 if kind == "no held-out day" else 20)

    found = checks_of(task, QualityPolicy(label_errors=LabelErrorsPolicy(enabled=True, max_steps=5)))

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert "stop" not in {check.outcome for check in found.values()}
    assert all(np.isfinite(value) for check in found.values() for value in check.figures.values())


def test_a_process_that_was_forked_after_checks_skips_them_and_does_not_hang() -> None:
    task = given({"x": X}, YES)
    checks_of(task)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        outcomes = {check.outcome for check in checks_of(task).values()}
        os.write(write_end, ",".join(sorted(outcomes)).encode())
        os._exit(0)
    os.close(write_end)

    answer = os.read(read_end, 100)

    os.waitpid(child, 0)
    os.close(read_end)
    assert answer == b"skipped"
    assert checking._Polars.is_usable()


def run(task: Task, folder: Path, **further: Any) -> Any:
    order = Order(model="pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, clip=ClipSpec(kind="global_norm", max_norm=1.0))
    return train(
        task, TrainingConfig(), order, artifacts=folder, registry=NoRegistry(), publisher=None, clock=ManualClock(),
        metrics=MetricSet(), **further,
    )  # fmt: skip


class Leaky(Toy):
    """Its pressure says which label it is."""

    def make(self, num_days: int) -> Rows:
        rows = super().make(num_days)
        return replace(rows, features={**rows.features, "pressure": (2 * rows.label - 1).astype(np.float32)})


def test_what_was_found_is_in_the_runs_record(tmp_path: Path) -> None:
    end = run(Toy(), tmp_path).run_end

    assert [check.name for check in end.data_checks] == list(CHECKS)
    assert all(check.words for check in end.data_checks)


def test_checks_change_nothing_of_the_version(tmp_path: Path) -> None:
    checked = run(Toy(), tmp_path / "a").run_end
    unchecked = run(Toy(), tmp_path / "b", quality=QualityPolicy(mode="off")).run_end

    assert (checked.version, checked.artifact_digest) == (unchecked.version, unchecked.artifact_digest)


def test_a_training_on_leaking_rows_is_stopped_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(QualityError, match="single_feature: pressure"):
        run(Leaky(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_leak_that_is_meant_can_be_allowed(tmp_path: Path) -> None:
    allowed = QualityPolicy(single_feature=SingleFeaturePolicy(allow=("pressure",)))

    assert run(Leaky(), tmp_path, quality=allowed).run_end.num_steps == Toy.num_steps
