"""The buses that the suite runs on; their builders are in bus_places, which is put on the path here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bus_places import KafkaPlace, MockPlace, Place, SqlitePlace


@pytest.fixture(scope="session")
def sqlite_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return SqlitePlace(tmp_path_factory.mktemp("bus") / "bus.sqlite")


@pytest.fixture(scope="session")
def mock_place() -> Iterator[Place]:
    place = MockPlace()
    yield place
    place.stop()


@pytest.fixture(scope="session")
def kafka_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set")
    place = KafkaPlace(Path(home), tmp_path_factory.mktemp("kafka"))
    yield place
    place.stop()


@pytest.fixture(
    params=["sqlite", pytest.param("mock", marks=pytest.mark.broker), pytest.param("kafka", marks=pytest.mark.broker)]
)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found
