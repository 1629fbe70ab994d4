import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection to a server on this machine."""
    with requests.Session() as made:
        made.trust_env = False
        yield made
