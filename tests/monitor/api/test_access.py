"""Keys with scopes: who may read, respond and operate, and under whose name that is remembered."""

import base64

import pytest
from dialogue import TODAY, day_of, run_end
from monitor_house import TOKEN

from clipdrift_contract.access.keys import ApiKeys, make_key
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_monitor.api.access import Access

MODEL = "/api/v1/models/pump"
READS = ["/", "/models/pump", "/incidents", "/api/v1/models", MODEL, "/api/v1/openapi.json", "/evidence/x.html"]
OPEN = ["/healthz", "/readyz", "/metrics"]
WHY = {"reason": "why"}


@pytest.fixture
def keyed(house_of, tmp_path):
    """A monitor with a token and keys, and headers by the key's name; reading needs one, too."""
    made = {
        name: make_key(name, scopes, models)
        for name, scopes, models in (
            ("reader", ["read"], ()), ("responder", ["read", "respond"], ()), ("operator", ["operate"], ()),
            ("of-valve", ["read", "respond", "operate"], ("valve*",)), ("of-serving", ["infer"], ()),
        )
    }  # fmt: skip
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(one.lines() for one in made.values()))
    access = Access(TOKEN, ApiKeys(ManualClock(now_ms=TODAY * MS_PER_DAY), file), does_reading_need_key=True)
    house = house_of(run_end(), *day_of(2), *day_of(3), *day_of(4), access=access)
    house.keys = {name: {"authorization": f"Bearer {one.secret}"} for name, one in made.items()}
    house.secrets = {name: one.secret for name, one in made.items()}
    return house


def test_reading_needs_a_key_where_it_is_said_so(keyed):
    for path in READS:
        found = 404 if path.startswith("/evidence") else 200
        statuses = {name: keyed.ask("GET", path, headers=headers).status_code for name, headers in keyed.keys.items()}

        assert keyed.ask("GET", path).status_code == 401
        assert keyed.ask("GET", path, headers=keyed.auth).status_code == found
        assert statuses == {
            "reader": found, "responder": found, "of-valve": 403 if "pump" in path else found,
            "operator": 403, "of-serving": 403,
        }  # fmt: skip


def test_whatever_watches_the_process_needs_no_key(keyed):
    assert [keyed.ask("GET", path).status_code for path in OPEN] == [200, 200, 200]


def test_a_browser_is_asked_for_a_key_and_gives_it_as_the_password(keyed):
    asked = keyed.ask("GET", "/").headers["www-authenticate"]
    answer = keyed.ask("GET", "/", auth=("any name", keyed.secrets["reader"]))
    wrong = keyed.ask("GET", "/", auth=("any name", "wrong"))
    no_base64 = keyed.ask("GET", "/", headers={"authorization": "Basic ???"})

    assert asked.startswith("Basic ")
    assert [one.status_code for one in (answer, wrong, no_base64)] == [200, 401, 401]
    assert keyed.ask("GET", "/", headers={"x-api-key": keyed.secrets["reader"]}).status_code == 200


def test_a_password_that_a_browser_sends_by_itself_gives_no_orders(keyed):
    password = base64.b64encode(f"me:{TOKEN}".encode()).decode()

    answer = keyed.post(MODEL + "/retrain", json=WHY, headers={"authorization": f"Basic {password}"})

    assert answer.status_code == 401
    assert keyed.dialogue.engine._asked.empty()


def test_orders_need_the_scope_and_the_model_and_are_kept_under_the_keys_name(keyed):
    refused = {
        name: keyed.post(MODEL + "/retrain", json=WHY, headers=keyed.keys[name]) for name in keyed.keys if name != "operator"
    }
    with keyed.at_work():
        taken = keyed.post(MODEL + "/retrain", json={"reason": "a new sensor", "actor": "Ada"}, headers=keyed.keys["operator"])

    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 403)
    assert "is not for operate" in refused["reader"].json()["error"]
    assert "bound to other models" in refused["of-valve"].json()["error"]
    assert taken.status_code == 202
    assert "Ada (by key operator)" in [row.actor for row in keyed.dialogue.store.audit()]


def test_a_key_bound_to_a_model_answers_the_incidents_of_that_model_alone(house_of, tmp_path):
    made = {name: make_key(name, ["respond"], (model,)) for name, model in (("ours", "pump"), ("theirs", "valve"))}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(one.lines() for one in made.values()))
    house = house_of(
        run_end(), *(batch for day in range(2, 13) for batch in day_of(day, accuracy=0.8 if day < 6 else 0.1)),
        access=Access(TOKEN, ApiKeys(ManualClock(now_ms=TODAY * MS_PER_DAY), file)),
    )  # fmt: skip
    incident_id = house.get("/api/v1/incidents").json()["items"][0]["incident_id"]

    def say(name, incident_id):
        body = {"reason": "it was so", "actor": "Ada", "verdict": "true"}
        path = f"/api/v1/incidents/{incident_id}/feedback"
        return house.post(path, json=body, headers={"authorization": f"Bearer {made[name].secret}"}).status_code

    with house.at_work():
        assert [say("ours", incident_id), say("theirs", incident_id), say("theirs", "none")] == [200, 403, 403]
    (said,) = house.get(f"/api/v1/incidents/{incident_id}").json()["feedback"]
    assert said["actor"] == "Ada (by key ours)"


def test_without_a_file_of_keys_reading_may_still_need_the_token(house_of):
    house = house_of(run_end(), access=Access(TOKEN, does_reading_need_key=True))

    assert house.ask("GET", "/").status_code == 401
    assert house.ask("GET", "/", headers=house.auth).status_code == 200
    assert house.ask("GET", "/", auth=("me", TOKEN)).status_code == 200
