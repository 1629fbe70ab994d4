"""Which version serves, and what may not."""

import pytest
from toy_service import Service, deploy, write_model

from clipdrift_serving.dataplane.errors import RequestError


@pytest.fixture
def versions(tmp_path):
    return [write_model(tmp_path, f"v{n}", float(n)) for n in range(4)]


@pytest.fixture
def repository():
    return Service().repository


def test_a_generation_not_above_the_one_in_service_is_ignored(repository, versions):
    assert repository.apply(deploy(versions[0], 2)) == "done"
    assert repository.apply(deploy(versions[1], 2)) == "stale"
    assert repository.apply(deploy(versions[1], 1)) == "stale"
    assert repository.get("toy").champion.version == "v0"


def test_the_previous_version_stays_loaded_and_can_be_asked_by_name(repository, versions):
    repository.apply(deploy(versions[0], 1))
    repository.apply(deploy(versions[1], 2))
    assert repository.route("toy", None)[1].version == "v1"
    assert repository.route("toy", "v0")[1].version == "v0"


@pytest.mark.parametrize("harm", ["gone", "changed", "no model", "no file address", "a name with a slash", "bad address"])
def test_an_artifact_that_must_not_serve_leaves_the_old_version_in_service(versions, tmp_path, harm):
    import hashlib

    import msgspec

    service = Service()
    service.repository.apply(deploy(versions[0], 1))
    path, broken = tmp_path / "v1.onnx", versions[1]
    if harm == "gone":
        path.unlink()
    elif harm == "changed":
        path.write_bytes(path.read_bytes() + b"\0")
    elif harm == "no model":
        path.write_bytes(b"abc")
        broken = msgspec.structs.replace(broken, digest=f"sha256:{hashlib.sha256(b'abc').hexdigest()}")
    elif harm == "no file address":
        broken = msgspec.structs.replace(broken, uri="https://example.org/v1.onnx")
    elif harm == "bad address":
        broken = msgspec.structs.replace(broken, uri="file://[")
    else:
        broken = msgspec.structs.replace(broken, version="../v1")
    assert service.repository.apply(deploy(broken, 2)) == "refused"
    assert service.repository.get("toy").champion.version == "v0"
    assert service.metric("clipdrift_serving_swaps_total", model="toy", outcome="refused") == 1


def test_after_a_restart_the_newest_deployment_that_can_be_loaded_serves(repository, versions, tmp_path):
    (tmp_path / "v2.onnx").write_bytes(b"")
    repository.apply_newest([deploy(versions[n], n + 1) for n in range(3)])
    assert repository.get("toy").generation == 2


def test_a_refused_deployment_can_be_loaded_once_its_file_is_there(repository, versions, tmp_path):
    content = (tmp_path / "v1.onnx").read_bytes()
    (tmp_path / "v1.onnx").unlink()
    repository.apply(deploy(versions[0], 1))
    repository.apply(deploy(versions[1], 2))
    (tmp_path / "v1.onnx").write_bytes(content)
    assert repository.load("toy") == "done"
    assert repository.get("toy").champion.version == "v1"


def test_an_unloaded_model_is_not_ready_until_it_is_loaded(repository, versions):
    repository.apply(deploy(versions[0], 1))
    repository.unload("toy")
    with pytest.raises(RequestError, match="taken out of service"):
        repository.route("toy", None)
    repository.load("toy")
    assert repository.route("toy", None)[1].version == "v0"


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_the_canary_gets_its_share_of_requests(repository, versions, weight):
    repository.apply(deploy(versions[0], 1, canary=versions[1], canary_weight=weight, shadow=versions[2]))
    roles = [repository.route("toy", None)[2] for _ in range(1000)]
    assert abs(roles.count("canary") - 1000 * weight) <= 1


def test_a_model_without_a_profile_is_served_without_slices(tmp_path):
    import numpy as np

    service = Service()
    service.repository.apply(deploy(write_model(tmp_path, "v1", 0.0, profile=None)))
    inputs = {"x": np.zeros(2, "f4"), "y": np.ones(2, "f4"), "carrier": np.array(["AA", "UA"], object)}
    answer = service.infer("toy", inputs)
    assert [service.receipts.verify(token).slice_index for token in answer.receipts] == [0, 0]


def test_a_model_that_was_announced_and_is_not_in_service_is_not_called_unknown(repository, versions, tmp_path):
    (tmp_path / "v1.onnx").unlink()
    repository.apply(deploy(versions[1], 1))
    with pytest.raises(RequestError, match="announced but is not in service") as refused:
        repository.route("toy", None)
    assert refused.value.fault == "not_ready"
    repository.apply(deploy(versions[0], 2))
    repository.unload("toy")
    with pytest.raises(RequestError, match="taken out of service"):
        repository.route("toy", None)
