"""One real monitor process on a store with a model that is harmed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "monitor"))
from dialogue import Dialogue, day_of, run_end
from monitor_process import MonitorProcess

TOKEN = "the-api-token"


@pytest.fixture(scope="package")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitorProcess]:
    """Knows `pump`, which was harmed and has an open incident; takes `the-api-token`. A retrain ends at once."""
    folder = tmp_path_factory.mktemp("monitor")
    with Dialogue(folder) as dialogue:
        dialogue.go(run_end())
        for day in range(2, 12):
            dialogue.go(*day_of(day, accuracy=0.8 if day < 6 else 0.1))
    made = MonitorProcess(folder, api_token=TOKEN, retrain_command=("true",))
    made.until(lambda found: found[0] == 200, ask=lambda: made.get("/readyz"))
    yield made
    made.end()
