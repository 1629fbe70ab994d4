"""One place for each sink: how to open it, how to make it go away and come back, and what has arrived in it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sink_gateway import Gateway

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import TRAINING, ClipSpec, GradWindow, RunEnd
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks.bus import BusSink
from clipdrift_trainer.recording.sinks.counts import WindowCounts
from clipdrift_trainer.recording.sinks.lines import LinesReader, LinesSink
from clipdrift_trainer.recording.sinks.mlflow_runs import MlflowSink, find_entry
from clipdrift_trainer.recording.sinks.pushgateway import PushgatewaySink
from clipdrift_trainer.recording.sinks.sink import Sink, Telemetry
from clipdrift_trainer.recording.sinks.tensorboard_events import TensorBoardSink
from clipdrift_trainer.registry import MlflowRegistry


def window(step: int, run_id: str = "r", **changes: object) -> GradWindow:
    figures = {
        "norm_sum": 100.0, "norm_sq_sum": 250.0, "norm_min": 1.0, "norm_max": 3.0, "norm_removed_sum": 40.0, "num_clipped": 20,
        "coefficient_sum": 40.0, "loss_sum": 25.0, "learning_rate_sum": 5.0, "effective_learning_rate_sum": 4.0,
        "norm_histogram": {0: 30, 4: 20}, "max_norm_last": 1.5, "num_steps": 50,
    }  # fmt: skip
    given = figures | changes
    return GradWindow(run_id=run_id, model="m", started_at_ms=step, ended_at_ms=step + 50, step_first=step, **given)


def run_end(run_id: str = "r") -> RunEnd:
    return RunEnd(
        run_id=run_id, model="m", version="v1", started_at_ms=0, ended_at_ms=9, data_start_ms=0, data_end_ms=1, as_of_ms=1,
        data_digest="d", code_revision="c", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=150,
    )  # fmt: skip


class BusPlace:
    def __init__(self, folder: Path) -> None:
        self._bus = SqliteBus(folder / "bus.db")
        self._publishers: list[EventPublisher] = []
        self.is_away = False

    def open(self) -> Sink:
        place = self

        class Publisher(EventPublisher):
            def flush(self, timeout_seconds: float) -> None:
                if place.is_away:
                    raise RetryableError("the broker does not answer")
                super().flush(timeout_seconds)

        publisher = Publisher(self._bus.publisher(), source="trainer", clock=ManualClock())
        self._publishers.append(publisher)
        return BusSink(publisher)

    def prepare(self, events: Sequence[Telemetry]) -> None: ...

    def go_away(self) -> None:
        self.is_away = True

    def come_back(self) -> None:
        self.is_away = False

    def last_steps(self, run_id: str = "r") -> list[int]:
        """A consumer keeps the first event of each id."""
        consumer = self._bus.consumer(None, (TRAINING,))
        found = {}
        while records := consumer.poll(500, 0.02):
            for envelope, event in (decode(record.headers, record.value) for record in records):
                if isinstance(event, GradWindow) and event.run_id == run_id:
                    found.setdefault(envelope.id, event.step_first + event.num_steps)
        consumer.close()
        return list(found.values())

    def end(self) -> None:
        for publisher in self._publishers:
            publisher.close()
        self._bus.close()


class FilePlace:
    """What all places in a folder share: they go away when a file stands where the folder should."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "place"

    def prepare(self, events: Sequence[Telemetry]) -> None: ...

    def go_away(self) -> None:
        if self.folder.exists():
            shutil.move(self.folder, self.folder.with_name("aside"))
        self.folder.write_text("in the way")

    def come_back(self) -> None:
        self.folder.unlink()
        aside = self.folder.with_name("aside")
        if aside.exists():
            shutil.move(aside, self.folder)

    def end(self) -> None: ...


class LinesPlace(FilePlace):
    def open(self) -> Sink:
        return LinesSink(self.folder / "run.jsonl", clock=ManualClock())

    def last_steps(self, run_id: str = "r") -> list[int]:
        events = LinesReader(self.folder / "run.jsonl").read()
        return [e.step_first + e.num_steps for e in events if isinstance(e, GradWindow) and e.run_id == run_id]


class MlflowPlace(FilePlace):
    _template: bytes = b""  # a database with MLflow's tables: making them takes seconds

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder.mkdir()
        self._uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        if not MlflowPlace._template:
            MlflowRegistry(self._uri).prepare()
            MlflowPlace._template = (self.folder / "mlflow.db").read_bytes()
        (self.folder / "mlflow.db").write_bytes(MlflowPlace._template)

    def open(self) -> Sink:
        return MlflowSink(self._uri)

    def last_steps(self, run_id: str = "r") -> list[int]:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        history = client.get_metric_history(find_entry(client, run_id, "m").info.run_id, "loss")
        return [metric.step for metric in history]


class TensorBoardPlace(FilePlace):
    def open(self) -> Sink:
        return TensorBoardSink(self.folder / "events")

    def last_steps(self, run_id: str = "r") -> list[int]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        written = EventAccumulator(str(self.folder / "events" / run_id))
        written.Reload()
        return [scalar.step for scalar in written.Scalars("clipdrift/loss")]


class PushgatewayPlace:
    def __init__(self, folder: Path) -> None:
        self.gateway = Gateway()
        self._metrics = MetricSet()
        self._counts = WindowCounts(self._metrics, 150)

    def open(self) -> Sink:
        return PushgatewaySink(self.gateway.address, self._metrics, timeout_seconds=2.0)

    def prepare(self, events: Sequence[Telemetry]) -> None:
        for event in events:
            if isinstance(event, GradWindow):
                self._counts.add(event)

    def go_away(self) -> None:
        self.gateway.stop()

    def come_back(self) -> None:
        self.gateway = Gateway(self.gateway.port)

    def last_steps(self, run_id: str = "r") -> list[int]:
        num_steps = int(self.gateway.value("clipdrift_trainer_optimizer_steps_total"))
        return list(range(50, num_steps + 1, 50))

    def end(self) -> None:
        self.gateway.stop()


PLACES = {
    "bus": BusPlace,
    "jsonl": LinesPlace,
    "mlflow": MlflowPlace,
    "tensorboard": TensorBoardPlace,
    "pushgateway": PushgatewayPlace,
}
