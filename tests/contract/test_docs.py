"""The committed reference pages are what the code generates."""

import re
from pathlib import Path

import pytest

from clipdrift_contract.docs import EVENT_TYPES, SCHEMA_FOLDER, pages
from clipdrift_contract.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_is_what_the_code_says(path):
    assert (ROOT / path).read_text() == PAGES[path], "run: make docs"


def test_no_schema_is_left_of_an_event_that_is_gone():
    assert {path.stem for path in (ROOT / SCHEMA_FOLDER).iterdir()} == {kind.__name__ for kind in EVENT_TYPES}


def test_every_metric_is_on_its_page():
    page = PAGES[Path("docs/reference/metrics.md")]
    assert all(f"| `{metric.name}` |" in page for metric in METRICS)


def test_every_link_within_the_events_page_leads_somewhere():
    page = PAGES[Path("docs/reference/events.md")]
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\(#([^)]+)\)", page)) <= headings
