"""What the checks look for, from when on they warn, and when a training may not go on."""

from typing import Literal

import msgspec

from clipdrift_trainer.quality.balance import BalancePolicy
from clipdrift_trainer.quality.columns import ColumnsPolicy
from clipdrift_trainer.quality.duplicates import DuplicatesPolicy
from clipdrift_trainer.quality.effective_size import EffectiveSizePolicy, SlicesPolicy
from clipdrift_trainer.quality.groups import GroupsPolicy
from clipdrift_trainer.quality.hindsight import HindsightPolicy
from clipdrift_trainer.quality.label_errors import LabelErrorsPolicy
from clipdrift_trainer.quality.missing import MissingPatternPolicy, MissingPolicy
from clipdrift_trainer.quality.near_duplicates import NearDuplicatesPolicy
from clipdrift_trainer.quality.schema import SchemaPolicy
from clipdrift_trainer.quality.shift import ShiftPolicy
from clipdrift_trainer.quality.single_feature import SingleFeaturePolicy
from clipdrift_trainer.quality.target_encoding import TargetEncodingPolicy
from clipdrift_trainer.quality.units import UnitsPolicy

Mode = Literal["off", "warn", "enforce"]


class QualityPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of the rows before a training. Each has a table of its own below this one, under its own name."""

    mode: Mode = "warn"
    """Nothing is checked (off); findings warn, and only what is unmistakable stops the training (warn): a feature that tells
    the label, held-out rows that were trained on, values made in hindsight; or every check's stop threshold holds (enforce)."""
    budget_seconds: float = 10.0
    """Time for all checks of one training; what it does not suffice for is skipped, and the record says so."""
    max_rows: int = 20_000
    """Evenly spaced rows that single features are judged on; equal rows are looked for among all."""
    max_named_rows: int = 20
    """Rows that a check names in the record, worst first."""
    schema: SchemaPolicy = SchemaPolicy()
    """Types, bounds, categories."""
    columns: ColumnsPolicy = ColumnsPolicy()
    """Constant and repeated features."""
    missing: MissingPolicy = MissingPolicy()
    """How much is missing."""
    missing_pattern: MissingPatternPolicy = MissingPatternPolicy()
    """Missing values that tell the label."""
    units: UnitsPolicy = UnitsPolicy()
    """Numbers that changed their unit."""
    single_feature: SingleFeaturePolicy = SingleFeaturePolicy()
    """One feature that gives the label away."""
    duplicates: DuplicatesPolicy = DuplicatesPolicy()
    """Held-out rows that equal training rows."""
    near_duplicates: NearDuplicatesPolicy = NearDuplicatesPolicy()
    """Held-out rows that all but equal training rows."""
    groups: GroupsPolicy = GroupsPolicy()
    """Groups on both sides of the split."""
    target_encoding: TargetEncodingPolicy = TargetEncodingPolicy()
    """Numbers made from the labels of their own rows."""
    hindsight: HindsightPolicy = HindsightPolicy()
    """Values that change with what becomes known later."""
    balance: BalancePolicy = BalancePolicy()
    """Rare classes."""
    effective_size: EffectiveSizePolicy = EffectiveSizePolicy()
    """How much the held-out rows are worth."""
    slices: SlicesPolicy = SlicesPolicy()
    """Slices with few rows."""
    shift: ShiftPolicy = ShiftPolicy()
    """How held-out rows differ from training rows."""
    label_errors: LabelErrorsPolicy = LabelErrorsPolicy()
    """Labels that are probably wrong."""

    def __post_init__(self) -> None:
        if not self.budget_seconds >= 0:
            raise ValueError(f"quality.budget_seconds must be >= 0, got {self.budget_seconds!r}")
        for name in ("max_rows", "max_named_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"quality.{name} must be >= 1, got {getattr(self, name)!r}")


DEFAULT = QualityPolicy()
