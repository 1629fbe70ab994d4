"""What is PostgreSQL's own: a server that goes away and comes back, a writer that froze, a driver that is not installed."""

import sys

import psycopg
import pytest

from clipdrift_contract.errors import ConfigError, RetryableError
from clipdrift_monitor.store.store import Changes, Store

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(new_store_url):
    return new_store_url("postgresql")


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def cut_off(store, url):
    """A transaction whose connection the server ends in its middle."""
    with store._database.transaction() as connection:
        own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(f"SELECT pg_terminate_backend({own})")
        connection.exec_driver_sql("UPDATE models SET body = 'lost'")


def test_a_connection_that_is_cut_off_is_an_outage_and_the_next_call_has_a_new_one(store, url):
    store.commit(Changes(models={"m": b"x"}))
    with pytest.raises(RetryableError, match="terminating connection"):
        cut_off(store, url)
    assert store.models() == {"m": b"x"}


def test_a_server_that_is_away_is_an_outage_and_what_was_acknowledged_is_there_when_it_is_back(url, postgresql_server):
    store = Store(url)
    store.commit(Changes(models={"m": b"before"}))
    postgresql_server.stop()  # as a crash
    try:
        for call in (lambda: store.commit(Changes(models={"m": b"lost"})), store.models, lambda: Store(url)):
            with pytest.raises(RetryableError, match="store"):
                call()
    finally:
        postgresql_server.start()
    assert store.models() == {"m": b"before"}
    store.commit(Changes(models={"m": b"after"}))
    assert store.models() == {"m": b"after"}
    store.close()


def test_a_writer_that_holds_its_place_keeps_others_waiting_and_then_they_say_so(store, url, monkeypatch):
    holder = psycopg.connect(url)
    holder.execute("SELECT epoch FROM writer FOR UPDATE")
    impatient = Store(url + "&options=-c%20lock_timeout%3D50ms")
    with pytest.raises(RetryableError, match="lock timeout"):
        impatient.commit(Changes(models={"m": b"x"}))
    holder.rollback()
    holder.close()
    impatient.commit(Changes(models={"m": b"x"}))
    impatient.close()


def test_an_address_that_names_no_database_says_what_to_check(url):
    name = url.split("/")[3].split("?")[0]
    with pytest.raises(RetryableError, match="check user, password and database name"):
        Store(url.replace(name, "no_such_database"))


def test_a_read_only_server_is_an_outage(store):
    with store._database._engine.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")  # of the one pooled connection
        connection.commit()
    with pytest.raises(RetryableError, match="read-only"):
        store.beat()


def test_names_sort_by_their_bytes_as_in_sqlite(store, new_store_url):
    other = Store(new_store_url("sqlite"))
    for one in (store, other):
        one.commit(Changes(models=dict.fromkeys(("b", "A", "a", "B", "ä", "_"), b"")))
    assert sorted(store.models()) == sorted(other.models())
    with store._database.reading() as of_one, other._database.reading() as of_other:
        query = "SELECT model FROM models ORDER BY model"
        assert of_one.exec_driver_sql(query).all() == of_other.exec_driver_sql(query).all()
    other.close()


def test_a_database_that_is_not_utf8_is_refused(postgresql_server):
    postgresql_server.say("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = postgresql_server.new_database()
    with pytest.raises(ConfigError, match="encoding LATIN1; a store needs UTF8"):
        Store(url.replace(url.split("/")[3].split("?")[0], "latin"))


def test_without_the_driver_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'clipdrift\[postgresql\]'") as refused:
        Store("postgresql://me:hush@host/db")
    assert "hush" not in str(refused.value)
