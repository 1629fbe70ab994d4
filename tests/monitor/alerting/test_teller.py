"""What Alertmanager holds after rounds: over outages, restarts of either side, and people's words."""

import threading
from types import SimpleNamespace

import msgspec
import pytest
from fake_alertmanager import FakeAlertmanager

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import MS_PER_HOUR, ManualClock
from clipdrift_contract.events import Incident
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.alerting.alertmanager import Alertmanager
from clipdrift_monitor.alerting.config import AlertingConfig
from clipdrift_monitor.alerting.teller import Teller, connect
from clipdrift_monitor.engine.engine import STANDS_BY
from clipdrift_monitor.incidents.config import IncidentConfig
from clipdrift_monitor.incidents.response import acknowledge, lapse, silence

URL = "http://am:9093"
HARMED = {"alertname": "ClipdriftModelHarmed", "model": "pump", "severity": "page"}


def incident(root="harm", severity="page", model="pump", name="1", **changed):
    return Incident(
        incident_id=f"{model}-{root}-{name}", model=model, version="v1", root=root, severity=severity, told_severity=severity,
        is_open=True, change="opened", revision=1, is_news=True, at_ms=0, opened_at_ms=0, first_window_ms=0, last_window_ms=1,
        summary=f"{model}: trouble", plain="In plain words.", **changed,
    )  # fmt: skip


class House:
    """A monitor's snapshot that the test sets, and one or more Alertmanagers."""

    def __init__(self, num_servers=1, **settings):
        self.clock = ManualClock(now_ms=1_700_000_000_000)
        self.servers = [FakeAlertmanager(self.clock) for _ in range(num_servers)]
        self.settings = settings
        self.incidents = []
        self.models = ["pump"]
        self.is_loaded, self.waits_for = True, ""
        self.new_life()

    def new_life(self):
        urls = tuple(f"http://am{i}:9093" if i else URL for i in range(len(self.servers)))
        config = AlertingConfig(urls=urls, **self.settings)
        self.metrics = MetricSet()
        clients = [Alertmanager(url, 1.0, fake.transport) for url, fake in zip(urls, self.servers, strict=True)]
        self.teller = Teller(config, clients, self._snapshot, self.metrics, self.clock, project="p", token="secret")

    def _snapshot(self):
        states = {name: SimpleNamespace(incidents=[one for one in self.incidents if one.model == name]) for name in self.models}
        return SimpleNamespace(models=states, is_loaded=self.is_loaded, waits_for=self.waits_for)

    @property
    def am(self):
        return self.servers[0]

    @property
    def firing(self):
        return sorted((dict(labels) for labels in self.am.firing), key=lambda one: sorted(one.items()))

    def pass_seconds(self, seconds, step=0.5):
        for _ in range(round(seconds / step)):
            self.clock.advance_ms(round(step * 1000))
            self.teller.step()

    def value(self, metric, *labels):
        self.teller.export(self.metrics)
        made = self.metrics.counter(metric) if metric.kind == "counter" else self.metrics.gauge(metric)
        return made.labels(*labels)._value.get()

    def end(self):
        self.incidents = [msgspec.structs.replace(one, is_open=False) for one in self.incidents]


@pytest.fixture
def house():
    return House()


def test_an_incident_is_told_at_once_with_the_labels_of_the_rule_and_links(house):
    house.incidents = [incident()]
    house.pass_seconds(0.5)

    assert house.firing == [HARMED]
    (one,) = house.am.alerts.values()
    assert one["annotations"] == {
        "summary": "pump: trouble", "description": "In plain words.", "runbook_url": "docs/runbooks/ClipdriftModelHarmed.md",
        "dashboard_url": "http://localhost:3000/d/clipdrift-model?var-model=pump",
        "incident_url": "http://localhost:8090/incidents/pump-harm-1",
    }  # fmt: skip
    assert one["url"] == one["annotations"]["incident_url"]


@pytest.mark.parametrize("changed", [{"root": "drift"}, {"severity": "note"}])
def test_drift_and_notes_are_not_told(house, changed):
    house.incidents = [incident(**changed)]
    house.pass_seconds(120)
    assert house.firing == []


def test_it_is_told_again_before_it_would_end(house):
    house.incidents = [incident()]
    for _ in range(20):
        house.pass_seconds(60)
        assert house.firing == [HARMED]
    assert house.am.calls.count(("POST", "/api/v2/alerts")) == 20


def test_nothing_is_posted_when_nothing_is_wrong(house):
    house.pass_seconds(600)
    assert {method for method, _ in house.am.calls} == {"GET"}


def test_it_ends_a_while_after_the_incident_and_not_before_prometheus_has_seen_it(house):
    house.incidents = [incident()]
    house.pass_seconds(10)
    house.end()
    house.pass_seconds(55)
    assert house.firing == [HARMED]
    house.pass_seconds(70)
    assert house.firing == []


def test_an_incident_that_comes_back_meanwhile_is_one_alert(house):
    house.incidents = [incident()]
    house.pass_seconds(10)
    house.end()
    house.pass_seconds(30)
    house.incidents = [incident()]
    for _ in range(10):
        house.pass_seconds(60)
        assert house.firing == [HARMED]


def test_what_prometheus_alone_still_tells_is_left_to_it(house):
    house.am.prometheus_tells(**HARMED)
    house.pass_seconds(200)
    assert house.firing == [HARMED]
    assert house.value(names.MONITOR_ALERTS_DIFFERING, URL, "unknown") == 1


def test_alerts_and_silences_of_other_models_and_people_are_left_alone(house):
    house.am.prometheus_tells(alertname="ClipdriftModelHarmed", model="other", severity="page")
    house.am.alerts[frozenset({"alertname": "DiskFull"}.items())] = {
        "url": "http://localhost:8090/x", "ends_ms": house.clock.now_ms() + 10**9, "annotations": {},
    }  # fmt: skip
    house.am.silences["theirs"] = {
        "matchers": [{"name": "model", "value": "pump", "isRegex": False, "isEqual": True}], "createdBy": "Bea",
        "comment": "mine", "starts_ms": 0, "ends_ms": house.clock.now_ms() + 10**9,
    }  # fmt: skip
    house.pass_seconds(200)
    assert len(house.firing) == 2
    assert [by for _, _, by in house.am.silenced] == ["Bea"]


def test_a_rise_is_another_alert_and_the_milder_one_ends(house):
    house.incidents = [incident(severity="ticket")]
    house.pass_seconds(10)
    house.incidents = [incident(severity="page")]
    house.pass_seconds(1)
    assert [one["severity"] for one in house.firing] == ["page", "ticket"]  # the configuration hushes the second
    house.pass_seconds(130)
    assert house.firing == [HARMED]


def test_two_incidents_of_one_name_are_one_alert_that_ends_with_the_second(house):
    one, other = incident("data"), incident("training", name="2")
    house.incidents = [one, other]
    house.pass_seconds(10)
    assert [alert["alertname"] for alert in house.firing] == ["ClipdriftDataBroken"]
    house.incidents = [msgspec.structs.replace(one, is_open=False), other]
    house.pass_seconds(200)
    assert len(house.firing) == 1
    house.end()
    house.pass_seconds(200)
    assert house.firing == []


def test_labels_of_prometheus_are_put_to_those_of_the_rule():
    house = House(labels={"cluster": "eu"})
    house.incidents = [incident()]
    house.pass_seconds(1)
    assert house.firing == [HARMED | {"cluster": "eu"}]


# --- outages and restarts ---


def test_what_opened_while_alertmanager_was_away_is_told_when_it_comes_back(house):
    house.am.fails_with = "away"
    house.incidents = [incident()]
    house.pass_seconds(100)
    assert house.value(names.MONITOR_ALERTMANAGER_FAILURES, URL) >= 15
    assert house.value(names.MONITOR_ALERTMANAGER_REACHED, URL) == 0
    house.am.fails_with = None
    house.pass_seconds(6)
    assert house.firing == [HARMED]
    assert house.value(names.MONITOR_ALERTMANAGER_REACHED, URL) > 1_700_000_000


@pytest.mark.parametrize("how", [401, 500, "lost"])
def test_a_call_that_fails_is_counted_and_made_again(house, how):
    house.am.fails_with = how
    house.incidents = [incident()]
    house.pass_seconds(20)
    house.am.fails_with = None
    house.pass_seconds(6)
    assert house.firing == [HARMED]
    assert house.value(names.MONITOR_ALERTMANAGER_FAILURES, URL) >= 3


def test_after_a_restart_of_alertmanager_every_alert_is_there_again_and_the_difference_was_seen(house):
    house.incidents = [incident()]
    house.pass_seconds(10)
    house.am.restart()
    assert house.firing == []
    house.pass_seconds(60)
    assert house.firing == [HARMED]
    assert house.value(names.MONITOR_ALERTS_DIFFERING, URL, "missing") == 1
    house.pass_seconds(60)
    assert house.value(names.MONITOR_ALERTS_DIFFERING, URL, "missing") == 0


def test_what_was_over_while_the_monitor_was_away_is_ended_by_its_next_life():
    house = House(repeat_seconds=300)  # an alert holds for 25 minutes
    house.incidents = [incident()]
    house.pass_seconds(1)
    house.end()
    house.new_life()
    house.pass_seconds(130)
    assert house.firing == []


def test_a_monitor_that_has_not_read_its_store_or_stands_by_says_nothing(house):
    house.incidents = [incident()]
    house.is_loaded = False
    house.pass_seconds(100)
    house.is_loaded, house.waits_for = True, STANDS_BY
    house.pass_seconds(100)
    assert house.am.calls == []


def test_an_outage_of_the_store_ends_no_alert(house):
    house.incidents = [incident()]
    house.pass_seconds(1)
    house.waits_for = "the store is locked"
    house.pass_seconds(1_000)
    assert house.firing == [HARMED]


def test_every_alertmanager_of_a_cluster_is_told_and_one_that_is_away_holds_back_no_other():
    house = House(num_servers=2)
    house.am.fails_with = "away"
    house.incidents = [incident()]
    house.pass_seconds(1)
    assert len(house.servers[1].firing) == 1


# --- what people say ---


def held(house, how=acknowledge, hours=2, **changed):
    now_ms = house.clock.now_ms()
    return how(
        incident(**changed), actor="Ada", reason="mending it", at_ms=now_ms, until_ms=now_ms + hours * MS_PER_HOUR,
        config=IncidentConfig(),
    )  # fmt: skip


@pytest.mark.parametrize("how", [acknowledge, silence])
def test_an_incident_that_somebody_sees_to_is_silenced_once_for_as_long(house, how):
    house.incidents = [held(house, how)]
    ends_ms = house.clock.now_ms() + 2 * MS_PER_HOUR
    house.pass_seconds(600)

    assert house.am.silenced == [(HARMED, ends_ms, "Ada")]
    assert house.am.num_made == 1
    (one,) = house.am.silences.values()
    assert one["comment"] == "mending it [clipdrift p: pump-harm-1]"
    assert house.am.calls.index(("POST", "/api/v2/silences")) < house.am.calls.index(("POST", "/api/v2/alerts"))


def test_the_next_life_and_a_lost_answer_make_no_second_silence(house):
    house.incidents = [held(house)]
    house.am.fails_with = "lost"
    house.pass_seconds(1)
    house.am.fails_with = None
    house.new_life()
    house.pass_seconds(200)
    assert house.am.num_made == 1


def test_a_longer_hold_changes_the_silence(house):
    house.incidents = [held(house)]
    house.pass_seconds(10)
    house.incidents = [held(house, hours=8)]
    house.pass_seconds(10)
    assert house.am.num_made == 1
    assert [ends_ms - house.clock.now_ms() > 7 * MS_PER_HOUR for _, ends_ms, _ in house.am.silenced] == [True]


def test_the_silence_ends_with_the_incident(house):
    house.incidents = [held(house)]
    house.pass_seconds(10)
    house.end()
    house.pass_seconds(1)
    assert house.am.silenced == []


def test_the_silence_is_over_when_the_hold_lapses(house):
    house.incidents = [held(house)]
    house.pass_seconds(10)
    house.clock.advance_ms(2 * MS_PER_HOUR)
    house.incidents = [lapse(one, house.clock.now_ms()) for one in house.incidents]
    house.pass_seconds(10)
    assert house.am.silenced == []
    assert house.firing == [HARMED]


@pytest.mark.parametrize("how", [acknowledge, silence])
def test_what_grew_worse_is_heard(house, how):
    milder = held(house, how, severity="ticket")
    house.incidents = [milder]
    house.pass_seconds(10)
    house.incidents = [msgspec.structs.replace(milder, severity="page", told_severity="page")]
    house.pass_seconds(10)
    assert house.am.silenced == []
    assert HARMED in house.firing


def test_one_incident_that_nobody_sees_to_keeps_the_alert_loud(house):
    house.incidents = [held(house, root="data"), incident("training", name="2")]
    house.pass_seconds(10)
    assert house.am.silenced == []


def test_only_one_alertmanager_of_a_cluster_is_asked_to_silence():
    house = House(num_servers=2)
    house.incidents = [held(house)]
    house.pass_seconds(10)
    assert [one.num_made for one in house.servers] == [1, 0]
    house.am.fails_with = "away"
    house.incidents = [held(house, hours=8)]
    house.pass_seconds(100)
    assert house.servers[1].num_made == 1


def test_silencing_may_be_left_to_people():
    house = House(does_silence=False)
    house.incidents = [held(house)]
    house.pass_seconds(10)
    assert house.am.silenced == []
    assert not any("silence" in path for _, path in house.am.calls)


# --- who asks, and the thread ---


def test_the_token_is_a_bearer_token_or_a_password(house):
    house.pass_seconds(1)
    assert set(house.am.headers) == {"Bearer secret"}
    named = House(user="clipdrift")
    named.pass_seconds(1)
    assert set(named.am.headers) == {"Basic Y2xpcGRyaWZ0OnNlY3JldA=="}


def test_a_token_in_a_file_is_read_before_each_round(tmp_path):
    clock = ManualClock(now_ms=1_700_000_000_000)
    fake, file, house = FakeAlertmanager(clock), tmp_path / "token", House()
    teller = Teller(
        AlertingConfig(urls=(URL,), repeat_seconds=1.0), [Alertmanager(URL, 1.0, fake.transport)], house._snapshot, MetricSet(),
        clock, token_file=file,
    )  # fmt: skip
    teller.step()  # no file yet: counted as a failure, not raised
    for token in ("old", "new"):
        file.write_text(f"{token}\n")
        clock.advance_ms(1_500)
        teller.step()
    assert list(dict.fromkeys(fake.headers)) == ["Bearer old", "Bearer new"]


def test_without_an_address_there_is_no_teller(tmp_path):
    config = AlertingConfig()
    assert connect(config, lambda: None, MetricSet(), ManualClock(), project="p", token="", folder=tmp_path) is None


def test_the_thread_survives_an_error_and_ends_when_told(house, caplog):
    seen = threading.Event()
    num_asked = []

    def snapshot():
        num_asked.append(1)
        if len(num_asked) > 1:
            seen.set()
        raise RuntimeError("the test's error")

    teller = Teller(AlertingConfig(urls=(URL,)), [], snapshot, MetricSet(), house.clock)
    teller.start()
    assert seen.wait(20)
    teller.close()
    assert not any(thread.name == "alerting" for thread in threading.enumerate())
    assert "the test's error" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"urls": ("am:9093",)}, "begins with http"),
        ({"urls": ("http://am:9093/",)}, "ends without a slash"),
        ({"urls": (URL, URL)}, "twice"),
        ({"repeat_seconds": 0.5}, r"1\.\.300"),
        ({"resolve_after_seconds": -1.0}, r"0\.\.3600"),
        ({"timeout_seconds": 0.0}, "above 0"),
        ({"labels": {"severity": "x"}}, "cannot hold severity"),
        ({"labels": {"a-b": "x"}}, "cannot hold a-b"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        AlertingConfig(**settings)
