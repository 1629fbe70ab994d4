"""Runs can be looked up in MLflow; a registry that fails loses nothing."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import ClipSpec, RunEnd, SliceScore
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_trainer.registering.card import CardGate, CardParent
from clipdrift_trainer.registering.describing import Describing, describe_version
from clipdrift_trainer.registry import AliasChange, MlflowRegistry, NoRegistry, make_registry

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


def test_a_version_tells_its_data_its_code_its_card_and_its_parent(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    folder = tmp_path / "pump" / RUN.version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    profile = ReferenceProfile(task="binary", classes=("no", "yes"))
    run = msgspec.structs.replace(
        RUN, artifact_uri=(folder / "model.onnx").as_uri(), retrain_key="key-1", arm="half", profile=profile
    )
    gate = CardGate(verdict="pass", reasons=("better",), checks=())
    run = describe_version(run, Describing(), gate=gate, parent=CardParent(version="20130201-old000", digest="sha256:old"))
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}")

    version = registry._connect().get_model_version("pump", registry.register(run).rsplit("/", 1)[1])

    told = {name.removeprefix("clipdrift."): value for name, value in version.tags.items()}
    assert told == {
        "version": run.version, "digest": "sha256:a", "run_id": "run-1", "data_digest": "sha256:d", "code_revision": "c",
        "retrain_key": "key-1", "arm": "half", "card_digest": run.card_digest, "is_signed": "false",
        "parent": "20130201-old000", "gate": "pass",
    }  # fmt: skip
    assert "Gate: pass: better." in version.description
    (data,) = registry._connect().get_run(version.run_id).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("pump", "d")
    assert '"as_of_ms":1' in data.dataset.source


@pytest.fixture
def two_versions(registered: tuple[Any, str, Any]) -> tuple[MlflowRegistry, Any]:
    registry, _, client = registered
    registry.register(msgspec.structs.replace(RUN, run_id="run-2", version="20130401-def456"))
    return registry, client


def aliases(client: Any) -> dict[str, str]:
    told = client.get_registered_model("pump").aliases
    return {alias: client.get_model_version("pump", number).tags["clipdrift.version"] for alias, number in told.items()}


OLD, NEW = RUN.version, "20130401-def456"


def test_aliases_follow_deployments_and_the_same_again_changes_nothing(two_versions: tuple[MlflowRegistry, Any]) -> None:
    registry, client = two_versions

    first = registry.follow("pump", {"champion": OLD, "canary": NEW})
    again = registry.follow("pump", {"champion": OLD, "canary": NEW})
    promoted = registry.follow("pump", {"champion": NEW, "previous": OLD})

    assert [tuple(change) for change in first] == [("champion", "", OLD), ("canary", "", NEW)]
    assert again == ()
    assert [tuple(change) for change in promoted] == [("champion", OLD, NEW), ("canary", NEW, ""), ("previous", "", OLD)]
    assert aliases(client) == {"champion": NEW, "previous": OLD}
    assert client.get_model_version_by_alias("pump", "champion").tags["clipdrift.version"] == NEW


def test_an_alias_moved_by_hand_is_moved_back_and_peoples_own_are_left_alone(
    two_versions: tuple[MlflowRegistry, Any],
) -> None:
    registry, client = two_versions
    registry.follow("pump", {"champion": NEW})
    client.set_registered_model_alias("pump", "champion", "1")
    client.set_registered_model_alias("pump", "canary", "1")
    client.set_registered_model_alias("pump", "favourite", "1")

    changes = registry.follow("pump", {"champion": NEW})

    assert [tuple(change) for change in changes] == [("champion", OLD, NEW), ("canary", OLD, "")]
    assert aliases(client) == {"champion": NEW, "favourite": OLD}


def test_a_version_that_is_not_registered_has_no_alias_and_takes_the_old_one_away(
    two_versions: tuple[MlflowRegistry, Any],
) -> None:
    registry, client = two_versions
    registry.follow("pump", {"champion": OLD})

    assert registry.follow("pump", {"champion": "20200101-nobody"}) == (AliasChange("champion", OLD, ""),)
    assert "champion" not in aliases(client)
    assert registry.follow("nobody", {}) == ()


def test_a_registry_that_is_away_says_so(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="does not answer"):
        MlflowRegistry(f"sqlite:///{tmp_path}/no/such/folder/\0/mlflow.db").follow("pump", {})


def test_a_registry_that_fails_gives_no_address_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = MlflowRegistry(f"sqlite:///{tmp_path}/no/such/folder/\0/mlflow.db")

    registry.prepare()

    assert registry.register(RUN) == ""
    assert any("run-1 could not be registered" in record.message for record in caplog.records)


def test_without_an_address_nothing_is_registered() -> None:
    assert isinstance(make_registry(""), NoRegistry)
    assert make_registry("").register(RUN) == ""
