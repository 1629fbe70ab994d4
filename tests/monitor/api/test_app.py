"""Every route: what it answers, and what it says to those it refuses."""

import re
from pathlib import Path

import pytest
from dialogue import DAY, OnceFailingStore, day_of, outcome, run_end
from monitor_house import House
from starlette.routing import Route

from clipdrift_contract.errors import RetryableError
from clipdrift_monitor.store.store import Store

DAYS = [run_end(), *(batch for day in range(2, 8) for batch in day_of(day))]
PAGE = Path(__file__).parents[3] / "docs/reference/http-monitor.md"
READING = ["", "/accuracy", "/blocks", "/signals", "/decisions", "/deployments", "/runs", "/retrains"]
MODEL = "/api/v1/models/pump"


@pytest.fixture
def house(house_of):
    return house_of(*DAYS)


# --- questions ---


def test_a_model_is_described_by_the_figures_of_its_labels(house):
    told = house.get(MODEL).json()

    # days 2 to 6 are due: their labels are what the live figures are of
    assert (told["version"], told["generation"], told["state"], told["is_mature"]) == ("v1", 1, "healthy", True)
    due = [sums for key, sums in house.dialogue.sums().items() if key.start_ms < 7 * DAY]
    num_labels, num_correct = sum(sums[1] for sums in due), sum(sums[2] for sums in due)
    assert told["accuracy"]["n"] == num_labels == 1_000
    assert told["accuracy"]["value"] == num_correct / num_labels
    assert told["accuracy"]["low"] < told["accuracy"]["value"] < told["accuracy"]["high"]
    assert sum(one["n"] for one in told["slices"].values()) == 1_000
    assert set(told["slices"]) == {"north", "south"}
    assert told["validated_accuracy"] == 0.8
    assert (told["num_predictions"], told["num_labels"]) == (1_200, 1_200)
    assert told["clipping"] == "unknown"
    assert told["previous_version"] is None


def test_models_and_progress_are_listed(house):
    row = {"model": "pump", "version": "v1", "state": "healthy", "num_open_incidents": 0}
    assert house.get("/api/v1/models").json() == {"items": [row], "next": None}
    assert house.get("/api/v1/progress").json() == {
        "is_idle": True, "lag": 0, "models": {"pump": {"num_predictions": 1_200, "num_labels": 1_200}},
    }  # fmt: skip


def test_accuracy_is_counted_over_the_asked_time_in_all_versions_and_each_slice(house):
    house.dialogue.go(run_end("v2", retrain_key="k"), *day_of(8, version="v2", num_rows=30, epoch="f"))
    everything = {one["slice"]: one for one in house.get(MODEL + "/accuracy").json()["slices"]}
    two_days = {one["slice"]: one for one in house.get(MODEL + "/accuracy", start_ms=2 * DAY, end_ms=4 * DAY).json()["slices"]}

    assert everything[""]["num_labels"] == 1_230
    assert two_days[""]["num_labels"] == 400
    for found in (everything, two_days):
        for name in ("num_labels", "num_correct"):
            assert found[""][name] == found["north"][name] + found["south"][name]


def test_lists_are_the_newest_first_and_come_in_parts(house):
    decisions = house.get(MODEL + "/decisions").json()["items"]
    part = house.get(MODEL + "/decisions", limit=2, offset=1).json()["items"]

    assert [one["at_ms"] for one in decisions] == sorted((one["at_ms"] for one in decisions), reverse=True)
    assert len(decisions) == 5
    assert part == decisions[1:3]
    assert [one["start_ms"] // DAY for one in house.get(MODEL + "/blocks").json()["items"]] == [2, 3, 4, 5, 6]
    assert [one["generation"] for one in house.get(MODEL + "/deployments").json()["items"]] == [1]
    assert [one["version"] for one in house.get(MODEL + "/runs").json()["items"]] == ["v1"]
    empty = {"items": [], "next": None}
    retrains = house.get(MODEL + "/retrains").json()
    assert house.get(MODEL + "/signals").json() == {name: retrains[name] for name in empty} == empty
    assert (retrains["worths"], retrains["rollouts"], retrains["accounts"]["cpu_seconds"]) == ({}, [], 0.0)


def test_the_audit_is_verified_from_its_beginning(house):
    verdict = house.get("/api/v1/audit/verify").json()

    assert (verdict["is_intact"], verdict["num_rows"]) == (True, 6)
    assert len(verdict["head"]) == 64


@pytest.mark.parametrize("path", READING)
def test_an_unknown_model_is_404_and_the_known_ones_are_named(house, path):
    answer = house.get("/api/v1/models/pipe" + path)

    assert answer.status_code == 404
    assert answer.json() == {"error": "no model 'pipe'; there are: pump"}


def test_an_unknown_path_is_404_and_a_wrong_method_405_as_json(house):
    assert house.get("/api/v2/models").status_code == 404
    assert house.post(MODEL).status_code == 405
    assert "error" in house.get("/nowhere").json()


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        ("/decisions", {"limit": "many"}, "limit must be a whole number, got 'many'"),
        ("/decisions", {"limit": 501}, "limit must be in 0..500, got 501"),
        ("/signals", {"limit": -1}, "limit must be in 0..500, got -1"),
        ("/runs", {"offset": -1}, "offset must be in 0..2147483648, got -1"),
        ("/accuracy", {"start_ms": "1e3"}, "start_ms must be a whole number, got '1e3'"),
        ("/accuracy", {"end_ms": 2**63}, f"end_ms must be in 0..{2**62}, got {2**63}"),
    ],
)
def test_a_bad_number_is_400_and_says_what_is_allowed(house, path, parameters, words):
    answer = house.get(MODEL + path, **parameters)

    assert (answer.status_code, answer.json()) == (400, {"error": words})


def test_health_is_alive_at_once_and_ready_only_once_the_store_is_read(dialogue_of):
    dialogue = dialogue_of()
    house = House(dialogue)
    early = house.get("/healthz").status_code, house.get("/readyz").status_code
    dialogue.go()

    assert early == (200, 503)
    assert house.get("/readyz").json() == {"status": "ok"}
    assert house.get("/healthz").json() == {"status": "ok", "is_idle": True}


def test_an_outage_makes_it_not_ready_and_says_why(house_of):
    house = house_of(*DAYS, store_type=OnceFailingStore)
    house.dialogue.engine._show_outage("the disk is full")

    assert house.get("/healthz").status_code == 200
    answer = house.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"error": "the disk is full"})
    assert "the disk is full" in house.get("/").text
    assert house.get("/api/v1/progress").json()["is_idle"] is False


class LockedStore(Store):
    """Cannot be read from a given moment on."""

    is_locked = False

    def _check(self):
        if self.is_locked:
            raise RetryableError("the store cannot be used now: database is locked")

    def windows(self, *arguments):
        self._check()
        return super().windows(*arguments)

    def listed(self, *arguments):
        self._check()
        return super().listed(*arguments)


@pytest.mark.parametrize("path", [MODEL, MODEL + "/accuracy", MODEL + "/decisions", "/models/pump", MODEL + "/windows"])
def test_a_locked_store_is_503_and_the_next_question_is_answered(house_of, path):
    house = house_of(*DAYS, store_type=LockedStore)
    house.dialogue.store.is_locked = True
    answer = house.get(path)
    house.dialogue.store.is_locked = False

    assert (answer.status_code, answer.json()) == (503, {"error": "the store cannot be used now: database is locked"})
    assert house.get(path).status_code == 200


def test_a_fault_of_the_monitor_is_500_without_its_inside(house):
    house.reader._store = None
    answer = house.get(MODEL + "/decisions")

    assert (answer.status_code, answer.json()) == (500, {"error": "the monitor has failed at this request; its log says how"})


def test_evidence_is_served_from_its_folder_and_nothing_else_is(house, tmp_path):
    folder = house.dialogue.config.evidence_dir
    folder.mkdir()
    (folder / "pump-v1.html").write_text("<p>evidence</p>")
    (folder / "pump-v1.json").write_text("{}")
    (folder.parent / "secret.html").write_text("secret")

    answer = house.get("/evidence/pump-v1.html")
    assert (answer.status_code, answer.text) == (200, "<p>evidence</p>")
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    for name in ("pump-v1.json", "nothing.html", "..%2Fsecret.html", ".html", "%2E%2E", "a%00.html"):
        assert house.get(f"/evidence/{name}").status_code == 404, name


def test_pages_run_no_script_and_answers_are_not_kept_or_guessed_at(house):
    for path in ("/", "/models/pump"):
        policy = house.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script" not in policy
    for path in ("/", MODEL, "/api/v1/models"):
        headers = house.get(path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_a_wrong_address_is_told_where_to_begin_and_a_wrong_method_which_one_is_right(house):
    assert "/api/v1/openapi.json" in house.get("/api/v1/model").json()["error"]
    refused = house.post(MODEL)
    assert (refused.headers["allow"], refused.status_code) == ("GET, HEAD", 405)
    assert "is asked for with GET, HEAD, got POST" in refused.json()["error"]


def test_the_name_of_evidence_may_be_longer_than_a_file_system_takes(house):
    assert house.get(f"/evidence/{'a' * 5_000}.html").status_code == 404


# --- commands ---


def test_a_retrain_is_ordered_and_its_outcome_promoted_and_rolled_back_by_http(house):
    with house.at_work():
        ordered = house.post(MODEL + "/retrain", json={"reason": "a new sensor", "actor": "Ada"}, headers=house.auth)
        twice = house.post(MODEL + "/retrain", json={"reason": "impatience"}, headers=house.auth)
        too_early = house.post(MODEL + "/rollback", json={"reason": "no"}, headers=house.auth)
    key = ordered.json()["key"]
    request = house.dialogue.jobs.requests[key]
    house.dialogue.go(run_end("v2", retrain_key=key), outcome(request))
    with house.at_work():
        back = house.post(MODEL + "/rollback", json={"reason": "it was slow"}, headers=house.auth)

    assert ordered.status_code == 202
    assert (twice.status_code, twice.json()) == (409, {"error": f"a retrain of pump is running already: {key}"})
    assert (too_early.status_code, too_early.json()) == (409, {"error": "pump has no earlier version to go back to"})
    assert (back.status_code, back.json()) == (200, {"version": "v1", "generation": 3})
    (retrain,) = house.get(MODEL + "/retrains").json()["items"]
    assert (retrain["request"]["cause"], retrain["outcome"]["verdict"]) == ("ordered: a new sensor", "pass")
    assert house.get(MODEL).json()["version"] == "v1"
    assert [(row.actor, row.action) for row in house.dialogue.store.audit() if row.actor != "monitor"] == [
        ("Ada", "decide retrain"), ("api", "decide rollback"), ("api", "deploy"),
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["/rollback", "/retrain"])
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "the-api-token", "Basic the-api-token", "Bearer ümlaut"])
def test_a_command_without_the_token_is_401_and_nothing_is_asked_of_the_engine(house, command, given):
    headers = {} if given is None else {"authorization": given.encode()}
    answer = house.post(MODEL + command, json={"reason": "why"}, headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"error": "this needs the header Authorization: Bearer <api token>"})
    assert house.dialogue.engine._asked.empty()


def test_where_no_token_was_set_no_command_is_obeyed(house_of):
    house = house_of(*DAYS, token="")

    for given in ("Bearer ", "Bearer", ""):
        answer = house.post(MODEL + "/rollback", json={"reason": "why"}, headers={"authorization": given})
        assert answer.status_code == 401


@pytest.mark.parametrize("command", ["/rollback", "/retrain"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body must be like"),
        (b"{", "the body must be like"),
        (b"\xff", "the body must be like"),
        (b"[]", "the body must be like"),
        (b'{"why": "x"}', "the body must be like"),
        (b'{"reason": 5}', "the body must be like"),
        (b'{"reason": "x", "force": true}', "the body must be like"),
        (b'{"reason": "  "}', "a reason is needed"),
        (b'{"reason": "a\\u0000b"}', "a reason has at most 2000 characters"),
        (b'{"reason": "' + b"x" * 2_001 + b'"}', "a reason has at most 2000 characters"),
        (b'{"reason": "x", "actor": ""}', "actor must be 1 to 64 printable characters"),
        (b'{"reason": "x", "actor": "a\\nb"}', "actor must be 1 to 64 printable characters"),
        (b'{"reason": "x", "actor": "' + b"a" * 65 + b'"}', "actor must be 1 to 64 printable characters"),
    ],
)
def test_a_bad_body_is_400_and_says_how_it_should_be(house, command, body, words):
    answer = house.post(MODEL + command, content=body, headers=house.auth)

    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert house.dialogue.engine._asked.empty()


def test_a_body_beyond_the_limit_is_413_without_being_read_to_its_end(house):
    num_sent = 0

    async def endless():
        nonlocal num_sent
        while num_sent < 1_000:
            num_sent += 1
            yield b" " * 16_384

    answer = house.post(MODEL + "/retrain", content=endless(), headers=house.auth)

    assert (answer.status_code, answer.json()) == (413, {"error": "a command has at most 65536 bytes"})
    assert num_sent <= 6


def test_a_command_for_an_unknown_model_is_404(house):
    answer = house.post("/api/v1/models/pipe/rollback", json={"reason": "why"}, headers=house.auth)

    assert (answer.status_code, answer.json()) == (404, {"error": "no model 'pipe'; there are: pump"})


def test_a_command_that_nobody_came_to_is_503_and_is_not_carried_out_later(house_of):
    house = house_of(*DAYS, command_seconds=0.01)
    answer = house.post(MODEL + "/retrain", json={"reason": "why"}, headers=house.auth)
    house.dialogue.turn(2)

    assert answer.status_code == 503
    assert answer.json() == {"error": "the monitor did not come to it within 0.01 s; nothing was done, try again"}
    assert house.dialogue.store.retrains("pump") == []


def test_a_command_that_could_not_be_saved_is_503_and_the_next_is_carried_out(house_of):
    house = house_of(*DAYS, store_type=OnceFailingStore)
    with house.at_work():
        house.dialogue.store.fails = "before"
        answer = house.post(MODEL + "/retrain", json={"reason": "why"}, headers=house.auth)
        again = house.post(MODEL + "/retrain", json={"reason": "why"}, headers=house.auth)

    assert (answer.status_code, answer.json()) == (503, {"error": "the test's store is locked"})
    assert again.status_code == 202
    assert len(house.dialogue.store.retrains("pump")) == 1


# --- the page ---


def test_the_reference_page_names_every_route_and_no_other(house):
    told = set(re.findall(r"`(GET|POST|PUT) (/[^`?]*)", PAGE.read_text()))
    routes = {
        (
            method,
            route.path.replace("{model}", "{m}")
            .replace("{incident_id}", "{id}")
            .replace("{approval_id}", "{id}")
            .replace(":path}", "}"),
        )
        for route in house.app.routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }

    assert told == routes


def test_the_reference_page_names_every_field_of_a_model(house):
    words = PAGE.read_text()

    assert [name for name in house.get(MODEL).json() if f"`{name}`" not in words] == []


def test_the_reference_page_names_every_status_that_is_given(house):
    folder = Path(__file__).parents[3] / "monitor/clipdrift_monitor/api"
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    given = set(re.findall(r"(?:HTTPException|_problem)\(\s*(\d{3})", source))

    assert given >= {"400", "401", "403", "404", "408", "409", "413", "500", "503"}
    assert [code for code in given | {"405"} if f"| {code} |" not in PAGE.read_text()] == []
