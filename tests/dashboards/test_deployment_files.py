"""The files in deploy/ fit the rules, the dashboard and each other; the servers' own tools accept them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dashboard_queries import RULES

from clipdrift_dashboards.links import Links
from clipdrift_dashboards.rules import ALERTS, AlertSeverity
from clipdrift_monitor.config import MonitorConfig
from clipdrift_serving.config import ServingConfig

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS, ALERTMANAGER = DEPLOY / "prometheus" / "prometheus.yml", DEPLOY / "alertmanager" / "alertmanager.yml"
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_prometheus_scrapes_monitor_and_serving_at_their_default_ports() -> None:
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in read(PROMETHEUS)["scrape_configs"]}
    assert targets["clipdrift-monitor"] == [f"localhost:{MonitorConfig().port}"]
    assert targets["clipdrift-serving"] == [f"localhost:{ServingConfig().admin_port}"]


def test_prometheus_loads_the_generated_rules() -> None:
    assert [(PROMETHEUS.parent / path).resolve() for path in read(PROMETHEUS)["rule_files"]] == [RULES.resolve()]


def test_grafana_knows_the_scrape_interval() -> None:
    (source,) = read(PROVISIONING / "datasources" / "clipdrift.yml")["datasources"]
    assert source["jsonData"]["timeInterval"] == read(PROMETHEUS)["global"]["scrape_interval"]


def test_grafana_reads_dashboards_that_nobody_edits_in_the_browser() -> None:
    (provider,) = read(PROVISIONING / "dashboards" / "clipdrift.yml")["providers"]
    assert provider["allowUiUpdates"] is False


def test_every_severity_has_a_way_to_somebody() -> None:
    routes = read(ALERTMANAGER)["route"]["routes"]
    receivers = {matcher: route["receiver"] for route in routes for matcher in route["matchers"]}
    assert receivers["severity = page"] == "on-call"
    assert receivers["severity = ticket"] == "tickets"
    unrouted = {alert.name for alert in ALERTS if f"severity = {alert.severity}" not in receivers}
    assert unrouted == {"ClipdriftWatchdog"}
    assert receivers["alertname = ClipdriftWatchdog"] == "dead-mans-switch"
    assert set(get_args(AlertSeverity)) == {"page", "ticket", "none"}


def test_inhibitions_name_alerts_that_exist() -> None:
    names = {alert.name for alert in ALERTS}
    for rule in read(ALERTMANAGER)["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert matcher.removeprefix("alertname = ") in names


def test_the_links_point_to_the_monitor_at_its_default_port() -> None:
    assert Links().monitor_url == f"http://localhost:{MonitorConfig().port}"


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration() -> None:
    done = subprocess.run(["promtool", "check", "config", str(PROMETHEUS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool comes with Debian's prometheus-alertmanager")
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_alertmanager_sends_the_alert_where_it_belongs(alert: Any) -> None:
    expected = {"page": "on-call", "ticket": "tickets", "none": "dead-mans-switch"}[alert.severity]
    labels = [f"alertname={alert.name}", f"severity={alert.severity}", "model=m"]
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={expected}", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
