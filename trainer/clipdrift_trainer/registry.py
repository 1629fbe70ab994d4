"""MLflow as the place where people look models up: versions, where they come from, and which is in service. A registry that
fails never loses a run: the run is then registered nowhere.

MLflow decides nothing. Its aliases are last writer wins and have no history; ours follow the monitor's deployments, and one
that somebody moved by hand is moved back.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from clipdrift_contract.clock import format_moment
from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.version_files import CARD_NAME, file_at
from clipdrift_trainer.recording.sinks.mlflow_runs import find_entry
from clipdrift_trainer.registering.card import ModelCard, decode_card

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
ALIASES = ("champion", "canary", "shadow", "previous")
"""Those that follow deployments; others are people's own and are left alone."""
_MOST_DIGEST = 36  # letters of a data set's digest that MLflow keeps
_MOST_TAG = 5_000


class AliasChange(NamedTuple):
    """An alias that did not stand where the deployments say."""

    alias: str
    before: str  # version; empty: the alias was not there
    after: str  # version; empty: it is gone now, or the version is not registered


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
        card = _card_of(run)
        tags = _tags(run, card)
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
        _log_data(client, run, entry.info.run_id)
        client.set_terminated(entry.info.run_id)
        version = client.create_model_version(
            run.model, run.artifact_uri, entry.info.run_id, tags=tags, description=_description(run, card)
        )
        return f"models:/{run.model}/{version.version}"

    def follow(self, model: str, wanted: Mapping[str, str]) -> tuple[AliasChange, ...]:
        """Move the aliases of `model` to where deployments say; the same again changes nothing.

        Args:
            model: The registered model.
            wanted: Version by alias, of `ALIASES`; one that is not named here is taken away.

        Returns:
            What was moved. A version that is not registered has no alias, and is told each time.

        Raises:
            RetryableError: The registry is away.
        """
        return self._asked(lambda client: self._follow(client, model, wanted))

    def _follow(self, client: Any, model: str, wanted: Mapping[str, str]) -> tuple[AliasChange, ...]:
        numbers: dict[str, str] = {}
        now = self._aliases(client, model, numbers)
        changes = []
        for alias in ALIASES:
            before, after = now.get(alias, ""), wanted.get(alias, "")
            number = numbers.get(after, "")
            if before == after:
                continue
            if number:
                client.set_registered_model_alias(model, alias, number)
            elif before:
                client.delete_registered_model_alias(model, alias)
            changes.append(AliasChange(alias, before, after if number else ""))
        return tuple(changes)

    def _aliases(self, client: Any, model: str, numbers: dict[str, str]) -> dict[str, str]:
        """Our version by alias, "?" for one that is not ours. `numbers` is filled with MLflow's number by version, the newest
        where one was registered twice."""
        if not client.search_registered_models(f"name='{model}'", max_results=1):
            return {}
        ours = {}
        for one in sorted(client.search_model_versions(f"name='{model}'"), key=lambda one: int(one.version)):
            ours[str(one.version)] = one.tags.get("clipdrift.version", "")
            numbers[ours[str(one.version)]] = str(one.version)
        numbers.pop("", None)
        told = client.get_registered_model(model).aliases
        return {alias: ours.get(str(number), "") or "?" for alias, number in told.items()}

    def _asked(self, question: Callable[[Any], _T]) -> _T:
        try:
            return question(self._connect())
        except ClipdriftError:
            raise
        except Exception as error:  # MLflow raises its own, SQLAlchemy's and the network's
            raise RetryableError(f"the registry at {self._uri} does not answer: {type(error).__name__}: {error}") from error

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


def _card_of(run: RunEnd) -> ModelCard | None:
    """The card beside the version's model; None where there is none."""
    try:
        return decode_card((file_at(run.artifact_uri).parent / CARD_NAME).read_bytes())
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def _tags(run: RunEnd, card: ModelCard | None) -> dict[str, str]:
    """What a version is looked up by: its files, and where it comes from."""
    tags = {
        "version": run.version, "digest": run.artifact_digest, "run_id": run.run_id, "data_digest": run.data_digest,
        "code_revision": run.code_revision, "retrain_key": run.retrain_key, "arm": run.arm, "card_digest": run.card_digest,
        "is_signed": str(run.is_signed).lower(),
        "parent": card.origin.parent.version if card is not None and card.origin.parent is not None else "",
        "gate": card.gate.verdict if card is not None and card.gate is not None else "",
    }  # fmt: skip
    return {f"clipdrift.{name}": value[:_MOST_TAG] for name, value in tags.items() if value}


def _description(run: RunEnd, card: ModelCard | None) -> str:
    """Some lines for who looks at the version; the card has the rest."""
    lines = [f"Data until {format_moment(run.data_end_ms)} UTC, code {run.code_revision}."]
    if card is not None and card.gate is not None:
        lines.append(f"Gate: {card.gate.verdict}: {'; '.join(card.gate.reasons)}.")
    if card is not None and card.origin.parent is not None:
        lines.append(f"Made to replace {card.origin.parent.version}.")
    if card is not None:
        lines.append(f"Model card: card.md beside {run.artifact_uri}, sha256 of card.json {run.card_digest}.")
    return "\n\n".join(lines)[:_MOST_TAG]


def _log_data(client: Any, run: RunEnd, run_id: str) -> None:
    """The snapshot of the data that the run was trained on."""
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415  as above

    snapshot = Dataset(
        name=run.model,
        digest=run.data_digest.removeprefix("sha256:")[:_MOST_DIGEST],
        source_type="clipdrift",
        source=msgspec.json.encode(
            {"start_ms": run.data_start_ms, "end_ms": run.data_end_ms, "as_of_ms": run.as_of_ms, "digest": run.data_digest}
        ).decode(),
    )
    client.log_inputs(run_id, [DatasetInput(snapshot, [InputTag("mlflow.data.context", "training")])])


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
