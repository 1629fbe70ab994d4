"""Do the candidate's probabilities keep their word as well as those of the model in service?"""

import msgspec
import numpy as np

from clipdrift_contract.events import CheckVerdict, GateCheck
from clipdrift_trainer.evaluation.blocks import Days, Interval
from clipdrift_trainer.evaluation.reliability import calibration_error_difference
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.retraining.bounds import Proof, Role, against_bound, checked, interval_words, require_shares
from clipdrift_trainer.retraining.checks.case import Case

NAME = "calibration"


class CalibrationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate's expected calibration error beside that of the model in service, on the same rows."""

    role: Role = "decisive"
    """Decides, is on trial (shown), or is not measured (off)."""
    margin: float = 0.02
    """By how much the error may be higher."""

    def __post_init__(self) -> None:
        require_shares("calibration", margin=self.margin)


def check_calibration(
    case: Case, policy: CalibrationPolicy, *, min_rows: int, min_blocks: int, proof: Proof
) -> tuple[GateCheck, ...]:
    """The check; nothing for values, which promise no probabilities."""
    if case.task.kind == "regression":
        return ()
    num_rows, days = len(case.judged), Days(case.judged.time_ms)
    if num_rows < min_rows or days.num < min_blocks:
        words = f"{num_rows:,} rows of {days.num} days are too few to tell (at least {min_rows:,} of {min_blocks})"
        return (_check("inconclusive", words, None, policy, num_rows, days.num),)
    of_candidate, of_champion = (_said(side.scores_NK, case.judged.label) for side in (case.candidate, case.champion))
    found = calibration_error_difference(*of_candidate, *of_champion, days)
    outcome = against_bound(found, policy.margin, neutral=0.0, proof=proof)
    words = f"calibration error {interval_words(found)} beside the model in service, {policy.margin:g} allowed"
    return (_check(outcome, words, found, policy, num_rows, days.num),)


def _check(
    outcome: CheckVerdict, words: str, found: Interval | None, policy: CalibrationPolicy, num_rows: int, num_blocks: int
) -> GateCheck:
    return checked(NAME, outcome, words, found, policy.margin, "", policy.role, num_rows=num_rows, num_blocks=num_blocks)


def _said(scores_NK: Floats, label_N: Floats) -> tuple[Floats, np.ndarray]:
    if not np.isfinite(scores_NK).all():
        raise ValueError("a model answers NaN or infinity")
    return scores_NK.max(axis=1), scores_NK.argmax(axis=1) == label_N
