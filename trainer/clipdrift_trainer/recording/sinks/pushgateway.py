"""Prometheus' Pushgateway as a sink: for runs that nobody can scrape."""

import logging
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks.sink import Telemetry

JOB = "clipdrift_trainer"
_log = logging.getLogger(__name__)


class PushgatewaySink:
    """Pushes the run's metrics once a window under `job`, `model` and `run`, and deletes that group at the end.

    A run that is killed leaves its group behind; `push_time_seconds` tells its age. Metrics of a run that is over are not
    pushed again, so nothing is kept for a later start.

    Args:
        address: Such as `http://pushgateway:9091`.
        metrics: What the windows are counted in.
        timeout_seconds: How long one push may take.
    """

    name = "pushgateway"
    needs_every_window = False

    def __init__(self, address: str, metrics: MetricSet, timeout_seconds: float = 5.0) -> None:
        self.target = address
        self._address = address
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds
        self._groups: dict[tuple[str, str], None] = {}

    def send(self, events: Sequence[Telemetry]) -> None:
        for model, run in dict.fromkeys((event.model, event.run_id) for event in events):
            self._groups[model, run] = None
            registry = CollectorRegistry()
            registry.register(_OfModel(self._metrics, model))
            try:
                push_to_gateway(
                    self._address, JOB, registry, {"model": model, "run": run}, self._timeout_seconds
                )  # replaces the group
            except OSError as error:  # urllib's errors are OSErrors, those of HTTP too
                raise RetryableError(f"the Pushgateway at {self._address} does not take the metrics: {error}") from error

    def close(self) -> None:
        while self._groups:
            (model, run), _ = self._groups.popitem()
            try:
                delete_from_gateway(self._address, JOB, {"model": model, "run": run}, self._timeout_seconds)
            except OSError as error:
                _log.warning("run %s stays at the Pushgateway %s, which does not answer: %s", run, self._address, error)


class _OfModel(Collector):
    """The series of one model: the Pushgateway would write the group's model over that of any other."""

    def __init__(self, metrics: MetricSet, model: str) -> None:
        self._registry = metrics.registry
        self._model = model

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            family.samples = [
                sample
                for sample in family.samples
                if sample.labels.get("model") == self._model and not sample.name.endswith("_created")
            ]
            if family.samples:
                yield family
