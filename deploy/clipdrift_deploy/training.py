"""Trainings of a project's models: its task, its settings, its bus and its registry, handed to the trainer."""

import hashlib
import logging
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError
from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_deploy.moments import require_span
from clipdrift_deploy.project import FILE_NAME, ModelSection, Project
from clipdrift_deploy.settings import read_section
from clipdrift_deploy.tasks import load_task
from clipdrift_deploy.telemetry import TelemetrySection, sinks_of
from clipdrift_deploy.watching import WatchedRun, shown
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.export import read_artifact
from clipdrift_trainer.quality.policy import QualityPolicy
from clipdrift_trainer.recording.scraping import scrape_endpoint
from clipdrift_trainer.registering.describing import Describing, require_signer
from clipdrift_trainer.registry import make_registry
from clipdrift_trainer.retraining.gate import GatePolicy
from clipdrift_trainer.retraining.job import RetrainingConfig, run_retrain
from clipdrift_trainer.tasks.fitting import per_sample_module
from clipdrift_trainer.tasks.task import Task
from clipdrift_trainer.training import Order, TrainingConfig, train

_log = logging.getLogger(__name__)


class TrainingSection(TrainingConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[training]`: which days are held out, what a candidate must show, how many arms are trained at a time."""

    gate: GatePolicy = GatePolicy()
    """What a candidate must show: see `[training.gate]`."""
    max_workers: int = 2
    """Arms of a retrain trained at the same time, each in a process with one thread."""
    quality: QualityPolicy = QualityPolicy()
    """What the rows must stand before a training: see `[training.quality]`."""
    signing_key_file: str = ""
    """PEM file of the private key that versions are signed with (extra: `signing`), in the project's folder. Empty: none."""
    telemetry: TelemetrySection = TelemetrySection()
    """Where the windows of a training go: see `[training.telemetry]`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        RetrainingConfig(max_workers=self.max_workers)


class TaskError(ClipdriftError):
    """The user's task raised something while it loaded rows, built or trained its model; the message says where."""


def training_section(project: Project) -> TrainingSection:
    """The checked `[training]` of a project."""
    return read_section(project.folder / FILE_NAME, "training", project.file.training, TrainingSection)


def retraining_config(section: TrainingSection) -> RetrainingConfig:
    """The trainer's two configs; a plain `TrainingConfig`, since its text form is part of a version's name."""
    held_out = {name: getattr(section, name) for name in TrainingConfig.__struct_fields__}
    return RetrainingConfig(
        training=TrainingConfig(**held_out), gate=section.gate, max_workers=section.max_workers, quality=section.quality
    )


def describing_of(project: Project, model: str) -> Describing:
    """How versions of `model` are described and signed.

    Raises:
        ConfigError: They are to be signed and cannot be.
    """
    named = project.environment.signing_key_file or training_section(project).signing_key_file
    key_file = project.folder / named if named else None
    require_signer(key_file)
    return Describing(stated=project.model(model).card, key_file=key_file)


def train_model(
    project: Project,
    model: str,
    *,
    start_ms: int,
    end_ms: int,
    as_of_ms: int,
    seed: int | None = None,
    metrics_port: int | None = None,
    console: Console,
    clock: Clock | None = None,
) -> RunEnd:
    """Train one version of `model` and publish what happened; the file lies below `project.artifacts`.

    Args:
        project: The checked project.
        model: A model of it.
        start_ms: The data begin here.
        end_ms: They end before this moment.
        as_of_ms: Labels that were known later are not used.
        seed: None: the project's.
        metrics_port: Serve Prometheus metrics there while it trains; None: do not.
        console: Shows the progress.
        clock: For tests.

    Raises:
        ConfigError: Settings, window or port are wrong.
        TaskError: The user's task raised; its traceback is kept in a file.
        RetryableError: The bus is away; the same call later gives the same version and tells the monitor.
    """
    section = project.model(model)
    require_span(start_ms, end_ms)
    config = retraining_config(training_section(project))
    check_clip(project, model, section)
    describing = describing_of(project, model)
    task = load_task(project, model)
    order = Order(
        model=model,
        start_ms=start_ms,
        end_ms=end_ms,
        as_of_ms=as_of_ms,
        clip=section.clip,
        seed=section.seed if seed is None else seed,
        code_revision=code_revision(project, model),
    )
    metrics = MetricSet()
    with (
        _publisher(project, clock or SystemClock()) as publisher,
        _scraped(metrics, metrics_port),
        task_errors(project, model),
        shown(console, WatchedRun(task.num_steps)) as on_window,
    ):
        return train(
            task, config.training, order, artifacts=project.artifacts, registry=make_registry(project.registry_url),
            publisher=publisher, clock=clock or SystemClock(), metrics=metrics, on_window=on_window,
            sinks=sinks_of(project, model, training_section(project).telemetry, metrics, clock or SystemClock()),
            spool=project.state / "spool",
            quality=config.quality, profile=newest_profile(project, model), describing=describing,
        ).run_end  # fmt: skip


def train_missing(project: Project, now_ms: int, console: Console) -> tuple[RunEnd, ...]:
    """Train each model that has no version yet, on all data known at `now_ms`; returns the runs."""
    return tuple(
        train_model(project, model, start_ms=0, end_ms=now_ms, as_of_ms=now_ms, console=console)
        for model in project.untrained()
    )


def carry_out(project: Project, job_folder: Path) -> RetrainOutcome | None:
    """Carry out the order in `job_folder`; None when another process is doing so. See `run_retrain`.

    A task that cannot be loaded, or settings that are wrong, end the order too: it is then inconclusive and says why.

    Raises:
        ConfigError: The folder holds no readable order.
        RetryableError: The bus is away; start it again.
    """
    absolute = job_folder.resolve()
    folder = JobFolder(absolute.parent, absolute.name)
    request = _read_request(folder)
    try:
        task: Task = load_task(project, request.model)
        config = retraining_config(training_section(project))
        revision = code_revision(project, request.model)
        describing = describing_of(project, request.model)
    except ConfigError as error:
        task, config, revision, describing = _unusable(error), RetrainingConfig(), "unknown", Describing()
    clock = SystemClock()
    with _publisher(project, clock) as publisher:
        outcome = run_retrain(
            folder, task, config, artifacts=project.artifacts, registry=make_registry(project.registry_url),
            publisher=publisher, clock=clock, metrics=MetricSet(), code_revision=revision, describing=describing,
        )  # fmt: skip
    if outcome is not None:
        _write_page(folder.path, outcome)
    return outcome


def _write_page(folder: Path, outcome: RetrainOutcome) -> None:
    """The gate's page, for people; the outcome is out already, so one that cannot be written only warns."""
    from clipdrift_deploy.gate_report.report import PAGE_NAME, write_gate_page  # noqa: PLC0415  matplotlib takes a second

    try:
        write_gate_page(folder / PAGE_NAME, outcome)
    except Exception as error:  # noqa: BLE001  whatever drawing raises
        _log.warning("no page of the gate in %s: %s", folder, error)


def newest_profile(project: Project, model: str) -> ReferenceProfile | None:
    """What the newest version of `model` on this machine was trained on; None where there is none."""
    files = sorted(project.artifacts.glob(f"{model}/*/model.onnx"), key=lambda path: path.stat().st_mtime)
    return read_artifact(files[-1]).profile if files else None


def code_revision(project: Project, model: str) -> str:
    """Digest of the file that holds the model's task; what that file imports is not in it."""
    module = project.model(model).task.partition(":")[0]
    path = project.folder / f"{module.replace('.', '/')}.py"
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def check_clip(project: Project, model: str, section: ModelSection) -> None:
    try:
        if section.clip.kind == "per_sample":  # made with the module and the optimizer, which are not there yet
            per_sample_module().checked_options(section.clip)
        else:
            make_clipper(section.clip)
    except ValueError as error:
        raise ConfigError(f"{project.folder / FILE_NAME}: [models.{model}] clip: {error}") from error


def _read_request(folder: JobFolder) -> RetrainRequest:
    try:
        return folder.read_request()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder.path} holds no order (there is no {folder.request_path.name}); `clipdrift retrain MODEL --why ...` "
            "makes the monitor write one"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{folder.request_path} is no readable order ({error}); order the retrain again") from error


def _unusable(error: ConfigError) -> Any:
    """Stands for a task that cannot be loaded: whatever is asked of it raises the reason, so that the order ends with it."""

    class Unusable:
        def __getattr__(self, _: str) -> Any:
            raise error

    return Unusable()


@contextmanager
def _publisher(project: Project, clock: Clock) -> Iterator[EventPublisher]:
    project.state.mkdir(parents=True, exist_ok=True)
    try:
        bus = connect(project.bus_url)
        publisher = EventPublisher(bus.publisher(), source="trainer", clock=clock)
    except RetryableError as error:
        raise RetryableError(f"{error}; nothing was started, try again when the bus answers") from error
    try:
        yield publisher
    except RetryableError as error:
        raise RetryableError(
            f"{error}; the file is written but the monitor does not know of it: give the same command again, "
            "it makes the same version"
        ) from error
    finally:
        publisher.close()
        bus.close()


@contextmanager
def _scraped(metrics: MetricSet, port: int | None) -> Iterator[None]:
    if port is None:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(scrape_endpoint(metrics, port))
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served on port {port} ({error.strerror}); give another with --metrics-port"
            ) from error
        yield


@contextmanager
def task_errors(project: Project, model: str, command: str = "train", doing: str = "training") -> Iterator[None]:
    """Whatever the user's task raises becomes one sentence; the traceback goes into a file of the command's own."""
    try:
        yield
    except ClipdriftError:
        raise
    except Exception as error:  # whatever the user's task raises is the message
        path = project.logs / f"{command}-{model}-error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)))
        what = f"{type(error).__name__}: {error}"
        raise TaskError(f"{doing} {model} failed{_place(project, error)}: {what}; the whole traceback is in {path}") from error


def _place(project: Project, error: Exception) -> str:
    """The last line of the project's own code that the error passed through."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(project.folder)]
    return f" in {own[-1].name} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
