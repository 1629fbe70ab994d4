"""What Prometheus is told is what the JSON says and the store holds, under names of the closed list, and nothing outlives its
cause."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from dialogue import DAY, POLICY, day_of, labels, outcome, predictions, rows, run_end
from prometheus_client.parser import text_string_to_metric_families
from scipy.special import betaln

from clipdrift_contract.events import ClipSpec, GradProbe, ProbedSlice
from clipdrift_contract.metrics import METRICS
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from traffic import begun, day_of_rollout, go_days, newest, replaced

DAYS = [run_end(), *(batch for day in range(2, 8) for batch in day_of(day))]
MODEL = "/api/v1/models/pump"


def scraped(house):
    """Value by name and labels, as Prometheus reads it."""
    text = house.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name, **labels_of):
    return samples[f"clipdrift_{name}", *sorted(({"model": "pump"} | labels_of).items())]


def names_of(samples):
    return {key[0] for key in samples}


@pytest.fixture
def house(house_of):
    return house_of(*DAYS)


@pytest.fixture
def harmed(house_of):
    house = house_of(run_end())
    for day in range(2, 14):
        house.dialogue.go(*day_of(day, accuracy=0.8 if day < 6 else 0.1))
    return house


def test_only_names_of_the_closed_list_are_exported_each_with_its_labels(harmed):
    known = {metric.name: metric for metric in METRICS}
    suffixed = {
        f"{metric.name}{suffix}": metric
        for metric in METRICS
        if metric.kind == "histogram"
        for suffix in ("_bucket", "_count", "_sum")
    }
    for name, *pairs in scraped(harmed):
        metric = (known | suffixed)[name]
        assert tuple(sorted(label for label, _ in pairs if label != "le")) == tuple(sorted(metric.labels)), name


def test_every_figure_of_a_model_in_the_list_is_exported_once_there_is_something_to_say(harmed):
    request = next(iter(harmed.dialogue.jobs.requests.values()))
    during = names_of(scraped(harmed))
    harmed.dialogue.go(outcome(request, verdict="fail"))

    wanted = {metric.name for metric in METRICS if metric.name.startswith(("clipdrift_model_", "clipdrift_monitor_"))}
    wanted -= {
        name
        for name in wanted
        if any(word in name for word in ("false_alarms", "approval", "rollout", "retrain_gain", "alert", "_probe_"))
    }  # the first take many healthy days (tests/monitor/test_rehearsals.py), the others a policy that asks people, a canary,
    # a probe, or an Alertmanager (tests/monitor/alerting)
    found = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names_of(scraped(harmed)) | during
    }
    assert wanted <= found


def test_figures_are_those_of_the_json(harmed):
    samples, told = scraped(harmed), harmed.get(MODEL).json()

    for metric, field in (("live_accuracy_ratio", "value"), ("live_accuracy_low_ratio", "low"), ("labels_in_view", "n")):
        assert value(samples, f"model_{metric}", slice="") == told["accuracy"][field]
        for name, figures in told["slices"].items():
            assert value(samples, f"model_{metric}", slice=name) == figures[field]
    for metric, field in (
        ("live_nll_nats", "nll"), ("live_brier_score", "brier"), ("live_ece_ratio", "ece"), ("generation", "generation"),
        ("repair_worth_brier", "repair_worth"), ("removed_mass_ratio", "removed_mass"),
        ("predictions_total", "num_predictions"), ("labels_total", "num_labels"),
    ):  # fmt: skip
        assert value(samples, f"model_{metric}") == told[field]
    for test, level in told["evidence"].items():
        assert value(samples, "model_harm_evidence_ratio", test=test) == level
    assert value(samples, "model_validated_accuracy_ratio", slice="") == told["validated_accuracy"]
    assert value(samples, "monitor_watermark_timestamp_seconds") == told["watermark_ms"] / 1000
    assert value(samples, "model_info", version="v1", clipping=told["clipping"]) == 1
    assert value(samples, "model_retrain_running") == 1
    for signal in told["open_signals"]:
        assert value(samples, "model_open_signals", kind=signal["kind"], severity=signal["severity"]) == 1


def test_accuracy_interval_and_n_follow_from_the_rows_in_the_store(house):
    samples = scraped(house)

    days = [rows(day) for day in range(2, 7)]
    is_right = np.concatenate([one["predicted"] == one["label"] for one in days])
    site = np.concatenate([one["site"] for one in days])
    for name, chosen in (("", np.ones(1_000, bool)), ("north", site == "north"), ("south", site == "south")):
        n, k = chosen.sum(), is_right[chosen].sum()
        assert value(samples, "model_labels_in_view", slice=name) == n
        assert value(samples, "model_live_accuracy_ratio", slice=name) == pytest.approx(k / n, abs=1e-12)
        low, high = (value(samples, f"model_live_accuracy_{end}_ratio", slice=name) for end in ("low", "high"))
        assert low < k / n < high
        for p in (low, high):  # where a bet against it, mixed over Jeffreys' prior, has made twenty of one
            capital = betaln(0.5 + k, 0.5 + n - k) - betaln(0.5, 0.5) - k * np.log(p) - (n - k) * np.log1p(-p)
            assert capital == pytest.approx(np.log(20), abs=1e-6)
    kept = [sums for key, sums in house.dialogue.sums().items() if key.start_ms < 7 * DAY]
    assert value(samples, "model_labels_in_view", slice="") == sum(sums[1] for sums in kept)
    assert value(samples, "model_label_delay_seconds") == 3_600


def test_counters_go_on_over_a_restart_and_over_scrapes(harmed):
    before, again = scraped(harmed), scraped(harmed)
    harmed.dialogue.restart()
    harmed.dialogue.go()
    harmed.open()
    after = scraped(harmed)

    totals = {key for key in before if key[0].startswith("clipdrift_model_") and key[0].endswith("_total")}
    assert len(totals) >= 7
    for key in totals:
        assert before[key] == again[key] == after[key]
        assert before[key] > 0 or "rubber_stamps" in key[0] or "retrain_" in key[0]


def test_no_gauge_outlives_what_it_speaks_of(harmed):
    request = next(iter(harmed.dialogue.jobs.requests.values()))
    before = scraped(harmed)
    harmed.dialogue.go(run_end("v2", retrain_key=request.key, day=12, validation=()), outcome(request))
    after = scraped(harmed)

    gone = {name for name in names_of(before) - names_of(after) if name.startswith("clipdrift_model_")}
    assert gone == {
        f"clipdrift_model_{name}"
        for name in (
            "open_signals", "open_incidents", "harm_evidence_ratio", "feature_drift_score", "features_moved_ratio",
                "prediction_drift_score",
            "mix_drift_score",
            "label_maturity_ratio", "label_delay_seconds", "validated_accuracy_ratio", "live_accuracy_ratio",
            "live_accuracy_low_ratio", "live_accuracy_high_ratio", "live_nll_nats", "live_brier_score", "live_ece_ratio",
        )
    }  # fmt: skip
    assert [key for key in after if key[0] == "clipdrift_model_labels_in_view"] == [
        ("clipdrift_model_labels_in_view", ("model", "pump"), ("slice", ""))
    ]
    assert [key for key in after if key[0] == "clipdrift_model_info"] == [
        ("clipdrift_model_info", ("clipping", "unknown"), ("model", "pump"), ("version", "v2"))
    ]
    assert (value(before, "model_retrain_running"), value(after, "model_retrain_running")) == (1, 0)
    assert value(before, "model_retrain_started_timestamp_seconds") > 0
    assert value(after, "model_retrain_started_timestamp_seconds") == 0


@pytest.fixture
def rolling(house_of):
    """A model whose candidate fails a part of its requests in the first step of its canary."""
    steps = RolloutPolicy(
        steps=(0.2, 0.5), min_labels=100, evidence=EvidenceConfig(needs_slice_proof=False), predecessor_days=5
    )
    house = house_of(policy=msgspec.structs.replace(POLICY, rollout=steps))
    begun(house.dialogue)
    house.day = go_days(house.dialogue, 6, 30, until=lambda: newest(house.dialogue).stage == "canary 0.2") + 1
    return house


def test_a_rollout_is_exported_while_it_runs_and_how_it_ended_afterwards(rolling):
    for event in day_of_rollout(rolling.dialogue, rolling.day, worse=0.2):
        rolling.dialogue.go(
            replaced(event, num_failed=8, latency_histogram={44: 400})
            if hasattr(event, "num_failed") and event.role == "canary"
            else event
        )
    during, told = scraped(rolling), rolling.get(MODEL).json()["rollout"]
    finding, seen = rolling.dialogue.state.finding, rolling.dialogue.state.evidence.serving
    go_days(rolling.dialogue, rolling.day + 1, rolling.day + 9, worse=0.5, until=lambda: not rolling.dialogue.state.rollout)
    after = scraped(rolling)

    assert value(during, "model_rollout_info", version="v2", stage="canary 0.2") == 1
    assert value(during, "model_rollout_weight_ratio") == told["weight"] == 0.2
    assert value(during, "model_rollout_labels") == told["num_labels"]
    assert value(during, "model_rollout_progress_ratio") == told["progress"]
    assert value(during, "model_rollout_harm_ratio") == told["harm_level"]
    for one in finding.shown[:2]:
        for name, figure in (("", one.estimate), ("_low", one.low), ("_high", one.high)):
            place = {"watched": one.watched, "slice": one.slice}
            assert value(during, f"model_rollout_difference{name}_ratio", **place) == figure
    failed = seen.candidate_total.num_failed / seen.candidate_total.num_requests
    assert value(during, "model_rollout_failed_ratio", side="candidate") == failed > 0
    assert value(during, "model_rollout_failed_ratio", side="champion") == 0
    assert value(during, "model_rollout_latency_seconds", side="champion") == pytest.approx(2 ** (41 / 4) / 1e6)
    assert value(during, "model_rollout_latency_seconds", side="candidate") == pytest.approx(2 ** (45 / 4) / 1e6)
    assert value(after, "model_rollouts_total", end="rolled back") == 1
    assert value(after, "model_quarantined_versions") == 1
    assert {name for name in names_of(after) if "rollout_" in name} == set()


def test_what_retrains_cost_and_were_worth_is_exported(rolling):
    dialogue = rolling.dialogue
    day = go_days(dialogue, rolling.day, 60, until=lambda: dialogue.state.in_service.version == "v2")
    measuring = scraped(rolling)
    go_days(dialogue, day + 1, day + 12, worse=0.3, until=lambda: dialogue.state.worth_open is None)
    after, worth = scraped(rolling), dialogue.state.worths[-1]
    told = rolling.get(MODEL + "/retrains").json()

    assert told["accounts"] == {
        "wall_seconds": 30.0, "cpu_seconds": 20.0, "num_worth_it": 1, "num_not_worth_it": 0, "num_measuring": 0,
        "num_unknown": 0, "false_retrain_ratio": 0.0,
    }  # fmt: skip
    assert told["worths"][worth.key] == {**msgspec.to_builtins(worth), "blocks": []}
    assert [one["end"] for one in told["rollouts"]] == ["promoted"]
    assert value(after, "model_retrain_cpu_seconds_total") == 20.0
    assert value(after, "model_retrain_wall_seconds_total") == 30.0
    assert value(measuring, "model_retrains_by_worth", verdict="measuring") == 1
    assert "clipdrift_model_false_retrain_ratio" not in names_of(measuring), "nothing is known yet"
    assert value(after, "model_retrains_by_worth", verdict="measuring") == 0
    assert value(after, "model_retrains_by_worth", verdict="worth it") == 1
    assert value(after, "model_false_retrain_ratio") == 0
    for name, figure in (("", worth.gain), ("_low", worth.gain_low), ("_high", worth.gain_high)):
        assert value(after, f"model_retrain_gain{name}_loss") == figure


def test_the_arms_of_the_newest_retrain_are_exported_with_what_the_probe_foretold(harmed):
    assert {name for name in names_of(scraped(harmed)) if "_arm_" in name or "_probe_" in name} == set()
    request = next(iter(harmed.dialogue.jobs.requests.values()))
    seen = ProbedSlice(
        slice="", num_rows=500, num_batches=10, norm_p10=1.0, norm_p50=2.0, norm_p90=4.0, would_clip_ratio=0.9,
        removed_mass_ratio=0.7,
    )  # fmt: skip
    probe = GradProbe(
        model="pump", version="v1", at_ms=13 * DAY, clip=ClipSpec(), max_norm=0.5, batch_size=50,
        recent=(seen,), trained=(msgspec.structs.replace(seen, norm_p50=1.0, removed_mass_ratio=0.5),),
        seen_norm_p50=1.8, seen_removed_mass_ratio=0.65,
    )  # fmt: skip
    harmed.dialogue.go(outcome(request, verdict="fail", probe=probe))
    after = scraped(harmed)

    assert [value(after, "model_arm_chosen", arm=arm) for arm in ("same", "q90")] == [0, 1]
    assert value(after, "model_arm_removed_mass_ratio", arm="q90") == 0.1
    for name, figure in (("", -0.02), ("_low", -0.03), ("_high", -0.01)):
        assert value(after, f"model_arm_difference{name}_brier_score", arm="q90") == figure
    assert value(after, "model_arm_better", arm="q90") == 1
    assert [value(after, "model_probe_grad_norm", rows=rows) for rows in ("trained", "recent", "retrain")] == [1.0, 2.0, 1.8]
    mass = [value(after, "model_probe_removed_mass_ratio", rows=rows) for rows in ("trained", "recent", "retrain")]
    assert mass == [0.5, 0.7, 0.65]


def test_first_labels_are_not_told_as_accuracy_until_their_window_is_due(house_of):
    house = house_of(run_end(), *day_of(2))
    first, told = scraped(house), house.get(MODEL).json()
    house.dialogue.go(*day_of(3))
    due = scraped(house)

    assert (told["is_mature"], told["accuracy"]["n"]) == (False, 200)
    assert value(first, "model_labels_in_view", slice="") == 0
    assert "clipdrift_model_live_accuracy_ratio" not in names_of(first)
    assert value(due, "model_labels_in_view", slice="") == 200
    assert value(due, "model_live_accuracy_ratio", slice="") == told["accuracy"]["value"]


def test_a_model_that_foretells_values_has_no_accuracy(house_of):
    flat = ReferenceProfile(
        task="regression", score_edges=(0.0,), score_counts=(5, 5), label_low=0.0, label_high=10.0, slice_counts=(10,)
    )
    house = house_of(run_end(profile=flat, clustering=()))
    for day in range(2, 5):
        columns = rows(day)
        columns |= {"slice": np.zeros(200, int), "scores": np.zeros((200, 0)), "label": columns["predicted"] + 0.5}
        house.dialogue.go(predictions(columns, first=day * 500), labels(columns, first=day * 500))
    samples, told = scraped(house), house.get(MODEL).json()

    assert told["accuracy"] == {"value": None, "low": None, "high": None, "n": 400}
    assert told["validated_accuracy"] is told["nll"] is told["ece"] is told["auc"] is None
    assert told["mean_absolute_error"] == pytest.approx(0.5)
    assert not {name for name in names_of(samples) if "accuracy" in name or "nll" in name or "ece" in name}
    assert value(samples, "model_labels_in_view", slice="all") == 400
    assert value(samples, "model_live_brier_score") == pytest.approx(0.0025)


def test_a_monitor_that_knows_no_model_says_only_how_it_is_itself(house_of):
    samples = scraped(house_of())

    assert {name for name in names_of(samples) if name.startswith("clipdrift_model")} == set()
    assert samples["clipdrift_monitor_lag_records",] == 0
    assert samples["clipdrift_monitor_outbox_pending",] == 0
    assert samples["clipdrift_monitor_audit_broken",] == 0


def test_open_incidents_are_counted_by_severity_and_by_what_people_said_to_them(harmed):
    dialogue = harmed.dialogue
    one = next(one for one in dialogue.state.incidents if one.is_open)
    before = scraped(harmed)
    until_ms = dialogue.clock.now_ms() + DAY
    dialogue.ask(dialogue.engine.responses.silence, one.incident_id, "known", "Ada", until_ms)
    dialogue.ask(dialogue.engine.responses.give_feedback, one.incident_id, "it was so", "Ada", "true")
    after = scraped(harmed)

    assert value(before, "model_open_incidents", severity=one.severity, hold="open") == 1
    assert value(after, "model_open_incidents", severity=one.severity, hold="silenced") == 1
    assert ("clipdrift_model_open_incidents", ("hold", "open"), ("model", "pump"), ("severity", one.severity)) not in after
    assert [value(samples, "model_incident_verdicts", verdict="true") for samples in (before, after)] == [0, 1]
    assert value(after, "model_incidents_total", root=one.root, severity="page") == 1


def test_an_incident_is_an_alert_until_it_is_over_and_then_a_zero(harmed):
    one = next(one for one in harmed.dialogue.state.incidents if one.is_open)
    before = scraped(harmed)
    request = next(iter(harmed.dialogue.jobs.requests.values()))
    harmed.dialogue.go(run_end("v2", retrain_key=request.key, day=12, validation=()), outcome(request))
    after = scraped(harmed)

    told = {"root": one.root, "severity": one.told_severity}
    assert [value(samples, "model_incident_alerts", **told) for samples in (before, after)] == [1, 0]
    assert sum(count for key, count in before.items() if key[0] == "clipdrift_model_incident_alerts") == 1


def test_what_waits_for_a_person_and_how_people_answered_is_exported(house_of):
    asking = ApprovalConfig(needed="promotions", is_key_needed=False, min_dwell_seconds=0.0, expectation_share=0.0)
    house = house_of(*DAYS, policy=msgspec.structs.replace(POLICY, approval=asking))
    dialogue = house.dialogue
    request = dialogue.ask(dialogue.engine.commands.order, "pump", "to see", "ann")
    dialogue.go(run_end("v2", retrain_key=request.key, day=8), outcome(request))
    approval = dialogue.state.waiting_approval.approval
    before = scraped(house)
    dialogue.ask(dialogue.engine.approvals.look, approval.approval_id, "bob", "")
    digest = approval.binding.evidence_digest
    dialogue.ask(
        lambda draft: dialogue.engine.approvals.answer(
            draft, approval.approval_id, is_approved=True, reason="r", actor="bob", evidence_digest=digest
        )
    )
    after = scraped(house)

    waiting = [value(one, "model_approvals_waiting", kind="promotion") for one in (before, after)]
    assert waiting == [1.0, 0.0]
    assert house.get(MODEL).json()["approval"] == ""
    assert value(after, "model_approvals_total", kind="promotion", state="approved") == 1.0
    assert value(after, "model_rubber_stamps_total") == 1.0
    assert value(after, "model_approval_seconds") == pytest.approx(0.3)
    assert "clipdrift_model_approval_seconds" not in names_of(before)
