"""Lists in parts, windows, slices and evidence over HTTP; the OpenAPI document is that of the routes."""

import json
import re

import msgspec
import numpy as np
import pytest
from dialogue import DAY, day_of, labels, predictions, rows, run_end
from starlette.routing import Route

from clipdrift_contract.clock import MS_PER_HOUR
from clipdrift_monitor.api.openapi import document

MODEL = "/api/v1/models/pump"
DAYS = [run_end(), *(batch for day in range(2, 12) for batch in day_of(day, accuracy=0.8 if day < 6 else 0.1))]


@pytest.fixture
def house(house_of):
    return house_of(*DAYS)


def walked(house, address):
    """The items of all parts, and how many parts there were."""
    items, num_parts = [], 0
    while address is not None:
        answer = house.ask("GET", address)
        assert answer.status_code == 200
        items += answer.json()["items"]
        address, num_parts = answer.json()["next"], num_parts + 1
    return items, num_parts


def test_whoever_follows_next_reads_every_row_once(house):
    for name in ("decisions", "signals", "deployments", "runs", "windows?slice=north&start_ms=0", "windows"):
        mark = "&" if "?" in name else "?"
        whole, _ = walked(house, f"{MODEL}/{name}{mark}limit=500")
        parts, num_parts = walked(house, f"{MODEL}/{name}{mark}limit=2")

        assert parts == whole
        assert num_parts == max(1, -(-len(whole) // 2))
    incidents, _ = walked(house, "/api/v1/incidents?limit=1&model=pump")
    assert [one["incident_id"] for one in incidents] == [one.incident_id for one in house.dialogue.store.incidents(limit=9)]


def test_a_limit_of_0_gives_nothing_and_ends(house):
    assert house.get(MODEL + "/decisions", limit=0).json() == {"items": [], "next": None}


def test_every_call_refuses_a_parameter_that_it_does_not_know(house):
    for path in (
        "/api/v1/models",
        MODEL,
        *(f"{MODEL}/{name}" for name in ("slices", "windows", "blocks", "signals", "retrains")),
    ):
        answer = house.get(path, limits=5)

        assert answer.status_code == 400
        assert "'limits' cannot be asked with here; allowed: " in answer.json()["error"]


def test_windows_count_every_row_once_and_slices_add_up_to_all(house):
    found = house.get(MODEL + "/windows", start_ms=3 * DAY, end_ms=5 * DAY).json()["items"]

    by_window = {}
    for one in found:
        by_window.setdefault(one["start_ms"], {})[one["slice"]] = one
    assert list(by_window) == [3 * DAY, 4 * DAY]
    for start_ms, named in by_window.items():
        site = rows(start_ms // DAY)["site"]
        right = rows(start_ms // DAY)["predicted"] == rows(start_ms // DAY)["label"]
        for name, chosen in (("", np.ones(200, bool)), ("north", site == "north"), ("south", site == "south")):
            seen = named[name]["view"]
            assert (seen["num_predictions"], seen["num_labels"]) == (chosen.sum(), chosen.sum())
            assert seen["num_correct"] == (right & chosen).sum()
            assert seen["accuracy_low"] < seen["accuracy"] < seen["accuracy_high"]
        assert named[""]["end_ms"] == start_ms + DAY
        assert named[""]["maturity"]["share"] == 1.0
        assert named[""]["maturity"]["is_mature"]


def test_a_young_window_says_how_far_it_is_labelled_and_how_far_it_should_be(house_of):
    house = house_of(*DAYS[:9])
    columns = rows(6)
    first_half = {name: values[:100] for name, values in columns.items()}
    house.dialogue.go(predictions(columns, first=60_000), labels(first_half, first=60_000, delay_ms=MS_PER_HOUR))
    (newest,) = house.get(MODEL + "/windows", slice="", start_ms=6 * DAY).json()["items"]
    page = house.get("/models/pump").text

    assert newest["maturity"]["share"] == 0.5
    assert newest["maturity"]["expected_share"] == pytest.approx(23 / 24, abs=0.04)  # what came in the last hour
    assert "1970-01-07: 50 % labelled" in page


def test_slices_stand_beside_what_was_validated_and_say_what_would_be_seen(house_of):
    (overall,) = run_end().clustering
    clustering = tuple(msgspec.structs.replace(overall, slice=name) for name in ("", "north", "south"))
    house = house_of(run_end(clustering=clustering), *DAYS[1:9])
    found = {one["slice"]: one for one in house.get(MODEL + "/slices").json()["items"]}

    assert set(found) == {"north", "south"}
    assert sum(one["share"] for one in found.values()) == pytest.approx(1.0)
    for one in found.values():
        assert (one["validated_accuracy"], one["validated_share"]) == (0.8, 0.5)
        assert one["would_be_seen"]["rise"] == 0.05
        assert one["would_be_seen"]["num_labels"] > 100
        assert one["would_be_seen"]["num_blocks"] == pytest.approx(
            one["would_be_seen"]["num_labels"] / (one["live"]["num_labels"] / 3)
        )
    overall = house.get(MODEL).json()["would_be_seen"]
    assert overall["words"] in house.get("/models/pump").text
    assert house.get("/models/pump/slices/north").status_code == 200
    unknown = house.get("/models/pump/slices/west")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "pump has no slice 'west'; there are: north, south"})


def test_evidence_is_listed_once_its_page_is_there(house):
    signal = house.get(MODEL + "/signals").json()["items"][0]
    before = walked(house, MODEL + "/evidence?limit=1")[0]
    folder = house.dialogue.config.evidence_dir
    folder.mkdir(exist_ok=True)
    (folder / f"{signal['signal_id']}.html").write_text("<p>the course until the alarm</p>")
    (pack,) = walked(house, MODEL + "/evidence?limit=1")[0]

    assert before == []
    assert (pack["signal_id"], pack["is_ready"]) == (signal["signal_id"], True)
    assert house.get(pack["address"]).text == "<p>the course until the alarm</p>"


# --- the OpenAPI document ---


def test_the_openapi_document_names_the_routes_that_are_served_and_no_other(house):
    served = house.get("/api/v1/openapi.json").json()
    told = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    pages = {
        "/", "/models/{model}", "/models/{model}/slices/{slice:path}", "/incidents", "/incidents/{incident_id}",
        "/evidence/{name}", "/metrics", "/api/v1/openapi.json", "/models/{model}/retrains", "/approvals",
        "/api/v1/models/{model}/versions/{version}/files", "/api/v1/models/{model}/versions/{version}/files/{name}",
        "/api/v1/retrains/{key}/files/{name}",  # files are no JSON
        "/models/{model}/retrains/{retrain}", "/models/{model}/rollouts/{rollout}", "/approvals/{approval_id}",
    }  # fmt: skip
    routes = {
        (method, route.path) for route in house.app.routes if isinstance(route, Route) for method in route.methods - {"HEAD"}
    }

    assert served == json.loads(json.dumps(document()))
    assert told == {one for one in routes if one[1] not in pages}
    names = [one["operationId"] for methods in served["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names)


def test_every_name_that_the_openapi_document_refers_to_is_in_it():
    text = json.dumps(document())
    for kind, name in set(re.findall(r'"#/components/(\w+)/([^"]+)"', text)):
        assert name in document()["components"][kind], name
