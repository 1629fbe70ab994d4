"""Has the candidate learnt its training rows by heart, so that its loss gives them away?"""

import msgspec

from clipdrift_contract.events import CheckVerdict, GateCheck
from clipdrift_trainer.evaluation.blocks import Days, Interval
from clipdrift_trainer.evaluation.membership import measure_membership
from clipdrift_trainer.retraining.bounds import Role, against_bound, checked, interval_words, require_at_least, require_shares
from clipdrift_trainer.retraining.checks.case import Case, spread_over

NAME = "membership"


class MembershipPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Membership inference by the loss: trained rows against held-out ones of the same time."""

    role: Role = "shown"
    """Decides, is on trial (shown), or is not measured (off)."""
    max_auc: float = 0.6
    """Of telling trained rows from others; guessing has 0.5. The lower end of the interval decides."""
    num_rows: int = 5_000
    """Rows of each kind, at most."""

    def __post_init__(self) -> None:
        require_shares("membership", max_auc=self.max_auc)
        require_at_least("membership", 2, num_rows=self.num_rows)


def check_membership(case: Case, policy: MembershipPolicy, *, min_rows: int, min_blocks: int) -> tuple[GateCheck, ...]:
    """The check. Whole days between trained ones are held out, so that drift does not pass for a memory.

    Raises:
        Exception: The module cannot be had, or fails.
    """
    trained, held_out = (spread_over(rows, policy.num_rows) for rows in (case.trained, case.held_out))
    num_rows, num_blocks = min(len(trained), len(held_out)), Days(held_out.time_ms).num
    if num_rows < min_rows or num_blocks < min_blocks:
        words = f"{num_rows:,} rows of {num_blocks} held-out days are too few to tell (at least {min_rows:,} of {min_blocks})"
        return (_check("inconclusive", words, None, policy, num_rows, num_blocks),)
    module, words_of = case.candidate.module(), case.candidate.vocabularies
    one = measure_membership(case.task, module, trained, held_out, words_of, case.temperature)
    assert one is not None  # both sides have rows
    found = Interval(one.auc, one.auc_low, one.auc_high)
    outcome = against_bound(found, policy.max_auc, neutral=0.5)
    words = (
        f"the loss tells trained rows from others with AUC {interval_words(found, 3, '')}, {policy.max_auc:g} allowed; "
        f"{one.tpr_at_fpr_1:.1%} of them at 1 % false accusations"
    )
    return (_check(outcome, words, found, policy, num_rows, num_blocks),)


def _check(
    outcome: CheckVerdict, words: str, found: Interval | None, policy: MembershipPolicy, num_rows: int, num_blocks: int
) -> GateCheck:
    return checked(NAME, outcome, words, found, policy.max_auc, "AUC", policy.role, num_rows=num_rows, num_blocks=num_blocks)
