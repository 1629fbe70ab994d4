"""What a rule is, and everything that rules may look at."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from clipdrift_contract.events import EvidenceRow, RuleFinding
from clipdrift_monitor.clipping.association import Association
from clipdrift_monitor.clipping.evidence import ClippingEvidence
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.faults import Found
from clipdrift_monitor.diagnosis.split import LossSplit
from clipdrift_monitor.risk.harm import Statement

SURE = 0.99  # probability from which a rule of an estimate holds: with two dozen rules, one in four blocks has none by chance
_Z95 = 1.959964


class DiagnosisConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.diagnosis]`: what nobody can see from events."""

    exploration_slice: str = ""
    """A slice whose cases are decided without the model, at random: what labels say when nobody follows a prediction."""


class SliceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one slice: labelled at validation, labelled in production, trained on, and correct ones."""

    num_validated: int
    num_validated_correct: int
    num_live: int
    num_live_correct: int
    num_train: int = 0

    @property
    def validated(self) -> float:
        """Validated accuracy; 0 without rows."""
        return self.num_validated_correct / max(1, self.num_validated)

    @property
    def live(self) -> float:
        """Live accuracy; 0 without labels."""
        return self.num_live_correct / max(1, self.num_live)


class Probabilities(msgspec.Struct, frozen=True, kw_only=True):
    """How good the scores are as a ranking and as probabilities, validated and live."""

    validated_brier: float
    live_brier: float
    recalibrated_brier: float
    """Of the live rows, with a straight line in log-odds fitted to them."""
    validated_auc: float | None = None
    live_auc: float | None = None
    num_hits: int = 0
    num_misses: int = 0
    validated_rate: float | None = None
    """Of the event; a rarer event is easier to foretell."""
    regained_error: float | None = None
    """Standard error of what the recalibration gains, over blocks, each by a line fitted to the others; None with few."""
    foretold_loss: float | None = None
    """Accuracy that the model's own scores foretell less than at validation: they know that rows are hard."""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What a person was shown, and how long it took them to say yes."""

    num_words: int
    seconds: float


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a diagnosis looks at, as values."""

    clipping: ClippingEvidence
    split: LossSplit
    drift: DriftReport
    statements: Mapping[str, Statement]
    open_tests: tuple[str, ...]
    validated_ece: float
    live_ece: float | None
    num_labels: int
    margin: float
    falls: Mapping[str, float] = {}
    """Validated minus live accuracy of each slice that has enough labels on both sides."""
    faults: tuple[Found, ...] = ()
    """Of features and labels, in the newest block."""
    slices: Mapping[str, SliceFacts] = {}
    probabilities: Probabilities | None = None
    days_to_first_block: float | None = None
    """From the newest row of the training to the version's first block; None where it is not known."""
    exploration_slice: str = ""
    """Slice whose rows were acted upon at random, as declared; "" where none is."""
    approvals: tuple[Approval, ...] | None = None
    """None where no approvals are recorded."""
    is_searched: bool = False
    """There were past blocks to search faults of features and labels by."""
    association: Association | None = None
    """Of drift and harm with clipping, over the model's versions; None before the first."""


class Rule(NamedTuple):
    """A rule: its name, where it comes from, and what judges it."""

    name: str
    source: str
    judge: Callable[[Facts], RuleFinding]


def finding(
    rule: str,
    holds: bool | None,
    words: str,
    plain: str,
    *,
    confidence: float = 0.0,
    would_change: str,
    rows: Sequence[EvidenceRow] = (),
) -> RuleFinding:
    """What a rule says; `holds` is None where it cannot tell, which has no confidence."""
    return RuleFinding(
        rule=rule,
        outcome="unknown" if holds is None else "holds" if holds else "does_not_hold",
        words=words,
        plain=plain,
        confidence=0.0 if holds is None else round(min(1.0, max(0.0, confidence)), 4),
        would_change=would_change,
        rows=tuple(rows),
        evidence={one.name: one.value for one in rows},
    )


def probability_above(effect: float, bound: float, error: float) -> float:
    """That the true effect lies above `bound`, by a normal with this standard error.

    Example:
        >>> [round(probability_above(*one), 3) for one in ((0.03, 0.0, 0.01), (0.0, 0.0, 0.01), (1.0, 0.0, 0.0))]
        [0.999, 0.5, 1.0]
    """
    if error <= 0:
        return 1.0 if effect > bound else 0.0
    return 0.5 * math.erfc((bound - effect) / error / math.sqrt(2))


def error_of(low: float, high: float) -> float:
    """Standard error behind a 95 % interval."""
    return (high - low) / (2 * _Z95)


def binomial_variance(share: float, num_rows: int) -> float:
    """Of a share of rows; with two rows added of each kind, so that it is never 0 (Agresti, Coull 1998)."""
    smoothed = (share * num_rows + 2) / (num_rows + 4)
    return smoothed * (1 - smoothed) / (num_rows + 4)


def signed(share: float) -> str:
    """With sign and three digits, and no minus before a zero.

    Example:
        >>> signed(-0.0001), signed(0.05)
        ('+0.000', '+0.050')
    """
    return f"{round(share, 3) + 0.0:+.3f}"
