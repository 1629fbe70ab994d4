"""A bus by its address."""

import pytest

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.kafka import KafkaBus
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.errors import ConfigError, RetryableError


def test_three_slashes_name_a_relative_file_and_four_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(connect("sqlite:///here.sqlite"), SqliteBus)
    assert isinstance(connect(f"sqlite:///{tmp_path}/deep/there.sqlite"), SqliteBus)
    assert (tmp_path / "here.sqlite").exists()
    assert (tmp_path / "deep" / "there.sqlite").exists()


def test_a_kafka_address_connects_to_nothing_yet():
    assert isinstance(connect("kafka://one:9092,two:9092"), KafkaBus)


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///", "kafka://", "redis://host", "bus.sqlite"])
def test_an_address_that_is_not_understood_says_what_is(url):
    with pytest.raises(ConfigError, match="must be sqlite:///FILE or kafka://HOST:PORT"):
        connect(url)


def test_settings_of_kafka_come_from_a_file(tmp_path):
    settings = tmp_path / "kafka.toml"
    settings.write_text('security_protocol = "SSL"\nssl_cafile = "ca.pem"\n')
    assert isinstance(connect(f"kafka://one:9092?settings={settings}"), KafkaBus)


@pytest.mark.parametrize(
    ("text", "says"), [("securty_protocol = 'SSL'", "knows no setting securty_protocol"), ("= SSL", "are not TOML")]
)
def test_a_wrong_settings_file_says_what_is_wrong(tmp_path, text, says):
    settings = tmp_path / "kafka.toml"
    settings.write_text(text)
    with pytest.raises(ConfigError, match=says):
        connect(f"kafka://one:9092?settings={settings}")


@pytest.mark.parametrize("query", ["settings=missing.toml", "sasl_plain_password=secret"])
def test_nothing_else_may_follow_a_kafka_address(query):
    with pytest.raises(ConfigError):
        connect(f"kafka://one:9092?{query}")


def test_a_broker_that_is_away_is_retryable_and_named():
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1"):
        KafkaBus(["127.0.0.1:1"]).ensure_topics(["t"])


def test_a_server_without_a_port_is_a_configuration_error():
    with pytest.raises(ConfigError, match="is HOST:PORT"):
        KafkaBus(["broker.example"]).ensure_topics(["t"])


def test_a_reader_of_a_broker_that_is_away_waits_and_does_not_raise():
    consumer = KafkaBus(["127.0.0.1:1"]).consumer("g", ["t"])
    assert consumer.poll(10, 0.3) == []
    assert consumer.assignment() == frozenset()
    assert consumer.lag() == 1
    with pytest.raises(RetryableError):
        consumer.commit()
    consumer.close()
    consumer.close()


def test_a_writer_to_a_broker_that_is_away_queues_and_says_why():
    publisher = KafkaBus(["127.0.0.1:1"]).publisher()
    publisher.publish("t", b"key", {}, b"value", timestamp_ms=0)
    with pytest.raises(RetryableError, match=r"1 records not acknowledged.*127\.0\.0\.1:1"):
        publisher.flush(1.0)
    assert publisher.num_queued() == 1
    publisher.close(0.1)


def test_a_record_that_no_broker_takes_is_refused_at_once():
    publisher = KafkaBus(["127.0.0.1:1"]).publisher()
    with pytest.raises(ValueError, match="at most 1000000 bytes"):
        publisher.publish("t", b"key", {}, b"x" * 1_000_001, timestamp_ms=0)
    assert publisher.num_queued() == 0
    publisher.close(0.1)
