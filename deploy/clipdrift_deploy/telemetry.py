"""Where a project's trainings send their windows, beside the bus."""

from pathlib import Path
from typing import Literal

import msgspec

from clipdrift_contract.clock import Clock, format_moment
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy.project import Project
from clipdrift_trainer.recording.sinks.lines import LinesSink
from clipdrift_trainer.recording.sinks.mlflow_runs import MlflowSink
from clipdrift_trainer.recording.sinks.pushgateway import PushgatewaySink
from clipdrift_trainer.recording.sinks.sink import Sink


class TelemetrySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[training.telemetry]`: where the windows of a training go, beside the bus. What is away never ends a training."""

    jsonl_folder: str = ""
    """Folder for one JSON Lines file a training, relative to the project. Empty: none."""
    jsonl_fsync: Literal["never", "at_the_end", "always"] = "at_the_end"
    """When the disk is told to keep that file against a loss of power; always: after each window."""
    pushgateway_url: str = ""
    """Address of a Prometheus Pushgateway, such as `http://pushgateway:9091`. Empty: none."""
    mlflow: bool = False
    """Log curves to `project.registry_url`, in the MLflow run that the version is registered from."""
    tensorboard_folder: str = ""
    """Folder for TensorBoard, relative to the project; needs the extra `tensorboard`. Empty: none."""

    def __post_init__(self) -> None:
        if self.pushgateway_url and not self.pushgateway_url.startswith(("http://", "https://")):
            raise ValueError(f"pushgateway_url must begin with http:// or https://, got {self.pushgateway_url!r}")


def sinks_of(project: Project, model: str, section: TelemetrySection, metrics: MetricSet, clock: Clock) -> list[Sink]:
    """The sinks that the section names, for one training of `model`.

    Raises:
        ConfigError: MLflow is wanted but the project has no registry, or the extra for TensorBoard is missing.
    """
    sinks: list[Sink] = []
    if section.jsonl_folder:
        stamp = format_moment(clock.now_ms()).replace(":", "").replace(" ", "T").replace("-", "")
        path = project.folder / section.jsonl_folder / f"{model}-{stamp}.jsonl"
        sinks.append(LinesSink(_free(path), fsync=section.jsonl_fsync, clock=clock))
    if section.pushgateway_url:
        sinks.append(PushgatewaySink(section.pushgateway_url, metrics))
    if section.mlflow:
        if not project.registry_url:
            raise ConfigError("[training.telemetry] mlflow needs a registry, but [project] registry_url is none")
        sinks.append(MlflowSink(project.registry_url))
    if section.tensorboard_folder:
        sinks.append(_tensorboard(project.folder / section.tensorboard_folder))
    return sinks


def _free(path: Path) -> Path:
    """`path`, or the first of its numbered neighbours that is not there: two trainings may begin in one minute."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _tensorboard(folder: Path) -> Sink:
    try:
        from clipdrift_trainer.recording.sinks.tensorboard_events import TensorBoardSink  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(f"[training.telemetry] tensorboard_folder: {error}") from error
    return TensorBoardSink(folder)
