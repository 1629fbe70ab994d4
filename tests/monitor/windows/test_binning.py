"""Whole columns are put into the same bins as a search puts each value into."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, bin_index
from clipdrift_monitor.windows.binning import Edges, FeatureBins, ProbabilityBins
from clipdrift_monitor.windows.window import SCORE_EDGES

numbers = st.floats(allow_nan=False, allow_infinity=False)


def searched(edges, values_N):
    return np.searchsorted(np.asarray(edges, "f8"), values_N.astype("f8"), side="right")


def near(edges, dtype):
    """The numbers of a type at, just below and just above each edge."""
    with np.errstate(over="ignore"):
        at = np.asarray(edges, "f8").astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([at, np.nextafter(at, dtype("inf")), np.nextafter(at, dtype("-inf"))])


@given(st.lists(numbers, min_size=0, max_size=90), st.sampled_from([np.float32, np.float64]), st.data())
@settings(max_examples=80, deadline=None)
def test_a_number_is_in_the_bin_that_a_search_in_full_precision_finds(edges, dtype, data):
    edges = sorted(edges)
    width = 32 if dtype is np.float32 else 64
    drawn = data.draw(arrays.arrays(dtype, st.integers(0, 30), elements=st.floats(width=width, allow_nan=False)))
    values_N = np.concatenate([drawn, near(edges, dtype)])
    assert Edges(edges).bins(values_N).tolist() == searched(edges, values_N).tolist()


def test_columns_longer_than_a_step_are_binned_to_their_end():
    values_N = np.random.default_rng(0).normal(size=100_001).astype("f4")
    edges = np.linspace(-2, 2, 15)
    assert (Edges(edges.tolist()).bins(values_N) == searched(edges, values_N)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_is_in_the_bin_that_a_search_finds_also_next_to_edges_and_at_the_ends(dtype):
    random = np.random.default_rng(1)
    odds = random.normal(0, 5, 200_000)
    ends = [0, 1, 0.5, np.nextafter(dtype(0.5), dtype(0)), 1e-45, 1e-7, 1 - 1e-7, -0.5, 1.5, -1e30, 1e30]
    values_N = np.concatenate([(1 / (1 + np.exp(-odds))).astype(dtype), random.random(50_000).astype(dtype),
                               near(SCORE_EDGES, dtype), np.array(ends, dtype)])  # fmt: skip
    assert (ProbabilityBins(SCORE_EDGES).bins(values_N) == searched(SCORE_EDGES, values_N)).all()


def test_every_probability_of_four_bytes_around_every_cell_is_in_its_bin():
    bits = (np.arange(0, 0x3F800001, 1 << 16)[:, None] + np.arange(-2, 3)).clip(0, 0x3F800000)
    values_N = bits.ravel().astype(np.uint32).view(np.float32)
    values_N = np.concatenate([values_N, np.float32(1) - values_N])
    assert (ProbabilityBins(SCORE_EDGES).bins(values_N) == searched(SCORE_EDGES, values_N)).all()


def test_edges_that_lie_too_near_for_a_cell_each_are_refused():
    with pytest.raises(ValueError, match="one part in 64 apart"):
        ProbabilityBins(np.array([0.3, 0.3001]))


def feature(kind="numeric", **given):
    return FeatureProfile(spec=FeatureSpec(name="x", kind=kind, nullable=True), **given)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "u1", "?"])
def test_numbers_of_every_type_are_binned_as_one_by_one_and_missing_ones_apart(dtype):
    of = feature(edges=(-1.5, 0.0, 1.0, 3.0))
    values_N = np.random.default_rng(2).normal(0, 2, 300).clip(0 if dtype[0] in "u?" else -9, 9).astype(dtype)
    if dtype[0] == "f":
        values_N[::7], values_N[::11], values_N[::13] = np.nan, np.inf, -np.inf
    expected_N = bin_index(of, values_N)
    assert FeatureBins(of).bins(Column.of(values_N)).tolist() == np.where(expected_N < 0, of.num_bins, expected_N).tolist()


def test_words_and_sequences_are_binned_as_one_by_one():
    words = feature("categorical", categories=("AA", "", "UA"))
    rows = np.array(["UA", "ZZ", "", "AA", "UA", "new\0"], object)
    for _ in range(2):  # the second time by a translation that is at hand
        of_words = FeatureBins(words).bins(Column.of(rows)).tolist()
    sequence = feature("sequence", edges=(0.0, 1.0))
    steps = np.array([[np.nan, np.nan], [np.nan, 0.5], [2.0, 2.0], [-1.0, np.inf]], "f4")

    assert of_words == bin_index(words, rows).tolist()
    assert FeatureBins(sequence).bins(Column.of(steps)).tolist() == [3, 1, 2, 0]


def test_words_where_the_profile_has_numbers_are_refused_and_numbers_where_it_has_words_are_read_as_words():
    with pytest.raises(ValueError, match="could not convert"):
        FeatureBins(feature(edges=(0.0,))).bins(Column.of(np.array(["a", "b"], object)))
    assert FeatureBins(feature("categorical", categories=("1", "2"))).bins(Column.of(np.array([2, 1, 3]))).tolist() == [1, 0, 2]


@pytest.mark.parametrize("codes", [[0, 2], [0, -1]])
def test_a_code_that_stands_for_no_word_is_poison(codes):
    column = Column(dtype="str", shape=(2,), data=np.array(codes, "<i4").tobytes(), strings=("a", "b"))
    with pytest.raises(PoisonError):
        FeatureBins(feature("categorical", categories=("a",))).bins(column)


def test_translations_of_words_that_change_with_every_batch_do_not_gather():
    bins = FeatureBins(feature("categorical", categories=("a",)))
    found = [bins.bins(Column.of(np.array(["a", f"user-{i}"], object))).tolist() for i in range(1_000)]
    assert found == [[0, 1]] * 1_000
    assert len(bins._translations) <= 256


def test_lengths_of_texts_norms_last_steps_and_missing_shares_are_binned_as_one_by_one():
    texts = np.array(["", "short", "a much longer text than that", "short"], object)
    steps = np.array([[3.0, 4.0], [0.0, np.nan], [np.nan, np.nan], [1.0, -1.0]], "f4")
    of_texts = feature(edges=(1.0, 10.0), summary="length", column="x")
    cases = [
        (of_texts, texts),
        *((feature(edges=(0.5, 4.5), summary=how, column="x"), steps) for how in ("last", "norm", "missing")),
    ]
    for of, values in cases:
        expected_N = bin_index(of, values)
        found = FeatureBins(of).bins(Column.of(values)).tolist()
        assert found == np.where(expected_N < 0, of.num_bins, expected_N).tolist()
    assert FeatureBins(of_texts).bins(Column.of(texts)).tolist() == [0, 1, 2, 1]
    assert FeatureBins(cases[2][0]).bins(Column.of(steps)).tolist() == [2, 0, 3, 1]
    with pytest.raises(ValueError, match="length of words"):
        FeatureBins(of_texts).bins(Column.of(steps))
