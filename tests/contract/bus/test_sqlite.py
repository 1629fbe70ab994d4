"""What is true of the SQLite file only: foreign and newer files, the disk, a queue that is full, members that died."""

import sqlite3
import time

import pytest

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.bus.sqlite import SqliteBus, SqliteConsumer, SqlitePublisher, open_file, transaction
from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError

PATIENCE_SECONDS = 20.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bus.sqlite"


def put(publisher, numbers, key=b"key"):
    for number in numbers:
        publisher.publish("t", key, {}, b"%d" % number, timestamp_ms=number)
    publisher.flush(PATIENCE_SECONDS)


def values_of(consumer, max_records=500):
    return [int(record.value) for record in consumer.poll(max_records, 0.0)]


def lock(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_database_of_another_program_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        SqliteBus(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"some words, and more of them than a header has " * 100)
    with pytest.raises(ConfigError, match="is no bus or is damaged"):
        SqliteBus(path)
    assert path.read_bytes().startswith(b"some words")


def test_a_file_of_a_newer_version_is_refused(path):
    SqliteBus(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE settings SET value='99' WHERE name='schema'")
    with pytest.raises(ConfigError, match="newer Clipdrift"):
        SqliteBus(path)


def test_a_file_keeps_its_own_number_of_partitions(path):
    assert SqliteBus(path, num_partitions=3).num_partitions("t") == 3
    assert SqliteBus(path, num_partitions=8).num_partitions("t") == 3


def test_a_bus_needs_a_partition(path):
    with pytest.raises(ValueError, match="num_partitions must be >= 1"):
        SqliteBus(path, num_partitions=0)


def test_a_consumer_needs_a_topic(path):
    with pytest.raises(ValueError, match="at least one topic"):
        SqliteBus(path).consumer("g", [])


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_durable_waits_for_the_disk_at_each_commit(path, durable, level):
    SqliteBus(path, durable=durable)
    connection = open_file(path, durable=durable)
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == level  # sqlite.org/pragma.html: 1 NORMAL, 2 FULL
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_full_queue_refuses_and_keeps_what_it_has(path):
    bus = SqliteBus(path)
    writer = lock(path)
    publisher = SqlitePublisher(path, num_partitions=4, durable=False, max_queued=5)
    for number in range(5):
        publisher.publish("t", b"key", {}, b"%d" % number, timestamp_ms=0)
    with pytest.raises(RetryableError, match="5 records wait"):
        publisher.publish("t", b"key", {}, b"5", timestamp_ms=0)

    writer.close()
    publisher.flush(PATIENCE_SECONDS)
    assert values_of(bus.consumer(None, ["t"])) == [0, 1, 2, 3, 4]
    publisher.close()


def test_a_closed_publisher_takes_nothing_more(path):
    publisher = SqliteBus(path).publisher()
    publisher.close()
    publisher.close()
    with pytest.raises(ClipdriftError, match="closed"):
        publisher.publish("t", b"key", {}, b"", timestamp_ms=0)


def test_close_writes_what_is_queued(path):
    bus = SqliteBus(path)
    publisher = bus.publisher()
    for number in range(1000):
        publisher.publish("t", b"key", {}, b"%d" % number, timestamp_ms=0)
    publisher.close()
    assert values_of(bus.consumer(None, ["t"]), 2000) == list(range(1000))


def test_two_writers_of_one_partition_lose_nothing_and_share_no_offset(path):
    bus = SqliteBus(path)
    one, two = bus.publisher(), bus.publisher()
    for number in range(300):
        one.publish("t", b"key", {}, b"%d" % number, timestamp_ms=0)
        two.publish("t", b"key", {}, b"%d" % (1000 + number), timestamp_ms=0)
    one.close()
    two.close()

    records = bus.consumer(None, ["t"]).poll(1000, 0.0)

    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))
    values = [int(record.value) for record in records]
    assert [v for v in values if v < 1000] == list(range(300))
    assert [v for v in values if v >= 1000] == list(range(1000, 1300))


def test_a_busy_partition_does_not_starve_the_others(path):
    bus = SqliteBus(path, num_partitions=2)
    publisher = bus.publisher()
    put(publisher, range(1000), key=b"0")
    put(publisher, [5000], key=b"1")
    consumer = bus.consumer(None, ["t"])
    assert len({record.partition for record in bus.consumer(None, ["t"]).poll(2000, 0.0)}) == 2
    seen = values_of(consumer, 10) + values_of(consumer, 10)
    assert 5000 in seen
    publisher.close()


def test_partitions_of_a_member_that_died_go_to_the_others(path):
    bus = SqliteBus(path)
    dead, alive = bus.consumer("g", ["t"]), bus.consumer("g", ["t"])
    dead.poll(1, 0.0)
    alive.poll(1, 0.0)
    assert len(alive.assignment()) == 2
    with sqlite3.connect(path) as connection:  # as if the dead one had last been seen a minute ago
        connection.execute("UPDATE members SET seen=seen-60 WHERE member=?", (dead._member,))

    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(alive.assignment()) < 4 and time.monotonic() < deadline:
        alive.poll(1, 0.1)

    assert len(alive.assignment()) == 4
    with pytest.raises(RetryableError, match="rebalancing"):
        dead.commit({TopicPartition("t", 0): 1})


def test_a_lag_that_is_not_known_is_not_none(path):
    bus = SqliteBus(path)
    consumer = bus.consumer(None, ["t"])
    assert consumer.lag() == 1
    consumer.poll(1, 0.0)
    assert consumer.lag() == 0


def test_a_commit_into_a_locked_file_can_be_tried_again(path):
    bus = SqliteBus(path)
    consumer = bus.consumer("g", ["t"])
    consumer.poll(1, 0.0)
    assert isinstance(consumer, SqliteConsumer)
    consumer._connection.execute("PRAGMA busy_timeout=50")
    writer = lock(path)
    with pytest.raises(RetryableError, match="cannot be written now"):
        consumer.commit()
    writer.close()
    consumer.commit({TopicPartition("t", 0): 7})
    assert consumer.committed(TopicPartition("t", 0)) == 7


def test_a_failed_transaction_leaves_the_connection_usable(path):
    SqliteBus(path)
    connection = open_file(path)
    with pytest.raises(sqlite3.IntegrityError), transaction(connection):
        connection.executemany("INSERT INTO settings VALUES (?, '1')", [("x",), ("x",)])
    with transaction(connection):
        connection.execute("INSERT INTO settings VALUES ('y', '1')")
    names = {row[0] for row in connection.execute("SELECT name FROM settings")}
    assert "y" in names
    assert "x" not in names


def test_a_full_disk_leaves_the_connection_usable(path):
    SqliteBus(path)
    connection = open_file(path)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"), transaction(connection):
        connection.execute("INSERT INTO settings VALUES ('x', ?)", ("y" * 1_000_000,))
    connection.execute(f"PRAGMA max_page_count={pages + 1000}")
    with transaction(connection):
        connection.execute("INSERT INTO settings VALUES ('x', ?)", ("y" * 1_000_000,))
