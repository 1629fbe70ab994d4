"""A store of every version that a release has written comes to the newest, with everything that it holds.

`golden/schema_N.DIALECT.sql` is what version N wrote, as text; never changed.
"""

import pytest
from sqlalchemy import create_engine, inspect
from store_contents import GOLDEN, run_script

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.store import migrations
from clipdrift_monitor.store import tables as t
from clipdrift_monitor.store.database import Database
from clipdrift_monitor.store.store import Changes, Store

OLD_VERSIONS = sorted({int(path.name.split(".")[0].removeprefix("schema_")) for path in GOLDEN.glob("*.sql")})


def shape_of(url):
    """Columns, keys and indexes, as the database tells them. What a text column's length may be is not compared."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    found = inspect(engine)
    shape = {}
    for table in found.get_table_names():
        columns = {
            one["name"]: (type(one["type"])._type_affinity.__name__, one["nullable"]) for one in found.get_columns(table)
        }
        indexes = {(one["name"], tuple(one["column_names"])) for one in found.get_indexes(table) if not one["unique"]}
        unique = {tuple(one["column_names"]) for one in found.get_unique_constraints(table)}
        shape[table] = columns, found.get_pk_constraint(table)["constrained_columns"], indexes, unique
    engine.dispose()
    return shape


@pytest.fixture
def old_store(new_store_url, store_kind):
    """Makes the store that a version wrote."""

    def make(version):
        url = new_store_url(store_kind)
        run_script(url, (GOLDEN / f"schema_{version}.{store_kind}.sql").read_text())
        return url

    return make


def test_steps_are_numbered_from_one_without_a_gap():
    assert [step.version for step in migrations.STEPS] == list(range(1, migrations.NEWEST + 1))


def test_every_version_before_the_newest_has_a_golden_store():
    assert set(range(1, migrations.NEWEST)) - set(OLD_VERSIONS) == set(), (
        "write golden/schema_N.sqlite.sql (sqlite3's .dump) and .postgresql.sql of a store of version N, before it is history"
    )


def test_a_new_store_has_the_tables_of_the_code(new_store_url, store_kind):
    """What `tables` has and no step makes would be missing in every store."""
    url, plain = new_store_url(store_kind), new_store_url(store_kind)
    Store(url).close()
    engine = create_engine(plain.replace("postgresql://", "postgresql+psycopg://"))
    t.METADATA.create_all(engine)
    engine.dispose()
    assert shape_of(url) == shape_of(plain)


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_an_old_store_has_the_tables_of_a_new_one_and_all_that_it_held(old_store, new_store_url, store_kind, version):
    url, fresh = old_store(version), new_store_url(store_kind)
    store = Store(url)
    Store(fresh).close()
    assert shape_of(url) == shape_of(fresh)
    assert store.offsets() == {TopicPartition("clipdrift.labels", 0): 41}
    assert store.has_seen(["a", "b", "c"]) == {"a", "b"}
    assert store.seen_labels("m", "epoch", 0)[0] == b"\x01"
    assert [sums.tolist() for _, sums in store.windows("m", 0, 10**12)] == [[1.0, 0.1 + 0.2, 1e300]]
    assert (store.models(), store.harm("m"), store.blocks("m")) == ({"m": b"state"}, b"memory", [b"block"])
    assert store.run("m", "v1").run_id == "r"
    assert [one.event_id for one in store.outbox()] == ["o1"]
    assert [one.key for one in store.retrains("m", unfinished=True)] == ["k"]
    assert store.verify_audit().num_rows == 1
    assert store.verify_audit().is_intact
    store.commit(Changes(models={"m": b"later"}, seen_ids={"x" * 200: 1}, offsets={TopicPartition("clipdrift.labels", 0): 42}))
    store.close()
    again = Store(url)
    assert again.models() == {"m": b"later"}
    again.close()


def test_a_step_that_fails_changes_nothing_and_is_taken_anew(old_store, monkeypatch):
    url = old_store(1)
    step = migrations.STEPS[1]
    broken = step._replace(statements=(*step.statements, "SELECT no_such_column FROM writer"))
    before = shape_of(url)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", (migrations.STEPS[0], broken))
        with pytest.raises(Exception, match="no_such_column"):
            Store(url)
    assert shape_of(url) == before
    store = Store(url)
    assert store.models() == {"m": b"state"}
    store.close()


def test_a_newer_store_is_refused_with_what_to_do(new_store_url, store_kind):
    url = new_store_url(store_kind)
    Store(url).close()
    run_script(url, "UPDATE schema_version SET version = 99")
    with pytest.raises(ConfigError, match=r"newer Clipdrift \(schema 99, this one knows \d+\): upgrade this one"):
        Store(url)


def test_a_database_of_another_program_is_refused_and_left_as_it_is(new_store_url, store_kind):
    url = new_store_url(store_kind)
    run_script(url, "CREATE TABLE customers (name TEXT)")
    with pytest.raises(ConfigError, match=r"tables of another program \(customers\)"):
        Store(url)
    assert list(shape_of(url)) == ["customers"]


def test_looking_at_an_old_store_does_not_change_it(old_store):
    url = old_store(1)
    before = shape_of(url)
    looked = Database(url, migrate=False)
    assert looked.schema_version == 1
    looked.close()
    assert shape_of(url) == before
