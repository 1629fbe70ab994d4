"""How loud each kind of signal is: a page wakes somebody, a ticket waits for the morning, a note explains."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from clipdrift_contract.events import Severity, SignalKind

TestName = Literal["sudden_break", "worse_than_validated", "repairable"]
TEST_NAMES: tuple[TestName, ...] = ("sudden_break", "worse_than_validated", "repairable")


KIND_WORDS: Mapping[SignalKind, str] = {
    "sudden_break": "sudden break",
    "worse_than_validated": "worse than validated",
    "repairable": "a retrain would help",
    "feature_drift": "inputs have moved",
    "prediction_drift": "predictions have moved",
    "mix_drift": "the mix of slices has moved",
    "calibration_drift": "scores no longer mean what they did",
    "estimated_accuracy": "scores promise less accuracy",
    "error_drift": "the errors have changed",
    "joint_drift": "inputs have moved together",
    "schema": "columns are not as they were",
    "freshness": "no predictions for longer than usual",
    "labels_missing": "labels are missing",
    "data_broken": "the data look broken",
    "training_fault": "training went wrong",
}
"""What each kind of signal says, in a few words."""


class Severities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.severity]`: page, ticket or note by kind of signal. A harm test spends the budget of its severity."""

    sudden_break: Severity = "page"
    """More errors than the worst day that validation allows."""
    worse_than_validated: Severity = "ticket"
    """Worse than validated, day after day."""
    repairable: Severity = "ticket"
    """A simple repair would do better."""
    data_broken: Severity = "page"
    """A feed is gone, or its categories are all unknown."""
    training_fault: Severity = "ticket"
    """Training went wrong."""
    labels_missing: Severity = "ticket"
    """Labels do not come."""
    feature_drift: Severity = "note"
    """An input has moved."""
    prediction_drift: Severity = "note"
    """The predictions have moved."""
    mix_drift: Severity = "note"
    """The mix of slices has moved."""
    calibration_drift: Severity = "note"
    """Scores no longer mean what validation says."""
    estimated_accuracy: Severity = "note"
    """Scores alone promise less accuracy than was validated."""
    error_drift: Severity = "note"
    """A detector on the stream of errors has seen a change."""
    joint_drift: Severity = "note"
    """Inputs have moved together, seen on a sample of rows."""
    schema: Severity = "note"
    """Columns that the model does not know, or that it misses, or values of another type or range."""
    freshness: Severity = "note"
    """No predictions for longer than usual."""

    def of(self, kind: SignalKind) -> Severity:
        """The severity of a kind.

        Example:
            >>> Severities(repairable="page").of("repairable")
            'page'
        """
        severity: Severity = getattr(self, kind)
        return severity

    def tests(self, severity: Severity) -> tuple[TestName, ...]:
        """The harm tests of a severity.

        Example:
            >>> Severities().tests("ticket")
            ('worse_than_validated', 'repairable')
        """
        return tuple(test for test in TEST_NAMES if self.of(test) == severity)
