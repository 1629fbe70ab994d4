"""The buses under test: what each needs to be opened, taken away for a while, and opened by another process."""

import json
import os
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bus_kafka_broker import KafkaBroker

from clipdrift_contract.bus.kafka import KafkaBus
from clipdrift_contract.bus.log import Bus
from clipdrift_contract.bus.sqlite import SqliteBus

HERE = Path(__file__).parent
NUM_PARTITIONS = 4
QUICK_GROUPS = {"session_timeout_ms": 3_000, "heartbeat_interval_ms": 300, "max_poll_interval_ms": 5_000}
MOCK_SETTINGS = {
    "api_version": (2, 3),  # the mock answers newer version requests malformed
    "session_timeout_ms": 1_500,  # after the last member has left, the mock keeps others out for as long as this
    "heartbeat_interval_ms": 300,
    "max_poll_interval_ms": 3_000,
}


class MockKafkaBus(KafkaBus):
    """The mock cannot create topics on request, so the fixture has made them, all with the same number of partitions."""

    def _create_topics(self, topics: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(topics, NUM_PARTITIONS)


class Place(ABC):
    """One bus under test, shared by the tests of a session; each test takes topics of its own."""

    knows_time = True
    _num_topics = 0

    @property
    @abstractmethod
    def address(self) -> str:
        """What `open_bus` takes, as text, so that another process can open the same bus."""

    def open(self) -> Bus:
        return open_bus(self.address)

    def topic(self) -> str:
        Place._num_topics += 1
        return self.make_topic(f"t{os.getpid()}-{Place._num_topics}")

    def make_topic(self, name: str) -> str:
        self.open().ensure_topics([name])
        return name

    @abstractmethod
    def away(self) -> Iterator[None]:
        """A context in which nothing can be written."""


def open_bus(address: str) -> Bus:
    kind, where = json.loads(address)
    if kind == "sqlite":
        return SqliteBus(Path(where), num_partitions=NUM_PARTITIONS)
    if kind == "mock":
        return MockKafkaBus([where], settings=MOCK_SETTINGS)
    return KafkaBus([where], num_partitions=NUM_PARTITIONS, settings=QUICK_GROUPS)


class SqlitePlace(Place):
    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def address(self) -> str:
        return json.dumps(["sqlite", str(self._path)])

    @contextmanager
    def away(self) -> Iterator[None]:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.close()


class MockPlace(Place):
    knows_time = False  # the mock broker has no index by time

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, HERE / "bus_mock_broker.py"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self._server = self._process.stdout.readline().strip()

    @property
    def address(self) -> str:
        return json.dumps(["mock", self._server])

    def make_topic(self, name: str) -> str:
        self._say(f"topic {name} {NUM_PARTITIONS}")
        return name

    @contextmanager
    def away(self) -> Iterator[None]:
        self._say("down")
        try:
            yield
        finally:
            self._say("up")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


class KafkaPlace(Place):
    def __init__(self, home: Path, folder: Path) -> None:
        self._broker = KafkaBroker(home, folder)
        self._broker.start()

    @property
    def address(self) -> str:
        return json.dumps(["kafka", self._broker.server])

    @contextmanager
    def away(self) -> Iterator[None]:
        self._broker.kill()
        try:
            yield
        finally:
            self._broker.start()

    def stop(self) -> None:
        self._broker.kill()
