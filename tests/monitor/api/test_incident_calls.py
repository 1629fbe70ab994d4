"""Incidents over HTTP: asked for in parts, answered by people, and what is refused."""

import numpy as np
import pytest
from dialogue import DAY, TODAY, day_of, labels, predictions, rows, run_end

ROOT = "/api/v1/incidents"
SAID = {"reason": "mending the sensor", "actor": "Ada"}
IN_A_DAY = (TODAY + 1) * DAY


def broken(day):
    """A day without pressure."""
    columns = rows(day)
    columns["pressure"] = np.full(200, np.nan)
    return predictions(columns, first=day * 10_000), labels(columns, first=day * 10_000)


@pytest.fixture
def house(house_of):
    """Two models whose feeds are broken, and one that is not."""
    events = []
    for model in ("pump", "valve", "quiet"):
        days = [*day_of(2), *(day_of(3) if model == "quiet" else broken(3)), *day_of(4), *day_of(5)]
        events += [run_end(model=model, run_id=f"run-of-{model}"), *(_of(model, one) for one in days)]
    return house_of(*events)


def _of(model, event):
    return type(event)(**{name: getattr(event, name) for name in event.__struct_fields__} | {"model": model})


def test_incidents_are_listed_by_model_state_and_severity_and_read_one_by_one(house):
    found = house.get(ROOT).json()["items"]

    assert sorted(one["model"] for one in found) == ["pump", "valve"]
    assert [one["model"] for one in house.get(ROOT, model="pump", state="open").json()["items"]] == ["pump"]
    assert house.get(ROOT, state="resolved").json()["items"] == house.get(ROOT, model="quiet").json()["items"] == []
    severity = found[0]["severity"]
    assert len(house.get(ROOT, severity=severity).json()["items"]) == 2
    other = next(one for one in ("page", "ticket", "note") if one != severity)
    assert house.get(ROOT, severity=other).json()["items"] == []
    for one in found:
        assert house.get(f"{ROOT}/{one['incident_id']}").json() == one
        assert house.get(f"/api/v1/models/{one['model']}").json()["open_incidents"] == [one["incident_id"]]
    assert {one["model"]: one["num_open_incidents"] for one in house.get("/api/v1/models").json()["items"]} == {
        "pump": 1, "valve": 1, "quiet": 0,
    }  # fmt: skip


def test_what_people_say_is_kept_shown_and_counted(house):
    one, other = house.get(ROOT).json()["items"]
    place = f"{ROOT}/{one['incident_id']}"
    with house.at_work():
        taken = house.post(f"{place}/acknowledge", json={**SAID, "until_ms": IN_A_DAY}, headers=house.auth)
        silenced = house.post(f"{place}/silence", json={**SAID, "until_ms": IN_A_DAY}, headers=house.auth)
        true = house.post(f"{place}/feedback", json={**SAID, "verdict": "true"}, headers=house.auth)
        house.post(f"{ROOT}/{other['incident_id']}/feedback", json={**SAID, "verdict": "false"}, headers=house.auth)

    assert [answer.status_code for answer in (taken, silenced, true)] == [200, 200, 200]
    now = house.get(place).json()
    assert (now["acknowledgement"]["actor"], now["silence"]["until_ms"]) == ("Ada", IN_A_DAY)
    assert [said["verdict"] for said in now["feedback"]] == ["true"]
    told = house.get(ROOT).json()["precision"]
    assert (told["num_true"], told["num_false"], told["num_known"], told["value"]) == (1, 1, 0, 0.5)
    page = house.get(f"/incidents/{one['incident_id']}").text
    assert "Ada sees to it until" in page
    assert "mending the sensor" in page
    assert "seen to by Ada" in house.get("/incidents").text


def test_an_incident_that_is_over_cannot_be_taken_and_still_be_judged(house):
    one = next(one for one in house.get(ROOT, model="pump").json()["items"])
    for day in range(6, 14):
        house.dialogue.go(*day_of(day))
    place = f"{ROOT}/{one['incident_id']}"
    with house.at_work():
        late = house.post(f"{place}/acknowledge", json={**SAID, "until_ms": IN_A_DAY}, headers=house.auth)
        judged = house.post(f"{place}/feedback", json={**SAID, "verdict": "known"}, headers=house.auth)

    assert (late.status_code, judged.status_code) == (409, 200)
    assert "is over and cannot be" in late.json()["error"]


def test_a_time_that_is_past_or_far_is_409(house):
    place = f"{ROOT}/{house.get(ROOT).json()['items'][0]['incident_id']}/silence"
    with house.at_work():
        for until_ms in (TODAY * DAY - DAY, (TODAY + 10_000) * DAY, -1):
            answer = house.post(place, json={**SAID, "until_ms": until_ms}, headers=house.auth)

            assert answer.status_code == 409
            assert "within the next" in answer.json()["error"]


def test_an_unknown_incident_is_404(house):
    path = f"{ROOT}/none-of-ours"
    hold, said = {**SAID, "until_ms": IN_A_DAY}, {**SAID, "verdict": "true"}
    orders = {"acknowledge": hold, "silence": hold, "feedback": said}
    answers = [house.post(f"{path}/{name}", json=body, headers=house.auth) for name, body in orders.items()]

    for answer in (house.get(path), *answers):
        assert answer.status_code == 404
        assert "GET /api/v1/incidents names those there are" in answer.json()["error"]
    assert house.get("/incidents/none-of-ours").status_code == 404


def test_whoever_answers_an_incident_says_why_who_and_until_when(house):
    place = f"{ROOT}/{house.get(ROOT).json()['items'][0]['incident_id']}/acknowledge"
    whole = {**SAID, "until_ms": IN_A_DAY}
    for lacks in whole:
        body = {name: value for name, value in whole.items() if name != lacks}
        answer = house.post(place, json=body, headers=house.auth)

        assert answer.status_code == 400
        assert f"`{lacks}`" in answer.json()["error"]
    assert house.dialogue.engine._asked.empty()


def test_what_cannot_be_asked_with_is_400_and_names_what_can(house_of):
    house = house_of(run_end())
    for parameters, words in (
        ({"state": "closed"}, "open, resolved, all"), ({"severity": "loud"}, "page, ticket, note"), ({"limit": -1}, "0..500"),
        ({"models": "pump"}, "'models' cannot be asked with here; allowed: model, state, severity, limit, offset"),
    ):  # fmt: skip
        answer = house.get(ROOT, **parameters)

        assert answer.status_code == 400
        assert words in answer.json()["error"]
    assert house.get(ROOT, model="pipe").status_code == 404


def test_what_is_told_without_token_or_key_changes_nothing(house):
    one = house.get(ROOT).json()["items"][0]
    answer = house.post(f"{ROOT}/{one['incident_id']}/feedback", json={**SAID, "verdict": "true"})

    assert answer.status_code == 401
    assert house.dialogue.engine._asked.empty()
