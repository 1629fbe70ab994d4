"""The rules file: names, texts, links, and only series that exist."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dashboard_queries import RULES

from clipdrift_contract.events import SignalKind
from clipdrift_dashboards.promql_names import LABELS_OF, problems
from clipdrift_dashboards.rules import ALERTS, RECORDS, AlertSeverity

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
    carried = {"model", *re.findall(r"by \(model, (\w+)\)", alert.expr)} if alert.model_labelled else set()
    for name, labels in LABELS_OF.items():
        carried |= labels if re.match(rf"{name}\b", alert.expr) else set()
    used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    assert used <= carried


@pytest.mark.parametrize("name", ALERT_RULES)
def test_every_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    for heading in ("## What it means", "## What to look at", "## What to do"):
        assert heading in page


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERT_RULES)


def test_signal_kinds_in_rules_exist() -> None:
    kinds = {kind for rule in RULE_LIST for words in re.findall(r'kind=~?"([^"]+)"', rule["expr"]) for kind in words.split("|")}
    assert kinds
    assert kinds <= set(get_args(SignalKind))


def test_few_alerts_wake_somebody() -> None:
    pages = [name for name, rule in ALERT_RULES.items() if rule["labels"]["severity"] == "page"]
    assert len(pages) <= len(ALERT_RULES) / 2
