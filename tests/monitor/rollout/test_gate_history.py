"""Whether promises came true, held against scipy and simulated gates."""

import msgspec
import numpy as np
import pytest
from dialogue import outcome
from scipy import stats

from clipdrift_monitor.rollout.accounting import RetrainWorth
from clipdrift_monitor.rollout.gate_history import (
    Promise,
    at_least,
    gate_record,
    promise_of,
    with_before_and_after,
    with_worth,
)

ERROR = 0.005


def promise(promised, came, error=ERROR):
    half = 1.959964 * error
    return Promise(
        key="k", version="v", at_ms=0, promised=promised, promised_low=promised - half, promised_high=promised + half,
        came=came, came_low=came - half, came_high=came + half,
    )  # fmt: skip


def history(random, num, bias=0.0):
    true = random.normal(0.02, 0.01, num)
    return [promise(t + random.normal(0, ERROR), t + bias + random.normal(0, ERROR)) for t in true]


def test_the_best_arms_brier_gain_is_what_the_gate_promised_and_halved_with_more_classes():
    found = outcome(msgspec.defstruct("R", [("key", str, "k"), ("model", str, "pump")])())
    (one, half) = (promise_of(found, 5, number) for number in (2, 3))
    assert (one.promised, one.promised_low, one.promised_high, one.at_ms) == (0.02, 0.01, 0.03, 5)
    assert (half.promised, half.promised_high) == (0.01, 0.015)
    assert promise_of(msgspec.structs.replace(found, winner="nobody"), 5) is None


def test_a_binomial_tail_is_scipys():
    for k, n in ((1, 1), (2, 7), (5, 30)):
        assert at_least(k, n, 0.025) == pytest.approx(stats.binom.sf(k - 1, n, 0.025), rel=1e-12)


def test_before_and_after_have_welchs_interval():
    random = np.random.default_rng(3)
    before, after = random.normal(0.2, 0.02, 9).tolist(), random.normal(0.18, 0.04, 14).tolist()
    found = with_before_and_after(promise(0.02, 0.0), before, after)
    expected = stats.ttest_ind(before, after, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.came == pytest.approx(np.mean(before) - np.mean(after))
    assert found.came_low == pytest.approx(low, rel=0.05)  # degrees of freedom are rounded down
    assert found.came_low <= low
    assert found.came_high >= high
    assert not found.is_paired
    assert with_before_and_after(promise(0.02, 0.5), before[:2], after).came == 0.5


def test_a_gate_whose_promises_are_true_is_called_broken_at_most_once_in_twenty_and_a_biased_one_mostly():
    random = np.random.default_rng(11)
    for num in (1, 3, 8, 20):
        false = sum(gate_record(history(random, num)).is_broken for _ in range(1_000)) / 1_000
        assert false <= 0.07, num  # 5 %, and three standard errors
    assert sum(gate_record(history(random, 8, bias=-0.015)).is_broken for _ in range(300)) / 300 > 0.9


def test_intervals_cover_as_often_as_they_say():
    random = np.random.default_rng(5)
    verdicts = [one.verdict for one in history(random, 4_000)]
    assert verdicts.count("kept") / 4_000 == pytest.approx(0.95, abs=0.012)
    assert verdicts.count("less") / 4_000 == pytest.approx(0.025, abs=0.01)


def test_what_is_not_paired_or_not_measured_is_shown_and_does_not_count():
    unpaired = msgspec.structs.replace(promise(0.02, -0.5), is_paired=False)
    unmeasured = msgspec.structs.replace(promise(0.02, 0.0), came=None)
    record = gate_record([unpaired, unmeasured])
    assert (unpaired.verdict, unmeasured.verdict) == ("less", "not known")
    assert (record.num_known, record.is_broken) == (0, False)


def test_the_account_of_a_retrain_says_what_came():
    worth = RetrainWorth(key="k", gain=-0.01, gain_low=-0.02, gain_high=-0.001)
    found = with_worth(promise(0.02, 0.0), worth)
    assert (found.came, found.verdict) == (-0.01, "less")
    record = gate_record([found])
    assert (record.num_less, record.is_broken) == (1, True)
    assert "1 fell short" in record.words
