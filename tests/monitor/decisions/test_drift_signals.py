"""What detectors say becomes notes, which explain and do nothing."""

import msgspec
from court import Court
from dialogue import POLICY, rows

from clipdrift_monitor.decisions.signals import signals_of
from clipdrift_monitor.detectors.calibration import AccuracyEstimate, CalibrationDrift
from clipdrift_monitor.detectors.freshness import Freshness
from clipdrift_monitor.detectors.shares import Moved
from clipdrift_monitor.detectors.streams import ErrorDrift
from clipdrift_monitor.detectors.window_drift import DriftConfig, DriftReport
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.windows.view import View

SEEN = View(num_predictions=500, num_labels=500, num_correct=400, maturity=1.0)


def told(**what):
    court = Court()
    return signals_of(court.subject, (), (), DriftReport(**what), SEEN, 0)


def test_a_share_that_moved_is_a_note_on_the_schema_about_the_one_that_moved_most():
    small = Moved(feature="site", what="new_categories", share=0.05, reference_share=0.0, p_value=1e-9, words="site is new.")
    large = Moved(feature="pressure", what="missing", share=0.3, reference_share=0.1, p_value=1e-9, words="pressure is gone.")
    (signal,) = told(moved=(small, large))
    assert (signal.kind, signal.severity, signal.feature, signal.detector) == ("schema", "note", "pressure", "missing")
    assert signal.summary == "site is new. pressure is gone."


def test_a_suspicion_is_a_note_beside_the_shares_that_moved_and_a_fault_of_the_labels_names_no_feature():
    moved = Moved(feature="site", what="new_categories", share=0.05, reference_share=0.0, p_value=1e-9, words="site is new.")
    (both,) = told(suspected=("pressure looks +8.92 added to each",), moved=(moved,))
    assert (both.kind, both.severity, both.feature) == ("schema", "note", "site")
    assert both.summary == "Suspected, and nothing is harmed by it: pressure looks +8.92 added to each. site is new."
    (alone,) = told(suspected=("pressure looks +8.92 added to each",))
    assert (alone.kind, alone.feature) == ("schema", "pressure")
    (broken,) = told(broken=("the labels look turned round",))
    assert (broken.kind, broken.severity, broken.feature) == ("data_broken", "page", "")


def test_calibration_that_drifted_is_a_note_and_one_that_did_not_is_none():
    found = CalibrationDrift(effect=0.08, p_value=1e-5, num_labels=500, is_drift=True, words="Scores are off.")
    (signal,) = told(calibration=found)
    assert (signal.kind, signal.severity, signal.effect, signal.threshold) == ("calibration_drift", "note", 0.08, 0.03)
    assert not told(calibration=msgspec.structs.replace(found, is_drift=False))


def test_scores_that_promise_less_accuracy_are_a_note_with_their_interval():
    found = AccuracyEstimate(
        estimate=0.7, low=0.68, high=0.72, validated=0.8, num_rows=500, is_lower=True, words="They promise less."
    )
    (signal,) = told(estimate=found)
    assert (signal.kind, signal.effect, signal.effect_low, signal.effect_high) == ("estimated_accuracy", 0.7, 0.68, 0.72)
    assert not told(estimate=msgspec.structs.replace(found, is_lower=False))


def test_a_rise_of_the_errors_is_a_note_of_the_first_detector_that_saw_it():
    seen = ErrorDrift(detector="adwin", is_drift=True, rate_before=0.1, rate=0.3, num_labels=500, words="adwin sees it.")
    quiet = msgspec.structs.replace(seen, detector="page_hinkley", is_drift=False, words="")
    (signal,) = told(errors=(quiet, seen))
    assert (signal.kind, signal.detector, signal.summary, round(signal.effect, 3)) == (
        "error_drift",
        "adwin",
        "adwin sees it.",
        0.2,
    )


def test_far_fewer_rows_than_ever_are_a_note():
    (signal,) = told(freshness=Freshness(words="Only 3 predictions.", num_rows=3, fewest_before=500))
    assert (signal.kind, signal.severity, signal.statistic, signal.threshold) == ("freshness", "note", 3.0, 500.0)


def test_detectors_on_errors_go_on_from_block_to_block_and_order_nothing():
    drift = DriftConfig(streams=("page_hinkley",))
    court = Court()
    court.subject = msgspec.structs.replace(
        court.subject, policy=msgspec.structs.replace(POLICY, drift=drift, may_retrain=False)
    )
    for day in range(2, 5):
        court.judge(day, rows(day))
    assert court.state.streams["page_hinkley"].num_seen == 600
    found = [court.judge(day, rows(day, accuracy=0.2)) for day in range(5, 7)]
    assert any(signal.kind == "error_drift" for one in found for signal in one.signals)
    assert {one.decision.action for one in found} <= {"none", "alert", "hold"}


def test_a_state_of_before_has_no_memory_of_streams():
    old = msgspec.to_builtins(ModelState(model="pump"))
    del old["streams"]
    assert msgspec.convert(old, ModelState).streams == {}
