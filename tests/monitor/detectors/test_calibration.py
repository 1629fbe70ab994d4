"""Accuracy that scores promise, and whether they keep their word: on worlds whose truth is known."""

import msgspec
import numpy as np
import pytest
from scipy import stats

from clipdrift_contract.events import BlockScore, ClipSpec, ErrorClustering, ReliabilityBin, RunEnd, SliceScore
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.detectors.calibration import calibration_drift, estimated_accuracy
from clipdrift_monitor.detectors.window_drift import DriftConfig, DriftReport, with_scores
from clipdrift_monitor.windows.window import SCORE_EDGES, Layout

LAYOUT = Layout(ReferenceProfile(task="binary", slice_counts=(1,), score_edges=(0.5,), score_counts=(1, 1), num_rows=10))
TOO_SURE = 1.6  # the model's log-odds are too large by this factor: what validation knows and scores alone do not


def truth_of(score_N):
    return 1 / (1 + np.exp(-np.log(score_N / (1 - score_N)) / TOO_SURE))


def scores(random, num_rows, difficulty=1.0):
    return 1 / (1 + np.exp(-TOO_SURE * random.normal(0, 2 * difficulty, num_rows)))


def window(score_N, hit_N):
    sums = LAYOUT.zeros()
    bin_N = np.searchsorted(SCORE_EDGES, score_N, side="right")
    for name, weight_N in (("predictions", None), ("labels", None), ("hits", hit_N), ("score_sum", score_N)):
        sums[LAYOUT.by_score[name]] = np.bincount(bin_N, weight_N, 128)
    return sums


def validated(between_day_variance=0.0, num_rows=20_000, seed=1):
    random = np.random.default_rng(seed)
    score_N = np.sort(scores(random, num_rows))
    hit_N = random.random(num_rows) < truth_of(score_N)
    bins = []
    for part in np.array_split(np.arange(num_rows), 15):
        rate = hit_N[part].mean()
        half = 1.96 * np.sqrt(rate * (1 - rate) / len(part))
        bins.append(
            ReliabilityBin(
                slice="", binning="mass", num_rows=len(part), num_blocks=20, probability_mean=score_N[part].mean(),
                event_rate=rate, event_rate_low=rate - half, event_rate_high=rate + half,
            )
        )  # fmt: skip
    num_correct = int(((score_N >= 0.5) == hit_N).sum())
    days = tuple(BlockScore(start_ms=i, num_rows=1_000, num_errors=200, nll_sum=0.0, brier_sum=0.0) for i in range(20))
    return RunEnd(
        run_id="r", model="m", version="1", started_at_ms=0, ended_at_ms=0, data_start_ms=0, data_end_ms=0, as_of_ms=0,
        data_digest="", code_revision="", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
        validation=(SliceScore(slice="", num_rows=num_rows, num_correct=num_correct, nll_sum=0.5, brier_sum=0.1, ece=0.0),),
        clustering=(ErrorClustering(slice="", lag1_autocorrelation=0.0, between_hour_variance=0.0,
                                    between_day_variance=between_day_variance, days=days),),
        reliability=tuple(bins),
    )  # fmt: skip


RUN = validated()


def world(seed, num_rows=2_000, difficulty=1.0, hit_of=truth_of):
    random = np.random.default_rng(seed)
    score_N = scores(random, num_rows, difficulty)
    hit_N = random.random(num_rows) < hit_of(score_N)
    return window(score_N, hit_N.astype(float)), float(((score_N >= 0.5) == hit_N).mean())


@pytest.mark.parametrize("difficulty", [1.0, 0.4, 2.0])
def test_the_estimate_holds_the_accuracy_that_labels_show_later_on_other_rows_too(difficulty):
    inside = 0
    for seed in range(100):
        sums, accuracy = world(seed, difficulty=difficulty)
        found = estimated_accuracy(LAYOUT, sums, RUN, 0.02)
        inside += found.low <= accuracy <= found.high
    assert inside >= 90


def test_rows_that_are_harder_are_told_before_any_label_and_those_of_before_are_not():
    harder, _ = world(3, difficulty=0.4)
    found = estimated_accuracy(LAYOUT, harder, RUN, 0.02)
    assert found.is_lower
    assert "blind where the same rows come to mean something else" in found.words
    assert not any(estimated_accuracy(LAYOUT, world(seed)[0], RUN, 0.02).is_lower for seed in range(50))


def test_the_estimate_is_blind_to_labels_that_are_flipped():
    flipped, accuracy = world(3, hit_of=lambda score_N: 0.7 * truth_of(score_N) + 0.3 * (1 - truth_of(score_N)))
    found = estimated_accuracy(LAYOUT, flipped, RUN, 0.02)
    assert accuracy < found.validated - 0.15
    assert not found.is_lower


def test_calibration_that_is_as_validated_has_uniform_p_values():
    p_values = [calibration_drift(LAYOUT, world(seed)[0], validated(seed=seed), 0.03, 0.01).p_value for seed in range(200)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert 0.0 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_scores_that_mean_something_else_are_told_in_both_directions():
    for shift, direction in ((1.0, "more events"), (-1.0, "fewer events")):
        sums, _ = world(3, hit_of=lambda score_N, s=shift: 1 / (1 + np.exp(-np.log(score_N / (1 - score_N)) / TOO_SURE - s)))
        found = calibration_drift(LAYOUT, sums, RUN, 0.03, 0.01)
        assert found.is_drift
        assert direction in found.words


def test_a_day_as_validation_days_differ_is_no_drift_of_calibration():
    sums, _ = world(3, hit_of=lambda score_N: np.minimum(truth_of(score_N) + 0.06, 1.0))
    assert calibration_drift(LAYOUT, sums, RUN, 0.03, 0.01).is_drift
    assert not calibration_drift(LAYOUT, sums, validated(between_day_variance=0.06**2), 0.03, 0.01).is_drift


def test_nothing_is_said_without_a_reliability_of_few_rows_or_of_values():
    sums, _ = world(1)
    bare = msgspec.structs.replace(RUN, reliability=())
    values = Layout(msgspec.structs.replace(LAYOUT.profile, task="regression"))
    few, _ = world(1, num_rows=99)
    for layout, counts, run in ((LAYOUT, sums, bare), (LAYOUT, few, RUN), (values, sums, RUN), (LAYOUT, LAYOUT.zeros(), RUN)):
        assert estimated_accuracy(layout, counts, run, 0.02) is None
        assert calibration_drift(layout, counts, run, 0.03, 0.01) is None


def test_a_report_holds_both_and_is_read_again_as_it_was():
    sums, _ = world(1)
    report = with_scores(DriftReport(), LAYOUT, sums, RUN, DriftConfig())
    assert report.calibration.num_labels == report.estimate.num_rows == 2_000
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=DriftReport)
    assert again == report
