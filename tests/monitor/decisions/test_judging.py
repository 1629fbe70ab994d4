"""What is said of a closed block: pure, from sums."""

import msgspec
import numpy as np
import pytest
from court import Court
from dialogue import DAY, POLICY, PRESSURE, day_of, profile, rows, run_end
from scipy.stats import norm

from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.decisions import judging
from clipdrift_monitor.decisions.decide import History
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.judging import evidence_ratio, judge
from clipdrift_monitor.decisions.orders import order_retrain


def kinds(told):
    return {signal.kind for signal in told.signals if signal.is_open}


def test_the_same_block_gives_the_same_judgement():
    one, other = Court().judge_days(2, 9, accuracy=0.3), Court().judge_days(2, 9, accuracy=0.3)

    assert one == other


def test_a_healthy_block_is_judged_and_nothing_is_done():
    court = Court()
    told = court.judge(2, rows(2))

    assert (told.decision.action, told.signals, told.request) == ("none", (), None)
    assert told.block.view.num_labels == 200
    assert (told.block.start_ms, told.block.end_ms) == (2 * DAY, 3 * DAY)
    assert told.decision.decision_id == f"pump-v1-{2 * DAY}"
    assert told.decision.at_ms == 4 * DAY  # when its labels were due
    assert court.state.judged_until_ms == 3 * DAY
    assert court.state.open_blocks == {}
    assert court.state.num_decisions == {"none": 1}


def test_harm_that_a_repair_would_mend_orders_one_retrain_for_the_version_in_service():
    court = Court()
    court.judge_days(2, 6)
    told = [court.judge(day, rows(day, accuracy=0.1)) for day in range(6, 14)]

    requests = [one.request for one in told if one.request is not None]
    ordering = next(one for one in told if one.request is not None)
    assert len(requests) == 1
    (request,) = requests
    assert "repairable" in ordering.block.alarms
    assert (ordering.decision.action, ordering.decision.cause_key) == ("retrain", request.cause)
    assert (request.champion_version, request.champion_digest, request.generation) == ("v1", "sha256:v1", 1)
    assert request.as_of_ms == ordering.block.end_ms + DAY  # all labels of the block are known then, and none later is used
    assert request.data_start_ms == court.run.data_start_ms
    assert request.arms == court.run.candidates
    assert msgspec.structs.replace(court.state.history, recent=[]) == History(
        running_key=request.key, last_retrain_ms=request.as_of_ms, retrain_times_ms=[request.as_of_ms]
    )
    assert ordering.decision.terms["net"] > 0
    assert ordering.decision.terms["rows_a_day"] == 200.0
    after = told[told.index(ordering) + 1 :]
    assert after
    assert all("A retrain is running already." in one.decision.reasons for one in after if "repairable" in one.block.alarms)


def test_what_is_broken_is_never_retrained():
    court = Court()
    court.judge_days(2, 6)
    told = []
    for day in range(6, 14):
        columns = rows(day, accuracy=0.1)
        columns["pressure"] = np.full(200, np.nan)
        told.append(court.judge(day, columns))

    assert all("data_broken" in kinds(one) for one in told)
    assert {one.decision.action for one in told} == {"alert"}
    assert any("repairable" in one.block.alarms for one in told)
    assert [one.request for one in told if one.request is not None] == []
    assert {one.severity for one in told[0].signals if one.kind == "data_broken"} == {"page"}


def patchy(day, accuracy):
    """Half of the rows have lost "pressure": too few to be counted as gone, enough to suspect it."""
    columns = rows(day, accuracy=accuracy)
    columns["pressure"] = np.where(np.arange(200) % 2 == 0, np.nan, columns["pressure"])
    return columns


def court_of_fine_bins():
    """Twenty bins of "pressure": three tell too little to suspect anything by."""
    edges = tuple(norm.ppf(np.linspace(0, 1, 21)[1:-1]).tolist())
    pressure = msgspec.structs.replace(PRESSURE, edges=edges, counts=(50,) * 20)
    known = profile()
    features = tuple(pressure if one.spec.name == "pressure" else one for one in known.features)
    return Court(profile=msgspec.structs.replace(known, features=features))


def test_a_suspicion_that_harms_nobody_is_a_note_and_one_that_explains_a_harm_holds_the_retrain_back():
    calm, harmed = court_of_fine_bins(), court_of_fine_bins()
    for court in (calm, harmed):
        court.judge_days(2, 8)
    quiet = [calm.judge(day, patchy(day, 0.8)) for day in range(8, 12)]
    loud = [harmed.judge(day, patchy(day, 0.1)) for day in range(8, 16)]

    assert all(one.block.drift.suspected and not one.block.drift.broken for one in quiet)
    assert {one.decision.action for one in quiet} == {"none"}
    assert {one.severity for told in quiet for one in told.signals} == {"note"}
    assert quiet[0].decision.diagnosis.fault == "schema_change"
    assert "harms nobody so far" in quiet[0].decision.diagnosis.words
    at_harm = [one for one in loud if one.block.alarms]
    assert at_harm
    assert all(one.block.drift.broken and "data_broken" in kinds(one) for one in at_harm)
    assert {one.decision.action for one in at_harm} == {"alert"}
    assert [one.request for one in loud if one.request is not None] == []


def test_a_suspicion_that_is_younger_than_every_open_harm_does_not_explain_them():
    court = court_of_fine_bins()
    court.judge_days(2, 6)
    told = [court.judge(day, rows(day, accuracy=0.1)) for day in range(6, 14)]
    assert {test for one in told for test in one.block.alarms} == {"sudden_break", "worse_than_validated", "repairable"}
    later = [court.judge(day, patchy(day, 0.1)) for day in range(14, 16)]
    assert all(one.block.drift.suspected and not one.block.drift.broken for one in later)
    assert all(one.decision.diagnosis.cause != "data_broken" for one in later)


@pytest.mark.parametrize(("num_labelled", "is_missing"), [(99, True), (100, False), (0, True)])
def test_labels_that_are_missing_are_said_by_share(num_labelled, is_missing):
    told = Court().judge(2, rows(2), slice(0, num_labelled))

    assert ("labels_missing" in kinds(told)) == is_missing


def test_a_few_predictions_without_labels_say_nothing():
    assert kinds(Court().judge(2, rows(2, 99), slice(0, 0))) == set()


def test_an_open_signal_is_told_again_under_its_id_and_first_window_until_it_is_over():
    court = Court()
    first = court.judge(2, rows(2), slice(0, 10)).signals[0]
    again = court.judge(3, rows(3), slice(0, 10)).signals[0]
    over = court.judge(4, rows(4)).signals[0]
    anew = court.judge(5, rows(5), slice(0, 10)).signals[0]

    assert (first.signal_id, first.window_start_ms, first.window_end_ms) == (
        f"pump-v1-labels_missing-{2 * DAY}",
        2 * DAY,
        3 * DAY,
    )
    assert (again.signal_id, again.window_start_ms, again.window_end_ms) == (first.signal_id, 2 * DAY, 4 * DAY)
    assert (over.signal_id, over.is_open) == (first.signal_id, False)
    assert anew.signal_id == f"pump-v1-labels_missing-{5 * DAY}"
    assert court.state.num_signals == {"labels_missing/ticket": 2}
    assert court.state.open_signals == [anew]


def test_a_block_without_rows_closes_nothing_and_opens_nothing():
    court = Court()
    court.judge(2, rows(2), slice(0, 10))
    told = judge(court.subject, court.state, court.harm, 3 * DAY, {}, court.view)

    assert told.signals == ()
    assert [one.kind for one in court.state.open_signals] == ["labels_missing"]


def test_drift_is_a_note_and_names_what_moved_most():
    columns = rows(2)
    columns["pressure"] = columns["pressure"] + 3.0
    told = Court().judge(2, columns)

    (signal,) = told.signals
    assert (signal.kind, signal.severity, signal.feature) == ("feature_drift", "note", "pressure")
    assert "most of all pressure" in signal.summary
    assert told.block.alarms == ()
    assert told.decision.action == "none"


def test_the_evidence_digest_is_that_of_the_judged_block_and_changes_with_it():
    told = Court().judge(2, rows(2))
    columns = rows(2)
    columns["label"][0] = 1 - columns["label"][0]
    other = Court().judge(2, columns)

    assert digest_of(told.block) == told.decision.evidence_digest
    assert len(told.decision.evidence_digest) == 64
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    assert other.decision.evidence_digest != told.decision.evidence_digest


def test_an_order_has_the_same_key_for_the_same_cause_at_the_same_moment_and_another_otherwise():
    court = Court()
    state, policy = court.state, POLICY

    def key(cause="drift", as_of_ms=5, policy=policy, run=court.run):
        return order_retrain(run, state, policy, cause=cause, decision_id=str(as_of_ms), as_of_ms=as_of_ms).key

    usual = key()
    assert usual == key()
    stricter = msgspec.structs.replace(policy, min_labels=5)
    assert len({usual, key(cause="mix"), key(as_of_ms=6), key(policy=stricter)}) == 4
    state.in_service = ServedVersion(version="v2", uri="", digest="another")
    assert key() != usual
    assert len(usual) == 32


@pytest.mark.parametrize(
    ("level", "bound", "ratio"),
    [(0.0, 100.0, 0.0), (1.0, 100.0, 0.0), (10.0, 100.0, 0.5), (100.0, 100.0, 1.0), (1e4, 100.0, 2.0)],
)
def test_evidence_is_shown_on_a_scale_where_1_is_the_alarm(level, bound, ratio):
    assert evidence_ratio(level, bound) == pytest.approx(ratio)


@pytest.mark.parametrize("num_steps", [1, 10, 100, 10_000])
def test_what_chance_gives_by_now_is_shown_as_nothing_and_the_bound_as_an_alarm(num_steps):
    assert evidence_ratio(min(num_steps, 50.0), 100.0, num_steps) == 0.0
    assert evidence_ratio(100.0, 100.0, num_steps) == pytest.approx(1.0)


def test_figures_of_the_newest_block_are_kept_for_readers():
    court = Court()
    told = court.judge_days(2, 8)[-1]

    assert court.state.last_view == told.block.view
    assert court.state.last_block_start_ms == 7 * DAY
    assert court.state.levels == told.block.levels
    assert set(court.state.levels) == {"sudden_break", "worse_than_validated", "repairable"}
    assert court.state.num_version_labels == 6 * 200
    assert court.state.diagnosis == told.decision.diagnosis


def test_the_judge_reads_no_clock_and_no_store():
    imported = {name for name in vars(judging) if name in ("time", "datetime", "Store", "Clock", "SystemClock")}

    assert imported == set()


def test_a_block_is_judged_in_the_engine_as_by_the_judge_alone(dialogue):
    dialogue.go(run_end())
    for day in range(2, 8):
        dialogue.go(*day_of(day, accuracy=0.3))
    alone = Court()
    told = alone.judge_days(2, 7, accuracy=0.3)

    kept = [msgspec.msgpack.decode(body, type=type(told[0].block)) for body in dialogue.store.blocks("pump")]
    assert kept == [one.block for one in told]
    decisions = dialogue.store.listed("decisions", "pump", 50, 0)
    assert list(reversed(decisions)) == [one.decision for one in told]


# --- what is decided without an order ---


def version_before(court):
    court.state.served_before = [ServedVersion(version="v0", uri="file:///v0", digest="sha256:v0")]
    return court


def first_break(court):
    court.judge(2, rows(2))
    return court.judge(3, rows(3, accuracy=0.1))


def test_a_version_that_breaks_right_after_its_deployment_is_to_make_place_for_the_one_before():
    told = first_break(version_before(Court()))
    assert "sudden_break" in told.block.alarms
    assert (told.decision.action, told.request) == ("rollback", None)
    assert told.decision.terms == {"blocks_since_deployment": 2.0}


def test_there_is_no_way_back_to_a_version_that_was_rolled_back_itself():
    court = version_before(Court())
    court.state.quarantine = ["sha256:v0"]
    assert first_break(court).decision.action == "alert"


def test_a_dry_run_judges_the_same_and_orders_nothing():
    dry, wet = Court(msgspec.structs.replace(POLICY, is_dry_run=True)), Court()
    for court in (dry, wet):
        court.told = [*court.judge_days(2, 6), *(court.judge(day, rows(day, accuracy=0.1)) for day in range(6, 20))]

    assert [one.block for one in dry.told] == [one.block for one in wet.told]
    assert [one.request for one in dry.told if one.request] == []
    assert not dry.state.history.running_key
    ordered = [one.decision.at_ms for one in wet.told if one.decision.action == "retrain"]
    assert [one.decision.at_ms for one in dry.told if one.decision.would == "retrain"] == ordered
    assert [one.decision.action for one in dry.told if one.decision.would == "retrain"] == ["alert"]


def test_how_each_version_fared_is_remembered_and_what_that_says_of_clipping_is_told():
    court = Court()
    court.judge_days(2, 6)
    (seen,) = court.state.seen_versions
    assert (seen.version, seen.num_blocks, seen.num_labels) == ("v1", 4, 800)
    assert sum(one.num_labels for one in seen.slices.values()) == 800
    assert court.state.association.answer in ("cannot_tell", "not_implicated")
    assert court.state.facts.association == court.state.association
