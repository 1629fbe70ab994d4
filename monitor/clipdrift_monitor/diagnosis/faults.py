"""What a fault of the pipeline is, which ones are open, and which past blocks are free of them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from clipdrift_contract.events import EvidenceRow
from clipdrift_monitor.windows.window import Floats, Layout

FaultName = Literal[
    "schema_change", "unit_change", "shifted_feature", "constant_feature", "stale_feature", "training_serving_skew",
    "labels_flipped", "labels_one_class", "labels_missing_for_class", "labels_delayed_by_class", "labels_misjoined",
]  # fmt: skip
MOVED = "moved"  # no fault: the world may do so
LABELS = "labels"
CREDIBLE = 0.9  # a fault less probable than this is not told as one


class PastBlock(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of the version in a block before the judged one, as sums, with the labels that have come since."""

    start_ms: int
    sums: Floats


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of one subject (a feature's name, or "labels") in one block, or a move that the world may have made."""

    kind: str  # a FaultName, or MOVED
    subject: str
    words: str
    confidence: float
    since_ms: int
    is_from_first: bool = False
    """It is there in the first block of the version already."""
    is_certain: bool = False
    """Counted, not inferred: no world takes a feature's values away, or makes all of them one. It is told loudly at once; what
    is inferred from shapes is told loudly only once the model is harmed by it."""
    rows: tuple[EvidenceRow, ...] = ()


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks in which a subject was not as before: from the one that starts at `since_ms` to the one at `until_ms`."""

    subject: str
    kind: str
    since_ms: int
    until_ms: int
    is_from_first: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of a block when it was judged, so that those that came later can be told apart."""

    start_ms: int
    num_labels: int
    num_hits: int


class FaultMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What the search for faults remembers of one version; saved with the model's state."""

    version: str = ""
    first_ms: int | None = None
    """Start of the version's first judged block."""
    spans: tuple[Span, ...] = ()
    judged: tuple[Judged, ...] = ()


class Look(NamedTuple):
    """A block that is searched."""

    layout: Layout
    sums: Floats
    past: Sequence[PastBlock]
    """The version's blocks before it, oldest first."""
    memory: FaultMemory
    """What was found in them."""
    start_ms: int
    width_ms: int


def is_loud(found: Found, harmed_since_ms: int | None) -> bool:
    """Whether a fault is a reason to wake somebody and to hold a retrain back: it is certain, or it may explain a harm.

    Args:
        found: In a block.
        harmed_since_ms: Start of the block in which the newest of the open harms was proven; None where nothing is harmed.

    Example:
        >>> shifted = Found(kind="shifted_feature", subject="price", words="price is off", confidence=0.99, since_ms=2_000)
        >>> is_loud(shifted, None), is_loud(shifted, 3_000), is_loud(shifted, 1_000)
        (False, True, False)
    """
    if found.kind == MOVED:
        return False
    return found.is_certain or (harmed_since_ms is not None and found.since_ms <= harmed_since_ms)


def explaining(found: Sequence[Found], harmed_since_ms: int | None) -> tuple[Found, ...]:
    """Those that the diagnosis may build on: a suspicion that is younger than the harm explains none."""
    return tuple(one for one in found if harmed_since_ms is None or one.kind == MOVED or is_loud(one, harmed_since_ms))


def span_of(memory: FaultMemory, subject: str, before_ms: int, width_ms: int) -> Span | None:
    """The span of a subject that reaches to the block before `before_ms`."""
    return next((one for one in memory.spans if one.subject == subject and one.until_ms >= before_ms - width_ms), None)


def prior_of(prior: Mapping[str, float], told: Sequence[str]) -> dict[str, float]:
    """Chances before looking at a block: those given, or, after a block of which one of `told` was told, even ones between
    that, a move and the usual: a fault lasts until somebody mends it, and its price was paid when it was found.

    Example:
        >>> prior_of({"usual": 0.98, MOVED: 0.02, "labels_flipped": 1e-4}, ("labels_flipped",))
        {'usual': 0.333, 'moved': 0.333, 'labels_flipped': 0.333}
    """
    even = {"usual", MOVED, *told}
    return {name: 0.333 if told and name in even else one for name, one in prior.items()}


def past_from_ms(memory: FaultMemory, view_from_ms: int, view_ms: int) -> int:
    """From when on a search wants past blocks: the view's start, or, as long as a fault lasts, a view before it began; at most
    six views more, since what was broken for so long has become usual.

    Example:
        >>> memory = FaultMemory(spans=(Span(subject="price", kind="unit_change", since_ms=900, until_ms=1_000),))
        >>> past_from_ms(memory, 800, 300), past_from_ms(FaultMemory(), 800, 300)
        (600, 800)
    """
    wanted = [one.since_ms - view_ms for one in memory.spans if one.kind != MOVED]
    return max(min([view_from_ms, *wanted]), view_from_ms - 6 * view_ms)


def usual_blocks(memory: FaultMemory, subject: str, past: Sequence[PastBlock]) -> list[PastBlock]:
    """Past blocks in which nothing was found of a subject."""
    spans = [one for one in memory.spans if one.subject == subject]
    return [block for block in past if not any(one.since_ms <= block.start_ms <= one.until_ms for one in spans)]


def unbroken_blocks(memory: FaultMemory, subject: str, past: Sequence[PastBlock]) -> list[PastBlock]:
    """Past blocks in which no fault was found of a subject; it may have moved."""
    spans = tuple(one for one in memory.spans if one.kind != MOVED)
    return usual_blocks(msgspec.structs.replace(memory, spans=spans), subject, past)


def remembered(memory: FaultMemory, found: Sequence[Found], judged: Judged, oldest_ms: int) -> FaultMemory:
    """The memory after a block; what is older than `oldest_ms` is let go, but an open span stays whole. A fault that is over
    stays known beside a new one of its subject: what was broken then is no usual block now."""
    now_ms = judged.start_ms
    told = {one.subject: one for one in found}
    spans = [one for one in memory.spans if one.until_ms >= oldest_ms and not _is_told_again(one, told.get(one.subject))]
    spans += [
        Span(subject=one.subject, kind=one.kind, since_ms=one.since_ms, until_ms=now_ms, is_from_first=one.is_from_first)
        for one in told.values()
    ]
    blocks = [one for one in memory.judged if oldest_ms <= one.start_ms < now_ms]
    first_ms = now_ms if memory.first_ms is None else memory.first_ms
    return msgspec.structs.replace(memory, first_ms=first_ms, spans=tuple(spans), judged=(*blocks, judged))


def _is_told_again(span: Span, found: Found | None) -> bool:
    """The span goes on in what was found, or says no more than a move that is over."""
    return found is not None and (span.kind == MOVED or span.until_ms >= found.since_ms)
