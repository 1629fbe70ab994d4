"""The files in deploy/ fit the rules, the dashboard and each other; the servers' own tools accept them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dashboard_queries import RULES

from clipdrift_contract.alerts import ALERT_SEVERITIES
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.publishing.wanted import EXEMPLAR_LABEL
from clipdrift_dashboards.rules import ALERTS, OF_INCIDENT, Alert, AlertSeverity
from clipdrift_monitor.config import MonitorConfig
from clipdrift_serving.config import ServingConfig

MOMENT = "2026-11-26T11:00:00Z"
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


@pytest.mark.parametrize(
    "file", [PROVISIONING / "datasources" / "clipdrift.yml", DEPLOY / "compose" / "grafana-datasource.yml"]
)
def test_exemplars_lead_to_the_request_at_servings_default_port(file: Path) -> None:
    (source,) = read(file)["datasources"]
    (way,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert way["name"] == EXEMPLAR_LABEL
    assert way["url"] == Links().request("$${__value.raw}"), "a single $ would name a variable of the environment"
    assert str(ServingConfig().admin_port) in way["url"]


def test_prometheus_keeps_exemplars() -> None:
    assert "--enable-feature=exemplar-storage" in PROMETHEUS.read_text()
    assert "--enable-feature=exemplar-storage" in read(DEPLOY / "compose" / "compose.yml")["services"]["prometheus"]["command"]


def test_grafana_reads_dashboards_that_nobody_edits_in_the_browser() -> None:
    (provider,) = read(PROVISIONING / "dashboards" / "clipdrift.yml")["providers"]
    assert provider["allowUiUpdates"] is False


def severities(alert: Alert) -> tuple[str, ...]:
    return ALERT_SEVERITIES if alert.severity == OF_INCIDENT else (alert.severity,)


def test_every_severity_has_a_way_to_somebody() -> None:
    routes = read(ALERTMANAGER)["route"]["routes"]
    receivers = {matcher: route["receiver"] for route in routes for matcher in route["matchers"]}
    assert receivers["severity = page"] == "on-call"
    assert receivers["severity = ticket"] == "tickets"
    unrouted = {alert.name for alert in ALERTS if not {f"severity = {one}" for one in severities(alert)} <= set(receivers)}
    assert unrouted == {"ClipdriftWatchdog"}
    assert receivers["alertname = ClipdriftWatchdog"] == "dead-mans-switch"
    assert set(get_args(AlertSeverity)) == {"page", "ticket", "none", OF_INCIDENT}


def test_inhibitions_name_alerts_that_exist() -> None:
    names = {alert.name for alert in ALERTS}
    for rule in read(ALERTMANAGER)["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, value = matcher.split(" = ")
            assert value in (names if label == "alertname" else {"page", "ticket"})


def test_the_links_point_to_the_monitor_at_its_default_port() -> None:
    assert Links().monitor_url == f"http://localhost:{MonitorConfig().port}"


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration() -> None:
    done = subprocess.run(["promtool", "check", "config", str(PROMETHEUS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool comes with Debian's prometheus-alertmanager")
@pytest.mark.parametrize(("name", "severity"), [(alert.name, severity) for alert in ALERTS for severity in severities(alert)])
def test_alertmanager_sends_the_alert_where_it_belongs(name: str, severity: str) -> None:
    expected = {"page": "on-call", "ticket": "tickets", "none": "dead-mans-switch"}[severity]
    labels = [f"alertname={name}", f"severity={severity}", "model=m"]
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={expected}", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


RECEIVERS = sorted((ALERTMANAGER.parent / "receivers").glob("*.yml"))
TEMPLATE = ALERTMANAGER.parent / "clipdrift.tmpl"


@pytest.mark.parametrize("path", RECEIVERS, ids=lambda path: path.stem)
def test_a_list_of_receivers_has_every_receiver_that_routes_name(path: Path) -> None:
    assert [one["name"] for one in read(path)["receivers"]] == [one["name"] for one in read(ALERTMANAGER)["receivers"]]


def test_there_are_receivers_for_slack_pagerduty_mail_and_a_service_of_your_own() -> None:
    assert [path.stem for path in RECEIVERS] == ["email", "pagerduty", "slack", "webhook"]


@pytest.mark.prometheus
@pytest.mark.parametrize("path", [None, *RECEIVERS], ids=lambda path: path.stem if path else "as it is")
def test_amtool_accepts_the_configuration_with_each_list_of_receivers(path: Path | None, tmp_path: Path) -> None:
    config = read(ALERTMANAGER) | (read(path) if path else {})
    shutil.copy(TEMPLATE, tmp_path)
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = ["amtool", "check-config", str(tmp_path / "alertmanager.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout


@pytest.mark.prometheus
@pytest.mark.parametrize("name", ["title", "text", "slack"])
@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_messages_say_what_is_wrong_and_where_to_look(name: str, status: str, tmp_path: Path) -> None:
    notes = {
        "summary": "pump does worse", "description": "It is proven.", "runbook_url": "https://wiki/ClipdriftModelHarmed",
        "dashboard_url": "https://grafana/d/clipdrift-model?var-model=pump", "incident_url": "https://monitor/models/pump",
    }  # fmt: skip
    alert = {"status": status, "labels": {}, "annotations": notes, "startsAt": MOMENT, "endsAt": MOMENT}
    (tmp_path / "data.json").write_text(json.dumps({"status": status, "receiver": "r", "alerts": [alert, alert]}))
    command = [
        "amtool", "template", "render", f"--template.glob={TEMPLATE}", f"--template.data={tmp_path / 'data.json'}",
        f'--template.text={{{{ template "clipdrift.{name}" . }}}}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pump does worse" in done.stdout
    assert ("Over" in done.stdout) == (status == "resolved")
    if name == "title":
        assert done.stdout.strip().endswith("(and 1 more)")
    else:
        assert all(done.stdout.count(link) == 2 for link in notes.values())
