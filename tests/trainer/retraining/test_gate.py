"""The gate never passes for lack of evidence, and a slice can stop a candidate that is better as a whole."""

from typing import Any

import msgspec
import numpy as np
import pytest

from clipdrift_contract.events import Contrast
from clipdrift_trainer.evaluation.blocks import UNKNOWN
from clipdrift_trainer.retraining.contrast import contrast
from clipdrift_trainer.retraining.gate import GatePolicy, judge, slice_verdict

BETTER = Contrast(slice="", num_rows=9_000, num_blocks=12, metric="brier", difference=-0.02, low=-0.03, high=-0.01)
POLICY = GatePolicy()


def but(one: Contrast, **changes: Any) -> Contrast:
    return msgspec.structs.replace(one, **changes)


def test_proven_better_passes_proven_worse_fails_and_neither_is_inconclusive() -> None:
    assert judge([BETTER], POLICY).verdict == "pass"
    assert judge([but(BETTER, difference=0.02, low=0.01, high=0.03)], POLICY).verdict == "fail"
    assert judge([but(BETTER, high=0.001)], POLICY).verdict == "inconclusive"


@pytest.mark.parametrize(
    "lacking",
    [
        [],
        [but(BETTER, metric="nll")],
        [but(BETTER, num_rows=499)],
        [but(BETTER, num_blocks=4)],
        [but(BETTER, low=-UNKNOWN, high=UNKNOWN)],
        [but(BETTER, difference=float("nan"))],
        [but(BETTER, low=float("-inf"))],
        [but(BETTER, num_rows=0, num_blocks=0)],
    ],
)
def test_lack_of_evidence_never_passes(lacking: list[Contrast]) -> None:
    verdict = judge(lacking, POLICY)

    assert verdict.verdict == "inconclusive"
    assert verdict.reasons[0]


@pytest.mark.parametrize(
    ("difference", "low", "high", "expected"),
    [
        (0.05, 0.02, 0.08, "fail"),  # proven worse by more than the margin
        (0.02, 0.004, 0.036, "inconclusive"),  # proven worse, perhaps by more than the margin
        (0.006, 0.002, 0.010, "pass"),  # proven worse, within the margin
        (0.02, -0.01, 0.05, "pass"),  # noise
        (-0.02, -0.03, -0.01, "pass"),
    ],
)
def test_a_slice_stands_in_the_way_when_its_harm_is_proven(difference: float, low: float, high: float, expected: str) -> None:
    jfk = Contrast(slice="JFK", num_rows=900, num_blocks=9, metric="brier", difference=difference, low=low, high=high)

    assert slice_verdict(jfk, POLICY) == expected
    verdict = judge([BETTER, jfk], POLICY)
    assert verdict.verdict == expected
    assert ("slice JFK" in verdict.reasons[0]) == (expected != "pass")


def test_a_slice_with_few_rows_or_days_is_shown_and_does_not_decide() -> None:
    worse = Contrast(slice="LGA", num_rows=199, num_blocks=9, metric="brier", difference=0.5, low=0.4, high=0.6)

    assert judge([BETTER, worse], POLICY).verdict == "pass"
    assert judge([BETTER, but(worse, num_rows=900, num_blocks=4)], POLICY).verdict == "pass"
    assert judge([BETTER, but(worse, num_rows=200)], POLICY).verdict == "fail"


def test_only_the_metric_of_the_policy_decides() -> None:
    worse_error = but(BETTER, metric="error", difference=0.05, low=0.04, high=0.06)

    assert judge([BETTER, worse_error], POLICY).verdict == "pass"
    assert judge([BETTER, worse_error], GatePolicy(metric="error")).verdict == "fail"


@pytest.mark.parametrize("wrong", [{"metric": "auc"}, {"min_blocks": 1}, {"slice_margin": -0.1}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GatePolicy(**wrong)


def test_a_candidate_picked_on_the_gates_own_days_would_pass_more_than_twice_as_often_as_the_gate_promises() -> None:
    # why the days that choose an arm have no part in the gate: arms that differ by nothing, the best of three, 12 days
    generator = np.random.default_rng(0)
    time_ms, num_worlds, passes = np.arange(12) * 86_400_000, 1_500, {"own": 0, "other": 0}
    for _ in range(num_worlds):
        gate_AD, other_AD = generator.normal(size=(2, 3, 12))
        for days, choosing_AD in (("own", gate_AD), ("other", other_AD)):
            found = contrast("", "brier", gate_AD[choosing_AD.mean(axis=1).argmin()][None], time_ms)
            passes[days] += judge([msgspec.structs.replace(found, num_rows=9_000)], GatePolicy()).verdict == "pass"

    promised = 0.025 * num_worlds
    assert passes["other"] < 1.4 * promised
    assert passes["own"] > 2 * promised
