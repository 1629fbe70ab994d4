"""Facts of a model with nothing wrong, to be changed by each test."""

import msgspec

from clipdrift_contract.events import Contrast
from clipdrift_monitor.clipping.evidence import ClippingEvidence
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.rules import Facts
from clipdrift_monitor.diagnosis.split import LossSplit
from clipdrift_monitor.risk.harm import Statement

CLIPPING = ClippingEvidence(
    is_adaptive=False, is_norm_clipped=True, is_strong=True, has_fault=False, removed_mass_ratio=0.9, clip_rate_ratio=1.0,
    num_checked=200,
)  # fmt: skip
MARGIN = 0.0005


def contrast(difference, half):
    return Contrast(
        slice="", num_rows=5000, num_blocks=20, metric="brier", difference=difference, low=difference - half,
        high=difference + half,
    )  # fmt: skip


PROVEN, REFUTED, OPEN = contrast(-0.01, 0.004), contrast(0.001, 0.0011), contrast(-0.002, 0.01)


def statement(test, effect=0.0):
    return Statement(test=test, level=0.0, bound=100.0, is_alarm=False, effect=effect)


def facts(*, clipping=None, **changes):
    made = Facts(
        clipping=msgspec.structs.replace(CLIPPING, **(clipping or {})),
        split=LossSplit(loss=0.0, mix=0.0, within=0.0),
        drift=DriftReport(),
        statements={"repairable": statement("repairable", 0.01)},
        open_tests=(),
        validated_ece=0.02,
        live_ece=0.02,
        num_labels=10_000,
        margin=MARGIN,
    )
    return msgspec.structs.replace(made, **changes)
