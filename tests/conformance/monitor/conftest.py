"""One real monitor process on a store with a model that is harmed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "monitor"))
from dialogue import POLICY, Dialogue, day_of, outcome, run_end
from monitor_process import MonitorProcess

from clipdrift_contract.events import RetrainRequest
from clipdrift_monitor.approvals.config import ApprovalConfig

TOKEN = "the-api-token"


@pytest.fixture(scope="package")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitorProcess]:
    """Knows `pump`, which was harmed and has an open incident, and an approval that another policy asked for; takes
    `the-api-token`. A retrain ends at once."""
    folder = tmp_path_factory.mktemp("monitor")
    asking = msgspec.structs.replace(POLICY, approval=ApprovalConfig(needed="promotions", is_key_needed=False))
    with Dialogue(folder, policy=asking) as dialogue:
        dialogue.go(run_end())
        for day in range(2, 12):
            dialogue.go(*day_of(day, accuracy=0.8 if day < 6 else 0.1))
        request = next(iter(dialogue.published(RetrainRequest).values()), None)
        request = request or dialogue.ask(dialogue.engine.commands.order, "pump", "to see", "ann")
        dialogue.go(run_end("v2", retrain_key=request.key, day=12), outcome(request))
    made = MonitorProcess(folder, api_token=TOKEN, retrain_command=("true",))
    made.until(lambda found: found[0] == 200, ask=lambda: made.get("/readyz"))
    yield made
    made.end()
