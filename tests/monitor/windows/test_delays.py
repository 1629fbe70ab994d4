"""Windows that are not fully labelled yet: what is expected of them, and accuracy that does not follow who comes first."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_monitor.windows.delays import EDGES_MS, LabelDelays

HOUR, DAY = 3_600_000, 86_400_000


def stream(seed, num_rows=20_000, accuracy=0.8, hours_wrong=1.0, hours_right=30.0):
    """Rows of a day: time, whether right, and how long the label takes (each outcome by its own exponential delay)."""
    random = np.random.default_rng(seed)
    is_right_N = random.random(num_rows) < accuracy
    delay_N = random.exponential(np.where(is_right_N, hours_right, hours_wrong)) * HOUR
    return random.integers(0, DAY, num_rows), is_right_N, delay_N


def seen_at(delays, rows, now_ms):
    time_N, is_right_N, delay_N = rows
    is_here_N = time_N + delay_N <= now_ms
    naive = is_right_N[is_here_N].mean()
    found = delays.maturity(
        len(time_N),
        int(is_here_N.sum()),
        int(is_right_N[is_here_N].sum()),
        start_ms=0,
        end_ms=DAY,
        now_ms=now_ms,
        usual_share=1.0,
    )
    return naive, found, is_here_N.mean()


@pytest.mark.parametrize(("hours_wrong", "hours_right"), [(1.0, 30.0), (30.0, 1.0)])
@pytest.mark.parametrize("hours", [26, 30, 36, 48])
def test_labels_that_come_sooner_for_one_outcome_do_not_move_the_accuracy_of_a_young_window(hours_wrong, hours_right, hours):
    _, is_right_N, delay_N = stream(1, hours_wrong=hours_wrong, hours_right=hours_right)
    delays = LabelDelays().with_labels(delay_N, is_right_N)
    naive, found, share = seen_at(delays, stream(2, hours_wrong=hours_wrong, hours_right=hours_right), hours * HOUR)

    assert abs(naive - 0.8) > 0.03  # what would be shown without it
    assert found.accuracy == pytest.approx(0.8, abs=0.02)
    assert found.share == pytest.approx(share)
    assert found.expected_share == pytest.approx(share, abs=0.02)
    assert not found.is_mature


def test_positives_that_are_labelled_first_do_not_look_like_harm_though_the_model_errs_more_on_them():
    def of(seed):
        random = np.random.default_rng(seed)
        is_positive_N = random.random(20_000) < 0.3
        is_right_N = random.random(20_000) < np.where(is_positive_N, 0.5, 0.9)
        return random.integers(0, DAY, 20_000), is_right_N, random.exponential(np.where(is_positive_N, 1.0, 40.0)) * HOUR

    time_N, is_right_N, delay_N = of(3)
    naive, found, _ = seen_at(LabelDelays().with_labels(delay_N, is_right_N), (time_N, is_right_N, delay_N), 26 * HOUR)
    assert naive < is_right_N.mean() - 0.1
    assert found.accuracy == pytest.approx(is_right_N.mean(), abs=0.01)


def test_true_harm_is_still_seen_in_a_young_window():
    _, is_right_N, delay_N = stream(4)
    _, found, _ = seen_at(LabelDelays().with_labels(delay_N, is_right_N), stream(5, accuracy=0.7), 30 * HOUR)
    assert found.accuracy == pytest.approx(0.7, abs=0.02)


def test_an_old_window_is_mature_and_its_accuracy_is_the_plain_one():
    _, is_right_N, delay_N = stream(6, hours_right=2.0)
    naive, found, _ = seen_at(LabelDelays().with_labels(delay_N, is_right_N), stream(7, hours_right=2.0), 9 * DAY)
    assert found.is_mature
    assert found.accuracy == pytest.approx(naive, abs=1e-3)


def test_nothing_is_claimed_of_few_labels():
    delays = LabelDelays().with_labels(np.full(199, 1.0), np.ones(199, bool))
    found = delays.maturity(100, 50, 40, start_ms=0, end_ms=DAY, now_ms=9 * DAY, usual_share=1.0)
    assert (found.share, found.expected_share, found.is_mature, found.accuracy) == (0.5, None, False, 0.8)
    assert delays.quantile_ms(0.5) is None
    assert delays.horizon_ms(DAY, 7 * DAY) == DAY
    assert LabelDelays().maturity(0, 0, 0, start_ms=0, end_ms=DAY, now_ms=0).accuracy is None


def test_the_horizon_follows_the_slowest_labels_between_what_the_settings_allow():
    of = LabelDelays().with_labels(np.repeat([1.0, 40.0], [900, 100]) * HOUR, np.ones(1_000, bool))
    assert DAY < of.horizon_ms(DAY, 7 * DAY) <= 48 * HOUR
    assert of.horizon_ms(DAY, 0) == DAY
    assert of.horizon_ms(5 * DAY, 7 * DAY) == 5 * DAY


@given(st.lists(st.floats(-1e7, 1e12), max_size=40), st.integers(0, 39))
def test_delays_of_parts_add_up_to_those_of_the_whole_and_survive_being_saved(delays, cut):
    values, is_right = np.array(delays), np.arange(len(delays)) % 3 > 0
    whole = LabelDelays().with_labels(values, is_right)
    parts = LabelDelays().with_labels(values[cut:], is_right[cut:]).with_labels(values[:cut], is_right[:cut])
    assert whole == parts == msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=LabelDelays)
    assert whole.num_labels == len(delays)


def test_shares_and_quantiles_are_those_of_the_delays_within_a_step():
    delay_N = np.random.default_rng(8).exponential(5 * HOUR, 50_000)
    of = LabelDelays().with_labels(delay_N, np.ones(len(delay_N), bool))
    for hours in (0.5, 2, 5, 20):
        assert of.share_by(hours * HOUR) == pytest.approx((delay_N <= hours * HOUR).mean(), abs=0.01)
    for share in (0.1, 0.5, 0.9):
        assert of.quantile_ms(share) == pytest.approx(np.quantile(delay_N, share), rel=0.04)
    assert (np.diff(EDGES_MS) > 0).all()
