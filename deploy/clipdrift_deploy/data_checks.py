"""`clipdrift check-data`: what the data checks say of the rows that a training would take, without training."""

from collections.abc import Sequence

import msgspec
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import DataCheck
from clipdrift_deploy.moments import require_span
from clipdrift_deploy.project import Project
from clipdrift_deploy.tasks import load_task
from clipdrift_deploy.training import newest_profile, retraining_config, task_errors, training_section
from clipdrift_trainer.quality.checking import check_rows
from clipdrift_trainer.quality.policy import QualityPolicy
from clipdrift_trainer.training import prepare

STOPS = 3
"""Exit status where a training would be stopped; 2 is that of a command that cannot be carried out."""
_PATIENCE_SECONDS = 600.0  # who asks waits longer than a training that only wants to begin
_MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "stop": "[red]stop[/]", "skipped": "[dim]skipped[/]"}


def check_data(
    project: Project, model: str, *, start_ms: int, end_ms: int, as_of_ms: int, with_labels: bool = False
) -> tuple[DataCheck, ...]:
    """Every check of the rows that `train` would take for the same arguments.

    Args:
        project: The checked project.
        model: A model of it.
        start_ms: The data begin here.
        end_ms: They end before this moment.
        as_of_ms: Labels that were known later are not used.
        with_labels: Look for wrong labels too, whatever the settings say: it trains some small models.

    Raises:
        ConfigError: Settings or window are wrong, or the checks are switched off.
        TooFewRowsError: The window holds no rows, or too few to hold some out.
        TaskError: The user's task raised; its traceback is kept in a file.
    """
    require_span(start_ms, end_ms)
    config = retraining_config(training_section(project))
    if config.quality.mode == "off":
        raise ConfigError('the checks are switched off ([training.quality] mode = "off"); set "warn" or "enforce"')
    task = load_task(project, model)
    with task_errors(project, model, "check-data", "checking the data of"):
        prepared = prepare(task, config.training, start_ms, end_ms, as_of_ms)
        return check_rows(
            task, prepared.rows, prepared.held_out, patient(config.quality, with_labels=with_labels),
            profile=newest_profile(project, model), clip=project.model(model).clip, load_seconds=prepared.load_seconds,
        )  # fmt: skip


def patient(policy: QualityPolicy, *, with_labels: bool) -> QualityPolicy:
    """The same policy without hurry, and with the check of labels where it is asked for."""
    labels = msgspec.structs.replace(policy.label_errors, enabled=policy.label_errors.enabled or with_labels)
    budget = max(policy.budget_seconds, _PATIENCE_SECONDS)
    return msgspec.structs.replace(policy, label_errors=labels, budget_seconds=budget)


def checks_table(checks: Sequence[DataCheck]) -> Table:
    """For a terminal: a line a check."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("check", "outcome", "what it found"):
        table.add_column(name, no_wrap=name != "what it found")
    for check in checks:
        rows = f" [dim](rows {', '.join(str(row) for row in check.rows[:5])} ...)[/]" if check.rows else ""
        table.add_row(escape(check.name), _MARKS[check.outcome], escape(check.words) + rows)
    return table


def exit_status(checks: Sequence[DataCheck], *, is_strict: bool) -> int:
    """3 where a training would be stopped, 1 where something warns and `is_strict`, else 0."""
    outcomes = {check.outcome for check in checks}
    return STOPS if "stop" in outcomes else 1 if is_strict and "warn" in outcomes else 0
