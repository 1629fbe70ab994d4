"""Addresses that cannot be a store, stores of other versions, and what is SQLite's own."""

import sqlite3

import pytest

from clipdrift_contract.errors import ConfigError, RetryableError
from clipdrift_monitor.store.store import Changes, Store


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/monitor.db"


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("not an address", "not understood"),
        ("oracle9://x/y", "not understood"),
        ("sqlite:///{path}/no/such/folder/x.db", "there is no folder"),
        ("sqlite:///{path}", "names a folder"),
        ("sqlite:///{path}/text.db", "not a store"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_a_config_error(tmp_path, address, words):
    (tmp_path / "text.db").write_text("This is no database. " * 500)
    with pytest.raises(ConfigError, match=words):
        Store(address.format(path=tmp_path))


def test_a_password_in_an_address_is_never_printed():
    with pytest.raises(ConfigError) as refused:
        Store("oracle9://me:hush@host/db")
    assert "hush" not in str(refused.value)
    assert "host" in str(refused.value)


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(store, url, tmp_path):
    store.close()
    with sqlite3.connect(tmp_path / "monitor.db") as raw:
        raw.execute("UPDATE schema_version SET version = 99")
        raw.execute("DROP TABLE outbox")
    with pytest.raises(ConfigError, match="newer Clipdrift"):
        Store(url)
    with sqlite3.connect(tmp_path / "monitor.db") as raw:
        assert raw.execute("SELECT count(*) FROM sqlite_master WHERE name = 'outbox'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("pragma", "words"),
    [("max_page_count=1", "disk is full; make room where"), ("query_only=1", "readonly database; let the monitor write to")],
)
def test_a_store_that_takes_no_writes_says_what_to_do_and_loses_nothing(store, pragma, words):
    store.commit(Changes(models={"m": b"before"}))
    with store._database._engine.connect() as held:  # the one pooled connection that the commit will use
        held.exec_driver_sql(f"PRAGMA {pragma}")
    with pytest.raises(RetryableError, match=words):
        store.commit(Changes(models={"m": b"x" * 1_000_000}))
    assert store.models() == {"m": b"before"}


def test_a_server_that_cannot_be_reached_is_named_without_its_password():
    with pytest.raises(RetryableError, match="check that the server of postgresql://") as refused:
        Store("postgresql://me:hush@127.0.0.1:1/db")
    assert "hush" not in str(refused.value)


def test_a_locked_store_is_an_error_that_passes(store, tmp_path):
    with store._database._engine.connect() as held:  # the one pooled connection that the commit will use
        held.exec_driver_sql("PRAGMA busy_timeout=1")
    blocker = sqlite3.connect(tmp_path / "monitor.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="locked"):
        store.commit(Changes(seen_ids={"a": 1}))
    blocker.execute("ROLLBACK")
    blocker.close()
    store.commit(Changes(seen_ids={"a": 1}))
    assert store.has_seen(["a"]) == {"a"}
