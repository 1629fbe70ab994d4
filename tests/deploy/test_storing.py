"""`clipdrift store`: what it says when all is well, and one sentence when it is not."""

import json
import sqlite3
from pathlib import Path

import pytest

from clipdrift_monitor.store.store import AuditEntry, Changes, Store

OLD_STORE = Path(__file__).parents[1] / "monitor" / "store" / "golden" / "schema_1.sqlite.sql"


@pytest.fixture
def project(make_project):
    """A project with a store that holds something."""
    made = make_project()
    made.state.mkdir(parents=True, exist_ok=True)
    store = Store(made.store_url)
    store.commit(Changes(seen_ids={"a": 1}, audit=[AuditEntry(at_ms=1, actor="a", action="b", subject="c", body={})]))
    store.close()
    return made


@pytest.fixture
def say(clipdrift, project):
    def call(*words):
        return clipdrift("store", *words, "-p", project.folder)

    return call


def test_a_backup_restores_when_told_to_replace_what_is_there(say, project, tmp_path) -> None:
    made = say("backup", tmp_path / "b")
    refused = say("restore", tmp_path / "b")
    (project.state / "store.db").unlink()
    restored = say("restore", tmp_path / "b")
    replaced = say("restore", tmp_path / "b", "--force")

    assert made.exit_code == restored.exit_code == replaced.exit_code == 0, made.output + restored.output + replaced.output
    assert made.stdout.replace("\n", " ").startswith(f"wrote {tmp_path}/b: 2 rows of 2 tables (schema ")
    assert refused.exit_code == 2
    assert "the store is not empty (it holds audit, seen_events)" in refused.stderr
    assert "restored 2 rows of 2 tables" in restored.stdout
    assert Store(project.store_url).has_seen(["a", "b"]) == {"a"}


def test_a_copy_is_another_store_with_the_same(say, project, tmp_path) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    copied = say("copy", other)

    assert copied.exit_code == 0, copied.output
    assert "now set [project] store_url (or CLIPDRIFT_STORE_URL) to it" in copied.stdout
    assert Store(other).verify_audit().head == Store(project.store_url).verify_audit().head
    assert "that is the store itself" in say("copy", project.store_url).stderr
    assert "not empty" in say("copy", other).stderr


def test_migrate_takes_an_old_store_up_once(say, project) -> None:
    for path in project.state.glob("store.db*"):
        path.unlink()
    with sqlite3.connect(project.state / "store.db") as connection:
        connection.executescript(OLD_STORE.read_text())
    connection.close()

    assert "the store went from schema 1 to " in say("migrate").stdout
    assert "already" in say("migrate").stdout


def test_check_says_what_is_there_and_ends_with_three_where_something_is_wrong(say, project) -> None:
    whole, as_json = say("check"), say("check", "--json")
    with sqlite3.connect(project.state / "store.db") as connection:
        connection.execute("UPDATE audit SET actor = 'x'")
    connection.close()
    broken = say("check")

    assert whole.exit_code == as_json.exit_code == 0
    assert "audit log: 1 rows, head " in whole.stdout
    assert "nothing is wrong" in whole.stdout
    assert json.loads(as_json.stdout)["audit"]["is_intact"] is True
    assert broken.exit_code == 3
    assert "the audit log is broken at row 1: row 1 was changed" in broken.stdout


@pytest.mark.parametrize("words", [("backup", "x"), ("check",), ("migrate",), ("copy", "sqlite:////tmp/none.db")])
def test_without_a_store_every_command_but_restore_says_so_and_makes_none(say, project, words) -> None:
    for path in project.state.glob("store.db*"):
        path.unlink()
    result = say(*words)

    assert result.exit_code == 2
    assert "there is no store at sqlite:///" in result.stderr.replace("\n", "")
    assert not (project.state / "store.db").exists()


def test_windows_are_rebuilt_from_the_bus_of_the_project(say, project) -> None:
    told = say("backfill", "pumps", "--from", "2026-11-01")
    wrong = say("backfill", "pumps", "--from", "2026-11-08", "--until", "2026-11-01")

    assert told.exit_code == 0, told.output
    assert "0 windows rebuilt from 0 predictions and 0 labels on the bus; 0 had other sums" in told.stdout.replace("\n", " ")
    assert wrong.exit_code == 2
