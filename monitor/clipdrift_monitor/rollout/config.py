"""How a candidate that the gate has passed takes traffic."""

import math
from typing import Literal

import msgspec

from clipdrift_monitor.rollout.evidence_config import EvidenceConfig


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.rollout]`: how a candidate that the gate has passed takes traffic. Days are days of event time."""

    evidence: EvidenceConfig = EvidenceConfig()
    """How sure a rollout must be, and of what: see `[policy.rollout.evidence]`."""
    steps: tuple[float, ...] = (0.1, 0.5)
    """Shares of the requests that the candidate answers, one step after another, each above the one before; empty: a candidate
    that has passed the gate takes all traffic at once, and nothing watches it before."""
    has_shadow: bool = True
    """Before the first step the candidate answers what the model in service answers, and nobody gets its answers. Off, where
    many rows never get a label and right and wrong answers get one unequally often: that misleads a shadow, not a canary."""
    min_labels: int = 300
    """Each step waits for so many mature labels of the candidate's own rows."""
    max_days: float = 42.0
    """A rollout that has neither promoted nor rolled back after so many days is held."""
    on_hold: Literal["end", "wait"] = "end"
    """What holding does. end: the model in service takes all traffic again, and the candidate may be tried again. wait: the
    step stays as it is until a person ends it (`clipdrift rollback`) or harm is shown."""
    known_good_versions: int = 3
    """So many of the versions that served before are at hand for a rollback, without any check."""
    predecessor_days: float = 14.0
    """So long the version that was replaced answers as a shadow, so that what the retrain was worth is measured on the same
    rows; 0: it is not measured."""
    min_gain: float = 0.001
    """Brier score a prediction; a retrain that gained less for certain was not worth it."""
    max_waiting_rows: int = 100_000
    """Rows of a shadow that wait for their label, or labels for their shadow's row, at most; more are not compared."""

    def __post_init__(self) -> None:
        before = 0.0
        for share in self.steps:
            if not before < share <= 1:
                raise ValueError(f"steps must be shares of requests that grow, each above 0 and at most 1, got {self.steps!r}")
            before = share
        for name in ("max_days", "predecessor_days", "min_gain"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")
        for name, least in (("min_labels", 1), ("known_good_versions", 1), ("max_waiting_rows", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)!r}")
