"""MLflow as the place where people look models up. A registry that fails never loses a run: the run is then registered
nowhere."""

import logging
import os
from typing import Any, Protocol

from clipdrift_contract.events import RunEnd
from clipdrift_trainer.recording.sinks.mlflow_runs import find_entry

_log = logging.getLogger(__name__)


class Registry(Protocol):
    """Called by the thread that trains; may block; never raises."""

    def prepare(self) -> None:
        """Load and open what `register` needs, at a moment when there is nothing else to do. Optional, idempotent."""
        ...

    def register(self, run: RunEnd) -> str:
        """The address under which `run` can be looked up, or "" when it could not be registered.

        The same run (by `run_id`) may come twice, after a crash; it is registered once.
        """
        ...


class NoRegistry:
    """Registers nothing."""

    def prepare(self) -> None: ...

    def register(self, run: RunEnd) -> str:
        return ""


class MlflowRegistry:
    """Registers runs and versions in MLflow, by an SQLite file or a server's address."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def prepare(self) -> None:
        try:
            self._connect().search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001  `register` will meet it again and log it whole
            _log.warning("the registry at %s is not ready: %s", self._uri, error)

    def register(self, run: RunEnd) -> str:
        try:
            return self._register(run)
        except Exception:  # noqa: BLE001  the run is worth more than its entry: whatever MLflow raises, the training goes on
            _log.exception("run %s could not be registered at %s", run.run_id, self._uri)
            return ""

    def _connect(self) -> Any:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            from mlflow.tracking import MlflowClient  # noqa: PLC0415  two seconds of import that only a finished run pays

            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._client

    def _register(self, run: RunEnd) -> str:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415  as above

        client = self._connect()
        tags = {"clipdrift.version": run.version, "clipdrift.digest": run.artifact_digest, "clipdrift.run_id": run.run_id}
        known = self._find(client, run)
        if known:
            return known
        entry = find_entry(client, run.run_id, run.model) or self._make_entry(client, run)
        client.log_batch(
            entry.info.run_id,
            metrics=[Metric(name, value, run.ended_at_ms, run.num_steps) for name, value in _figures(run).items()],
            params=[Param(name, str(value)) for name, value in _parameters(run).items()],
            tags=[RunTag(name, value) for name, value in {**tags, "clipdrift.artifact_uri": run.artifact_uri}.items()],
        )
        client.set_terminated(entry.info.run_id)
        version = client.create_model_version(run.model, run.artifact_uri, entry.info.run_id, tags=tags)
        return f"models:/{run.model}/{version.version}"

    def _make_entry(self, client: Any, run: RunEnd) -> Any:
        experiment = client.get_experiment_by_name(run.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(run.model)
        return client.create_run(experiment_id, run_name=run.version)

    def _find(self, client: Any, run: RunEnd) -> str:
        """The address of a run that is registered already; makes the model's entry when there is none."""
        if not client.search_registered_models(f"name='{run.model}'", max_results=1):
            client.create_registered_model(run.model)
            return ""
        for version in client.search_model_versions(f"name='{run.model}'"):
            if version.tags.get("clipdrift.run_id") == run.run_id:
                return f"models:/{run.model}/{version.version}"
        return ""


def make_registry(url: str) -> Registry:
    """The registry at `url`; none for an empty address."""
    return MlflowRegistry(url) if url else NoRegistry()


def _parameters(run: RunEnd) -> dict[str, Any]:
    return {
        "clip_kind": run.clip.kind,
        "clip_max_norm": run.clip.max_norm,
        "optimizer": run.optimizer,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "num_steps": run.num_steps,
        "data_digest": run.data_digest,
        "code_revision": run.code_revision,
        "as_of_ms": run.as_of_ms,
        "arm": run.arm,
        "precision": run.precision,
    }


def _figures(run: RunEnd) -> dict[str, float]:
    overall = run.validation[0]
    num_rows = max(1, overall.num_rows)
    figures = {
        "accuracy": overall.num_correct / num_rows,
        "nll": overall.nll_sum / num_rows,
        "brier": overall.brier_sum / num_rows,
        "ece": overall.ece,
        "removed_mass_ratio": run.removed_mass_ratio,
        "clip_rate_ratio": run.clip_rate_ratio,
        "num_hidden_slices": len(run.hidden_slices),
    }
    for one in run.intervals:
        if not one.slice and one.num_blocks > 1:
            figures |= {f"{one.metric}_low": one.low, f"{one.metric}_high": one.high}
    if run.calibration is not None:
        figures["nll_gain_of_temperature"] = run.calibration.nll_before - run.calibration.nll_after
    return figures | ({"auc": overall.auc} if overall.auc is not None else {})
