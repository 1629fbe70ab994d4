import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_monitor.diagnosis.split import split_loss

counts = st.integers(1, 5000).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(0, rows)))
slices = st.dictionaries(st.sampled_from("abcdef"), st.tuples(counts, counts), min_size=1)


def accuracy(by_slice):
    return sum(right for _, right in by_slice.values()) / sum(rows for rows, _ in by_slice.values())


@given(slices)
def test_mix_and_within_add_up_to_the_lost_accuracy(both):
    validated = {name: pair[0] for name, pair in both.items()}
    live = {name: pair[1] for name, pair in both.items()}
    split = split_loss(validated, live)
    assert split.loss == pytest.approx(accuracy(validated) - accuracy(live), abs=1e-12)
    assert split.mix + split.within == split.loss


@given(slices)
def test_the_same_rows_in_another_mix_are_all_mix(both):
    """Every slice as accurate as before: whatever is lost came with the mix."""
    validated = {name: pair[0] for name, pair in both.items()}
    live = {name: (pair[0][0] * pair[1][0], pair[0][1] * pair[1][0]) for name, pair in both.items()}
    assert split_loss(validated, live).within == pytest.approx(0.0, abs=1e-12)


@given(slices)
def test_the_same_mix_has_no_mix_term(both):
    validated = {name: (100, right * 100 // rows) for name, ((rows, right), _) in both.items()}
    live = {name: (300, right * 300 // rows) for name, (_, (rows, right)) in both.items()}
    assert split_loss(validated, live).mix == pytest.approx(0.0, abs=1e-12)


def test_slices_on_one_side_only_are_left_out():
    split = split_loss({"a": (10, 8), "gone": (10, 0), "empty": (0, 0)}, {"a": (10, 6), "new": (99, 0), "empty": (5, 5)})
    assert split.loss == pytest.approx(0.2)


@pytest.mark.parametrize(("validated", "live"), [({}, {}), ({"a": (5, 5)}, {}), ({"a": (5, 5)}, {"a": (0, 0)})])
def test_nothing_to_compare_is_no_loss(validated, live):
    split = split_loss(validated, live)
    assert (split.loss, split.mix, split.within) == (0.0, 0.0, 0.0)
