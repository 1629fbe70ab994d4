"""The pages of retrains, rollouts and approvals as a browser shows them, wide and on a phone."""

import re
import shutil
import subprocess
import threading

import msgspec
import pytest
import uvicorn
from dialogue import POLICY, day_of, outcome, run_end
from monitor_process import free_port
from test_retrain_pages import CHECKS, STEPS, Text
from traffic import begun, go_days, newest

from clipdrift_monitor.approvals.config import ApprovalConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium"),
]
WIDE, PHONE = 1200, 400


@pytest.fixture
def served():
    """Serves houses over HTTP; gives the address."""
    servers = []

    def serve(house):
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(house.app, port=port, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            thread.join(0.01)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)


def shown(url, folder, width):
    """The DOM that a browser makes of a page, and a picture of it."""
    picture = folder / "page.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
    options = (f"--window-size={width},2400", f"--screenshot={picture}", url)
    subprocess.run([*command, *options], capture_output=True, timeout=90, check=True)
    dom = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=90, check=True).stdout
    return dom, picture.read_bytes()


def checked(url, folder, width, num_pictures):
    dom, picture = shown(url, folder, width)
    text = Text(dom).text
    assert dom.count("<svg") == num_pictures, url
    assert not re.findall(r"\b(?:nan|NaN|undefined|Undefined|None)\b(?! so far| is over)", text)
    for points in re.findall(r'<polyline[^>]*points="([^"]*)"', dom):
        assert len(points.split()) >= 2
        assert all(0.0 <= float(x) <= 720.0 and 0.0 <= float(y) <= 190.0 for x, y in (one.split(",") for one in points.split()))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 20_000, "more than a blank sheet"
    return text


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_rollout_is_drawn_within_its_pictures(house_of, served, tmp_path, width):
    house = house_of(policy=msgspec.structs.replace(POLICY, rollout=STEPS))
    begun(house.dialogue)
    day = go_days(house.dialogue, 6, 30, until=lambda: newest(house.dialogue).stage == "canary 0.2")
    go_days(house.dialogue, day + 1, day + 3)
    url = served(house)
    state = house.dialogue.state
    text = checked(f"{url}/models/pump/rollouts/{state.rollout.rollout_id}", tmp_path, width, 4)
    assert "share of the requests that the candidate answers" in text
    assert "What is watched" in text
    assert "On its way into service" in checked(f"{url}/models/pump/retrains", tmp_path, width, 0)


def test_an_approval_and_its_retrain_are_shown_with_forms(house_of, served, tmp_path):
    asking = ApprovalConfig(needed="promotions", is_key_needed=False, expectation_share=0.0)
    days = [batch for day in range(2, 6) for batch in day_of(day)]
    house = house_of(run_end(), *days, policy=msgspec.structs.replace(POLICY, approval=asking))
    request = house.dialogue.ask(house.dialogue.engine.commands.order, "pump", "to see", "ann")
    house.dialogue.go(run_end("v2", retrain_key=request.key, day=6), outcome(request, checks=CHECKS))
    url, approval = served(house), house.dialogue.state.waiting_approval.approval
    text = checked(f"{url}/approvals/{approval.approval_id}", tmp_path, WIDE, 0)
    assert "Open the evidence" in text
    assert "Your API key" in text
    assert "The gate" in checked(f"{url}/models/pump/retrains/{request.key}", tmp_path, WIDE, 0)
    assert "1 question waits for a person" in checked(f"{url}/approvals", tmp_path, WIDE, 0)
