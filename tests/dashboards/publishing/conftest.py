import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_grafana import FakeGrafana, served

BOTH = [(major, library) for major in (10, 13) for library in ("grafana-api", "grafana-client")]
BOTH += [(11, "grafana-api"), (12, "grafana-client")]


@pytest.fixture(params=BOTH, ids=lambda one: f"{one[0]}-{one[1]}")
def grafana(request):
    """One of each major version, with the client library that the test uses on it."""
    major, library = request.param
    found = FakeGrafana(major)
    found.library = library
    found.url, end = served(found)
    yield found
    end()
