"""promtool's unit tests of every alert: it fires, it does not fire, it ends, and it knows what to do without data."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from dashboard_queries import RULES, seconds

from clipdrift_dashboards import thresholds
from clipdrift_dashboards.rules import ALERTS

pytestmark = pytest.mark.prometheus

MODEL_BOARD = "http://localhost:3000/d/clipdrift-model?var-model=m"
PIPELINE_BOARD = "http://localhost:3000/d/clipdrift-pipeline"
ALWAYS_THERE = {"ClipdriftMonitorAbsent", "ClipdriftWatchdog"}  # what fires when there is nothing at all


class Told(msgspec.Struct, frozen=True):
    """An alert as Alertmanager would get it."""

    labels: dict[str, str]
    summary: str
    description: str


class Case(msgspec.Struct, frozen=True):
    """A claim about an alert: these samples (one a minute), at this minute, give these alerts."""

    alert: str
    claim: str
    series: dict[str, str]
    minute: int
    told: tuple[Told, ...] = ()


def harmed(kind: str, words: str = "") -> Told:
    return Told(
        {"severity": "page", "model": "m", "kind": kind},
        f"m does worse than it was validated to ({kind})",
        f"The monitor has proven the harm within its false-alarm budget.{words} The status page says why and what is being "
        "done.",
    )


BROKEN = Told(
    {"severity": "page", "model": "m", "kind": "data_broken"},
    "What m gets or learned is broken (data_broken)",
    "An input is missing or stands still, or the training run was faulty. What is broken is mended, not learned: no retrain is "
    "ordered.",
)
MISSING = Told(
    {"severity": "ticket", "model": "m"},
    "Labels of m do not come",
    "A closed window has labels for less than 50% of its predictions. Until they come, harm is not seen and live accuracy may "
    "be wrong.",
)
REFUSED = 'clipdrift_serving_deployment_refused{model="m"}'
CANNOT_SERVE = Told(
    {"severity": "ticket", "model": "m"},
    "The newest deployment of m cannot be served",
    "Its file is missing, changed or not admitted. The version before it goes on serving.",
)
BLIND = Told(
    {"severity": "page", "model": "m"},
    "m serves, and the monitor sees nothing of it",
    "Predictions are answered and none reaches the monitor: nobody would notice harm now.",
)
ABSENT = Told(
    {"severity": "page"},
    "No monitor answers",
    "Prometheus has no figures of any monitor: no model is watched, and no other alert about models can fire.",
)
BEHIND = Told(
    {"severity": "ticket"},
    "The monitor is 20000 records behind",
    "Every figure about models is old by so much, and harm is seen late.",
)
STUCK = Told(
    {"severity": "ticket", "model": "m"},
    "A retrain of m does not end, or was never started",
    "It was started more than 4 hours ago, or ordered and not started. No other retrain is ordered while it runs.",
)
STOPPED = 'clipdrift_monitor_judging_stopped{model="m"}'
NOT_JUDGED = Told(
    {"severity": "page", "model": "m"},
    "m is not judged any more",
    "The monitor failed at its next window, by an error of its own; nobody would notice harm now. Its log and the audit log "
    "(`cannot judge`) hold the error. Restart the monitor, and report the error where that does not help.",
)
AUDIT = Told(
    {"severity": "page"},
    "The audit log's hash chain does not verify",
    "A row of the record of decisions and deployments was changed or removed after it was written.",
)
DROPS = Told(
    {"severity": "ticket", "model": "m", "reason": "spool_full"},
    "m answers predictions that are not recorded (spool_full)",
    "7 in the last 15m. Drift and accuracy are of the rest only.",
)
WATCHDOG = Told(
    {"severity": "none"},
    "Alerts reach you",
    "Always fires. Point it at a dead man's switch that tells you when it stops.",
)


def signal(kind: str, severity: str) -> str:
    return f'clipdrift_model_open_signals{{model="m",kind="{kind}",severity="{severity}"}}'


SERVED = 'clipdrift_serving_rows_total{model="m",version="1",role="champion"}'
SEEN = 'clipdrift_model_predictions_total{model="m"}'
RUNNING, STARTED = 'clipdrift_model_retrain_running{model="m"}', 'clipdrift_model_retrain_started_timestamp_seconds{model="m"}'
LAG, BROKEN_CHAIN = "clipdrift_monitor_lag_records", "clipdrift_monitor_audit_broken"
DROPPED = 'clipdrift_serving_unrecorded_total{model="m",reason="spool_full"}'

CASES = (
    Case("ClipdriftModelHarmed", "fires at once on a sudden break", {signal("sudden_break", "page"): "1x9"}, 0,
         (harmed("sudden_break"),)),
    Case("ClipdriftModelHarmed", "says what the harm costs, where that is known",
         {signal("worse_than_validated", "ticket"): "1x9", 'clipdrift_model_validated_accuracy_ratio{model="m"}': "0.86x9",
          'clipdrift_model_live_accuracy_ratio{model="m"}': "0.81x9"}, 5,
         (harmed("worse_than_validated", " In service, 5% more of all predictions are wrong than at validation."),)),
    Case("ClipdriftModelHarmed", "is silent on drift alone", {signal("feature_drift", "note"): "1x9"}, 5),
    Case("ClipdriftModelHarmed", "ends with the signal", {signal("sudden_break", "page"): "1x9 stale"}, 12),
    Case("ClipdriftModelHarmed", "is one alert when the monitor has just moved to another address",
         {signal("sudden_break", "page")[:-1] + f',instance="{name}"}}': "1x9" for name in "ab"}, 5, (harmed("sudden_break"),)),
    Case("ClipdriftDataBroken", "fires at once", {signal("data_broken", "page"): "1x9"}, 0, (BROKEN,)),
    Case("ClipdriftDataBroken", "is silent when the model is merely harmed", {signal("repairable", "ticket"): "1x9"}, 5),
    Case("ClipdriftDataBroken", "ends with the signal", {signal("data_broken", "page"): "1x9 stale"}, 12),
    Case("ClipdriftLabelsMissing", "fires at once", {signal("labels_missing", "ticket"): "1x9"}, 0, (MISSING,)),
    Case("ClipdriftLabelsMissing", "is silent on other signals", {signal("mix_drift", "note"): "1x9"}, 5),
    Case("ClipdriftLabelsMissing", "ends with the signal", {signal("labels_missing", "ticket"): "1x9 stale"}, 12),
    Case("ClipdriftMonitorBlind", "fires when rows are served, none seen", {SERVED: "0+60x60", SEEN: "500x60"}, 45, (BLIND,)),
    Case("ClipdriftMonitorBlind", "fires for a model that the monitor has never heard of", {SERVED: "0+60x60"}, 45, (BLIND,)),
    Case("ClipdriftMonitorBlind", "waits before it wakes somebody", {SERVED: "0+60x60", SEEN: "0+60x20 1200x40"}, 40),
    Case("ClipdriftMonitorBlind", "is silent while predictions arrive", {SERVED: "0+60x60", SEEN: "0+58x60"}, 45),
    Case("ClipdriftMonitorBlind", "is silent when nobody asks", {SERVED: "500x60", SEEN: "500x60"}, 45),
    Case("ClipdriftMonitorBlind", "ends when predictions arrive", {SERVED: "0+60x90", SEEN: "500x60 500+60x30"}, 65),
    Case("ClipdriftMonitorAbsent", "fires when the monitor stops", {LAG: "1x9 stale"}, 25, (ABSENT,)),
    Case("ClipdriftMonitorAbsent", "lets a restart pass", {LAG: "1x9 _x8 1x20"}, 18),
    Case("ClipdriftMonitorAbsent", "is silent while a monitor answers", {LAG: "1x60"}, 45),
    Case("ClipdriftMonitorAbsent", "ends when it answers again", {LAG: "1x9 _x30 1x20"}, 45),
    Case("ClipdriftMonitorBehind", "fires when it stays behind", {LAG: "20000x60"}, 15, (BEHIND,)),
    Case("ClipdriftMonitorBehind", "lets a wave pass", {LAG: "0x5 20000x10 0x40"}, 15),
    Case("ClipdriftMonitorBehind", "is silent at the bound", {LAG: f"{thresholds.LAG_RECORDS}x60"}, 45),
    Case("ClipdriftMonitorBehind", "ends when it has caught up", {LAG: "20000x30 100x30"}, 35),
    Case("ClipdriftJudgingStopped", "fires at once", {STOPPED: "0x4 1x9"}, 5, (NOT_JUDGED,)),
    Case("ClipdriftJudgingStopped", "is silent while all is judged", {STOPPED: "0x9"}, 5),
    Case("ClipdriftJudgingStopped", "ends when the window is judged", {STOPPED: "1x4 0x9"}, 6),
    Case("ClipdriftRetrainStuck", "fires when a retrain does not end", {RUNNING: "1x400", STARTED: "60x400"}, 260, (STUCK,)),
    Case("ClipdriftRetrainStuck", "fires when an order is never started",
         {RUNNING: "0x299 1x99", STARTED: "0x399"}, 320, (STUCK,)),
    Case("ClipdriftRetrainStuck", "gives an order time to be started", {RUNNING: "0x299 1x99", STARTED: "0x309 18600x89"}, 320),
    Case("ClipdriftRetrainStuck", "is silent while it may still run", {RUNNING: "1x400", STARTED: "60x400"}, 239),
    Case("ClipdriftRetrainStuck", "is silent when nothing runs", {RUNNING: "0x400", STARTED: "0x400"}, 399),
    Case("ClipdriftRetrainStuck", "ends with the retrain", {RUNNING: "1x299 0x99", STARTED: "60x299 0x99"}, 310),
    Case("ClipdriftAuditLogBroken", "fires at once", {BROKEN_CHAIN: "0x4 1x9"}, 5, (AUDIT,)),
    Case("ClipdriftAuditLogBroken", "is silent while the chain verifies", {BROKEN_CHAIN: "0x9"}, 5),
    Case("ClipdriftAuditLogBroken", "ends when the chain verifies again", {BROKEN_CHAIN: "1x4 0x9"}, 6),
    Case("ClipdriftRecordingDrops", "fires on the drop that its counter is born with", {DROPPED: "_x19 7x30"}, 22, (DROPS,)),
    Case("ClipdriftRecordingDrops", "is silent while nothing is dropped", {DROPPED: "0x60"}, 45),
    Case("ClipdriftRecordingDrops", "is silent about drops of long ago", {DROPPED: "7x60"}, 45),
    Case("ClipdriftRecordingDrops", "ends a window after the last drop", {DROPPED: "_x19 7x60"}, 40),
    Case("ClipdriftDeploymentRefused", "fires when it lasts", {REFUSED: "0x4 1x9"}, 9, (CANNOT_SERVE,)),
    Case("ClipdriftDeploymentRefused", "is silent about a moment", {REFUSED: "0x4 1 0x9"}, 9),
    Case("ClipdriftDeploymentRefused", "ends when a deployment is served", {REFUSED: "1x9 0x9"}, 12),
    Case("ClipdriftWatchdog", "always fires", {LAG: "0x9"}, 5, (WATCHDOG,)),
)  # fmt: skip


def expected(case: Case) -> list[dict[str, Any]]:
    """In promtool's words; links are the same for every alert."""
    return [
        {
            "exp_labels": one.labels,
            "exp_annotations": {
                "summary": one.summary,
                "description": one.description,
                "runbook_url": f"docs/runbooks/{case.alert}.md",
                "dashboard_url": MODEL_BOARD if "model" in one.labels else PIPELINE_BOARD,
            },
        }
        for one in case.told
    ]


def promtool_says(case: Case, folder: Path) -> str:
    """What promtool has to say against the case; empty when it holds."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [{"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": expected(case)}],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert} {case.claim}")
def test_alert(case: Case, tmp_path: Path) -> None:
    assert promtool_says(case, tmp_path) == ""


@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_without_any_data_only_what_must_fire_does(name: str, tmp_path: Path) -> None:
    told = tuple(one for case in CASES if case.alert == name for one in case.told[:1])[:1] if name in ALWAYS_THERE else ()
    assert promtool_says(Case(name, "no data", {}, 60, told), tmp_path) == ""


def test_every_alert_is_shown_to_fire_not_to_fire_and_to_end() -> None:
    for alert in ALERTS:
        cases = [case for case in CASES if case.alert == alert.name]
        assert [case for case in cases if case.told], alert.name
        if alert.name != "ClipdriftWatchdog":
            assert [case for case in cases if not case.told and not case.claim.startswith("ends")], alert.name
            assert [case for case in cases if case.claim.startswith("ends")], alert.name


def test_a_wrong_expectation_is_found(tmp_path: Path) -> None:
    assert "FAILED" in promtool_says(Case("ClipdriftWatchdog", "never fires", {}, 5), tmp_path)


def test_promtool_accepts_the_rules_file() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_waits_are_the_shared_ones() -> None:
    waits = {alert.name: seconds(alert.wait) for alert in ALERTS}
    assert waits["ClipdriftMonitorBehind"] == seconds(thresholds.LAG_FOR)
    assert waits["ClipdriftModelHarmed"] == 0
