"""Slices and bins: every row has exactly one place, and the counts of parts add up to the counts of the whole."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from clipdrift_contract.profile import (
    BlockSpread,
    FeatureProfile,
    FeatureSpec,
    ReferenceProfile,
    SliceSpec,
    bin_index,
    block_spread,
    summarise,
)

HOUR = FeatureProfile(spec=FeatureSpec(name="hour", kind="numeric", nullable=True), edges=(6.0, 12.0, 18.0))
CARRIER = FeatureProfile(spec=FeatureSpec(name="carrier", kind="categorical"), categories=("AA", "UA"))
anything = st.floats(allow_nan=True, allow_infinity=True)


@given(hnp.arrays(float, st.integers(0, 50), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_numeric_bins_are_those_of_pandas_cut(values_N):
    expected_N = pd.cut(values_N, [-np.inf, *HOUR.edges, np.inf], right=False, labels=False)
    np.testing.assert_array_equal(bin_index(HOUR, values_N), expected_N)


@given(hnp.arrays(float, st.integers(0, 50), elements=anything))
def test_every_row_is_in_one_bin_or_missing(values_N):
    found_N = bin_index(HOUR, values_N)
    assert found_N.shape == values_N.shape
    assert ((found_N >= -1) & (found_N < HOUR.num_bins)).all()
    np.testing.assert_array_equal(found_N == -1, ~np.isfinite(values_N))


@given(hnp.arrays(float, st.integers(0, 50), elements=anything), st.integers(0, 50))
def test_bin_counts_of_parts_add_up(values_N, cut):
    def counts(part_N):
        return np.bincount(bin_index(HOUR, part_N) + 1, minlength=HOUR.num_bins + 1)

    np.testing.assert_array_equal(counts(values_N[:cut]) + counts(values_N[cut:]), counts(values_N))


def test_a_value_on_an_edge_is_in_the_bin_above_it():
    assert bin_index(HOUR, np.array([5.9, 6.0, 18.0])).tolist() == [0, 1, 3]


def test_an_unknown_category_is_in_the_last_bin():
    assert bin_index(CARRIER, np.array(["UA", "ZZ", "AA"], object)).tolist() == [1, 2, 0]
    assert CARRIER.num_bins == 3


def test_no_rows_give_no_bins():
    assert bin_index(CARRIER, np.array([], object)).tolist() == []


def test_a_sequence_is_binned_by_the_mean_of_its_finite_values():
    rows = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(summarise(rows), [2.0, np.nan])
    sequence = FeatureProfile(spec=FeatureSpec(name="s", kind="sequence", shape=(3,)), edges=(1.5,))
    assert bin_index(sequence, rows).tolist() == [1, -1]


@given(hnp.arrays(float, st.integers(0, 30), elements=anything))
def test_every_row_is_in_one_slice_of_ranges(values_N):
    spec = SliceSpec(feature="hour", edges=(6.0, 18.0))
    found_N = spec.index(values_N)
    assert ((found_N >= 0) & (found_N < len(spec.names))).all()
    for value, index in zip(values_N, found_N, strict=True):
        expected = "(other)" if np.isnan(value) else "hour<6" if value < 6 else "hour>=18" if value >= 18 else "6<=hour<18"
        assert spec.names[index] == expected


def test_every_row_is_in_one_slice_of_categories():
    spec = SliceSpec(feature="origin", categories=("EWR", "JFK"))
    assert [spec.names[i] for i in spec.index(np.array(["JFK", "LGA", "EWR"], object))] == ["JFK", "(other)", "EWR"]


@pytest.mark.parametrize("parts", [{}, {"categories": ("a",), "edges": (1.0,)}])
def test_slices_are_by_categories_or_by_edges(parts):
    with pytest.raises(ValueError, match="either categories or edges"):
        SliceSpec(feature="origin", **parts)


def test_a_task_without_slices_has_one_that_holds_all():
    assert ReferenceProfile(task="binary").slice_names == ("all",)


def spreads(make_counts, num_worlds=300):
    found = [block_spread(make_counts(np.random.default_rng(seed))) for seed in range(num_worlds)]
    return np.mean([one.total for one in found]), np.mean([one.square for one in found])


def test_days_of_independent_rows_have_no_spread_beyond_a_small_share_of_chance():
    total, _ = spreads(lambda random: random.multinomial(400, np.full(16, 1 / 16), 15))
    assert total < 0.06 * 15 / 400  # what is left is the cut at zero


def test_the_spread_of_days_whose_mean_moves_is_that_of_their_covariance():
    edges = stats.norm.ppf(np.linspace(0, 1, 17))

    def shares(random, num_days):
        return np.diff(stats.norm.cdf(edges - random.normal(0, 0.1, (num_days, 1))), axis=1)

    covariance = np.cov(4 * shares(np.random.default_rng(5), 20_000).T)  # 4: one over the root of a mean share
    total, square = spreads(lambda random: random.multinomial(400, shares(random, 15)))
    assert total == pytest.approx(np.trace(covariance), rel=0.05)
    assert square == pytest.approx((covariance**2).sum(), rel=0.25)
    assert total**2 / square < 2  # one direction, and a little of a second


@pytest.mark.parametrize("counts", [[[9, 0], [0, 9], [9, 0]], [[20, 20], [20, 20]], [[500, 0], [400, 0], [300, 0]]])
def test_of_too_few_blocks_or_bins_nothing_is_known(counts):
    assert block_spread(np.array(counts)).total == 0.0


def test_a_profile_of_before_says_that_the_spread_is_not_known():
    assert HOUR.spread == ReferenceProfile(task="binary").score_spread == BlockSpread()
