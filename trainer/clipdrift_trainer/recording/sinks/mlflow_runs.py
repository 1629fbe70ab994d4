"""MLflow as a sink: the curves of a run, in the same MLflow run that its version is registered from."""

import os
import re
from collections.abc import Sequence
from typing import Any

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import GradWindow, RunEnd
from clipdrift_trainer.recording.sinks.figures import curves, step_after
from clipdrift_trainer.recording.sinks.sink import Telemetry

RUN_TAG = "clipdrift.run_id"
_LAST_STEP_TAG = "clipdrift.last_step"
_MOST_METRICS = 1_000  # that MLflow takes in one batch
_PASSWORD = re.compile(r"//[^/@]*@")
_REFUSED = re.compile(r"[^\w\-. /]")  # MLflow's rule for names


class MlflowSink:
    """Logs each window's figures at its step, in batches.

    A run is found again by its run id, so a run that goes on after a crash goes on in the same entry, and a window that is
    there already is not logged twice.

    Args:
        uri: `sqlite:///FILE` or `http://...`.
    """

    name = "mlflow"
    needs_every_window = True

    def __init__(self, uri: str) -> None:
        self.target = _PASSWORD.sub("//", uri)
        self._uri = uri
        self._client: Any = None
        self._entries: dict[str, str] = {}
        self._last_steps: dict[str, int] = {}

    def send(self, events: Sequence[Telemetry]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  two seconds that only a run with this sink pays

        try:
            for run_id in dict.fromkeys(event.run_id for event in events):
                self._log(run_id, [event for event in events if event.run_id == run_id])
        except MlflowException as error:
            if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            raise RetryableError(f"MLflow at {self._uri} does not take the figures: {error}") from error
        except OSError as error:  # a folder that is gone, a server that is away
            raise RetryableError(f"MLflow at {self._uri} is away: {error}") from error

    def close(self) -> None:
        while self._entries:
            _, entry = self._entries.popitem()
            self._client.set_terminated(entry)

    def _log(self, run_id: str, events: Sequence[Telemetry]) -> None:
        from mlflow.entities import Metric, RunTag  # noqa: PLC0415  as above

        entry = self._entry(run_id, events[0].model)
        windows = [event for event in events if isinstance(event, GradWindow)]
        new = [window for window in windows if step_after(window) > self._last_steps.get(run_id, 0)]
        metrics = [
            Metric(_REFUSED.sub("_", name), value, window.ended_at_ms, step_after(window))
            for window in new
            for name, value in curves(window).items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(entry, metrics=metrics[start : start + _MOST_METRICS])
        if new:
            last_step = max(map(step_after, new))
            self._client.log_batch(entry, tags=[RunTag(_LAST_STEP_TAG, str(last_step))])
            self._last_steps[run_id] = last_step
        for event in events:
            if isinstance(event, RunEnd):
                self._client.log_batch(entry, tags=[RunTag("clipdrift.version", event.version)])

    def _entry(self, run_id: str, model: str) -> str:
        """The id that MLflow has for the run; makes its entry when there is none."""
        if run_id not in self._entries:
            if self._client is None:
                from mlflow.tracking import MlflowClient  # noqa: PLC0415  as above

                self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            found = find_entry(self._client, run_id, model)
            if found is None:
                experiment = self._client.get_experiment_by_name(model)
                experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(model)
                found = self._client.create_run(experiment_id, tags={RUN_TAG: run_id}, run_name=run_id)
            self._entries[run_id] = found.info.run_id
            self._last_steps[run_id] = int(found.data.tags.get(_LAST_STEP_TAG, 0))
        return self._entries[run_id]


def find_entry(client: Any, run_id: str, model: str) -> Any:
    """MLflow's run that carries the run id; None where there is none."""
    experiment = client.get_experiment_by_name(model)
    if experiment is None:
        return None
    quoted = run_id.replace("'", "")
    found = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{quoted}'", max_results=1)
    return found[0] if found else None
