"""Searches a block for faults of features and labels, and remembers what was found."""

from collections.abc import Mapping, Sequence

import msgspec

from clipdrift_monitor.detectors.window_drift import DriftReport, feature_of
from clipdrift_monitor.diagnosis.broken import feature_faults
from clipdrift_monitor.diagnosis.faults import MOVED, FaultMemory, Found, Look, PastBlock, is_loud, remembered
from clipdrift_monitor.diagnosis.labels import judged_of, label_faults
from clipdrift_monitor.windows.window import Floats, Layout

MIN_PAST_BLOCKS = 3  # below, nobody knows how blocks usually differ


def search(
    layout: Layout,
    sums: Floats,
    past: Sequence[PastBlock],
    memory: FaultMemory,
    version: str,
    start_ms: int,
    width_ms: int,
    *,
    has_mix_moved: bool = False,
    by_slice: Mapping[int, Floats] | None = None,
) -> tuple[tuple[Found, ...], FaultMemory]:
    """What is found in a block, and the memory after it.

    Args:
        layout: Of the version.
        sums: Of the judged block.
        past: The version's blocks before it, oldest first.
        memory: What was found in them; another version's is forgotten.
        version: In service.
        start_ms: Of the judged block.
        width_ms: Of a block.
        has_mix_moved: The slices have other shares than before.
        by_slice: The sums of the judged block by slice.
    """
    known = memory if memory.version == version else FaultMemory(version=version)
    if known.first_ms is None and past:
        known = msgspec.structs.replace(known, first_ms=past[0].start_ms)
    look = Look(layout, sums, past, known, start_ms, width_ms)
    found = (*feature_faults(look, has_mix_moved=has_mix_moved), *label_faults(look, by_slice))
    oldest_ms = past[0].start_ms if past else start_ms
    return found, remembered(known, found, judged_of(layout, sums, start_ms), oldest_ms)


def with_faults(drift: DriftReport, found: Sequence[Found], harmed_since_ms: int | None) -> DriftReport:
    """The report with the faults that were found: among what is broken where they are loud, else among what is suspected; a
    feature that it calls broken is not told twice."""
    told = {feature_of(words, (one.subject for one in found)) for words in drift.broken}
    new = [one for one in found if one.kind != MOVED and one.subject not in told]
    return msgspec.structs.replace(
        drift,
        broken=(*drift.broken, *(one.words for one in new if is_loud(one, harmed_since_ms))),
        suspected=tuple(one.words for one in new if not is_loud(one, harmed_since_ms)),
    )
