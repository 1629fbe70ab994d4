"""What a retrain was worth: gain and interval against an independent calculation, and what nobody can tell."""

import math

import numpy as np
import pytest
import scipy.stats

from clipdrift_monitor.rollout.accounting import (
    RetrainWorth,
    came_to_nothing,
    false_retrain_ratio,
    interval,
    settled,
    with_blocks,
)
from clipdrift_monitor.rollout.compared import ComparedBlock, PairedSums


def test_with_blocks_of_one_size_the_interval_is_students():
    gains = np.random.default_rng(0).normal(0.02, 0.03, 12)
    mean, low, high = interval([(200.0, 200 * gain) for gain in gains.tolist()])

    expected = scipy.stats.t.interval(0.95, 11, loc=gains.mean(), scale=scipy.stats.sem(gains))
    assert (mean, low, high) == pytest.approx((gains.mean(), *expected), rel=1e-3)  # the quantile is from a table


def test_the_interval_holds_the_truth_about_as_often_as_it_says_with_blocks_of_different_sizes():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1_000):
        rows = rng.integers(50, 800, 14)
        day = rng.normal(0.01, 0.02, 14)
        sums = [rng.normal(mean * n, 0.3 * math.sqrt(n)) for n, mean in zip(rows, day, strict=True)]
        _, low, high = interval(list(zip(rows.tolist(), sums, strict=True)))
        held += low <= 0.01 <= high
    assert 0.91 <= held / 1_000 <= 0.98


def block(rows, loss_sum):
    pair = PairedSums(slice="", num_rows=rows, loss_sum=loss_sum, loss_sq_sum=abs(loss_sum))
    return ComparedBlock(start_ms=0, end_ms=1, stage="shadow", pairs=(pair,))


@pytest.mark.parametrize(
    ("sums", "verdict"),
    [
        ((9.0, 10.0, 11.0, 10.0), "worth it"),
        ((-9.0, -10.0, -11.0, -10.0), "not worth it"),
        ((-20.0, 25.0, -20.0, 25.0), "unknown"),
        ((10.0, 10.0), "unknown"),
        ((), "unknown"),
    ],
)
def test_a_verdict_needs_an_interval_that_lies_on_one_side(sums, verdict):
    open_account = RetrainWorth(key="k", predecessor="v1")
    found = settled(with_blocks(open_account, [block(100.0, one) for one in sums]), 0.001)

    assert found.verdict == verdict
    assert found.words
    assert found.blocks == ()


def test_a_gain_that_is_certainly_too_small_was_not_worth_it():
    exact = with_blocks(RetrainWorth(key="k"), [block(1_000.0, 0.5)] * 5)

    assert exact.gain_low == pytest.approx(0.0005)
    assert settled(exact, 0.001).verdict == "not worth it"
    assert settled(exact, 0.0001).verdict == "worth it"


def test_the_share_of_false_retrains_counts_verdicts_and_leaves_out_what_nobody_knows():
    known = [RetrainWorth(key=str(i), verdict="worth it") for i in range(3)]
    lost = came_to_nothing(RetrainWorth(key="f"), "the gate said fail")
    open_one = RetrainWorth(key="o")
    unsure = came_to_nothing(RetrainWorth(key="u"), "inconclusive", is_known=False)

    assert false_retrain_ratio([*known, lost, open_one, unsure]) == pytest.approx(0.25)
    assert false_retrain_ratio([open_one, unsure]) is None
