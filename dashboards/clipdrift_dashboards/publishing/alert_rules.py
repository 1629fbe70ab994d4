"""The alerts as rules that Grafana evaluates itself, for those who have no Alertmanager."""

from typing import Any

from clipdrift_dashboards.links import Links
from clipdrift_dashboards.rules import rules

GROUP = "clipdrift-alerts"
_INTERVAL_SECONDS = 60
_RANGE_SECONDS = 600


def rule_group(links: Links, folder_uid: str, source_uid: str) -> dict[str, Any]:
    """The group as Grafana's provisioning API takes it.

    A Prometheus alert fires for each series that its expression returns, whatever the value. So each rule here asks the same
    expression at one moment and fires for every series that has a value; none is no alert, and a data source that cannot be
    asked is an error of the rule.

    Example:
        >>> group = rule_group(Links(), "clipdrift", "prometheus")
        >>> group["rules"][0]["condition"], group["interval"]
        ('B', 60)
    """
    (alerts,) = [group["rules"] for group in rules(links)["groups"] if group["name"] == GROUP]
    return {
        "title": GROUP,
        "folderUid": folder_uid,
        "interval": _INTERVAL_SECONDS,
        "rules": [_rule(alert, folder_uid, source_uid) for alert in alerts if "alert" in alert],
    }


def _rule(alert: dict[str, Any], folder_uid: str, source_uid: str) -> dict[str, Any]:
    return {
        "uid": f"clipdrift-{alert['alert'].removeprefix('Clipdrift').lower()}"[:40],
        "title": alert["alert"],
        "ruleGroup": GROUP,
        "folderUID": folder_uid,
        "condition": "B",
        "data": [_query(alert["expr"], source_uid), _has_value()],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": alert.get("for", "0s"),
        "labels": alert["labels"],
        "annotations": alert["annotations"],
        "isPaused": False,
    }


def _query(expr: str, source_uid: str) -> dict[str, Any]:
    model = {"refId": "A", "expr": expr, "instant": True, "range": False, "editorMode": "code"}
    return {
        "refId": "A",
        "datasourceUid": source_uid,
        "relativeTimeRange": {"from": _RANGE_SECONDS, "to": 0},
        "model": model,
    }


def _has_value() -> dict[str, Any]:
    expression = "is_number($A) || is_nan($A) || is_inf($A)"
    return {
        "refId": "B",
        "datasourceUid": "__expr__",
        "relativeTimeRange": {"from": 0, "to": 0},
        "model": {"refId": "B", "type": "math", "expression": expression},
    }
