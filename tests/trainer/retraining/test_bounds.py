"""What a figure with its interval means beside a bound."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_trainer.evaluation.blocks import UNKNOWN, Interval
from clipdrift_trainer.retraining.bounds import against_bound, checked

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("found", "harm", "harmlessness"),
    [
        ((0.05, 0.03, 0.07), "fail", "fail"),  # surely beyond the bound
        ((0.03, 0.01, 0.05), "inconclusive", "inconclusive"),  # surely worse, perhaps beyond
        ((0.015, 0.01, 0.05), "pass", "inconclusive"),  # surely worse, probably within
        ((0.03, -0.01, 0.07), "pass", "inconclusive"),  # no harm is proven
        ((0.005, -0.01, 0.02), "pass", "pass"),  # surely within
        ((-0.05, -0.07, -0.03), "pass", "pass"),
    ],
)
def test_what_must_be_proven_tells_where_a_doubt_stops_a_candidate(found, harm: str, harmlessness: str) -> None:
    assert against_bound(Interval(*found), 0.02, neutral=0.0) == harm
    assert against_bound(Interval(*found), 0.02, neutral=0.0, proof="harmlessness") == harmlessness


@pytest.mark.parametrize(
    "found",
    [(NAN, NAN, NAN), (0.0, NAN, 0.1), (0.0, -0.1, INF), (-INF, -INF, 0.0), (0.0, -UNKNOWN, UNKNOWN), (0.0, 0.1, 0.2)],
)
@pytest.mark.parametrize("proof", ["harm", "harmlessness"])
def test_what_is_not_known_never_passes_and_never_fails(found, proof) -> None:
    assert against_bound(Interval(*found), 0.02, neutral=0.0, proof=proof) == "inconclusive"
    assert against_bound(Interval(0.0, -0.1, 0.1), NAN, neutral=0.0, proof=proof) == "inconclusive"


@given(
    value=st.floats(-1, 1), half=st.floats(0, 1), bound=st.floats(0, 0.5), more=st.floats(0, 1),
    proof=st.sampled_from(["harm", "harmlessness"]),
)  # fmt: skip
def test_a_worse_figure_never_does_better(value: float, half: float, bound: float, more: float, proof) -> None:
    order = ("pass", "inconclusive", "fail")
    better, worse = (
        order.index(against_bound(Interval(v, v - half, v + half), bound, neutral=0.0, proof=proof))
        for v in (value, value + more)
    )
    assert better <= worse


def test_figures_that_say_nothing_are_left_out_of_the_event() -> None:
    known = checked("x", "pass", "", Interval(0.1, 0.0, 0.2), 0.3, "", "decisive")
    unknown = checked("x", "inconclusive", "", Interval(0.0, -UNKNOWN, UNKNOWN), 0.3, "", "shown")

    assert (known.value, known.low, known.high, known.is_decisive) == (0.1, 0.0, 0.2, True)
    assert (unknown.value, unknown.low, unknown.high, unknown.is_decisive) == (None, None, None, False)
