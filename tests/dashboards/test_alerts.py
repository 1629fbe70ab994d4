"""promtool's unit tests of every alert: it fires, it does not fire, it ends, and it knows what to do without data."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from dashboard_queries import RULES, seconds

from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.rules import ALERTS, Objectives, rules

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


def incident(root: str, severity: str) -> str:
    return f'clipdrift_model_incident_alerts{{model="m",root="{root}",severity="{severity}"}}'


def of(severity: str, summary: str, description: str) -> Told:
    return Told({"severity": severity, "model": "m"}, summary, description)


def harmed(severity: str, words: str = "") -> Told:
    return of(
        severity, "m does worse than it was validated to",
        f"The monitor has proven the harm within its false-alarm budget.{words} The status page says why and what is being "
        "done.",
    )  # fmt: skip


BROKEN = of(
    "page", "What m gets or learned is broken",
    "An input is missing or stands still, or the training run was faulty. What is broken is mended, not learned: no retrain is "
    "ordered.",
)  # fmt: skip
MISSING = of(
    "ticket", "Labels of m do not come as they should",
    "A closed window has labels for less than 50% of its predictions, or they look wrong. Until that is mended, harm is not "
    "seen and live accuracy may be wrong.",
)  # fmt: skip
RETRAIN_FAILED = of(
    "ticket", "A retrain of m ended without a better model",
    "The gate refused its candidate, or its run was lost as often as it was begun. What it was ordered for goes on.",
)  # fmt: skip
ROLLED_BACK = of(
    "ticket", "m was rolled back",
    "A version was taken out of service, by itself or by a person, and stays out. The one before it serves.",
)  # fmt: skip
ASKED = Told(
    {"severity": "ticket", "model": "m", "kind": "promotion"},
    "A promotion of m waits for a person",
    "For more than 4h. Nothing goes on until somebody answers, and the question lapses.",
)
UNREACHED = Told(
    {"severity": "ticket", "alertmanager": "http://am:9093"},
    "The monitor does not reach Alertmanager http://am:9093",
    "Incidents reach people by Prometheus alone, and what people acknowledge is not silenced.",
)
FAIL = of(
    "page", "20% of the requests to m fail",
    "By the server's own fault, and so fast that 30 days' budget of 1.00% is gone in days.",
)  # fmt: skip
FAIL_SLOWLY = of(
    "ticket", "3% of the requests to m fail, for days",
    "By the server's own fault: more than the budget of 30 days, 1.00%, allows, if this goes on.",
)  # fmt: skip
WRONG = of(
    "ticket", "40% of the answers of m are wrong",
    "Of those whose labels came of late: faster than your budget of 5.0% allows. Whether the model got worse, the monitor's "
    "tests say.",
)  # fmt: skip
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


SERVED = 'clipdrift_serving_rows_total{model="m",version="1",role="champion"}'
SEEN = 'clipdrift_model_predictions_total{model="m"}'
RUNNING, STARTED = 'clipdrift_model_retrain_running{model="m"}', 'clipdrift_model_retrain_started_timestamp_seconds{model="m"}'
LAG, BROKEN_CHAIN = "clipdrift_monitor_lag_records", "clipdrift_monitor_audit_broken"
DROPPED = 'clipdrift_serving_unrecorded_total{model="m",reason="spool_full"}'

DECIDED, ENDED = (
    'clipdrift_model_decisions_total{model="m",action="rollback"}', 'clipdrift_model_retrains_total{model="m",verdict="fail"}',
)  # fmt: skip
KNOWN = {'clipdrift_model_generation{model="m"}': "1x400"}
WAITING = 'clipdrift_model_approvals_waiting{model="m",kind="promotion"}'
REACHED = 'clipdrift_monitor_alertmanager_reached_timestamp_seconds{alertmanager="http://am:9093"}'
OK, FAULTS = ('clipdrift_serving_requests_total{model="m",code="ok"}', 'clipdrift_serving_requests_total{model="m",code="500"}')
CORRECT, ACCEPTED = (
    'clipdrift_serving_labels_correct_total{model="m",version="1"}',
    'clipdrift_serving_labels_total{model="m",outcome="accepted"}',
)  # fmt: skip

CASES = (
    Case("ClipdriftModelHarmed", "fires at once, as loud as its incident", {incident("harm", "page"): "1x9"}, 0,
         (harmed("page"),)),
    Case("ClipdriftModelHarmed", "says what the harm costs, where that is known",
         {incident("harm", "ticket"): "1x9", 'clipdrift_model_validated_accuracy_ratio{model="m"}': "0.86x9",
          'clipdrift_model_live_accuracy_ratio{model="m"}': "0.81x9"}, 5,
         (harmed("ticket", " In service, 5% more of all predictions are wrong than at validation."),)),
    Case("ClipdriftModelHarmed", "is silent on what is only a note", {incident("harm", "note"): "1x9"}, 5),
    Case("ClipdriftModelHarmed", "is silent when the data are broken", {incident("data", "page"): "1x9"}, 5),
    Case("ClipdriftModelHarmed", "ends with the incident, at once", {incident("harm", "page"): "1x9 0x9"}, 11),
    Case("ClipdriftModelHarmed", "goes on while the monitor starts again", {incident("harm", "page"): "1x9 stale"}, 12,
         (harmed("page"),)),
    Case("ClipdriftModelHarmed", "ends when the monitor does not come back", {incident("harm", "page"): "1x9 stale"}, 16),
    Case("ClipdriftModelHarmed", "is one alert when the monitor has just moved to another address",
         {incident("harm", "page")[:-1] + f',instance="{name}"}}': "1x9" for name in "ab"}, 5, (harmed("page"),)),
    Case("ClipdriftDataBroken", "fires at once", {incident("data", "page"): "1x9"}, 0, (BROKEN,)),
    Case("ClipdriftDataBroken", "is one alert for a faulty training, too",
         {incident("data", "page"): "1x9", incident("training", "page"): "1x9"}, 5, (BROKEN,)),
    Case("ClipdriftDataBroken", "is silent when the model is merely harmed", {incident("harm", "ticket"): "1x9"}, 5),
    Case("ClipdriftDataBroken", "ends with the incident", {incident("data", "page"): "1x9 0x9"}, 12),
    Case("ClipdriftLabelsMissing", "fires at once", {incident("labels", "ticket"): "1x9"}, 0, (MISSING,)),
    Case("ClipdriftLabelsMissing", "is silent on drift", {incident("drift", "ticket"): "1x9"}, 5),
    Case("ClipdriftLabelsMissing", "ends with the incident", {incident("labels", "ticket"): "1x9 0x9"}, 12),
    Case("ClipdriftRetrainFailed", "fires on the first failure there ever was", KNOWN | {ENDED: "_x69 1x200"}, 72,
         (RETRAIN_FAILED,)),
    Case("ClipdriftRetrainFailed", "fires on a further one", KNOWN | {ENDED: "1x69 2x200"}, 72, (RETRAIN_FAILED,)),
    Case("ClipdriftRetrainFailed", "is silent about a model that Prometheus has just come to know",
         {'clipdrift_model_generation{model="m"}': "1x99", ENDED: "5x99"}, 30),
    Case("ClipdriftRetrainFailed", "is silent about one that passed",
         KNOWN | {ENDED.replace("fail", "pass"): "_x69 1x200"}, 72),
    Case("ClipdriftRetrainFailed", "ends after an hour", KNOWN | {ENDED: "_x69 1x200"}, 135),
    Case("ClipdriftRolledBack", "fires on the first one there ever was", KNOWN | {DECIDED: "_x69 1x200"}, 72, (ROLLED_BACK,)),
    Case("ClipdriftRolledBack", "fires on a further one", KNOWN | {DECIDED: "1x69 2x200"}, 72, (ROLLED_BACK,)),
    Case("ClipdriftRolledBack", "is silent about those of long ago", KNOWN | {DECIDED: "3x300"}, 200),
    Case("ClipdriftRolledBack", "is silent about other decisions",
         KNOWN | {DECIDED.replace("rollback", "none"): "_x69 1x99"}, 72),
    Case("ClipdriftRolledBack", "ends after an hour", KNOWN | {DECIDED: "_x69 1x200"}, 135),
    Case("ClipdriftApprovalWaiting", "fires after four hours", {WAITING: "1x300"}, 241, (ASKED,)),
    Case("ClipdriftApprovalWaiting", "gives people time", {WAITING: "1x300"}, 239),
    Case("ClipdriftApprovalWaiting", "is silent when nothing is asked", {WAITING: "0x300"}, 299),
    Case("ClipdriftApprovalWaiting", "ends with the answer", {WAITING: "1x249 0x50"}, 251),
    Case("ClipdriftAlertmanagerUnreached", "fires when no answer came for ten minutes", {REACHED: "60x30"}, 13, (UNREACHED,)),
    Case("ClipdriftAlertmanagerUnreached", "lets a restart pass", {REACHED: "60x6 420+60x30"}, 13),
    Case("ClipdriftAlertmanagerUnreached", "is silent while answers come", {REACHED: "0+60x60"}, 50),
    Case("ClipdriftAlertmanagerUnreached", "ends with the next answer", {REACHED: "60x19 1200+60x30"}, 22),
    Case("ClipdriftRequestsFail", "fires on a fifth of all requests", {OK: "0+80x90", FAULTS: "0+20x90"}, 61, (FAIL,)),
    Case("ClipdriftRequestsFail", "is silent while the budget lasts", {OK: "0+99x90", FAULTS: "0+1x90"}, 61),
    Case("ClipdriftRequestsFail", "is silent on a handful of requests", {OK: "0x90", FAULTS: "0+1x90"}, 61),
    Case("ClipdriftRequestsFail", "is silent about wrong requests",
         {OK: "0+80x90", FAULTS.replace("500", "400"): "0+20x90"}, 61),
    Case("ClipdriftRequestsFail", "ends half an hour after the trouble",
         {OK: "0+80x60 4900+100x60", FAULTS: "0+20x60 1200x60"}, 90),
    Case("ClipdriftRequestsFailSlowly", "fires when it goes on", {OK: "0+97x420", FAULTS: "0+3x420"}, 400,
         (FAIL_SLOWLY,)),
    Case("ClipdriftRequestsFailSlowly", "is silent within the budget", {OK: "0+199x420", FAULTS: "0+1x420"}, 400),
    Case("ClipdriftRequestsFailSlowly", "ends hours after the trouble",
         {OK: "0+97x400 38900+100x400", FAULTS: "0+3x400 1200x400"}, 790),
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


def promtool_says(case: Case, folder: Path, rules: Path = RULES) -> str:
    """What promtool has to say against the case; empty when it holds."""
    test = {
        "rule_files": [str(rules)],
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


WRONG_CASES = (
    Case("ClipdriftAnswersWrong", "fires when the budget burns", {CORRECT: "0+12x400", ACCEPTED: "0+20x400"}, 361, (WRONG,)),
    Case("ClipdriftAnswersWrong", "is silent within the budget", {CORRECT: "0+193x400", ACCEPTED: "0+200x400"}, 361),
    Case("ClipdriftAnswersWrong", "is silent on few labels", {CORRECT: "0x400", ACCEPTED: "0x200 0+1x100 100x99"}, 361),
    Case("ClipdriftAnswersWrong", "is silent for values, which are never equal", {ACCEPTED: "0+20x400"}, 361),
    Case("ClipdriftAnswersWrong", "ends when the answers are right again",
         {CORRECT: "0+12x361 4352+20x400", ACCEPTED: "0+20x762"}, 700),
    Case("ClipdriftAnswersWrong", "is silent without data", {}, 400),
)  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CASES, ids=lambda case: case.claim)
def test_an_alert_on_wrong_answers_is_made_where_a_budget_is_promised(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rules(Links(), Objectives(wrong_answers=0.05))))
    assert promtool_says(case, tmp_path, path) == ""


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
