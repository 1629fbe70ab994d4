"""Is the candidate's file of a size that serving can hold?"""

import math

import msgspec

from clipdrift_contract.events import CheckVerdict, GateCheck
from clipdrift_trainer.evaluation.blocks import Interval
from clipdrift_trainer.retraining.bounds import Role, checked, require_at_least
from clipdrift_trainer.retraining.checks.case import Case

NAME = "size"


class SizePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate's file beside that of the model in service."""

    role: Role = "decisive"
    """Decides, is on trial (shown), or is not measured (off)."""
    max_ratio: float = 5.0
    """So many times the file in service; above 4, since one with 8-bit weights is a quarter of one without."""
    max_megabytes: float = math.inf
    """And never more than this, whatever is in service."""

    def __post_init__(self) -> None:
        require_at_least("size", 1.0, max_ratio=self.max_ratio)
        if not self.max_megabytes > 0:
            raise ValueError(f"size.max_megabytes must be > 0, got {self.max_megabytes!r}")


def check_size(case: Case, policy: SizePolicy) -> tuple[GateCheck, ...]:
    """The check: exact, so it passes or fails; only files of no bytes leave it open."""
    mine, theirs = len(case.candidate.content), len(case.champion.content)
    if not mine or not theirs:
        return (checked(NAME, "inconclusive", "a model file is empty", None, policy.max_ratio, "times", policy.role),)
    ratio = mine / theirs
    outcome: CheckVerdict = "fail" if ratio > policy.max_ratio or mine > policy.max_megabytes * 1e6 else "pass"
    limit = f" and {policy.max_megabytes:g} MB" if math.isfinite(policy.max_megabytes) else ""
    words = f"{mine / 1e6:.3f} MB, {ratio:.2f} times the file in service; {policy.max_ratio:g} times{limit} allowed"
    return (checked(NAME, outcome, words, Interval(ratio, ratio, ratio), policy.max_ratio, "times", policy.role),)
