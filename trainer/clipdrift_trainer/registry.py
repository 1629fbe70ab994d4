"""MLflow as the place where people look models up. A registry that fails never loses a run: the run is then registered
nowhere."""

import logging
import os
from typing import Any, Protocol

from clipdrift_contract.events import RunEnd

_log = logging.getLogger(__name__)


class Registry(Protocol):
    """Called once a run, by the training thread; may block; never raises."""

    def register(self, run: RunEnd) -> str:
        """The address under which `run` can be looked up, or "" when it could not be registered."""
        ...


class NoRegistry:
    """Registers nothing."""

    def register(self, run: RunEnd) -> str:
        return ""


class MlflowRegistry:
    """Registers runs and versions in MLflow, by an SQLite file or a server's address."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def register(self, run: RunEnd) -> str:
        try:
            return self._register(run)
        except Exception:  # noqa: BLE001  the run is worth more than its entry: whatever MLflow raises, the training goes on
            _log.exception("run %s could not be registered at %s", run.run_id, self._uri)
            return ""

    def _register(self, run: RunEnd) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  two seconds of import that only a finished run pays

        client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        experiment = client.get_experiment_by_name(run.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(run.model)
        entry = client.create_run(experiment_id, tags={"clipdrift.run_id": run.run_id}, run_name=run.version)
        for name, value in _parameters(run).items():
            client.log_param(entry.info.run_id, name, value)
        for name, value in _figures(run).items():
            client.log_metric(entry.info.run_id, name, value)
        client.set_terminated(entry.info.run_id)
        if not client.search_registered_models(f"name='{run.model}'"):
            client.create_registered_model(run.model)
        tags = {"clipdrift.version": run.version, "clipdrift.digest": run.artifact_digest, "clipdrift.run_id": run.run_id}
        version = client.create_model_version(run.model, run.artifact_uri, entry.info.run_id, tags=tags)
        return f"models:/{run.model}/{version.version}"


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
    }
    return figures | ({"auc": overall.auc} if overall.auc is not None else {})
