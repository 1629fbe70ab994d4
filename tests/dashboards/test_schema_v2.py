"""The newer schema, read field by field by Grafana's own types, and holding what the older one holds."""

import copy
import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboardv2 as models

from clipdrift_dashboards.build import texts_of
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.linting import panels_of
from clipdrift_dashboards.schema_v2 import as_v2, build_v2

BOARDS = {name: json.loads(text) for name, text in texts_of(Links()).items() if name.endswith(".json")}


@pytest.fixture(params=sorted(BOARDS))
def board(request):
    return BOARDS[request.param]


def test_grafanas_types_read_every_field_and_write_it_back(board):
    register_default_plugins()
    spec = copy.deepcopy(as_v2(board)["spec"])
    asked = [one["spec"]["query"]["spec"] for one in spec["variables"] if one["kind"] == "QueryVariable"]
    assert {tuple(sorted(one)) for one in asked} <= {("query", "refId")}
    for one in asked:  # which the SDK would read as a panel's query
        one.clear()
        one.update(expr="")
    drawn = {name: element["spec"].pop("vizConfig") for name, element in spec["elements"].items()}
    encoded = json.loads(JSONEncoder().encode(models.Dashboard.from_json(copy.deepcopy(spec))))
    for element in encoded["elements"].values():
        element["spec"].pop("vizConfig")
    assert encoded == spec
    for one in drawn.values():  # the SDK reads a drawing's plugin as a set of one: read here without it
        fields = models.FieldConfigSource.from_json(one["spec"]["fieldConfig"])
        assert json.loads(JSONEncoder().encode(fields)) == one["spec"]["fieldConfig"]


def test_no_panel_query_or_place_is_lost(board):
    spec = as_v2(board)["spec"]
    items = [item["spec"] for row in spec["layout"]["spec"]["rows"] for item in row["spec"]["layout"]["spec"]["items"]]
    assert [item["element"]["name"] for item in items] == list(spec["elements"])
    for panel, item in zip(panels_of(board), items, strict=True):
        assert (item["width"], item["height"], item["x"]) == tuple(panel["gridPos"][key] for key in "whx")
        queries = spec["elements"][item["element"]["name"]]["spec"]["data"]["spec"]["queries"]
        assert [one["spec"]["query"]["spec"]["expr"] for one in queries] == [one["expr"] for one in panel["targets"]]
    assert len(spec["variables"]) == len(board["templating"]["list"])
    assert len(spec["annotations"]) == len(board["annotations"].get("list", []))


def test_every_row_begins_at_its_own_top_and_fills_its_width(board):
    for row in as_v2(board)["spec"]["layout"]["spec"]["rows"]:
        items = [item["spec"] for item in row["spec"]["layout"]["spec"]["items"]]
        cells = [(item["x"] + i, item["y"] + j) for item in items for i in range(item["width"]) for j in range(item["height"])]
        assert len(cells) == len(set(cells))
        assert min(y for _, y in cells) == 0
        assert len(cells) % 24 == 0


def test_files_are_named_as_the_older_ones_and_hold_a_resource(tmp_path):
    paths = build_v2(tmp_path / "v2")
    assert {path.name for path in paths} == set(BOARDS)
    resource = json.loads((tmp_path / "v2" / "model.json").read_text())
    assert (resource["apiVersion"], resource["metadata"]["name"]) == ("dashboard.grafana.app/v2", "clipdrift-model")
