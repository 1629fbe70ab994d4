"""What the tests would see, and after how many labels: silence is no health where they could not see."""

import math

import msgspec

from clipdrift_monitor.api.answers import WouldBeSeen
from clipdrift_monitor.risk.detectability import labels_until_seen
from clipdrift_monitor.risk.reference import REST
from clipdrift_monitor.risk.worse import WorseMemory

RISE = 0.05
"""Of the error rate: the harm that is asked about."""


class SavedTests(WorseMemory, kw_only=True):
    """Of a saved `HarmState` what is needed here; to leave its history aside takes a tenth of the time to read it."""

    slices: dict[str, WorseMemory] = msgspec.field(default_factory=dict)


def would_be_seen(harm: SavedTests, labels_per_block: float, slice_name: str = "") -> WouldBeSeen | None:
    """When a lasting rise of the error rate by 5 points would raise an alarm; None while there is no traffic to say it of.

    Args:
        harm: Memory of the tests of the version in service.
        labels_per_block: Of all rows, or of the slice.
        slice_name: A slice; "" is all rows. A slice that is tested together with others is seen by all of their labels.
    """
    memory = harm if not slice_name else harm.slices.get(slice_name) or harm.slices.get(REST)
    if memory is None or labels_per_block <= 0 or (memory.reference.is_usable and not memory.reference.has_errors):
        return None  # of values, no error rate can rise
    found = labels_until_seen(memory, RISE, labels_per_block)
    together = " It is tested together with the other small slices." if slice_name and slice_name not in harm.slices else ""
    return WouldBeSeen(
        rise=found.rise,
        num_labels=found.num_labels if math.isfinite(found.num_labels) else None,
        num_blocks=found.num_labels / labels_per_block if math.isfinite(found.num_labels) else None,
        words=found.words + together,
    )
