"""A signed model is checked before it serves: what is not what was signed is refused, and the old version serves on."""

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("model_signing")
from toy_service import deploy, write_model

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ServedVersion
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.signatures import sign_version
from clipdrift_serving.dataplane.admission import AdmissionPolicy, require_signing_keys
from clipdrift_serving.dataplane.repository import ModelRepository

sys.path.insert(0, str(Path(__file__).parents[2] / "contract"))
from signing_keys import KeyFiles, make_keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    return make_keys(tmp_path)


def signed_model(folder: Path, version: str, bias: float, key: Path | None) -> ServedVersion:
    inside = folder / version
    inside.mkdir()
    served = write_model(inside, "model", bias)
    if key is not None:
        sign_version(inside, key)
    return msgspec.structs.replace(served, version=version)


def repository_of(keys: KeyFiles, *, is_required: bool) -> ModelRepository:
    policy = AdmissionPolicy(public_key_files=(str(keys.public),), is_signature_required=is_required, is_trial_required=False)
    return ModelRepository(MetricSet(), policy)


def path_of(served: ServedVersion) -> Path:
    return Path(served.uri.removeprefix("file://"))


def test_a_signed_version_serves_where_signatures_are_required(tmp_path: Path, keys: KeyFiles) -> None:
    repository = repository_of(keys, is_required=True)

    assert repository.apply(deploy(signed_model(tmp_path, "v1", 1.0, keys.private))) == "done"


@pytest.mark.parametrize(
    "harm", ["unsigned", "signature gone", "another key", "another file", "another version", "no signature"]
)
def test_what_is_not_as_it_was_signed_is_refused_and_the_old_version_serves_on(
    tmp_path: Path, keys: KeyFiles, harm: str
) -> None:
    repository = repository_of(keys, is_required=True)
    repository.apply(deploy(signed_model(tmp_path, "v1", 1.0, keys.private), 1))
    key = {"unsigned": None, "another key": make_keys(tmp_path, "stranger").private}.get(harm, keys.private)
    harmed = signed_model(tmp_path, "v2", 2.0, key)
    signature = path_of(harmed).with_name("model.sig")
    if harm == "signature gone":
        signature.unlink()
    elif harm == "no signature":
        signature.write_text("{}")
    elif harm == "another version":
        signature.write_bytes((tmp_path / "v1" / "model.sig").read_bytes())
    elif harm == "another file":  # whoever can write to the bus announces the digest of a file of their own
        content = path_of(write_model(tmp_path, "evil", 9.0)).read_bytes()
        path_of(harmed).write_bytes(content)
        harmed = msgspec.structs.replace(harmed, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")

    assert repository.apply(deploy(harmed, 2)) == "refused"

    assert repository.get("toy").champion.version == "v1"


def test_the_refusal_names_the_file_and_both_digests(tmp_path: Path, keys: KeyFiles, caplog: pytest.LogCaptureFixture) -> None:
    served = signed_model(tmp_path, "v1", 1.0, keys.private)
    before = served.digest.removeprefix("sha256:")
    content = path_of(write_model(tmp_path, "evil", 9.0)).read_bytes()
    path_of(served).write_bytes(content)
    after = hashlib.sha256(content).hexdigest()

    repository_of(keys, is_required=True).apply(deploy(msgspec.structs.replace(served, digest=f"sha256:{after}")))

    assert f"{path_of(served)} was changed after it was signed: signed was sha256 {before}, found is {after}" in caplog.text


def test_a_changed_file_is_refused_by_its_digest_also_without_signatures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = signed_model(tmp_path, "v1", 1.0, None)
    path_of(served).write_bytes(path_of(served).read_bytes() + b"\0")

    assert ModelRepository(MetricSet()).apply(deploy(served)) == "refused"

    assert f"was changed: its digest is sha256:{hashlib.sha256(path_of(served).read_bytes()).hexdigest()}" in caplog.text


def test_an_unsigned_version_serves_with_a_warning_where_signatures_are_not_required(
    tmp_path: Path, keys: KeyFiles, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        repository = repository_of(keys, is_required=False)
        assert repository.apply(deploy(signed_model(tmp_path, "v1", 1.0, None))) == "done"

    assert "v1 is not signed" in caplog.text


def test_a_wrong_signature_is_refused_also_where_none_is_required(tmp_path: Path, keys: KeyFiles) -> None:
    stranger = make_keys(tmp_path, "stranger")

    assert (
        repository_of(keys, is_required=False).apply(deploy(signed_model(tmp_path, "v1", 1.0, stranger.private))) == "refused"
    )


def test_a_key_that_goes_missing_refuses_what_comes_and_keeps_what_serves(tmp_path: Path, keys: KeyFiles) -> None:
    repository = repository_of(keys, is_required=False)
    repository.apply(deploy(signed_model(tmp_path, "v1", 1.0, keys.private), 1))
    second = signed_model(tmp_path, "v2", 2.0, keys.private)
    keys.public.unlink()

    assert repository.apply(deploy(second, 2)) == "refused"
    assert repository.get("toy").champion.version == "v1"


def test_requiring_signatures_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs serving\.admission\.public_key_files"):
        AdmissionPolicy(is_signature_required=True)


def test_a_server_does_not_start_with_a_key_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pub"):
        require_signing_keys(AdmissionPolicy(public_key_files=(str(tmp_path / "nowhere.pub"),)))


def test_without_the_extra_a_server_that_is_to_check_says_which_to_install() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from clipdrift_serving.dataplane.admission import AdmissionPolicy, require_signing_keys\n"
        "require_signing_keys(AdmissionPolicy())\n"
        "require_signing_keys(AdmissionPolicy(public_key_files=('a.pub',)))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "ConfigError: serving.admission.public_key_files needs cryptography" in ended.stderr
    assert "pip install 'clipdrift[signing]'" in ended.stderr
