"""Are the candidate's answers turned by small changes of its numbers more often than those of the model in service?"""

import msgspec
import numpy as np

from clipdrift_contract.events import GateCheck
from clipdrift_trainer.evaluation.attacks import Attacked, Ball, attack, balls_of
from clipdrift_trainer.evaluation.blocks import Interval
from clipdrift_trainer.retraining.bounds import Proof, Role, against_bound, checked, interval_words, require_at_least
from clipdrift_trainer.retraining.checks.case import Case, Side, spread_over
from clipdrift_trainer.retraining.contrast import contrast
from clipdrift_trainer.tasks.task import Rows, encode

NAME = "robustness"


class RobustnessPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """FGSM and PGD on both modules: the loss on rows whose numbers were changed for the worse."""

    role: Role = "shown"
    """Decides, is on trial (shown), or is not measured (off)."""
    epsilon: float = 0.1
    """How far each number may be moved, in its standard deviations over the training rows."""
    num_steps: int = 10
    """Of PGD."""
    num_rows: int = 512
    """Rows that are attacked, evenly over the days."""
    margin: float = 0.05
    """By how much more of the rows may be answered wrongly; for values, the squared error in units of the label's span."""

    def __post_init__(self) -> None:
        require_at_least("robustness", 0.0, epsilon=self.epsilon, margin=self.margin)
        require_at_least("robustness", 1, num_steps=self.num_steps, num_rows=self.num_rows)


def check_robustness(case: Case, policy: RobustnessPolicy, *, min_blocks: int, proof: Proof) -> tuple[GateCheck, ...]:
    """The check; for a task that has no number that varies nothing, since there is nothing to attack.

    Both modules are attacked on their own, each within the same balls: a change that turns one need not turn the other.

    Raises:
        Exception: A module cannot be had, or fails.
    """
    balls = balls_of(case.task, case.trained, policy.epsilon)
    rows = spread_over(case.judged, policy.num_rows)
    if not balls or not len(rows):
        return ()
    mine, theirs = (_attacked(case, side, rows, balls, policy.num_steps) for side in (case.candidate, case.champion))
    before, fgsm, pgd = (
        (_losses(getattr(mine, which), case), _losses(getattr(theirs, which), case)) for which in ("clean_N", "fgsm_N", "pgd_N")
    )
    one = contrast("", "error", (pgd[0] - pgd[1])[None], rows.time_ms)
    found = Interval(one.difference, one.low, one.high)
    outcome = against_bound(found, policy.margin, neutral=0.0, proof=proof) if one.num_blocks >= min_blocks else "inconclusive"
    words = (
        f"PGD within {policy.epsilon:g} standard deviations: {_share(*pgd, case)} (FGSM {_share(*fgsm, case)}, unattacked "
        f"{_share(*before, case)}); difference {interval_words(found, 3)}, {policy.margin:g} allowed"
    )
    return (
        checked(
            NAME, outcome, words, found, policy.margin, "", policy.role, num_rows=one.num_rows, num_blocks=one.num_blocks
        ),
    )  # fmt: skip


def _attacked(case: Case, side: Side, rows: Rows, balls: dict[str, Ball], num_steps: int) -> Attacked:
    module = side.module()
    inputs = encode(case.task, rows, side.vocabularies)
    names = {spec.name for spec in side.features}
    own = {name: ball for name, ball in balls.items() if name in names}
    return attack(module, inputs, rows.label, case.task.kind, own, num_steps)


def _losses(bad_N: np.ndarray, case: Case) -> np.ndarray:
    """1 for a wrong answer; for values the squared miss in units of the label's span."""
    return bad_N / case.label_span**2 if case.task.kind == "regression" else (bad_N >= 0).astype(np.float64)


def _share(mine_N: np.ndarray, theirs_N: np.ndarray, case: Case) -> str:
    if case.task.kind == "regression":
        return f"squared error {mine_N.mean():.4f}, in service {theirs_N.mean():.4f}"
    return f"{mine_N.mean():.1%} wrong, in service {theirs_N.mean():.1%}"
