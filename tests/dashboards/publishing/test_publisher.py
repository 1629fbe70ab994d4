"""Publishing into a Grafana of each major version that is supported, by either client library."""

import msgspec
import pytest
from grafana_api.grafana_face import GrafanaFace

from clipdrift_contract.errors import ConfigError
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.publishing.connection import Connection, GrafanaError, connect
from clipdrift_dashboards.publishing.publisher import ConflictError, Publisher, exported
from clipdrift_dashboards.publishing.wanted import Annotation, ContactPoint, wanted

NUM_BOARDS = 6
WEBHOOK = ContactPoint(name="Hook", type="webhook", settings={"url": "http://example/hook", "httpMethod": "POST"})
DEPLOYED = Annotation(key="deployment-pump-2", time_ms=1_790_000_000_000, text="pump: version b", tags=("deployment", "pump"))
EVERYTHING = wanted(
    Links(), source_uid="prometheus", prometheus_url="http://prometheus:9090", with_alerts=True, contacts=[WEBHOOK],
    annotations=[DEPLOYED],
)  # fmt: skip


@pytest.fixture
def connection(grafana):
    if grafana.library == "grafana-client":
        return connect(grafana.url, "admin-token")
    host, port = grafana.url.removeprefix("http://").split(":")
    return Connection(GrafanaFace("admin-token", host=host, port=int(port)))


def acts(changes):
    return {(one.kind, one.act) for one in changes}


def test_an_empty_grafana_gets_everything_in_an_order_that_it_takes(grafana, connection):
    changes = Publisher(connection, EVERYTHING).publish()
    assert {one.act for one in changes} == {"create"}
    assert set(grafana.boards) == set(EVERYTHING.dashboards)
    assert len(grafana.boards) == NUM_BOARDS
    assert {one["folderUid"] for one in grafana.boards.values()} == {"clipdrift"}
    assert grafana.sources["prometheus"]["url"] == "http://prometheus:9090"
    (way,) = grafana.sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert way["url"] == "http://localhost:8081/v1/requests/${__value.raw}"
    (group,) = grafana.groups.values()
    assert {rule["title"] for rule in group["rules"]} >= {"ClipdriftModelHarmed", "ClipdriftWatchdog"}
    assert list(grafana.contacts) == ["clipdrift-hook"]
    assert grafana.annotations[0]["text"] == "pump: version b"


def test_publishing_again_writes_nothing(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    grafana.writes.clear()
    assert {one.act for one in Publisher(connection, EVERYTHING).publish()} == {"keep"}
    assert grafana.writes == []


def test_a_plan_asks_and_writes_nothing(grafana, connection):
    assert {one.act for one in Publisher(connection, EVERYTHING).plan()} == {"create"}
    assert grafana.writes == []


def test_what_changed_in_the_code_is_updated_and_nothing_else(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    uid = "clipdrift-model"
    changed = {**EVERYTHING.dashboards, uid: {**EVERYTHING.dashboards[uid], "title": "Clipdrift / Model, better"}}
    (group,) = EVERYTHING.groups
    slower = {**group, "interval": 120}
    grafana.writes.clear()
    Publisher(connection, msgspec.structs.replace(EVERYTHING, dashboards=changed, groups=(slower,))).publish()
    assert grafana.boards[uid]["dashboard"]["title"] == "Clipdrift / Model, better"
    assert [write.split()[0] + write.split("/")[-1] for write in grafana.writes] == ["POSTdb", "PUTclipdrift-alerts"]


def test_what_a_person_changed_is_never_written_over_unasked(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    grafana.edit("clipdrift-fleet", who="ada")
    grafana.take_over("clipdrift", "clipdrift-alerts")
    grafana.writes.clear()
    with pytest.raises(ConflictError, match=r"clipdrift-fleet: changed by ada.*--force") as caught:
        Publisher(connection, EVERYTHING).publish()
    assert {("dashboard", "conflict"), ("alert rules", "conflict")} <= acts(caught.value.changes)
    assert grafana.writes == []
    assert "(edited)" in grafana.boards["clipdrift-fleet"]["dashboard"]["title"]

    Publisher(connection, EVERYTHING).publish(force=True)
    assert "(edited)" not in grafana.boards["clipdrift-fleet"]["dashboard"]["title"]
    assert {one.act for one in Publisher(connection, EVERYTHING).plan()} == {"keep"}


def test_somebody_who_saves_while_it_is_published_is_not_written_over(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    uid = "clipdrift-pipeline"
    changed = {**EVERYTHING.dashboards, uid: {**EVERYTHING.dashboards[uid], "title": "Clipdrift / Pipeline, better"}}
    publisher = Publisher(connection, msgspec.structs.replace(EVERYTHING, dashboards=changed))

    def meanwhile():
        grafana.before_save = lambda: None
        grafana.edit(uid)

    grafana.before_save = meanwhile
    with pytest.raises(GrafanaError, match=r"somebody saved it while this was being published \(version-mismatch\)"):
        publisher.publish()
    assert "(edited)" in grafana.boards[uid]["dashboard"]["title"]


def test_a_dashboard_that_was_moved_stays_where_it_was_moved_to(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    grafana.folders["team"] = {"uid": "team", "title": "Team"}
    grafana.boards["clipdrift-fleet"]["folderUid"] = "team"
    boards = {uid: {**board, "refresh": "5m"} for uid, board in EVERYTHING.dashboards.items()}
    Publisher(connection, msgspec.structs.replace(EVERYTHING, dashboards=boards)).publish()
    assert grafana.boards["clipdrift-fleet"]["folderUid"] == "team"
    assert grafana.boards["clipdrift-fleet"]["dashboard"]["refresh"] == "5m"


@pytest.mark.parametrize("num_writes", [0, 1, 4, 9, 10])
def test_a_publication_that_broke_off_goes_on_from_there(grafana, connection, num_writes):
    grafana.breaks_after = num_writes
    with pytest.raises(GrafanaError, match="database is locked"):
        Publisher(connection, EVERYTHING).publish()
    assert len(grafana.writes) == num_writes
    grafana.breaks_after = None
    Publisher(connection, EVERYTHING).publish()
    assert len(grafana.writes) == len(set(grafana.writes)) + NUM_BOARDS - 1  # each once; dashboards share an address
    assert {one.act for one in Publisher(connection, EVERYTHING).plan()} == {"keep"}


def test_what_comes_from_a_file_on_grafanas_machine_cannot_be_forced(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    grafana.provisioned.add("clipdrift-fleet")
    with pytest.raises(ConflictError, match=r"comes from a file on Grafana's machine"):
        Publisher(connection, EVERYTHING).publish(force=True)


def test_another_data_source_of_that_uid_is_a_conflict(grafana, connection):
    other = {"uid": "prometheus", "name": "p", "type": "prometheus", "url": "http://other", "readOnly": False}
    grafana.sources["prometheus"] = other
    with pytest.raises(ConflictError, match=r"url is 'http://other', not 'http://prometheus:9090'"):
        Publisher(connection, EVERYTHING).publish()
    Publisher(connection, EVERYTHING).publish(force=True)
    assert grafana.sources["prometheus"]["url"] == "http://prometheus:9090"


def test_dashboards_come_back_as_they_stand_there(grafana, connection):
    Publisher(connection, EVERYTHING).publish()
    assert exported(connection, ["clipdrift-model"])["clipdrift-model"] == EVERYTHING.dashboards["clipdrift-model"]
    with pytest.raises(GrafanaError, match="there is no dashboard 'nope'"):
        exported(connection, ["nope"])


@pytest.mark.parametrize(
    ("token", "words"),
    [("wrong", r"does not know this token \(401\).*GRAFANA_TOKEN"), ("viewer-token", r"may not do this: POST /folders .*403")],
)
def test_a_refusal_says_what_to_do(grafana, token, words):
    with pytest.raises(GrafanaError, match=words):
        Publisher(connect(grafana.url, token), EVERYTHING).publish()


def test_an_editor_needs_no_admin_unless_a_data_source_is_to_be_made(grafana):
    publisher = Publisher(connect(grafana.url, "editor-token"), wanted(Links(), source_uid="p", with_alerts=True))
    assert {one.act for one in publisher.publish()} == {"create"}
    with pytest.raises(GrafanaError, match="403"):
        Publisher(connect(grafana.url, "editor-token"), EVERYTHING).publish()


def test_a_wrong_address_says_so(grafana):
    with pytest.raises(GrafanaError, match=r"\(404\): give Grafana's address without /api"):
        Publisher(connect(f"{grafana.url}/api", "admin-token"), EVERYTHING).plan()
    with pytest.raises(GrafanaError, match="no answer from Grafana"):
        Publisher(connect("http://127.0.0.1:9", "admin-token"), EVERYTHING).plan()


@pytest.mark.parametrize("url", ["grafana:3000", "ftp://grafana", "http://admin:secret@grafana:3000"])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url):
    with pytest.raises(ConfigError, match=r"address|GRAFANA_TOKEN") as caught:
        connect(url, "t")
    assert "secret" not in str(caught.value) or "user" in str(caught.value)


def test_what_is_no_client_of_either_library_is_refused():
    with pytest.raises(ConfigError, match="got object"):
        Connection(object())
