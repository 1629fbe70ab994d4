"""The how-to about alerts names every alert with its severity, settings that exist and files that are there."""

import re
import shlex
import tomllib
from pathlib import Path

import msgspec

from clipdrift_dashboards.rules import ALERTS, OF_INCIDENT
from clipdrift_monitor.alerting.config import AlertingConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "receive-alerts.md").read_text()


def test_the_table_has_every_alert_at_its_severity() -> None:
    rows = dict(re.findall(r"^\| (as the incident|page|ticket)[^|]* \| (.*) \|$", PAGE, re.MULTILINE))
    told = {severity: set(re.findall(r"`(\w+)`", words)) for severity, words in rows.items()}
    for severity, words in ((OF_INCIDENT, "as the incident"), ("page", "page"), ("ticket", "ticket")):
        assert told[words] == {alert.name for alert in ALERTS if alert.severity == severity}


def test_the_settings_of_the_howto_are_settings() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = msgspec.convert(tomllib.loads(text)["monitor"]["alerting"], AlertingConfig)
    assert config.urls == ("http://localhost:9093",)


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:deploy|docs)/[\w/.-]+)`", PAGE))
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert {f"{name}.yml" for name in ("slack", "pagerduty", "email", "webhook")} == {
        path.name for path in (ROOT / "deploy" / "alertmanager" / "receivers").iterdir()
    }


def test_the_rules_are_built_as_it_says(clipdrift, tmp_path: Path) -> None:
    (line,) = re.findall(r"^\$ clipdrift (dashboards build .*)$", PAGE, re.MULTILINE)
    clipdrift(*shlex.split(line.replace("/etc/clipdrift/generated", str(tmp_path))))
    rules = (tmp_path / "clipdrift-rules.yml").read_text()
    assert "runbook_url: https://wiki.example/clipdrift/runbooks/ClipdriftModelHarmed.md" in rules
