"""One budget of false alarms for the whole monitor: models, slices, tests and looks share it.

Why it holds. Test i keeps a Shiryaev-Roberts sum S = (S + 1) e, one step a block, alarm at S >= b_i, then from 0 again. While
nothing is wrong E[e | past] <= 1, so S + b_i (alarms so far) - (blocks so far) falls on average, and at most t / b_i false
alarms are expected in t blocks: by linearity at most t sum_i 1 / b_i of all tests together, whatever hangs together between
tests, slices and models. With b_i = days / (w_i block_days) and weights that sum to at most 1, that is t block_days / days.

The weights may change as long as each change is known before the block that it is used for: dividing the sum by b_i gives
(s + w_i block_days / days) e with the alarm at s = 1, in which the weight is only what flows in. So a model that joins takes
its part of what flows in from then on, and nothing that was gathered before is lost or promised twice.

Source: Shin, Ramdas, Rinaldo, E-detectors (arXiv 2203.03532), section 2, there for one detector with a constant inflow.
"""

import msgspec

from clipdrift_contract.events import Severity
from clipdrift_monitor.risk.severity import TEST_NAMES, Severities, TestName


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.budget]`: how often a monitor whose models are all healthy may raise a false alarm, by severity."""

    days_per_false_page: float = 90.0
    """At most one false page in so many days, on average: of all models, slices and tests together."""
    days_per_false_ticket: float = 30.0
    """At most one false ticket in so many days, likewise."""
    days_per_false_note: float = 30.0
    """At most one day with a false note in so many days, likewise; of the notes of a day at most a share 1 / this is false."""
    share_repairable: float = 0.8
    """What the test that may start a retrain gets of the budget of its severity, relative to the other tests of it."""
    share_worse: float = 0.2
    """The same for the test against the validated loss."""
    share_sudden: float = 1.0
    """The same for the test for sudden breaks."""
    share_overall: float = 0.5
    """What a test of all rows together gets where slices are tested, too; the slices share the rest equally."""
    blocks_per_false_alarm: float | None = None
    """Gone; an error says what to write in its place."""

    def __post_init__(self) -> None:
        if self.blocks_per_false_alarm is not None:
            raise ValueError(
                f"blocks_per_false_alarm = {self.blocks_per_false_alarm:g} was for one model; the budget is now of the whole "
                "monitor: write days_per_false_page and days_per_false_ticket (90 and 30 where nothing is written) in its place"
            )
        shares = (self.share_repairable, self.share_worse, self.share_sudden)
        if any(not 0 < share <= 1 for share in shares):
            raise ValueError(f"budget shares must be in (0, 1], got {shares}")
        if not 0 < self.share_overall < 1:
            raise ValueError(f"share_overall must be between 0 and 1, got {self.share_overall!r}")
        for severity in ("page", "ticket", "note"):
            if not self.days_per_false(severity) >= 1:
                raise ValueError(f"days_per_false_{severity} must be >= 1, got {self.days_per_false(severity)!r}")

    def days_per_false(self, severity: Severity) -> float:
        """The promise for a severity.

        Example:
            >>> Budget().days_per_false("page")
            90.0
        """
        days: float = getattr(self, f"days_per_false_{severity}")
        return days

    def share(self, test: TestName) -> float:
        """What a test gets relative to the others of its severity."""
        shares = {
            "sudden_break": self.share_sudden,
            "worse_than_validated": self.share_worse,
            "repairable": self.share_repairable,
        }
        if test not in shares:
            raise ValueError(f"the budget knows the tests {', '.join(TEST_NAMES)}, got {test!r}")
        return shares[test]


class Allotment(msgspec.Struct, frozen=True, kw_only=True):
    """What one model may spend of the budget, given what exists: known before the blocks that it is used for.

    Args:
        budget: Of the whole monitor.
        severities: Which budget each test spends.
        num_models: In service, this one with them, >= 1.
        block_days: Length of a block in days.
    """

    budget: Budget = Budget()
    severities: Severities = Severities()
    num_models: int = 1
    block_days: float = 1.0

    def __post_init__(self) -> None:
        if self.num_models < 1:
            raise ValueError(f"num_models must be >= 1, got {self.num_models!r}")
        if not self.block_days > 0:
            raise ValueError(f"block_days must be > 0, got {self.block_days!r}")

    def weight(self, test: TestName, num_slices: int = 0, *, is_slice: bool = False) -> float:
        """A test's part of the budget of its severity: over all models, their tests and slices they sum to 1.

        Args:
            test: Which.
            num_slices: Slices on which this test runs beside all rows together; 0: none.
            is_slice: One of these, and not all rows together.

        Example:
            >>> two = Allotment(num_models=2)
            >>> whole, one_of_ten = two.weight("sudden_break", 10), two.weight("sudden_break", 10, is_slice=True)
            >>> 2 * (whole + 10 * one_of_ten)
            1.0
        """
        if is_slice and num_slices < 1:
            raise ValueError(f"a slice is tested, so num_slices must be >= 1, got {num_slices!r}")
        budget = self.budget
        rivals = self.severities.tests(self.severities.of(test))
        of_test = budget.share(test) / sum(budget.share(one) for one in rivals) / self.num_models
        if not num_slices:
            return of_test
        return of_test * (1 - budget.share_overall) / num_slices if is_slice else of_test * budget.share_overall

    def bound(self, test: TestName, num_slices: int = 0, *, is_slice: bool = False) -> float:
        """The alarm bound of a Shiryaev-Roberts sum with one step a block.

        Example:
            >>> Allotment().bound("sudden_break"), Allotment(num_models=3).bound("sudden_break", 10, is_slice=True)
            (90.0, 5400.0)
        """
        days = self.budget.days_per_false(self.severities.of(test))
        return days / self.weight(test, num_slices, is_slice=is_slice) / self.block_days

    @property
    def note_level(self) -> float:
        """The level of a look's notes, for `clipdrift_monitor.risk.e_values.discoveries`: in a healthy monitor the chance of a
        false note at this look of this model.

        Example:
            >>> round(Allotment(num_models=3).note_level, 4)
            0.0111
        """
        return min(1.0, self.block_days / self.budget.days_per_false_note / self.num_models)
