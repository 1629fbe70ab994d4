"""The policy: what the monitor may do on its own, and how sure it must be."""

import hashlib

import msgspec

from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.decisions.worth import RetrainCost
from clipdrift_monitor.detectors.window_drift import DriftConfig
from clipdrift_monitor.diagnosis.rules import DiagnosisConfig
from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import HarmConfig
from clipdrift_monitor.risk.severity import Severities
from clipdrift_monitor.rollout.config import RolloutPolicy

MAX_OF_BLOCKS = 60


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy]`: decisions. Days are blocks of event time."""

    budget: Budget = Budget()
    """How often healthy models may be accused: see `[policy.budget]`."""
    severity: Severities = Severities()
    """What wakes somebody, what waits, what explains: see `[policy.severity]`."""
    harm: HarmConfig = HarmConfig()
    """The harm tests: see `[policy.harm]`."""
    drift: DriftConfig = DriftConfig()
    """The drift detectors: see `[policy.drift]`."""
    diagnosis: DiagnosisConfig = DiagnosisConfig()
    """What the diagnosis is told: see `[policy.diagnosis]`."""
    cost: RetrainCost = RetrainCost()
    """What a retrain costs and what a better model is worth: see `[policy.cost]`."""
    approval: ApprovalConfig = ApprovalConfig()
    """What a person must agree to: see `[policy.approval]`."""
    rollout: RolloutPolicy = RolloutPolicy()
    """How a candidate that the gate has passed takes traffic: see `[policy.rollout]`."""
    needed_blocks: int = 1
    """A retrain needs so many of the last `of_blocks` blocks with a repair that is proven to help, or was and still is."""
    of_blocks: int = 1
    """See `needed_blocks`; one of them must bring the proof itself."""
    cooldown_days: float = 14.0
    """Days after a retrain in which no other is ordered; doubled after each that did not pass the gate, back to this after one
    that did."""
    max_retrains_per_7_days: int = 2
    """Budget of retrains in a week."""
    max_retrains_per_30_days: int = 3
    """Budget of retrains in a month."""
    min_labels: int = 1_000
    """Fewer labels since the version came into service do not justify a retrain."""
    min_maturity: float = 0.5
    """A block of which a smaller share has labels does not justify a retrain."""
    clipping_margin: float = 0.0005
    """Brier score by which another arm must beat the old policy before clipping is called harmful."""
    seeds: tuple[int, ...] = (0,)
    """Seeds that every arm of a retrain is trained with."""
    may_retrain: bool = True
    """Off: retrains are recommended and not ordered."""
    may_roll_back: bool = True
    """Off: a rollback is recommended where a version breaks right after its deployment, and not carried out."""
    rollback_within_blocks: int = 3
    """A version that breaks within so many blocks of its deployment makes place for the one before it, once in
    `cooldown_days`."""
    is_dry_run: bool = False
    """On: what would be ordered is decided, told and audited, and nothing is ordered. What people order is carried out."""

    def __post_init__(self) -> None:
        if not 1 <= self.needed_blocks <= self.of_blocks <= MAX_OF_BLOCKS:
            raise ValueError(
                f"needed_blocks and of_blocks must be 1 <= needed_blocks <= of_blocks <= {MAX_OF_BLOCKS}, "
                f"got {self.needed_blocks!r} of {self.of_blocks!r}"
            )
        if not 0 <= self.min_maturity <= 1:
            raise ValueError(f"min_maturity must be in 0..1, got {self.min_maturity!r}")

    @property
    def version(self) -> str:
        """Twelve digits that change when any setting changes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]
