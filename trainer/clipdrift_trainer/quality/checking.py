"""Carries the checks out within their time, and turns what they found into what the policy makes of it."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import CheckOutcome, ClipSpec, DataCheck
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_trainer.quality.balance import check_balance
from clipdrift_trainer.quality.columns import check_columns
from clipdrift_trainer.quality.duplicates import check_duplicates
from clipdrift_trainer.quality.effective_size import check_effective_size, check_slices
from clipdrift_trainer.quality.finding import Finding
from clipdrift_trainer.quality.groups import check_groups
from clipdrift_trainer.quality.hindsight import check_hindsight
from clipdrift_trainer.quality.label_errors import check_label_errors
from clipdrift_trainer.quality.missing import check_missing, check_missing_pattern
from clipdrift_trainer.quality.near_duplicates import check_near_duplicates
from clipdrift_trainer.quality.policy import Mode, QualityPolicy
from clipdrift_trainer.quality.schema import check_schema
from clipdrift_trainer.quality.shift import check_shift
from clipdrift_trainer.quality.single_feature import check_single_feature
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.quality.target_encoding import check_target_encoding
from clipdrift_trainer.quality.units import check_units
from clipdrift_trainer.tasks.task import Rows, Task

_log = logging.getLogger(__name__)

Check = Callable[[Table, Any], Finding]
CHECKS: dict[str, Check] = {
    "single_feature": check_single_feature,
    "duplicates": check_duplicates,
    "schema": check_schema,
    "columns": check_columns,
    "missing": check_missing,
    "missing_pattern": check_missing_pattern,
    "units": check_units,
    "groups": check_groups,
    "target_encoding": check_target_encoding,
    "balance": check_balance,
    "effective_size": check_effective_size,
    "slices": check_slices,
    "shift": check_shift,
    "hindsight": check_hindsight,
    "near_duplicates": check_near_duplicates,
    "label_errors": check_label_errors,
}
"""By name, which is also that of the check's table in `[training.quality]`; quick ones, and those that may stop, come first."""


_FORKED = "this process was forked from one that had checked rows, and polars would wait for threads that were left there"


class _Polars:
    """The process in which polars has its threads: a child forked from it would wait for them for ever."""

    process_id: int | None = None

    @classmethod
    def is_usable(cls) -> bool:
        cls.process_id = cls.process_id or os.getpid()
        return cls.process_id == os.getpid()


class QualityError(ClipdriftError):
    """The rows are not fit to train on; the message names the checks, some rows, and what to do."""

    def __init__(self, checks: Sequence[DataCheck]) -> None:
        self.checks = tuple(checks)
        stops = [check for check in checks if check.outcome == "stop"]
        words = "; ".join(f"{check.name}: {check.words}{_row_words(check)}" for check in stops)
        super().__init__(
            f"the data are not fit to train on. {words}. `clipdrift check-data` shows all checks; "
            f"where the finding is meant to be so, change [training.quality.{stops[0].name if stops else 'NAME'}]"
        )


def _row_words(check: DataCheck) -> str:
    return f" (rows {', '.join(str(row) for row in check.rows[:5])})" if check.rows else ""


def check_rows(
    task: Task,
    rows: Rows,
    held_out: npt.NDArray[np.int64],
    policy: QualityPolicy,
    *,
    profile: ReferenceProfile | None = None,
    clip: ClipSpec | None = None,
    load_seconds: float = 0.0,
    timer: Callable[[], float] = time.perf_counter,
) -> tuple[DataCheck, ...]:
    """What each check says of `rows`, in the order of `CHECKS`; nothing where the mode is "off".

    A check that breaks is "skipped" with the reason and logged: a fault in a check must not end a training. A setting that
    names a feature that is not there is the user's, and ends it.

    Args:
        task: Names features, classes and slices.
        rows: N rows in time order, as `load_as_of` gives them.
        held_out: Positions of the held-out rows.
        policy: What is looked for.
        profile: Of the model in service; None: there is none.
        clip: The clipping rule with which `label_errors` trains the task's own model.
        load_seconds: What loading took: `hindsight` loads once more.
        timer: For tests.

    Raises:
        ValueError: A setting names no feature.
    """
    if policy.mode == "off":
        return ()
    _refuse_unknown_features(task, policy)
    if not len(rows) or not _Polars.is_usable():
        return tuple(DataCheck(name=name, outcome="skipped", words=_FORKED if len(rows) else "no rows") for name in CHECKS)
    is_held_out_N = np.zeros(len(rows), bool)
    is_held_out_N[held_out] = True
    table = Table(task, rows, is_held_out_N, profile, policy.max_rows)
    started = timer()
    found = []
    for name, check in CHECKS.items():
        began = timer()
        finding = _carry_out(name, check, table, policy, began - started, clip, load_seconds)
        found.append(_data_check(name, finding, policy, timer() - began))
    return tuple(found)


def require_usable(checks: Sequence[DataCheck]) -> None:
    """Nothing, unless a check says stop.

    Raises:
        QualityError: One does.
    """
    if any(check.outcome == "stop" for check in checks):
        raise QualityError(checks)


def outcome_of(finding: Finding, mode: Mode) -> CheckOutcome:
    """What the mode makes of a finding.

    Example:
        >>> rare = Finding(level="stop", words="")
        >>> outcome_of(rare, "warn"), outcome_of(rare, "enforce")
        ('warn', 'stop')
    """
    if finding.level == "stop" and mode == "warn" and not finding.is_unmistakable:
        return "warn"
    return finding.level


def _carry_out(
    name: str, check: Check, table: Table, policy: QualityPolicy, spent: float, clip: ClipSpec | None, load_seconds: float
) -> Finding:
    own = getattr(policy, name)
    if not own.enabled:
        return Finding(level="skipped", words=f"switched off ([training.quality.{name}] enabled)")
    if spent >= policy.budget_seconds:
        return Finding(level="skipped", words=f"no time left of the {policy.budget_seconds:g} s of [training.quality]")
    further: dict[str, dict[str, Any]] = {"hindsight": {"load_seconds": load_seconds}, "label_errors": {"clip": clip}}
    try:
        return check(table, own, **further.get(name, {}))
    except Exception as error:  # noqa: BLE001  a fault in a check, or in a second call of the user's load, must not end a training
        _log.exception("the check %s broke", name)
        return Finding(level="skipped", words=f"it broke ({type(error).__name__}: {error}); the log has the whole story")


def _data_check(name: str, finding: Finding, policy: QualityPolicy, seconds: float) -> DataCheck:
    return DataCheck(
        name=name,
        outcome=outcome_of(finding, policy.mode),
        words=finding.words,
        figures={key: float(value) for key, value in finding.figures.items() if np.isfinite(value)},
        features=finding.features,
        rows=tuple(int(row) for row in finding.rows[: policy.max_named_rows]),
        seconds=seconds,
    )


def _refuse_unknown_features(task: Task, policy: QualityPolicy) -> None:
    names = {spec.name for spec in task.features}
    mentioned: dict[str, Iterable[str]] = {
        "schema.bounds": policy.schema.bounds,
        "schema.categories": policy.schema.categories,
        "single_feature.allow": policy.single_feature.allow,
        "groups.allow": policy.groups.allow,
    }
    for setting, given in mentioned.items():
        for name in given:
            if name not in names:
                raise ValueError(f"quality.{setting} names {name!r}, which is no feature; there are: {sorted(names)}")
