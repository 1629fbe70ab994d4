"""`clipdrift dashboards`, as a person types it."""

import json

import pytest
from typer.testing import CliRunner

from clipdrift_deploy.cli import app
from clipdrift_deploy.happenings import deployed, of_incident


@pytest.fixture
def clipdrift(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("GRAFANA_URL", "GRAFANA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: CliRunner().invoke(app, ["dashboards", *map(str, words)])


def test_what_is_built_is_well_and_a_planted_fault_is_named(clipdrift, tmp_path):
    assert clipdrift("build").exit_code == 0
    well = clipdrift("check")
    assert (well.exit_code, well.output.splitlines()[-1]) == (0, "6 dashboards, no findings")

    file = tmp_path / "dashboards" / "generated" / "model.json"
    file.write_text(file.read_text().replace("clipdrift_model_generation", "clipdrift_model_generations"))
    broken = clipdrift("check", file)
    assert broken.exit_code == 1
    assert "known-metrics" in broken.output
    assert "clipdrift_model_generations" in broken.output


def test_links_lead_where_the_options_say(clipdrift, tmp_path):
    assert clipdrift("build", "--out", tmp_path / "x", "--monitor-url", "https://status.example/").exit_code == 0
    assert "https://status.example/models/" in (tmp_path / "x" / "model.json").read_text()


def test_the_newer_schema_on_request_and_no_third(clipdrift, tmp_path):
    assert clipdrift("build", "--out", tmp_path / "x", "--schema", "v2").exit_code == 0
    assert json.loads((tmp_path / "x" / "fleet.json").read_text())["kind"] == "Dashboard"
    assert clipdrift("build", "--schema", "v3").exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"), [(("check", "nowhere.json"), "no readable JSON"), (("check",), "clipdrift dashboards build writes them")]
)
def test_nothing_to_check_says_what_to_do(clipdrift, words, said):
    answer = clipdrift(*words)
    assert answer.exit_code == 2
    assert said in answer.stderr


def test_a_dry_run_shows_a_table_and_writes_nothing_then_it_is_published_once(clipdrift, grafana):
    asked = ("publish", "--grafana-url", grafana.url, "--token", "admin-token", "--datasource", "p", "--alerts")
    dry = clipdrift(*asked, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "8 of 8 would be written" in dry.output
    assert grafana.writes == []
    assert f"8 of 8 written to {grafana.url}" in clipdrift(*asked).output
    assert f"0 of 8 written to {grafana.url}" in clipdrift(*asked).output


def test_what_a_person_changed_stops_it_with_a_table_and_a_sentence(clipdrift, grafana):
    asked = ("publish", "--grafana-url", grafana.url, "--token", "admin-token")
    clipdrift(*asked)
    grafana.edit("clipdrift-fleet", who="ada")
    stopped = clipdrift(*asked)
    assert stopped.exit_code == 2
    assert "changed by ada" in stopped.output
    assert "--force writes over it" in stopped.stderr
    assert "1 of 7 would be written" in clipdrift(*asked, "--dry-run", "--force").output
    assert "1 of 7 written" in clipdrift(*asked, "--force").output


def test_a_token_that_may_not_says_so_without_showing_itself(clipdrift, grafana):
    for token, said in (("secret-token", "GRAFANA_TOKEN"), ("viewer-token", "may not do this")):
        answer = clipdrift("publish", "--grafana-url", grafana.url, "--token", token)
        assert answer.exit_code == 2
        assert said in answer.stderr
        assert token not in answer.output


def test_alerts_without_a_data_source_and_contacts_that_are_none_are_refused(clipdrift, tmp_path):
    assert "--datasource" in clipdrift("publish", "--alerts").stderr
    (tmp_path / "contacts.yml").write_text("- name: on call\n  kind: slack\n")
    assert "each with name, type and settings" in clipdrift("publish", "--contact-points", "contacts.yml").stderr
    assert "cannot be read" in clipdrift("publish", "--contact-points", "none.yml").stderr


def test_a_dashboard_comes_back_as_a_file(clipdrift, grafana, tmp_path):
    reached = ("--grafana-url", grafana.url, "--token", "admin-token")
    clipdrift("publish", *reached)
    assert clipdrift("export", "clipdrift-model", "--out", "ours", *reached).exit_code == 0
    assert json.loads((tmp_path / "ours" / "model.json").read_text())["uid"] == "clipdrift-model"
    assert "there is no dashboard 'x'" in clipdrift("export", "x", *reached).stderr


@pytest.mark.parametrize("words", [("build",), ("build", "--schema", "v2"), ("export", "clipdrift-model")])
def test_a_folder_that_cannot_be_made_is_named(clipdrift, grafana, tmp_path, words):
    reached = ("--grafana-url", grafana.url, "--token", "admin-token")
    clipdrift("publish", *reached)
    (tmp_path / "taken").write_text("a file")
    answer = clipdrift(*words, "--out", "taken/x", *(reached if words[0] == "export" else ()))
    assert answer.exit_code == 2
    assert "taken" in answer.stderr
    assert "give another folder" in answer.stderr
    assert (tmp_path / "taken").read_text() == "a file"


def test_marks_tell_what_happened_and_keep_their_keys():
    told = {
        "model": "pump", "generation": 4, "champion": {"version": "a"}, "decided_at_ms": 7, "reason": "", "stage": "canary 0.1",
    }  # fmt: skip
    assert deployed(told).text == "pump: version a in service, canary 0.1"
    incident = {
        "incident_id": "pump-3", "model": "pump", "opened_at_ms": 5, "resolved_at_ms": 9, "summary": "worse by 4 points",
        "root": "harm", "worst_severity": "page",
    }  # fmt: skip
    opened, over = of_incident(incident)
    assert (opened.key, opened.time_ms, over.key, over.time_ms) == ("incident-pump-3", 5, "incident-pump-3-over", 9)
    assert over.text == "Over: pump: worse by 4 points"
