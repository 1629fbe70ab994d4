"""The same dashboards in the schema that Grafana 13 writes (v2): elements apart from the layout, rows as objects.

Grafana 10 to 13 read the files of `build`; these are for teams whose tools keep only the newer schema.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipdrift_dashboards.build import boards_of, write_texts
from clipdrift_dashboards.links import Links, file_of

API_VERSION = "dashboard.grafana.app/v2"
_CURSOR = {0: "Off", 1: "Crosshair", 2: "Tooltip"}
_REFRESH = {0: "never", 1: "onDashboardLoad", 2: "onTimeRangeChanged"}
_SORT = {0: "disabled", 1: "alphabeticalAsc", 2: "alphabeticalDesc", 3: "numericalAsc", 4: "numericalDesc"}
_HIDE = {0: "dontHide", 1: "hideLabel", 2: "hideVariable"}
_NO_CHOICE = {"text": "", "value": ""}
Json = Mapping[str, Any]


def build_v2(to: Path, links: Links | None = None) -> list[Path]:
    """Write every dashboard into the folder `to`, which is made when it is not there; what is there is replaced.

    Args:
        to: The folder.
        links: Addresses that panels point to; None: those of one machine.

    Returns:
        The paths written.

    Raises:
        ClipdriftError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> build_v2(Path(tempfile.mkdtemp()))[0].name
        'fleet.json'
    """
    boards = boards_of(links or Links())
    texts = {file_of(uid): json.dumps(as_v2(board), indent=2, sort_keys=True) + "\n" for uid, board in boards.items()}
    return write_texts(to, texts)


def as_v2(board: Json) -> dict[str, Any]:
    """A dashboard of the older schema as a resource of the newer one.

    Args:
        board: Its JSON as `build` writes it.

    Returns:
        The resource, with `apiVersion`, `kind`, `metadata` (its name is the dashboard's uid) and `spec`.
    """
    rows = list(_rows(board["panels"]))
    spec = {
        "title": board["title"],
        "description": board["description"],
        "tags": board["tags"],
        "editable": board["editable"],
        "preload": False,
        "cursorSync": _CURSOR[board["graphTooltip"]],
        "timeSettings": _times(board),
        "links": board["links"],
        "variables": [_variable(one) for one in board["templating"]["list"]],
        "annotations": [_mark(one) for one in board["annotations"].get("list", [])],
        "elements": {_name(panel): _element(panel) for _, panels in rows for panel in panels},
        "layout": {"kind": "RowsLayout", "spec": {"rows": [_row(row, panels) for row, panels in rows]}},
    }
    return {"apiVersion": API_VERSION, "kind": "Dashboard", "metadata": {"name": board["uid"]}, "spec": spec}


def _rows(panels: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every row with its panels: those inside it where it is collapsed, else those that follow it."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for panel in panels:
        if panel["type"] == "row":
            found.append((panel, list(panel["panels"])))
        else:
            found[-1][1].append(panel)
    yield from found


def _row(row: Json, panels: list[dict[str, Any]]) -> dict[str, Any]:
    top = min((panel["gridPos"]["y"] for panel in panels), default=0)
    grid = {"kind": "GridLayout", "spec": {"items": [_item(panel, top) for panel in panels]}}
    return {"kind": "RowsLayoutRow", "spec": {"title": row["title"], "collapse": row["collapsed"], "layout": grid}}


def _item(panel: Json, top: int) -> dict[str, Any]:
    place = panel["gridPos"]
    spec = {
        "x": place["x"], "y": place["y"] - top, "width": place["w"], "height": place["h"],
        "element": {"kind": "ElementReference", "name": _name(panel)},
    }  # fmt: skip
    if panel.get("repeat"):
        spec["repeat"] = {
            "mode": "variable", "value": panel["repeat"], "direction": panel["repeatDirection"],
            "maxPerRow": panel["maxPerRow"],
        }  # fmt: skip
    return {"kind": "GridLayoutItem", "spec": spec}


def _name(panel: Json) -> str:
    return f"panel-{panel['id']}"


def _element(panel: Json) -> dict[str, Any]:
    group = {
        "queries": [
            {"kind": "PanelQuery", "spec": {"refId": target["refId"], "hidden": False, "query": _query(target)}}
            for target in panel["targets"]
        ],
        "transformations": [
            {"kind": "Transformation", "group": one["id"], "spec": {"options": one["options"]}}
            for one in panel.get("transformations", [])
        ],
        "queryOptions": {"interval": panel["interval"]} if "interval" in panel else {},
    }
    drawn = {"options": panel["options"], "fieldConfig": panel["fieldConfig"]}
    spec = {
        "id": panel["id"],
        "title": panel["title"],
        "description": panel["description"],
        "links": [{key: value for key, value in one.items() if key in _LINK_KEYS} for one in panel.get("links", [])],
        "transparent": panel["transparent"],
        "data": {"kind": "QueryGroup", "spec": group},
        "vizConfig": {"kind": "VizConfig", "group": panel["type"], "version": "", "spec": drawn},
    }
    return {"kind": "Panel", "spec": spec}


_LINK_KEYS = ("title", "url", "targetBlank")


def _query(target: Json) -> dict[str, Any]:
    """What is asked, apart from whom: the data source that the reader chose."""
    asked = {key: value for key, value in target.items() if key not in ("datasource", "refId")}
    source = {"name": target["datasource"]["uid"]}
    return {"kind": "DataQuery", "group": target["datasource"]["type"], "version": "v0", "datasource": source, "spec": asked}


def _times(board: Json) -> dict[str, Any]:
    return {
        "timezone": board["timezone"], "from": board["time"]["from"], "to": board["time"]["to"],
        "autoRefresh": board["refresh"], "autoRefreshIntervals": [], "hideTimepicker": False,
        "fiscalYearStartMonth": board["fiscalYearStartMonth"],
    }  # fmt: skip


def _variable(one: Json) -> dict[str, Any]:
    spec = {
        "name": one["name"],
        "current": {key: value for key, value in one.get("current", _NO_CHOICE).items() if key != "selected"},
        "options": [{"text": choice["text"], "value": choice["value"]} for choice in one.get("options", [])],
        "hide": _HIDE[one.get("hide", 0)],
        "multi": one["multi"],
        "includeAll": one["includeAll"],
        "skipUrlSync": one["skipUrlSync"],
        "allowCustomValue": one["allowCustomValue"],
    } | ({"label": one["label"]} if "label" in one else {})
    match one["type"]:
        case "datasource":
            return {
                "kind": "DatasourceVariable",
                "spec": spec | {"pluginId": one["query"], "refresh": "onDashboardLoad", "regex": ""},
            }
        case "custom":
            return {"kind": "CustomVariable", "spec": spec | {"query": one["query"]}}
    query = _query({"datasource": one["datasource"], "query": one["query"]})
    query["spec"]["refId"] = "StandardVariableQuery"  # by which Grafana knows a query that is one string
    asked = {"query": query, "refresh": _REFRESH[one["refresh"]], "sort": _SORT[one.get("sort", 0)]}
    return {"kind": "QueryVariable", "spec": spec | asked | {"regex": one.get("regex", ""), "regexApplyTo": "value"}}


def _mark(one: Json) -> dict[str, Any]:
    spec = {
        "name": one["name"],
        "enable": one["enable"],
        "hide": one["hide"],
        "iconColor": one["iconColor"],
        "builtIn": False,
        "placement": one["placement"],
        "query": _query(one["target"]),
        "legacyOptions": {key: one[key] for key in ("expr", "titleFormat", "textFormat")},
    }
    return {"kind": "AnnotationQuery", "spec": spec}
