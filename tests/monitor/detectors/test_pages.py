import re
from pathlib import Path

import pytest

from clipdrift_monitor.detectors.catalogue import BUILT_IN
from clipdrift_monitor.detectors.streams import NAMES

PAGES = Path(__file__).parents[3] / "docs" / "reference" / "detectors"


@pytest.mark.parametrize("detector", BUILT_IN, ids=lambda detector: detector.name)
def test_every_detector_has_a_page_with_what_was_measured_and_stands_in_the_index(detector):
    page = (PAGES / f"{detector.name}.md").read_text()
    assert page.startswith(f"# `{detector.name}`: ")
    assert "## What chance gives" in page
    measured = page.partition(f"<!-- measured: {detector.name} -->")[2].partition("<!-- end -->")[0]
    assert len(re.findall(r"^\| [\d,]+ \|", measured, re.MULTILINE)) >= 6
    assert f"[`{detector.name}`](detectors/{detector.name}.md)" in PAGES.with_suffix(".md").read_text()


@pytest.mark.parametrize("name", [*NAMES, "estimated_accuracy", "calibration_drift", "mmd", "freshness"])
def test_what_reads_errors_or_scores_has_a_page_that_says_what_it_does_not_see(name):
    page = (PAGES / f"{name}.md").read_text()
    assert page.startswith(f"# `{name}`: ")
    assert "## What chance gives" in page
    assert "## What it does not see" in page
    assert f"[`{name}`](detectors/{name}.md)" in PAGES.with_suffix(".md").read_text()
