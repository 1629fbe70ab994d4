"""Figures about people, counted by hand."""

import msgspec
import pytest

from clipdrift_monitor.approvals.approval import Answer, Approval, Binding
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.approvals.figures import by_person, figures_of, share_of

CONFIG = ApprovalConfig(rubber_stamp_seconds=180.0)
BOUND = Binding(generation=1, candidate_digest="c", evidence_digest="e", policy_version="p")


def answered(number=0, *, is_approved=True, actor="ann", seconds=600.0, expectation="", is_blind=False, **changed):
    answer = Answer(
        is_approved=is_approved, actor=actor, reason="r", at_ms=3_600_000, evidence_digest="e", seconds=seconds,
        expectation=expectation, **changed,
    )  # fmt: skip
    return waiting(number, state="approved" if is_approved else "rejected", answer=answer, asks_expectation=is_blind)


def waiting(number=0, **changed):
    known = Approval(
        approval_id=f"a{number}", model="pump", kind="promotion", key="k", version="v2", binding=BOUND, requesters=(),
        asked_at_ms=0, expires_at_ms=1, asks_expectation=False, words="?",
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def test_shares_of_told_and_untold_answers_are_kept_apart():
    found = figures_of(
        [
            answered(0),
            answered(1),
            answered(2, is_approved=False),
            answered(3, is_blind=True, expectation="better"),
            answered(4, is_blind=True, expectation="worse", is_approved=False, seconds=None),
            waiting(5),
            waiting(6, state="void"),
            waiting(7, state="expired"),
        ],
        CONFIG,
    )
    assert (found.override.num, found.override.of, found.override.value) == (2, 5, 0.4)
    assert (found.override_told.num, found.override_told.of) == (1, 3)
    assert (found.override_untold.num, found.override_untold.of) == (1, 2)
    assert (found.expected_better.num, found.expected_better.of) == (1, 2)
    assert (found.num_waiting, found.num_void, found.num_expired) == (1, 1, 1)
    assert (found.median_seconds, found.median_waiting_seconds) == (600.0, 3_600.0)


def test_a_share_has_wilsons_interval_as_scipy_computes_it():
    from scipy.stats import binomtest

    expected = binomtest(3, 17).proportion_ci(method="wilson")
    found = share_of(3, 17)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-8)
    assert share_of(0, 0).value is None


@pytest.mark.parametrize(("seconds", "num"), [(179.9, 1), (180.0, 0), (None, 0)])
def test_an_approval_sooner_than_the_limit_is_a_rubber_stamp_and_a_rejection_never(seconds, num):
    assert (
        figures_of([answered(seconds=seconds), answered(1, seconds=seconds, is_approved=False)], CONFIG).rubber_stamps.num
        == num
    )


def test_few_rejections_warn_from_twenty_answers_on():
    assert figures_of([answered(i) for i in range(19)], CONFIG).warnings == ()
    assert "by habit" in figures_of([answered(i) for i in range(20)], CONFIG).warnings[0]
    some = [answered(i, is_approved=i > 0) for i in range(20)]
    assert figures_of(some, CONFIG).warnings == ()


def test_many_stamps_and_unreviewed_emergencies_warn():
    found = figures_of([answered(i, seconds=5.0) for i in range(3)] + [answered(9, is_break_glass=True, seconds=None)], CONFIG)
    assert [words.split(" ")[0] for words in found.warnings] == ["3", "1"]


def test_each_person_has_figures_of_their_own():
    found = by_person([answered(0), answered(1, actor="bob", is_approved=False), waiting(2)], CONFIG)
    assert {name: (one.num_answered, one.override.num) for name, one in found.items()} == {"ann": (1, 0), "bob": (1, 1)}
