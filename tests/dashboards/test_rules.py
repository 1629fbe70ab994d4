"""The rules file: names, texts, links, and only series that exist."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dashboard_queries import RULES

from clipdrift_contract.alerts import ALERT_OF_ROOT
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import IncidentRoot
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.burn import Burn, reachable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.promql_names import LABELS_OF, problems
from clipdrift_dashboards.rules import (
    ALERTS,
    OF_INCIDENT,
    OPTIONAL_RECORDS,
    RECORDS,
    AlertSeverity,
    Objectives,
    alerts_of,
    rules,
)

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
RULE_LIST: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERT_RULES = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}


@pytest.mark.parametrize("rule", RULE_LIST, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_parses_and_names_only_the_closed_list(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"]) == []


def test_records_are_named_level_metric_operation() -> None:
    for record in RECORDS:
        level, _, rest = record.name.partition(":")
        assert re.fullmatch(r"[a-z_]+:[a-z_0-9]+", rest)
        assert tuple(level.split("_")) == record.labels


def test_records_are_used() -> None:
    text = RULES.read_text()
    for record in RECORDS:
        assert text.count(record.name) > 1, record.name


@pytest.mark.parametrize("name", ALERT_RULES)
def test_every_alert_says_what_it_means_and_where_to_look(name: str) -> None:
    rule = ALERT_RULES[name]
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in get_args(AlertSeverity)
    assert 10 < len(notes["summary"]) < 110
    assert len(notes["description"]) > len(notes["summary"])
    assert re.match(r"http://localhost:3000/d/clipdrift-(model\?|pipeline$)", notes["dashboard_url"])
    assert notes["runbook_url"] == f"docs/runbooks/{name}.md"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_texts_use_only_labels_that_the_alert_carries(alert: Any) -> None:
    carried = {label for words in re.findall(r"by \(([\w, ]+)\)", alert.expr) for label in words.split(", ")}
    carried |= {"model"} if alert.model_labelled else set()
    for name, labels in LABELS_OF.items():
        carried |= labels if re.match(rf"{name}\b", alert.expr) else set()
    used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    assert used <= carried


@pytest.mark.parametrize("name", ALERT_RULES)
def test_every_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    headings = ["## What it means", "## What to look at", "## What to do", "## When to ignore it"]
    assert [line for line in page.splitlines() if line.startswith("## ")] == headings


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    optional = {alert.name for alert in alerts_of(Objectives(wrong_answers=0.1))} - set(ALERT_RULES)
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERT_RULES) | optional
    assert optional == {"ClipdriftAnswersWrong"}


def test_every_root_but_drift_has_an_alert_that_tells_of_it() -> None:
    assert set(get_args(IncidentRoot)) - set(ALERT_OF_ROOT) == {"drift"}
    told = {alert.name for alert in ALERTS if alert.severity == OF_INCIDENT}
    assert told == set(ALERT_OF_ROOT.values())
    for root, name in ALERT_OF_ROOT.items():
        assert root in ALERT_RULES[name]["expr"]


def test_an_alert_that_can_never_fire_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at 14\.4 times its rate can never fire: it needs 144% of all"):
        Burn(budget=0.1, spent=0.02, long="1h", short="5m")
    with pytest.raises(ConfigError, match="fires within it"):
        Burn(budget=0.1, spent=0.02, long="3d", short="6h")
    for budget in (0.0, 0.5, 1.0, -0.1):
        with pytest.raises(ConfigError, match=r"between 0 and 0\.5"):
            reachable(budget, 0.02, "1h", "5m")
        with pytest.raises(ConfigError, match=r"between 0 and 0\.5"):
            rules(Links(), Objectives(wrong_answers=budget))


@pytest.mark.parametrize("budget", [0.0001, 0.01, 0.1, 0.3, 0.49])
def test_an_alert_on_any_budget_that_is_taken_can_fire_and_not_within_the_budget(budget: float) -> None:
    for spent, long, short in ((0.02, "1h", "5m"), (0.05, "6h", "30m"), (0.2, "3d", "6h")):
        burn = reachable(budget, spent, long, short)
        assert budget < burn.bound <= 0.5 + 1e-9


def test_one_failure_among_the_fewest_requests_is_below_the_bound_that_pages() -> None:
    fast = reachable(thresholds.FAILED_REQUESTS, 0.02, "1h", "5m")
    assert fast.bound > 1 / thresholds.MIN_REQUESTS


def test_records_of_an_optional_alert_are_built_with_it() -> None:
    with_budget = rules(Links(), Objectives(wrong_answers=0.1))
    records, alerts = (group["rules"] for group in with_budget["groups"])
    assert len(records) == len(RECORDS) + len(OPTIONAL_RECORDS)
    assert len(alerts) == len(ALERTS) + 1
    for rule in (*records, *alerts):
        assert problems(rule["expr"]) == []


def test_few_alerts_wake_somebody() -> None:
    pages = [name for name, rule in ALERT_RULES.items() if rule["labels"]["severity"] == "page"]
    assert len(pages) <= len(ALERT_RULES) / 2
