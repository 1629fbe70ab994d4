"""Harm that is planted in a short replay comes to people once, with links that work, whatever starts again in between."""

import signal
import time

import httpx
import msgspec
import numpy as np
import pytest
from alert_path import alert_path, until
from dialogue import POLICY, Dialogue, day_of, labels, predictions, rows, run_end

pytestmark = [pytest.mark.prometheus, pytest.mark.system]
BROKEN = ("ClipdriftDataBroken", "page")


@pytest.fixture
def world(tmp_path):
    """Whom events are told to, and the way of alerts."""
    with Dialogue(tmp_path) as teller, alert_path(tmp_path, msgspec.to_builtins(POLICY)) as path:
        yield teller, path


def broken(day):
    """A day whose predictions have no pressure."""
    columns = rows(day)
    columns["pressure"] = np.full(200, np.nan)
    return predictions(columns, first=day * 10_000), labels(columns, first=day * 10_000)


def plant(teller):
    teller.tell(run_end(), *day_of(2), *broken(3), *day_of(4), *day_of(5))


def mend(teller):
    teller.tell(*day_of(6), *day_of(7))


def open_links(alert):
    notes = alert["annotations"]
    statuses = {name: httpx.get(notes[name], timeout=10).status_code for name in notes if name.endswith("_url")}
    assert len(statuses) >= 2
    assert set(statuses.values()) == {200}, statuses
    return statuses


def let_rounds_pass(path, num_rounds=2):
    """So long that every part has told what it has to tell several times."""
    before = path.receiver.num_watchdog
    until(lambda: path.receiver.num_watchdog >= before + num_rounds, "the watchdog, again and again")


def test_planted_harm_comes_to_people_once_whatever_starts_again_and_ends(world):
    teller, path = world
    path.alertmanager.start()
    path.prometheus.start()
    path.start_monitor()
    plant(teller)
    until(lambda: path.receiver.messages("firing"), "the alert")
    let_rounds_pass(path)
    (alert,) = path.receiver.messages(path="/on-call")
    assert open_links(alert).keys() >= {"runbook_url", "dashboard_url"}

    path.alertmanager.restart()
    let_rounds_pass(path)
    path.prometheus.restart()
    let_rounds_pass(path)
    path.monitor.end(signal.SIGKILL)
    let_rounds_pass(path)
    path.start_monitor()
    path.until_idle()
    let_rounds_pass(path)
    assert path.receiver.names == [("firing", *BROKEN)]
    assert "ClipdriftDataBroken" in path.firing()

    mend(teller)
    until(lambda: path.receiver.messages("resolved"), "the end of the alert")
    let_rounds_pass(path, 6)  # longer than the monitor waits before it tells of the end, too
    assert path.receiver.names == [("firing", *BROKEN), ("resolved", *BROKEN)]
    assert "ClipdriftDataBroken" not in path.firing()
    assert path.value("clipdrift_monitor_alertmanager_reached_timestamp_seconds") > 1_700_000_000


def test_a_healthy_replay_tells_nobody_anything(world):
    teller, path = world
    path.alertmanager.start()
    path.prometheus.start()
    path.start_monitor()
    teller.tell(run_end(), *(batch for day in range(2, 30) for batch in day_of(day)))
    path.until_idle()
    until(lambda: path.value('clipdrift_model_predictions_total{model="pump"}') == 28 * 200, "the scrape")
    let_rounds_pass(path, 4)
    assert path.receiver.names == []
    assert set(path.firing()) == {"ClipdriftWatchdog"}


def test_what_opens_while_alertmanager_is_away_comes_when_it_is_back_and_by_the_rules_alone(world):
    teller, path = world
    path.prometheus.start()
    path.start_monitor(urls=[])
    plant(teller)
    path.until_idle()
    until(lambda: path.value('ALERTS{alertname="ClipdriftDataBroken"}') == 1, "the rule")
    path.alertmanager.start()
    until(lambda: path.receiver.messages("firing"), "the alert")
    let_rounds_pass(path)
    assert path.receiver.names == [("firing", *BROKEN)]
    open_links(path.receiver.messages()[0])

    mend(teller)
    until(lambda: path.receiver.messages("resolved"), "its end")
    let_rounds_pass(path)
    assert path.receiver.names == [("firing", *BROKEN), ("resolved", *BROKEN)]


def test_without_prometheus_the_monitor_tells_of_incidents_and_ends_and_silences_them(world):
    teller, path = world
    path.start_monitor()
    plant(teller)
    path.until_idle()
    path.alertmanager.start()  # later than the incident
    (alert,) = until(lambda: path.receiver.messages("firing"), "the alert")
    assert open_links(alert).keys() == {"runbook_url", "dashboard_url", "incident_url"}
    path.alertmanager.restart()
    until(path.firing, "the alert, again")

    silences = f"{path.urls['alertmanager']}/api/v2/silences"
    (incident,) = httpx.get(f"{path.urls['monitor']}/api/v1/incidents").json()["items"]
    in_an_hour_ms = time.time_ns() // 1_000_000 + 3_600_000  # Alertmanager goes by the wall, and so does the monitor process
    word = {"actor": "Ada", "reason": "mending it", "until_ms": in_an_hour_ms}
    answer = httpx.post(
        f"{path.urls['monitor']}/api/v1/incidents/{incident['incident_id']}/acknowledge", json=word,
        headers={"Authorization": "Bearer t"},
    )  # fmt: skip
    assert answer.is_success, answer.text
    (silence,) = until(lambda: httpx.get(silences).json(), "the silence")
    assert (silence["createdBy"], silence["status"]["state"]) == ("Ada", "active")
    until(lambda: path.firing()["ClipdriftDataBroken"]["status"]["state"] == "suppressed", "quiet")
    path.alertmanager.restart()
    path.monitor.end()
    path.start_monitor()
    until(lambda: path.firing().get("ClipdriftDataBroken"), "the alert, again")
    assert [one["id"] for one in httpx.get(silences).json()] == [silence["id"]]

    mend(teller)
    until(lambda: "ClipdriftDataBroken" not in path.firing(), "its end")
    until(lambda: httpx.get(silences).json()[0]["status"]["state"] == "expired", "the end of the silence")
    assert path.receiver.names[0] == ("firing", *BROKEN)
    assert path.receiver.names.count(("firing", *BROKEN)) == 1
