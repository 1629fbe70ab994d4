"""For all tests: property tests draw the same examples every time. `--hypothesis-profile=explore` looks for new ones.

How long a draw takes is nothing that a test claims: on a busy machine it would fail for that alone.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
if TYPE_CHECKING:
    from postgresql_server import PostgresqlServer

BUSY = (HealthCheck.too_slow,)
settings.register_profile("explore", max_examples=1_000, suppress_health_check=BUSY, deadline=None)
settings.register_profile("gate", derandomize=True, suppress_health_check=BUSY, deadline=None)
settings.load_profile("gate")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator["PostgresqlServer"]:
    """A PostgreSQL of this test run's own; for tests that are marked `postgresql`."""
    from postgresql_server import PostgresqlServer

    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture
def new_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Gives the address of an empty store on "sqlite" or "postgresql", another one each time."""
    num_made = 0

    def make(kind: str) -> str:
        nonlocal num_made
        num_made += 1
        if kind == "postgresql":
            return str(request.getfixturevalue("postgresql_server").new_database())
        return f"sqlite:///{tmp_path}/store{num_made}.db"

    return make


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each database that a store may be on; what uses it runs on all of them."""
    return str(request.param)
