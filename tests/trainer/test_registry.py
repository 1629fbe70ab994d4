"""Runs can be looked up in MLflow; a registry that fails loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from clipdrift_contract.events import ClipSpec, RunEnd, SliceScore
from clipdrift_trainer.registry import MlflowRegistry, NoRegistry, make_registry

pytestmark = pytest.mark.slow  # MLflow takes five seconds to import and to make its tables

RUN = RunEnd(
    run_id="run-1", model="pump", version="20130301-abc123", started_at_ms=0, ended_at_ms=5, data_start_ms=0, data_end_ms=1,
    as_of_ms=1, data_digest="sha256:d", code_revision="c", seed=3, optimizer="SGD", learning_rate=0.1,
    clip=ClipSpec(kind="global_norm", max_norm=1.0), num_steps=10, removed_mass_ratio=0.25, artifact_digest="sha256:a",
    artifact_uri="file:///models/pump/20130301-abc123/model.onnx",
    validation=(SliceScore(slice="", num_rows=100, num_correct=80, nll_sum=50.0, brier_sum=20.0, ece=0.05),),
)  # fmt: skip


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowRegistry, str, Any]:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    registry = MlflowRegistry(uri)
    registry.prepare()
    return registry, registry.register(RUN), MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_registered_version_leads_to_the_file_the_policy_and_the_figures(registered: tuple[Any, str, Any]) -> None:
    _, address, client = registered

    version = client.get_model_version("pump", address.rsplit("/", 1)[1])
    run = client.get_run(version.run_id)
    assert version.source == RUN.artifact_uri
    assert version.tags["clipdrift.digest"] == "sha256:a"
    assert (run.info.status, run.info.run_name) == ("FINISHED", RUN.version)
    assert (run.data.params["clip_max_norm"], run.data.params["data_digest"]) == ("1.0", "sha256:d")
    assert (run.data.metrics["accuracy"], run.data.metrics["removed_mass_ratio"]) == (0.8, 0.25)


def test_the_same_run_twice_is_registered_once(registered: tuple[Any, str, Any]) -> None:
    registry, address, client = registered

    assert registry.register(RUN) == address == "models:/pump/1"
    assert len(client.search_model_versions("name='pump'")) == 1


def test_a_registry_that_fails_gives_no_address_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = MlflowRegistry(f"sqlite:///{tmp_path}/no/such/folder/\0/mlflow.db")

    registry.prepare()

    assert registry.register(RUN) == ""
    assert any("run-1 could not be registered" in record.message for record in caplog.records)


def test_without_an_address_nothing_is_registered() -> None:
    assert isinstance(make_registry(""), NoRegistry)
    assert make_registry("").register(RUN) == ""
