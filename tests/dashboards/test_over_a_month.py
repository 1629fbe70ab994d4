"""Every query of the dashboard and every rule, on a real Prometheus that holds a month."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import synthetic_month
import yaml
from check_demo_metrics import Answer, answers, empty_panels
from dashboard_queries import BOARDS, RULES
from real_prometheus import PastPrometheus, past_prometheus

from clipdrift_contract.metrics import METRICS
from clipdrift_dashboards.rules import ALERTS, RECORDS

pytestmark = pytest.mark.prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    metrics = folder / "metrics.om"
    synthetic_month.write(metrics)
    with past_prometheus(metrics, RULES, folder) as running:
        yield running


@pytest.fixture(scope="module")
def given(prometheus: PastPrometheus) -> list[Answer]:
    return [one for name in BOARDS for one in answers(prometheus, name)]


def test_no_panel_and_no_mark_is_empty(given: list[Answer]) -> None:
    assert {one.model for one in given} == {"", synthetic_month.HARMED, synthetic_month.WELL}
    assert empty_panels(given) == set()


def test_the_check_finds_an_empty_panel(prometheus: PastPrometheus) -> None:
    board = BOARDS["model"]
    text = json.dumps(board["panels"]).replace("clipdrift_model_live_nll_nats", "clipdrift_model_live_nll")
    assert empty_panels(list(answers(prometheus, "model", board | {"panels": json.loads(text)}))) == {"model: Log loss"}


def test_a_monitor_that_has_stopped_leaves_no_old_figure_that_looks_like_now(prometheus: PastPrometheus) -> None:
    later = msgspec.structs.replace(prometheus, end=prometheus.end + 3 * 86_400)
    given = [one for name in ("fleet", "model", "pipeline") for one in answers(later, name)]
    assert {one.query.title for one in given if one.query.is_instant and one.num_samples} == set()


def test_the_month_sets_every_metric_of_models_and_of_the_monitor() -> None:
    text = "".join(text for text, _ in synthetic_month.expositions())
    for metric in METRICS:
        if metric.name.startswith(("clipdrift_model_", "clipdrift_monitor_")):
            assert f"\n{metric.name}" in text, metric.name


def test_the_deployment_is_marked_once_and_on_its_day(given: list[Answer]) -> None:
    marks = [one for one in given if one.query.title == "Deployments" and one.query.board == "model"]
    by_model = {one.model: one.series for one in marks}
    assert by_model[synthetic_month.WELL] == []
    (mark,) = by_model[synthetic_month.HARMED]
    assert mark["metric"] == {"model": "pump", "version": "2013-03-20"}
    assert [time for time, _ in mark["values"]] == [
        synthetic_month.START_MS / 1000 + 86_400 * (synthetic_month.REPAIRED_ON + 1)
    ]


@pytest.mark.parametrize(
    ("title", "days"),
    [("Data changes", [synthetic_month.DATA_CHANGED_ON]), ("Incidents", list(range(16, synthetic_month.REPAIRED_ON)))],
)
def test_a_mark_stands_on_each_day_on_which_it_happened(given: list[Answer], title: str, days: list[int]) -> None:
    marks = {one.model: one.series for one in given if one.query.title == title and one.query.board == "model"}
    assert marks[synthetic_month.WELL] == []
    (mark,) = marks[synthetic_month.HARMED]
    assert [round((time - synthetic_month.START_MS / 1000) / 86_400) - 1 for time, _ in mark["values"]] == days


def test_a_day_has_one_bar_for_its_decision(given: list[Answer]) -> None:
    for one in given:
        if one.query.title == "Decisions":
            days: dict[float, float] = {}
            for series in one.series:
                for time, value in series["values"]:
                    days[time] = days.get(time, 0.0) + float(value)
            assert set(days.values()) == {1.0}
            assert len(days) == synthetic_month.NUM_DAYS


def test_a_first_retrain_is_counted_from_its_first_day(given: list[Answer]) -> None:
    (answer,) = [
        one for one in given if one.query.title.startswith("Retrains so far") and one.query.ref == "A" and one.model == "pump"
    ]
    counts = {series["metric"].get("verdict"): len(series["values"]) for series in answer.series}
    assert counts == {
        "none so far": synthetic_month.REPAIRED_ON,
        "pass": synthetic_month.NUM_DAYS - synthetic_month.REPAIRED_ON,
    }


def test_the_lines_of_features_are_the_same_all_through_the_range(given: list[Answer]) -> None:
    (answer,) = [one for one in given if one.query.title == "Inputs that moved most (at most 6)" and one.model == "pump"]
    assert [len(series["values"]) for series in answer.series] == [synthetic_month.NUM_DAYS] * 6
    assert "input 9" in {series["metric"]["feature"] for series in answer.series}


def test_prometheus_loads_every_rule_and_can_evaluate_it(prometheus: PastPrometheus) -> None:
    assert len(prometheus.rules()) == len(RECORDS) + len(ALERTS)
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            prometheus.range(rule["expr"], prometheus.scrape_seconds)  # raises on an error


def test_the_alert_of_the_harmed_model_fires_while_it_is_harmed(prometheus: PastPrometheus) -> None:
    expr = next(alert.expr for alert in ALERTS if alert.name == "ClipdriftModelHarmed")
    (series,) = prometheus.range(expr, prometheus.scrape_seconds)
    assert series["metric"] == {"model": "pump", "severity": "ticket"}
    first = (series["values"][0][0] - synthetic_month.START_MS / 1000) / 86_400
    assert synthetic_month.HARMED_FROM < first <= synthetic_month.REPAIRED_ON


def test_the_loss_by_slice_is_validated_minus_live(prometheus: PastPrometheus) -> None:
    expr = next(record.expr for record in RECORDS if record.name.startswith("model_slice:"))
    found = {
        (one["metric"]["model"], one["metric"].get("slice", "")): float(one["values"][0][1]) for one in prometheus.instant(expr)
    }
    assert len(found) == 2 * len(synthetic_month.SLICES)
    validated = float(
        prometheus.instant('clipdrift_model_validated_accuracy_ratio{model="pump",slice="north"}')[0]["values"][0][1]
    )
    live = float(prometheus.instant('clipdrift_model_live_accuracy_ratio{model="pump",slice="north"}')[0]["values"][0][1])
    assert found["pump", "north"] == pytest.approx(validated - live, abs=1e-12)


def test_a_file_without_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.om"
    path.write_text(
        '# TYPE clipdrift_model_live_nll_nats gauge\nclipdrift_model_live_nll_nats{model="m"} 1.0 1362096000.000\n# EOF\n'
    )
    with past_prometheus(path, RULES, tmp_path) as running, pytest.raises(ValueError, match="offers nothing"):
        list(answers(running, "model"))
