"""What the budget promises adds up, whatever exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_contract.events import SignalKind
from clipdrift_monitor.risk.budget import Allotment, Budget
from clipdrift_monitor.risk.severity import TEST_NAMES, Severities

severities = st.builds(Severities, **dict.fromkeys(TEST_NAMES, st.sampled_from(["page", "ticket", "note"])))
shares = st.floats(0.01, 1.0)
budgets = st.builds(Budget, share_repairable=shares, share_worse=shares, share_sudden=shares, share_overall=st.floats(0.1, 0.9))


@given(budgets, severities, st.lists(st.integers(0, 12), min_size=1, max_size=5), st.sampled_from([1 / 24, 0.5, 1.0, 7.0]))
def test_false_alarms_of_all_models_tests_and_slices_together_are_what_was_declared_for_each_severity(
    budget, declared, slices_of_models, block_days
):
    """Sum of 1 / bound over everything that runs: expected false alarms a block, at most."""
    allotment = Allotment(budget=budget, severities=declared, num_models=len(slices_of_models), block_days=block_days)
    for severity in ("page", "ticket", "note"):
        a_block = 0.0
        for num_slices in slices_of_models:
            for test in declared.tests(severity):
                a_block += 1 / allotment.bound(test, num_slices)
                a_block += sum(1 / allotment.bound(test, num_slices, is_slice=True) for _ in range(num_slices))
        expected = block_days / budget.days_per_false(severity)
        assert a_block == (pytest.approx(expected) if declared.tests(severity) else 0.0)


def test_a_test_that_is_made_a_page_spends_the_budget_of_pages():
    usual, louder = Allotment(), Allotment(severities=Severities(worse_than_validated="page"))
    assert usual.bound("worse_than_validated") == pytest.approx(30.0 / 0.2)
    assert louder.bound("worse_than_validated") == pytest.approx(90.0 * (1.0 + 0.2) / 0.2)
    assert louder.bound("sudden_break") > usual.bound("sudden_break")
    assert louder.bound("repairable") < usual.bound("repairable")


def test_hours_have_bounds_of_so_many_hours():
    assert Allotment(block_days=1 / 24).bound("sudden_break") == pytest.approx(24 * Allotment().bound("sudden_break"))


def test_notes_of_all_models_on_all_looks_share_their_line():
    assert 3 * 24 * Allotment(num_models=3, block_days=1 / 24).note_level == pytest.approx(1 / 30)
    assert Allotment(budget=Budget(days_per_false_note=1.0), block_days=7.0).note_level == 1.0


def test_every_kind_of_signal_has_a_severity():
    assert {Severities().of(kind) for kind in SignalKind.__args__} == {"page", "ticket", "note"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"share_sudden": 0.0}, r"shares must be in \(0, 1\]"),
        ({"share_worse": 1.3}, r"shares must be in \(0, 1\]"),
        ({"share_repairable": float("nan")}, r"shares must be in \(0, 1\]"),
        ({"share_overall": 1.0}, "share_overall must be between 0 and 1, got 1.0"),
        ({"days_per_false_page": 0.5}, "days_per_false_page must be >= 1, got 0.5"),
        ({"days_per_false_note": float("nan")}, "days_per_false_note must be >= 1, got nan"),
        (
            {"blocks_per_false_alarm": 250.0},
            "blocks_per_false_alarm = 250 .* write days_per_false_page and days_per_false_ticket",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Budget(**wrong)


def test_what_cannot_be_allotted_is_refused():
    with pytest.raises(ValueError, match="num_models must be >= 1, got 0"):
        Allotment(num_models=0)
    with pytest.raises(ValueError, match="block_days must be > 0"):
        Allotment(block_days=0.0)
    with pytest.raises(ValueError, match="num_slices must be >= 1, got 0"):
        Allotment().bound("sudden_break", is_slice=True)
    with pytest.raises(ValueError, match="the budget knows the tests sudden_break"):
        Budget().share("psi")
