"""The files of versions over HTTP: what a job gets is what was trained, what it hands in is what it announced, or nothing."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import msgspec
import pytest
from dialogue import run_end

from clipdrift_monitor.api import files
from clipdrift_monitor.api.files import FileConflictError, Incoming, list_files

RUN = "github-1-1"
CONTENT = b"weights" * 1000


@pytest.fixture
def version(tmp_path):
    """The folder of the version in service."""
    folder = tmp_path / "trained" / "v1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(CONTENT)
    (folder / "validation.json").write_bytes(b"[]")
    (folder / "model.onnx.partial").write_bytes(b"half")
    (folder / "secret").symlink_to("/etc/passwd")
    return folder


@pytest.fixture
def house(house_of, version, models):
    house = house_of(msgspec.structs.replace(run_end(), artifact_uri=(version / "model.onnx").as_uri()))
    house.artifacts_dir = models
    house.open()
    return house


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


def ask(house, method, path, **named):
    """What a call is answered, while the engine takes turns."""
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(house.ask, method, path, **named)
        while wait([answer], 0.002).not_done:
            house.dialogue.turn()
    return answer.result()


@pytest.fixture
def claimed(house):
    """The key of a retrain that `RUN` carries out."""
    key = ask(house, "POST", "/api/v1/models/pump/retrain", json={"reason": "why"}, headers=house.auth).json()["key"]
    house.dialogue.turn(4)
    assert ask(house, "POST", f"/api/v1/retrains/{key}/claim", json={"run": RUN}, headers=house.auth).status_code == 200
    return key


def announced(content):
    return {"content-digest": f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"}


def hand_in(house, key, content=CONTENT, name="model.onnx", version="v2", run=RUN, **headers):
    address = f"/api/v1/retrains/{key}/files/{name}"
    return house.ask(
        "PUT", address, params={"run": run, "version": version}, content=content,
        headers={**house.auth, **announced(content), **headers},
    )  # fmt: skip


def test_a_job_gets_every_file_of_a_version_by_name_and_digest_but_no_link_and_nothing_half_written(house):
    listed = house.ask("GET", "/api/v1/models/pump/versions/v1/files", headers=house.auth)
    got = house.ask("GET", "/api/v1/models/pump/versions/v1/files/model.onnx", headers=house.auth)
    assert [one["name"] for one in listed.json()["items"]] == ["model.onnx", "validation.json"]
    assert hashlib.sha256(got.content).hexdigest() == listed.json()["items"][0]["sha256"]


@pytest.mark.parametrize("name", ["secret", "..%2F..%2Fstore.db", "model.onnx.partial", "nothing"])
def test_what_is_no_file_of_the_version_is_not_given(house, name):
    answer = house.ask("GET", f"/api/v1/models/pump/versions/v1/files/{name}", headers=house.auth)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_files_are_for_jobs_only(house, claimed):
    assert house.get("/api/v1/models/pump/versions/v1/files").status_code == 401
    assert house.ask("PUT", f"/api/v1/retrains/{claimed}/files/model.onnx", content=b"x").status_code == 401


def test_a_file_that_is_handed_in_lies_where_the_answer_says_and_may_be_sent_again(house, claimed, models):
    first, again = hand_in(house, claimed), hand_in(house, claimed)
    assert (first.status_code, again.status_code, first.json()) == (200, 200, again.json())
    assert first.json()["uri"] == (models / "pump" / "v2" / "model.onnx").resolve().as_uri()
    assert (models / "pump" / "v2" / "model.onnx").read_bytes() == CONTENT
    assert [path.name for path in (models / "pump" / "v2").iterdir()] == ["model.onnx"]


def test_a_file_that_was_changed_on_the_way_is_not_kept(house, claimed, models):
    answer = hand_in(house, claimed, CONTENT + b"!", **announced(CONTENT))
    assert answer.status_code == 400
    assert not list((models / "pump" / "v2").iterdir())


def test_a_version_never_changes(house, claimed, models):
    hand_in(house, claimed)
    assert hand_in(house, claimed, b"another").status_code == 422
    assert (models / "pump" / "v2" / "model.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["card.json", "card.md", "sbom.json", "model.sig"])
def test_what_describes_a_version_is_replaced_by_a_job_that_is_begun_again(house, claimed, models, name):
    for content in (b"first", b"second"):
        assert hand_in(house, claimed, content, name, **announced(content)).status_code == 200
    assert (models / "pump" / "v2" / name).read_bytes() == b"second"


def test_a_version_that_is_known_takes_no_file_of_a_job(house, claimed, models):
    assert hand_in(house, claimed, version="v1", name="extra.json").status_code == 409
    assert not models.exists()


@pytest.mark.parametrize("run", ["github-2-1", ""])
def test_only_the_run_that_carries_out_the_order_hands_in(house, claimed, models, run):
    assert hand_in(house, claimed, run=run).status_code == 409
    assert not models.exists()


def test_after_a_cancel_nothing_is_taken(house, claimed, models):
    asked = {"reason": "not wanted", "actor": "me"}
    assert ask(house, "POST", f"/api/v1/retrains/{claimed}/cancel", json=asked, headers=house.auth).status_code == 202
    assert hand_in(house, claimed).status_code == 409
    assert not models.exists()


@pytest.mark.parametrize(
    ("name", "called"), [("model.onnx", "../v1"), ("..", "v2"), (".profile", "v2"), ("a%00b", "v2"), ("model.onnx", "")]
)
def test_a_name_cannot_leave_the_folder(house, claimed, models, name, called):
    assert hand_in(house, claimed, name=name, version=called).status_code in (
        400,
        404,
        405,
    )  # 405: a client made another address of it
    assert not models.exists()


@pytest.mark.parametrize("digest", ["", "sha-256=:abc:", "md5=:abcd:"])
def test_a_file_without_a_digest_is_refused(house, claimed, digest):
    answer = hand_in(house, claimed, **{"content-digest": digest})
    assert (answer.status_code, "Content-Digest" in answer.json()["error"]) == (400, True)


def test_a_file_has_a_largest_size_and_a_version_a_largest_number_of_files(house, claimed, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    assert hand_in(house, claimed).status_code == 400
    monkeypatch.setattr(files, "MAX_FILES", 1)
    assert hand_in(house, claimed, b"a", name="a").status_code == 200
    assert hand_in(house, claimed, b"b", name="b").status_code == 422


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    digest = hashlib.sha256(b"abc").hexdigest()
    with Incoming(tmp_path / "v2", "model.onnx", digest) as first:
        first.write(b"ab")
        with pytest.raises(FileConflictError, match="already"):
            Incoming(tmp_path / "v2", "model.onnx", digest)
        first.write(b"c")
        first.keep()
    assert [one.sha256 for one in list_files(tmp_path / "v2").items] == [digest]
