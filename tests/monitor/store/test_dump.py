"""Backups: whole, of one moment, out of one database into another, and nothing else is taken for one."""

import gzip
from pathlib import Path

import msgspec
import numpy as np
import pytest
from store_contents import GOLDEN, everything, incident, run_script, seen_of

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store import migrations
from clipdrift_monitor.store.checking import check
from clipdrift_monitor.store.database import Database, FencedError
from clipdrift_monitor.store.dump import Rows, back_up, copy, frames_of, look_at, restore
from clipdrift_monitor.store.store import AuditEntry, Changes, OutboxEntry, Store
from clipdrift_monitor.windows.window import WindowKey

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture
def filled(new_store_url, store_kind):
    """A store with a row of everything, and its address."""
    url = new_store_url(store_kind)
    store = Store(url)
    store.commit(everything())
    store.commit(Changes(
        windows={("m", WindowKey("v2", 0, n)): np.random.default_rng(n).random(300) for n in range(1_200)},
        incidents=[incident(7, is_open=False)], floors={"event_ids": 5},
        audit=[AuditEntry(at_ms=n, actor="a", action="b", subject="Grüße \u2603", body={"n": n}) for n in range(50)],
    ))  # fmt: skip
    yield store, url
    store.close()


@pytest.fixture
def backup(filled, tmp_path):
    """A backup of it, as a file."""
    database = Database(filled[1], migrate=False)
    back_up(database, tmp_path / "b.clipdrift", now_ms=77)
    database.close()
    return tmp_path / "b.clipdrift"


def all_rows(url):
    """Everything that a backup is of."""
    database = Database(url, migrate=False)
    with database.snapshot() as connection:
        rows = {}
        for frame in frames_of(connection, 0):
            if isinstance(frame, Rows):
                rows.setdefault(frame.table, []).extend(frame.rows)
    database.close()
    return rows


@pytest.mark.parametrize("target_kind", KINDS)
def test_a_backup_restores_into_either_database_row_for_row(filled, backup, new_store_url, target_kind):
    store, url = filled
    target = new_store_url(target_kind)
    contents = restore(Database(target, migrate=False), backup, force=False, now_ms=0)
    restored = Store(target)
    assert all_rows(target) == all_rows(url)
    assert seen_of(restored) == seen_of(store)
    assert contents.num_rows["windows"] == 1_201
    assert contents.made_at_ms == 77
    assert restored.verify_audit().is_intact
    restored.commit(Changes(outbox=[OutboxEntry(event_id="next", kind="Signal", body=b"")]))
    assert [one.event_id for one in restored.outbox()] == ["o1", "next"]
    restored.close()


@pytest.mark.parametrize("target_kind", KINDS)
def test_a_store_is_copied_from_one_database_to_another(filled, new_store_url, target_kind):
    url, target = filled[1], new_store_url(target_kind)
    contents = copy(Database(url, migrate=False), Database(target, migrate=False), force=False, now_ms=0)
    assert all_rows(target) == all_rows(url)
    assert contents.num_rows["audit"] == 51


def test_a_backup_of_the_same_store_has_the_same_bytes_and_says_what_it_holds(filled, backup, tmp_path):
    again = tmp_path / "again.clipdrift"
    back_up(Database(filled[1], migrate=False), again, now_ms=77)
    assert again.read_bytes() == backup.read_bytes()
    assert look_at(backup).num_rows["audit"] == 51
    assert look_at(backup).schema == migrations.NEWEST
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_backup_is_of_one_moment_while_the_monitor_writes(filled, tmp_path):
    store, url = filled
    database = Database(url, migrate=False)
    before = all_rows(url)
    with database.snapshot() as connection:
        frames = frames_of(connection, 0)
        seen = [next(frames), next(frames)]
        store.commit(
            Changes(models={"m": b"changed meanwhile"}, audit=[AuditEntry(at_ms=1, actor="", action="", subject="", body={})])
        )
        seen += list(frames)
    rows = {}
    for frame in seen:
        if isinstance(frame, Rows):
            rows.setdefault(frame.table, []).extend(frame.rows)
    assert rows == before
    assert store.models() == {"m": b"changed meanwhile"}


def test_a_store_that_holds_something_is_replaced_only_when_told_to(filled, backup, new_store_url, store_kind):
    target = new_store_url(store_kind)
    other = Store(target)
    other.commit(Changes(models={"precious": b"x"}, seen_ids={"a": 1}))
    with pytest.raises(ConfigError, match=r"not empty \(it holds models, seen_events\); back it up first, then say --force"):
        restore(Database(target, migrate=False), backup, force=False, now_ms=0)
    assert other.models() == {"precious": b"x"}
    restore(Database(target, migrate=False), backup, force=True, now_ms=0)
    assert other.models() == filled[0].models()
    other.close()


def test_a_monitor_that_ran_during_a_restore_can_write_nothing_of_before(filled, backup):
    store, url = filled
    assert store.take_over("monitor", store.writer())
    restore(Database(url, migrate=False), backup, force=True, now_ms=0)
    with pytest.raises(FencedError):
        store.commit(Changes(models={"m": b"of before"}))
    assert store.take_over("monitor", store.writer())
    store.commit(Changes(models={"m": b"after"}))


def test_a_backup_of_an_older_version_takes_the_missing_steps_on_its_way(new_store_url, store_kind, tmp_path):
    old, target = new_store_url(store_kind), new_store_url("sqlite")
    run_script(old, (GOLDEN / f"schema_1.{store_kind}.sql").read_text())
    database = Database(old, migrate=False)
    assert back_up(database, tmp_path / "old", now_ms=0).schema == 1
    restore(Database(target, migrate=False), tmp_path / "old", force=False, now_ms=500)
    migrated, restored = Store(old), Store(target)
    assert seen_of(restored) | {"labels": 0} == seen_of(migrated) | {"labels": 0}
    assert restored.seen_labels("m", "epoch", 0) == (b"\x01", 500)
    for one in (migrated, restored):
        one.close()


@pytest.mark.parametrize("how", ["cut off", "changed", "text", "another program's gzip", "empty", "not there", "a folder"])
def test_what_is_no_whole_backup_is_refused_before_anything_is_written(backup, new_store_url, tmp_path, how):
    data, path = backup.read_bytes(), tmp_path / "broken"
    plain = bytearray(gzip.decompress(data))
    plain[len(plain) // 2] ^= 1
    {
        "cut off": lambda: path.write_bytes(data[: len(data) // 2]),
        "changed": lambda: path.write_bytes(gzip.compress(bytes(plain))),
        "text": lambda: path.write_text("no backup"),
        "another program's gzip": lambda: path.write_bytes(gzip.compress(b"hello, world, this is a log file")),
        "empty": lambda: path.write_bytes(b""),
        "not there": lambda: None,
        "a folder": path.mkdir,
    }[how]()
    target = Database(new_store_url("sqlite"), migrate=False)
    with pytest.raises(ConfigError, match=r"backup"):
        restore(target, path, force=True, now_ms=0)
    assert check(target).problems == ("the database is empty: there is no store yet",)


def test_a_backup_of_a_newer_version_is_refused(backup, new_store_url, monkeypatch):
    monkeypatch.setattr(migrations, "NEWEST", migrations.NEWEST - 1)
    with pytest.raises(ConfigError, match="newer Clipdrift"):
        restore(Database(new_store_url("sqlite"), migrate=False), backup, force=False, now_ms=0)


def test_a_backup_that_cannot_be_written_leaves_nothing(filled, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        back_up(Database(filled[1], migrate=False), tmp_path / "no" / "folder", now_ms=0)


def test_an_empty_database_is_no_store_to_back_up(new_store_url, store_kind, tmp_path):
    with pytest.raises(ConfigError, match="no store to back up"):
        back_up(Database(new_store_url(store_kind), migrate=False), tmp_path / "b", now_ms=0)
    assert list(tmp_path.glob("b*")) == []


def test_a_restore_that_fails_at_its_end_leaves_the_store_as_it_was(filled, backup, monkeypatch):
    url = filled[1]
    before = all_rows(url)
    broken = migrations.Step(migrations.NEWEST + 1, "broken", ["SELECT no_such_column FROM writer"])
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, broken))
    with pytest.raises(Exception, match="no_such_column"):
        restore(Database(url, migrate=False), backup, force=True, now_ms=0)
    assert all_rows(url) == before


# --- checking ---


def test_a_whole_store_has_no_problems(filled):
    filled[0].commit(Changes(models={"m": msgspec.msgpack.encode(ModelState(model="m"))}))
    report = check(Database(filled[1], migrate=False))
    assert report.num_rows["windows"] == 1_201
    assert report.audit.num_rows == 51
    assert report.problems == ()
    assert report.schema == report.newest_schema == migrations.NEWEST


def test_a_state_that_cannot_be_read_is_found(filled):
    problems = check(Database(filled[1], migrate=False)).problems
    assert [problem.split(": ")[0] for problem in problems] == ["the state of model m cannot be read"]


def test_a_file_that_was_damaged_is_found(new_store_url, tmp_path):
    url = new_store_url("sqlite")
    store = Store(url)
    store.commit(Changes(windows={("m", WindowKey("v", 0, n)): np.ones(200) for n in range(200)}))
    store.close()
    path = Path(url.removeprefix("sqlite:///"))
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096 - 10, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(data)
    assert any("damaged" in problem for problem in check(Database(url, migrate=False)).problems)


def test_a_changed_audit_row_is_found(filled):
    database = Database(filled[1], migrate=False)
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'nobody' WHERE seq = 7")
    assert "the audit log is broken at row 7: row 7 was changed" in check(database).problems
