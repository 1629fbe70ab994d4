"""The bill of materials is valid CycloneDX and names what is really installed."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from clipdrift_trainer.registering.sbom import make_sbom

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def bill() -> bytes:
    return make_sbom("pump", "20130301-abc123", DIGEST)


def test_it_is_valid_cyclonedx(bill: bytes) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None


def test_it_names_each_installed_library_with_its_version_and_the_model_with_its_digest(bill: bytes) -> None:
    told = json.loads(bill)

    components = {one["name"]: one for one in told["components"]}
    for name in ("torch", "onnx", "numpy", "msgspec", "clipdrift"):
        assert components[name]["version"] == version(name)
        assert components[name]["purl"].startswith(f"pkg:pypi/{name}@")
    made = told["metadata"]["component"]
    assert (made["name"], made["version"]) == ("pump", "20130301-abc123")
    assert made["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


def test_it_tells_what_needs_what_without_what_only_extras_need(bill: bytes) -> None:
    needs = {one["ref"].partition("@")[0]: one["dependsOn"] for one in json.loads(bill)["dependencies"]}

    assert [one.partition("@")[0] for one in needs["model:pump"]] == ["pkg:pypi/clipdrift"]
    mine = {one.partition("@")[0] for one in needs["pkg:pypi/clipdrift"]}
    assert {"pkg:pypi/msgspec", "pkg:pypi/numpy", "pkg:pypi/prometheus-client"} == mine


def test_the_same_environment_gives_the_same_bytes_and_another_model_another_serial_number(bill: bytes) -> None:
    assert make_sbom("pump", "20130301-abc123", DIGEST) == bill
    other = make_sbom("pump", "20130302-abc123", DIGEST)
    assert json.loads(other)["serialNumber"] != json.loads(bill)["serialNumber"]


def test_a_distribution_without_a_name_is_left_out(tmp_path: Path) -> None:
    from importlib.metadata import Distribution

    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")

    bill = make_sbom("pump", "v1", DIGEST, Distribution.discover(path=[str(tmp_path)]))

    assert json.loads(bill)["components"] == []
