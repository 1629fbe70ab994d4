"""Tampering, for real: whatever of a version, an approval or the audit log is changed is found and named."""

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

pytest.importorskip("model_signing")

from clipdrift_contract.events import ClipSpec, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_contract.signatures import sign_version
from clipdrift_contract.version_files import sha256_of
from clipdrift_deploy.project import Project, open_project
from clipdrift_deploy.training import describing_of
from clipdrift_deploy.verifying import Problem, Report, verify_project
from clipdrift_monitor.approvals.approval import Answer, Approval, Binding, encoded
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.store.store import AuditEntry, Changes, Store
from clipdrift_trainer.registering.describing import describe_version

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from signing_keys import make_keys

SIGNING = """
[training]
signing_key_file = "signing.key"

[serving.admission]
public_key_files = ["signing.pub"]
is_signature_required = true
"""


class House(NamedTuple):
    """A project with one version that a monitor knows, and an approval of it."""

    project: Project
    run: RunEnd
    folder: Path
    approval_id: str

    def report(self, **asked: str) -> Report:
        return verify_project(self.project, **asked)

    def problems(self) -> list[Problem]:
        found = self.report()
        return [problem for one in found.versions for problem in one.problems] + list(found.problems)

    def sql(self, words: str, *values: object) -> None:
        with sqlite3.connect(self.project.state / "store.db") as connection:
            connection.execute(words, values)


def make_house(make_project: Callable[..., Project], settings: str) -> House:
    project = make_project(settings)
    keys = make_keys(project.folder)
    assert keys.private.name == "signing.key"
    folder = project.artifacts / "pump" / "20261101-abc123"
    folder.mkdir(parents=True)
    for name in ("model.onnx", "weights.pt", "validation.json"):
        (folder / name).write_bytes(b"pump " + name.encode())
    run = describe_version(
        RunEnd(
            run_id="run-1", model="pump", version=folder.name, started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1,
            as_of_ms=1, data_digest="sha256:d", code_revision="c", seed=1, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(),
            num_steps=100, profile=ReferenceProfile(task="binary", classes=("fine", "failed")),
            artifact_uri=(folder / "model.onnx").as_uri(), artifact_digest=f"sha256:{sha256_of(folder / 'model.onnx')}",
        ),
        describing_of(project, "pump"),
    )  # fmt: skip
    return House(project, run, folder, remember(project, run))


def tamper(path: Path) -> None:
    """Change a file so that it still reads well."""
    content = path.read_bytes()
    changed = content.replace(b'"num_steps": 100', b'"num_steps": 900') if path.name == "card.json" else content
    path.write_bytes(changed if changed != content else content.replace(b"pump", b"pimp"))
    assert path.read_bytes() != content


def remember(project: Project, run: RunEnd) -> str:
    """What a monitor keeps of a candidate that a person approved."""
    request = RetrainRequest(
        key="order-1", model="pump", cause="drift", decision_id="d", requested_at_ms=1, as_of_ms=1, data_start_ms=0,
        champion_version="v0", champion_uri="file:///v0", champion_digest="sha256:0", champion_clip=ClipSpec(), generation=1,
        arms=(),
    )  # fmt: skip
    outcome = RetrainOutcome(
        key="order-1", model="pump", finished_at_ms=2, verdict="pass", reasons=("better",), candidate_version=run.version,
        candidate_digest=run.artifact_digest, card_digest=run.card_digest, is_signed=run.is_signed,
    )  # fmt: skip
    answer = Answer(is_approved=True, actor="ann", reason="better", at_ms=3, evidence_digest=digest_of(outcome))
    approval = Approval(
        approval_id="pump-promotion-order-1", model="pump", kind="promotion", key="order-1", version=run.version,
        binding=Binding(
            generation=1, candidate_digest=run.artifact_digest, evidence_digest=digest_of(outcome), policy_version="1"
        ),
        requesters=(), asked_at_ms=2, expires_at_ms=9, asks_expectation=False, words="?", state="approved", answer=answer,
    )  # fmt: skip
    audit = [
        AuditEntry(at_ms=0, actor="monitor", action="deploy", subject="pump", body={"version": "v0"}),
        AuditEntry(
            at_ms=1, actor="ann", action="approval: approved", subject=approval.approval_id,
            body={"record": encoded(approval)[1]},
        ),
    ]  # fmt: skip
    store = Store(project.store_url)
    store.commit(Changes(runs=[run], requests=[request], audit=audit[:1]))
    store.commit(Changes(outcomes=[outcome], approvals=[approval], audit=audit[1:]))
    store.close()
    return approval.approval_id


@pytest.fixture
def house(make_project: Callable[..., Project]) -> House:
    return make_house(make_project, SIGNING)


def test_an_untouched_project_is_sound_and_says_by_whom_it_is_signed(house: House) -> None:
    found = house.report()

    assert found.is_sound, found
    (one,) = found.versions
    assert (one.version, one.signed_by, one.problems) == (house.run.version, "signing.pub", ())
    assert found.num_audit_rows == 2


@pytest.mark.parametrize("name", ["model.onnx", "weights.pt", "validation.json", "sbom.json", "card.json", "card.md"])
def test_a_changed_file_is_named_with_what_was_expected_and_what_was_found(house: House, name: str) -> None:
    path = house.folder / name
    before = sha256_of(path)
    tamper(path)

    named = [problem.words for problem in house.problems() if problem.words.startswith(name)]

    assert named, house.problems()
    assert all(f"expected sha256 {before}" in words and f"found {sha256_of(path)}" in words for words in named)


def test_a_changed_card_alone_is_named_and_nothing_else(house: House) -> None:
    path = house.folder / "card.json"
    before = sha256_of(path)
    tamper(path)

    (problem,) = house.problems()

    assert problem == Problem(
        what="card",
        words=f"card.json was changed: expected sha256 {before} (by the monitor's record and the signature), "
        f"found {sha256_of(path)}",
    )


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "card.md", "sbom.json"])
def test_without_signatures_card_and_record_still_find_it(make_project: Callable[..., Project], name: str) -> None:
    house = make_house(make_project, "")
    assert house.report().is_sound, house.report()
    path = house.folder / name
    before = sha256_of(path)
    tamper(path)

    (problem,) = house.problems()

    assert problem.words.startswith(f"{name} was changed: expected sha256 {before} (by ")
    assert "signature" not in problem.words


def test_a_signature_that_is_taken_away_is_missed(house: House) -> None:
    (house.folder / "model.sig").unlink()

    (problem,) = house.problems()

    assert problem == Problem(what="signature", words="it is not signed; the monitor's record says that it was")


def test_who_signs_it_anew_with_a_key_of_their_own_is_found(house: House, tmp_path: Path) -> None:
    stranger = make_keys(tmp_path, "stranger")
    sign_version(house.folder, stranger.private)

    (problem,) = house.problems()

    assert problem.what == "signature"
    assert "is by another key" in problem.words


def test_a_file_that_came_in_and_one_that_is_gone_are_named(house: House) -> None:
    (house.folder / "weights.pt").rename(house.folder / "other.pt")

    words = [problem.words for problem in house.problems()]

    assert words[0].startswith("weights.pt is missing: expected sha256 ")
    assert words[1] == "other.pt is not of this version: neither card nor signature names it"
    assert len(words) == 2


def test_a_changed_approval_is_named_with_the_row_of_the_audit_log_that_says_otherwise(house: House) -> None:
    store = Store(house.project.store_url)
    approval = store.approval(house.approval_id)
    store.close()
    assert approval is not None
    assert approval.answer is not None
    forged = msgspec.structs.replace(approval, answer=msgspec.structs.replace(approval.answer, actor="bob"))
    house.sql("UPDATE approvals SET body = ?", msgspec.msgpack.encode(forged))

    (problem,) = house.problems()

    assert problem.what == "approval"
    assert problem.words == f"approval {house.approval_id} was changed: it is not what row 2 of the audit log says of it"


def test_an_approval_that_is_taken_away_is_named(house: House) -> None:
    house.sql("DELETE FROM approvals")

    (problem,) = house.problems()

    assert problem.words == f"approval {house.approval_id} is missing: row 2 of the audit log says that there is one"


def test_an_outcome_that_was_changed_after_it_was_approved_is_named_with_both_digests(house: House) -> None:
    store = Store(house.project.store_url)
    outcome = store.retrain("order-1").outcome  # type: ignore[union-attr]
    store.close()
    assert outcome is not None
    forged = msgspec.structs.replace(outcome, card_digest="f" * 64)
    house.sql("UPDATE retrains SET outcome = ?", msgspec.msgpack.encode(forged))

    (problem,) = house.problems()

    assert problem == Problem(
        what="approval",
        words=f"approval {house.approval_id} was given for another record of the outcome of retrain order-1: expected digest "
        f"{digest_of(outcome)}, found {digest_of(forged)}",
    )


def test_a_version_that_was_given_another_artifact_after_its_approval_is_named(house: House) -> None:
    """Whoever can write to disk and store makes the record fit the file; approval, card and signature do not."""
    path = house.folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    forged = msgspec.structs.replace(house.run, artifact_digest=f"sha256:{sha256_of(path)}")
    house.sql("UPDATE runs SET body = ?", msgspec.msgpack.encode(forged))

    words = [problem.words for problem in house.problems()]

    assert any(word.startswith("model.onnx was changed") and "the card and the signature" in word for word in words), words
    assert any(f"another record of version {house.run.version}" in word for word in words), words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 1", "broken at row 1: row 1 was changed"),
        ("UPDATE audit SET body = '{}' WHERE seq = 2", "broken at row 2: row 2 was changed"),
        ("DELETE FROM audit WHERE seq = 1", "broken at row 1: row 1 is missing"),
    ],
)
def test_a_changed_row_of_the_audit_log_is_named(house: House, change: str, reason: str) -> None:
    house.sql(change)

    assert any(problem.words == f"the audit log is {reason}" for problem in house.problems()), house.problems()


def test_rows_cut_off_at_the_end_are_found_by_the_head_of_an_earlier_look(house: House) -> None:
    head = house.report().audit_head
    assert house.report(audit_head=head).is_sound
    house.sql("DELETE FROM approvals")
    house.sql("DELETE FROM audit WHERE seq = 2")

    assert house.report().is_sound, "a chain alone cannot tell"
    (problem,) = house.report(audit_head=head).problems
    assert problem.words == f"the audit log no longer leads to {head}: rows were cut off"


def test_without_a_store_files_are_looked_at_all_the_same(house: House) -> None:
    for path in house.project.state.glob("store.db*"):
        path.unlink()
    (house.folder / "weights.pt").write_bytes(b"others")

    found = house.report()

    assert "nothing is known of records, approvals and audit" in found.notes[0]
    assert [problem.words.split(" ")[0] for one in found.versions for problem in one.problems] == ["weights.pt"]


def test_a_version_from_before_there_were_cards_is_no_problem_where_signatures_are_not_required(house: House) -> None:
    for name in ("card.json", "card.md", "sbom.json", "model.sig"):
        (house.folder / name).unlink()
    for path in house.project.state.glob("store.db*"):
        path.unlink()
    (house.project.folder / "clipdrift.toml").write_text(
        (house.project.folder / "clipdrift.toml").read_text().replace("is_signature_required = true", "")
    )

    found = verify_project(open_project(house.project.folder, house.project.environment))

    assert found.is_sound
    assert found.versions[0].notes == ("it has no card: it was made before versions had one",)


def test_the_command_names_what_was_changed_and_ends_with_status_3(house: House, clipdrift: Any) -> None:
    sound = clipdrift("verify", "-p", house.project.folder)
    (house.folder / "card.md").write_text("# a better model")
    broken = clipdrift("verify", "pump", "-p", house.project.folder)
    told = clipdrift("verify", "-p", house.project.folder, "--json")

    assert sound.exit_code == 0, sound.output
    assert f"pump {house.run.version}: as it was made, 6 files, signed by signing.pub" in sound.stdout
    assert "nothing is wrong" in sound.stdout
    assert (broken.exit_code, told.exit_code) == (3, 3)
    assert "card.md was changed: expected sha256 " in broken.stdout
    assert json.loads(told.stdout)["versions"][0]["problems"][0]["what"] == "card"


def test_the_command_does_not_take_a_broken_signature_for_none(house: House, clipdrift: Any) -> None:
    (house.folder / "model.sig").write_text("{}")
    broken = clipdrift("verify", "-p", house.project.folder)
    (house.folder / "model.sig").unlink()
    none = clipdrift("verify", "-p", house.project.folder)

    assert "files, its signature does not hold" in broken.stdout
    assert "files, unsigned" in none.stdout


def test_a_version_that_is_not_there_is_an_error_in_one_sentence(house: House, clipdrift: Any) -> None:
    ended = clipdrift("verify", "pump", "--version", "20200101-000000", "-p", house.project.folder)

    assert ended.exit_code == 2
    assert "no version 20200101-000000 below" in ended.stderr
