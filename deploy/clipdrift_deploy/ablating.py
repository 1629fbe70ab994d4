"""`clipdrift ablate`: a project's model under many clipping policies, shown while it runs, answered in a report."""

import hashlib
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from clipdrift_contract.clock import format_moment
from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import ClipKind, ClipSpec
from clipdrift_deploy.ablation_report import rows
from clipdrift_deploy.ablation_report.report import later_words, write_report
from clipdrift_deploy.moments import exact_moment, require_span
from clipdrift_deploy.project import Project
from clipdrift_deploy.tasks import load_task
from clipdrift_deploy.training import check_clip, retraining_config, task_errors, training_section
from clipdrift_trainer.ablation.grid import PRESENT
from clipdrift_trainer.ablation.recommendation import AblationPolicy
from clipdrift_trainer.ablation.result import AblationResult
from clipdrift_trainer.ablation.run import OnStep, Question, Step, ablate
from clipdrift_trainer.ablation.runners import Runner, in_processes
from clipdrift_trainer.ablation.store import identity_of
from clipdrift_trainer.ablation.trial import Failure, Study
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.tasks.task import Task, load_as_of
from clipdrift_trainer.training import inspect, prepare

REPORT_FILE = "report.html"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The words of the command, as values."""

    start_ms: int
    end_ms: int
    as_of_ms: int
    later_from_ms: int | None = None
    thresholds: tuple[float, ...] = ()
    rules: tuple[str, ...] = ()
    num_seeds: int = 5
    relative_margin: float = 0.02
    num_workers: int = 2
    ray_address: str = ""
    out: Path | None = None


def ablate_model(project: Project, model: str, asked: Asked, console: Console) -> tuple[AblationResult, Path]:
    """Carry the ablation of `model` out and write `result.json` and `report.html`; returns the result and the folder.

    Raises:
        ConfigError: Settings, moments, thresholds, rules or the folder are wrong.
        TaskError: The user's task raised while rows were loaded.
        QualityError: The rows are not fit to train on.
        ClipdriftError: Nothing came to an end, the disk is full, or it was interrupted; the message says how to go on.
    """
    section = project.model(model)
    check_clip(project, model, section)
    _check_moments(asked)
    config = retraining_config(training_section(project))
    question = _question(project, model, asked, AblationPolicy(gate=config.gate, relative_margin=asked.relative_margin))
    task = load_task(project, model)
    train_end_ms = asked.end_ms if asked.later_from_ms is None else asked.later_from_ms
    with task_errors(project, model, "ablate", "ablating"):
        # what is trained on ends with its labels where the later months begin, as on the day when somebody had to choose
        prepared = prepare(task, config.training, asked.start_ms, train_end_ms, min(asked.as_of_ms, train_end_ms))
        prepared = inspect(task, prepared, config.quality, clip=section.clip)
        later = None if asked.later_from_ms is None else load_as_of(task, asked.later_from_ms, asked.end_ms, asked.as_of_ms)
    if later is not None and not len(later):
        raise ConfigError(f"there are no rows from {format_moment(train_end_ms)} on: --test-from must lie before their end")
    study = Study(task=task, training=config.training, prepared=prepared, later=later)
    origin = _origin(project, task, repr(sorted(section.options.items())))
    folder = asked.out or project.state / "ablations" / f"{model}-{identity_of(study, origin).digest[:6]}"
    console.print(
        f"{model}: {len(prepared.train):,} rows to train on, {len(prepared.held_out):,} held out"
        + (f", {len(later):,} of later months" if later is not None else ""),
        highlight=False,
    )
    try:
        with _shown(console, asked.num_workers) as on_step:
            result = ablate(question, study, origin, folder, _runner(project, asked), on_step)
    except KeyboardInterrupt as error:
        raise ClipdriftError(f"interrupted; to go on where it stopped: {_command(project, model, asked, folder)}") from error
    write_report(folder / REPORT_FILE, result)
    return result, folder


def _check_moments(asked: Asked) -> None:
    require_span(asked.start_ms, asked.end_ms)
    later = asked.later_from_ms
    if later is not None and not asked.start_ms < later < asked.end_ms:
        raise ConfigError(
            f"--test-from must lie between the data's beginning and end, got {format_moment(later)} for "
            f"{format_moment(asked.start_ms)} to {format_moment(asked.end_ms)}"
        )


def _question(project: Project, model: str, asked: Asked, policy: AblationPolicy) -> Question:
    section = project.model(model)
    if asked.num_seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {asked.num_seeds}")
    if asked.rules and section.clip.kind == "per_sample":
        raise ConfigError(f"{model} is trained with a per-sample bound, which no --rule can replace: give --threshold alone")
    for threshold in asked.thresholds:
        if not 0 < threshold < float("inf"):
            raise ConfigError(f"--threshold must be a positive number, got {threshold:g}; no clipping is always tried")
    return Question(
        model=model,
        present=section.clip,
        start_ms=asked.start_ms,
        end_ms=asked.end_ms,
        as_of_ms=asked.as_of_ms,
        later_from_ms=asked.later_from_ms,
        thresholds=asked.thresholds,
        rules=tuple(_parse_rule(word) for word in asked.rules),
        seeds=tuple(range(section.seed, section.seed + asked.num_seeds)),
        policy=policy,
    )


def _parse_rule(word: str) -> tuple[ClipKind, float | None]:
    """
    Example:
        >>> _parse_rule("zclip"), _parse_rule("value=0.01")
        (('zclip', None), ('value', 0.01))
    """
    kind, separator, bound = word.partition("=")
    allowed = [name for name in get_args(ClipKind) if name not in ("off", "per_sample")]
    if kind not in allowed:
        raise ConfigError(
            f"--rule must be one of {', '.join(allowed)}, if need be with its bound as in value=0.01; got {word!r}"
        )
    try:
        number = float(bound) if separator else None
    except ValueError as error:
        raise ConfigError(f"the bound in --rule {word} must be a number, got {bound!r}") from error
    if number is None:
        return cast(ClipKind, kind), None
    if not 0 < number < float("inf"):
        raise ConfigError(f"the bound in --rule {word} must be a positive number")
    try:
        make_clipper(ClipSpec(kind=cast(ClipKind, kind), max_norm=number))
    except ValueError as error:
        raise ConfigError(f"--rule {word}: {error}") from error
    return cast(ClipKind, kind), number


def _origin(project: Project, task: Task, options: str) -> str:
    """Digest of the project's own modules that the task brought along, and of its options."""
    digest = hashlib.sha256(f"{type(task).__module__}:{type(task).__qualname__}\0{options}".encode())
    for path in sorted(_own_files(project)):
        digest.update(f"\0{path.relative_to(project.folder)}\0".encode())
        digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _own_files(project: Project) -> set[Path]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    own = {Path(file) for file in files if file and Path(file).is_relative_to(project.folder)}
    return {file for file in own if not file.is_relative_to(project.folder / ".venv") and file.suffix == ".py"}


def _runner(project: Project, asked: Asked) -> Runner:
    if not asked.ray_address:
        return in_processes(asked.num_workers)
    from clipdrift_trainer.ablation.on_ray import on_ray  # noqa: PLC0415  an extra that few have

    return on_ray(asked.ray_address, project.folder, asked.num_workers)


def _command(project: Project, model: str, asked: Asked, folder: Path) -> str:
    """The command that goes on: with every moment said, since "now" will be another one."""
    words = ["clipdrift", "ablate", model, "--project", str(project.folder), "--out", str(folder.resolve())]
    moments = {"--from": asked.start_ms, "--until": asked.end_ms, "--as-of": asked.as_of_ms, "--test-from": asked.later_from_ms}
    for name, moment in moments.items():
        words += [] if moment is None else [name, exact_moment(moment)]
    words += [word for threshold in asked.thresholds for word in ("--threshold", repr(threshold))]
    words += [word for rule in asked.rules for word in ("--rule", rule)]
    words += ["--seeds", str(asked.num_seeds), "--margin", repr(asked.relative_margin), "--workers", str(asked.num_workers)]
    words += ["--ray", asked.ray_address] if asked.ray_address else []
    return shlex.join(words)


@contextmanager
def _shown(console: Console, num_workers: int) -> Iterator[OnStep]:
    """A bar on a terminal, a line for each trial elsewhere."""
    pace = _Pace(num_workers)
    if not console.is_terminal:
        yield lambda step: console.print(_line(step, pace.take(step)), highlight=False, soft_wrap=True, markup=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as shown:
        bar = shown.add_task("trials", total=None, note="")

        def show(step: Step) -> None:
            shown.update(bar, completed=step.num_done, total=step.num_total, note=escape(pace.take(step)))
            trouble = _trouble(step)
            if trouble:
                shown.console.print(escape(f"{_name(step)}: {trouble}"), highlight=False, soft_wrap=True)

        yield show


def _name(step: Step) -> str:
    factor = step.job.learning_rate_factor
    return f"{step.job.arm}, seed {step.job.seed}" + (f", {factor:g} times the learning rate" if factor != 1.0 else "")


def _line(step: Step, pace: str) -> str:
    what = f"{step.num_done} of {step.num_total}: {_name(step)}"
    how = "made by an earlier start" if step.was_kept else f"{step.seconds:.1f} s"
    return "; ".join(filter(None, (f"{what}: {_trouble(step) or _loss_words(step)}", how, pace)))


def _loss_words(step: Step) -> str:
    if isinstance(step.found, Failure) or step.found.validation is None:
        return ""
    metric = step.found.validation.metrics[0]
    return f"{metric} {step.found.validation.mean(metric):.4f}"


def _trouble(step: Step) -> str:
    if isinstance(step.found, Failure):
        lost = f"; its traceback could not be kept on disk ({step.unwritten})" if step.unwritten else ""
        return f"raised {step.found.reason}{lost}"
    if step.unwritten:
        return f"could not be kept on disk ({step.unwritten}): a later start makes it again"
    if step.found.has_diverged:
        return "diverged"
    return ""


class _Pace:
    """How long it will still take, by what trials took, and which arm leads."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._seconds: list[float] = []
        self._losses: dict[str, dict[int, float]] = {}

    def take(self, step: Step) -> str:
        """What can be said after this trial."""
        if not step.was_kept:
            self._seconds.append(step.seconds)
        trial = step.found
        if not isinstance(trial, Failure) and trial.validation is not None and step.job.learning_rate_factor == 1.0:
            loss = trial.validation.mean(trial.validation.metrics[0])
            self._losses.setdefault(step.job.arm, {})[step.job.seed] = loss
        return "; ".join(filter(None, (self._time_left(step), self._leader())))

    def _time_left(self, step: Step) -> str:
        left = step.num_total - step.num_done
        if not self._seconds or not left:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f"about {_duration(left * mean / min(self._num_workers, left))} left"

    def _leader(self) -> str:
        present = self._losses.get(PRESENT, {})
        gains = {
            arm: sum(losses[seed] - present[seed] for seed in common) / len(common)
            for arm, losses in self._losses.items()
            if (common := losses.keys() & present.keys())
        }
        return f"best so far {min(gains, key=lambda arm: gains[arm])}" if len(gains) > 1 else ""


def _duration(seconds: float) -> str:
    """
    Example:
        >>> _duration(42.4), _duration(150), _duration(9000)
        ('42 s', '2 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def say_answer(result: AblationResult, folder: Path, console: Console) -> None:
    """The arms side by side, the recommendation with its reasons, and where the report lies."""
    console.print(answer_table(result))
    advice = result.recommendation
    console.print(f"[bold]{escape(advice.headline)}[/]", highlight=False, soft_wrap=True)
    for reason in (*advice.reasons, *filter(None, [later_words(result)])):
        console.print(f"  {escape(reason)}", highlight=False, soft_wrap=True)
    console.print(f"report  {escape(str(folder / REPORT_FILE))}", highlight=False, soft_wrap=True)


def answer_table(result: AblationResult) -> Table:
    """The arms side by side, for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    has_later = any(one.later is not None for one in result.arms)
    columns = ("policy", "removed", "accuracy", rows.loss_name(result), "minus present's", *(("later",) if has_later else ()))
    for column in columns:
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for one in rows.by_bound(result.arms):
        figures = one.validation
        cells = (
            rows.name_of(one),
            rows.percent(one.removed_mass_ratio),
            one.status if figures is None else rows.number(figures.accuracy),
            rows.number(figures.loss if figures is not None else None),
            rows.gain_words(one),
            *((rows.number(one.later.loss if one.later is not None else None),) if has_later else ()),
        )
        table.add_row(*map(escape, cells), style="bold" if one.arm.name == result.recommendation.arm else "")
    return table
