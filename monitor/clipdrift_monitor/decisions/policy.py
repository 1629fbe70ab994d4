"""The policy: what the monitor may do on its own, and how sure it must be."""

import hashlib

import msgspec

from clipdrift_monitor.detectors.window_drift import DriftConfig
from clipdrift_monitor.diagnosis.rules import DiagnosisConfig
from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import HarmConfig
from clipdrift_monitor.risk.severity import Severities


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
    cooldown_days: float = 14.0
    """Days after a retrain in which no other is ordered; doubled after each that did not pass the gate, back to this after one
    that did."""
    max_retrains_per_30_days: int = 3
    """Budget of retrains."""
    min_labels: int = 1_000
    """Fewer labels since the version came into service do not justify a retrain."""
    clipping_margin: float = 0.0005
    """Brier score by which another arm must beat the old policy before clipping is called harmful."""
    seeds: tuple[int, ...] = (0,)
    """Seeds that every arm of a retrain is trained with."""
    may_retrain: bool = True
    """Off: retrains are recommended and not ordered."""

    @property
    def version(self) -> str:
        """Twelve digits that change when any setting changes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]
