"""Every panel of every dashboard, drawn in Chromium over the month of a real Prometheus; pictures stay in build/pictures."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic_month
from dashboard_queries import BOARDS
from playwright.sync_api import Browser, Page, sync_playwright

from clipdrift_dashboards.linting import panels_of
from clipdrift_dashboards.viewer.asking import Prometheus
from clipdrift_dashboards.viewer.server import viewer
from clipdrift_deploy.demo_dashboards import prometheus_with

pytestmark = [pytest.mark.browser, pytest.mark.prometheus]
PICTURES = Path(__file__).parents[2] / "build" / "pictures"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("month")
    synthetic_month.write(folder / "metrics.om")
    with prometheus_with(folder / "metrics.om", folder) as past:
        server = viewer(Prometheus(past.url), past.span, port=0)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1640, "height": 1000})
    yield found
    found.close()


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_is_drawn_at_its_place_and_none_runs_over_its_edge(page: Page, address: str, name: str) -> None:
    board = BOARDS[name]
    answer = page.goto(f"{address}/d/{board['uid']}?open=1&var-model={synthetic_month.HARMED}")
    assert answer is not None
    assert answer.ok
    folder = PICTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder.with_suffix(".png")), full_page=True)
    boxes = page.locator("section").all()
    assert len(boxes) >= len(list(panels_of(board)))
    for box in boxes:
        box.screenshot(path=str(folder / f"{box.get_attribute('id')}.png"))
        over = box.evaluate("e => [e.scrollWidth - e.clientWidth, getComputedStyle(e).overflowY]")
        assert over[0] <= 1, box.inner_text()[:60]
    for legend in page.locator(".legend.table").all():
        assert legend.evaluate("e => e.scrollWidth - e.clientWidth") <= 1, legend.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_click_on_a_model_of_the_fleet_leads_to_its_dashboard_and_back_with_the_time_kept(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name=synthetic_month.HARMED).first.click()
    assert "/d/clipdrift-model" in page.url
    assert "from=" in page.url
    page.get_by_role("link", name="Fleet overview").click()
    assert page.title() == "Clipdrift / Fleet overview"
    assert "from=" in page.url


@pytest.mark.parametrize("width", [1920, 1440, 1280, 1024])
def test_a_page_fits_into_the_windows_that_people_have(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_what_is_not_there_is_said(page: Page, address: str) -> None:
    answer = page.goto(f"{address}/d/nope")
    assert answer is not None
    assert answer.status == 404
