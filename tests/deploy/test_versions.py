"""Which versions there are, and that the registry's aliases follow the monitor's deployments."""

import json
from pathlib import Path
from typing import Any

import pytest

from clipdrift_contract.events import ClipSpec, Deployment, RunEnd, ServedVersion, SliceScore
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_contract.version_files import sha256_of
from clipdrift_deploy.cli.app import out
from clipdrift_deploy.project import Environment, Project
from clipdrift_deploy.versions import VersionRow, aliases_of, roles_of, versions_of
from clipdrift_monitor.store.store import Changes, Store
from clipdrift_trainer.registering.card import CardGate, CardParent
from clipdrift_trainer.registering.describing import Describing, describe_version

FIRST, SECOND = "20260901-aaaaaa", "20261001-bbbbbb"


def served(version: str) -> ServedVersion:
    return ServedVersion(version=version, uri=f"file:///{version}", digest=f"sha256:{version}")


def deployed(generation: int, champion: str, **others: Any) -> Deployment:
    return Deployment(model="pump", generation=generation, champion=served(champion), decided_at_ms=generation, **others)


def make_version(project: Project, version: str, ended_at_ms: int, *, is_retrain: bool) -> RunEnd:
    folder = project.artifacts / "pump" / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(version.encode())
    run = RunEnd(
        run_id=f"run-{version}", model="pump", version=version, started_at_ms=0, ended_at_ms=ended_at_ms, data_start_ms=0,
        data_end_ms=1, as_of_ms=1, data_digest="sha256:d", code_revision="c", seed=1, optimizer="SGD", learning_rate=0.1,
        clip=ClipSpec(), num_steps=1, profile=ReferenceProfile(task="binary", classes=("fine", "failed")),
        validation=(SliceScore(slice="", num_rows=50, num_correct=40, nll_sum=20.0, brier_sum=9.0, ece=0.1),),
        artifact_uri=(folder / "model.onnx").as_uri(), artifact_digest=f"sha256:{sha256_of(folder / 'model.onnx')}",
        retrain_key="order-1" if is_retrain else "",
    )  # fmt: skip
    if not is_retrain:
        return describe_version(run, Describing())
    gate = CardGate(verdict="pass", reasons=("better",), checks=())
    return describe_version(run, Describing(), gate=gate, parent=CardParent(version=FIRST, digest="sha256:first"))


@pytest.fixture
def project(make_project: Any, tmp_path: Path) -> Project:
    made: Project = make_project(environment=Environment(registry_url=f"sqlite:///{tmp_path / 'mlflow.db'}"))
    make_version(made, FIRST, 1_000, is_retrain=False)
    make_version(made, SECOND, 2_000, is_retrain=True)
    store = Store(made.store_url)
    store.commit(Changes(deployments=[deployed(1, FIRST), deployed(2, FIRST, canary=served(SECOND), canary_weight=0.1)]))
    store.close()
    return made


def test_versions_tell_their_role_and_where_they_come_from(project: Project) -> None:
    assert versions_of(project, "pump") == (
        VersionRow(
            model="pump", version=SECOND, roles=("canary",), trained_at_ms=2_000, retrain_key="order-1", parent=FIRST,
            gate="pass", accuracy=0.8,
        ),
        VersionRow(model="pump", version=FIRST, roles=("champion",), trained_at_ms=1_000, accuracy=0.8),
    )  # fmt: skip


def test_a_version_that_serves_and_is_not_here_is_listed_all_the_same(project: Project) -> None:
    store = Store(project.store_url)
    store.commit(Changes(deployments=[deployed(3, "20261101-cccccc")]))
    store.close()

    last = versions_of(project, "pump")[-1]

    assert (last.version, last.roles, last.is_here) == ("20261101-cccccc", ("champion",), False)


def test_the_version_before_the_champion_is_previous_however_long_ago_it_served() -> None:
    newest_first = [deployed(4, "b", shadow=served("a")), deployed(3, "b"), deployed(2, "a", canary=served("b"))]

    assert aliases_of(newest_first) == {"champion": "b", "shadow": "a", "previous": "a"}
    assert roles_of(newest_first) == {"b": ("champion",), "a": ("shadow", "previous")}
    assert aliases_of([]) == {}


def test_the_command_lists_versions(project: Project, clipdrift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 200)
    table = clipdrift("versions", "-p", project.folder)
    told = clipdrift("versions", "pump", "-p", project.folder, "--json")

    assert table.exit_code == told.exit_code == 0, table.output + told.output
    (line,) = [line for line in table.stdout.splitlines() if SECOND in line and "canary" in line]
    assert "retrain order-1" in line
    assert "0.8000" in line
    assert [row["version"] for row in json.loads(told.stdout)] == [SECOND, FIRST]


def test_before_anything_was_trained_the_list_says_so(make_project: Any, clipdrift: Any) -> None:
    ended = clipdrift("versions", "-p", make_project().folder)

    assert (ended.exit_code, "no version was trained yet" in ended.stdout) == (0, True)


def test_without_a_registry_there_is_nothing_to_sync(make_project: Any, clipdrift: Any) -> None:
    ended = clipdrift("versions", "--sync", "-p", make_project().folder)

    assert ended.exit_code == 2
    assert "registry_url is none" in ended.stderr


@pytest.mark.slow
def test_aliases_are_brought_to_the_deployments_also_after_somebody_moved_one(
    project: Project, clipdrift: Any, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from clipdrift_trainer.registry import MlflowRegistry

    registry = MlflowRegistry(project.registry_url)
    for version in (FIRST, SECOND):
        registry.register(
            RunEnd(
                run_id=f"run-{version}", model="pump", version=version, started_at_ms=0, ended_at_ms=1, data_start_ms=0,
                data_end_ms=1, as_of_ms=1, data_digest="sha256:d", code_revision="c", seed=1, optimizer="SGD",
                learning_rate=0.1, clip=ClipSpec(), num_steps=1, artifact_uri=f"file:///{version}", artifact_digest="sha256:a",
                validation=(SliceScore(slice="", num_rows=50, num_correct=40, nll_sum=20.0, brier_sum=9.0, ece=0.1),),
            )
        )  # fmt: skip
    client = MlflowClient(tracking_uri=project.registry_url, registry_uri=project.registry_url)
    environment = {"CLIPDRIFT_REGISTRY_URL": project.registry_url}

    first = clipdrift("versions", "--sync", "-p", project.folder, environment=environment)
    client.set_registered_model_alias("pump", "champion", client.get_model_version_by_alias("pump", "canary").version)
    repaired = clipdrift("versions", "--sync", "-p", project.folder, environment=environment)
    again = clipdrift("versions", "--sync", "-p", project.folder, environment=environment)

    assert f"pump: champion was at none, is at {FIRST}" in first.stdout, first.output
    assert f"pump: champion was at {SECOND}, is at {FIRST}" in repaired.stdout
    assert "the aliases stand where the deployments say" in again.stdout
    assert client.get_model_version_by_alias("pump", "champion").tags["clipdrift.version"] == FIRST
