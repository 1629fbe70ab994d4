"""The committed files are what the code builds."""

from pathlib import Path

import pytest
from dashboard_queries import GENERATED

from clipdrift_dashboards.build import build
from clipdrift_dashboards.links import Links


def test_the_committed_files_are_what_a_fresh_build_writes(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert {path.name: path.read_text() for path in built} == {path.name: path.read_text() for path in GENERATED.iterdir()}


def test_a_build_for_other_addresses_names_no_local_one(tmp_path: Path) -> None:
    links = Links(grafana_url="https://g.example", monitor_url="https://m.example", runbooks_url="https://r.example")
    for path in build(tmp_path / "new" / "folder", links):
        text = path.read_text()
        assert "localhost" not in text
        assert "docs/runbooks" not in text
        assert "https://r.example/Clipdrift" in text


def test_an_address_that_ends_in_a_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="must not end with a slash"):
        Links(grafana_url="http://localhost:3000/")
