"""Whether the labels are at fault rather than the model, from one block to the next.

What the scores foretell is known from the blocks before: how often the event came in each group of scores. Labels that were
turned round, that belong to other predictions, or that are all the same leave marks there which no world leaves at once.
Of classification only; which class a label names is known for two classes.

Axes: B score bins, K groups of them, H past blocks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import EvidenceRow
from clipdrift_monitor.diagnosis.faults import (
    CREDIBLE,
    LABELS,
    MOVED,
    FaultMemory,
    Found,
    Judged,
    PastBlock,
    span_of,
    usual_blocks,
)
from clipdrift_monitor.diagnosis.likelihood import (
    LEAST_CONCENTRATION,
    MOST_CONCENTRATION,
    log_evidence_of_rates,
    mixed,
    posterior,
)
from clipdrift_monitor.risk.challengers import logit, sigmoid
from clipdrift_monitor.windows.window import Floats, Layout

_MIN_LABELS = 50
_MIN_BLOCKS = 7  # a week: what labels say must be known well before they are called wrong
_NUM_GROUPS = 8
_LOST = 0.5  # of the labels of a class: fewer may be a slow day
_KEPT = 0.25  # what the other class may lose or gain beside it
_SURE = 4.0  # standard deviations, with the blocks' own spread in them
_SLOPES, _MOVES = (1.5, 0.7, 0.4), (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # of log-odds: what worlds do to rates
_ONE_CLASS = 0.002  # of labels that are of the other class all the same
_PRIOR: Mapping[str, float] = {
    "usual": 0.97, MOVED: 0.02, "labels_flipped": 0.0025, "labels_misjoined": 0.005, "labels_one_class": 0.0025,
}  # fmt: skip
_WORDS: Mapping[str, str] = {
    "labels_flipped": "the labels look turned round: what was foretold as likely now comes seldom, and the other way",
    "labels_misjoined": "the labels no longer depend on the scores at all: they look joined to other predictions than theirs",
    "labels_one_class": "all labels are of one class, and there are as many of them as before",
    MOVED: "the rates by score changed from one block to the next, in no way that a label pipeline is known for",
}


def label_faults(
    layout: Layout, sums: Floats, past: Sequence[PastBlock], memory: FaultMemory, start_ms: int, width_ms: int
) -> list[Found]:
    """What is wrong with the labels of a block: nothing, or the explanation that fits best.

    Args:
        layout: Of the version.
        sums: Of the judged block, when its labels are due.
        past: The version's blocks before it, oldest first, with all labels that have come since.
        memory: What was found in them.
        start_ms: Of the judged block.
        width_ms: Of a block.
    """
    usual = [one for one in usual_blocks(memory, LABELS, past) if layout.value(one.sums, "num_labels") >= _MIN_LABELS]
    if layout.profile.task == "regression" or len(usual) < _MIN_BLOCKS:
        return []
    span = span_of(memory, LABELS, start_ms, width_ms)
    since_ms = start_ms if span is None else span.since_ms
    if layout.profile.task == "binary":
        missing = _missing_class(layout, sums, usual, memory, past, since_ms)
        if missing is not None:
            return [missing]
    since = [block for block in past if block.start_ms >= since_ms]
    return _by_score(layout, sums, usual, since, since_ms)


# --- a class that no longer gets labels ---


def _missing_class(
    layout: Layout, sums: Floats, usual: Sequence[PastBlock], memory: FaultMemory, past: Sequence[PastBlock], since_ms: int
) -> Found | None:
    """Labels of one class that do not come, while those of the other do."""
    due = {one.start_ms: one for one in memory.judged}
    known = [(due[block.start_ms], block) for block in usual if block.start_ms in due]
    if len(known) < _MIN_BLOCKS:
        return None
    # as many labels of each class as the scores foretell, by what past blocks had when they were due
    foretold_H2 = np.array([_foretold(layout, block.sums, usual) for _, block in known])
    came_H2 = np.array([(one.num_hits, one.num_labels - one.num_hits) for one, _ in known])
    ratio_H2 = came_H2 / np.maximum(1.0, foretold_H2)
    expected_2 = _foretold(layout, sums, usual) * ratio_H2.mean(axis=0)
    spread_2 = np.sqrt(expected_2 + (ratio_H2.std(axis=0, ddof=1) * expected_2) ** 2)
    num_hits, num_labels = _hits(layout, sums), layout.value(sums, "num_labels")
    came_2 = np.array([num_hits, num_labels - num_hits])
    lost_2 = 1 - came_2 / np.maximum(1.0, expected_2)
    worst = int(np.argmax(lost_2))
    deviations = float((expected_2[worst] - came_2[worst]) / spread_2[worst])
    # what is missing of a class is missing of all: otherwise the event has become rarer
    is_short = expected_2.sum() - num_labels >= _LOST * (expected_2[worst] - came_2[worst])
    if lost_2[worst] < _LOST or abs(lost_2[1 - worst]) > _KEPT or deviations < _SURE or not is_short:
        return None
    label = layout.profile.classes[1 - worst] if layout.profile.classes else str(1 - worst)
    late = _came_late(layout, worst, due, past, since_ms)
    rows = (
        EvidenceRow(
            name="labels of the class that are missing", value=round(float(lost_2[worst]), 3), unit="share", bound=_LOST
        ),
        EvidenceRow(name="of the other class", value=round(float(lost_2[1 - worst]), 3), unit="share", bound=_KEPT),
        EvidenceRow(name="below what past blocks had", value=round(deviations, 1), unit="standard deviations", bound=_SURE),
        EvidenceRow(name="of those missing before, came since", value=round(late, 3), unit="share", bound=_LOST),
    )
    kind = "labels_delayed_by_class" if late >= _LOST else "labels_missing_for_class"
    how = "come later than those of the other class" if late >= _LOST else "do not come, while those of the other class do"
    words = f"labels of the class {label!r} {how} ({lost_2[worst]:.0%} are missing when they are due)"
    # Cantelli: whatever the distribution, so far below the mean lies at most this share
    return Found(
        kind=kind, subject=LABELS, words=words, confidence=round(1 - 1 / (1 + deviations**2), 4), since_ms=since_ms, rows=rows
    )


def _foretold(layout: Layout, sums: Floats, usual: Sequence[PastBlock]) -> Floats:
    """Hits and misses that the scores of a block foretell, had every prediction a label; shape [2]."""
    rows_B, hits_B = (np.sum([layout.counts(one.sums, name) for one in usual], axis=0) for name in ("labels", "hits"))
    group_B, predictions_B = _groups(rows_B), layout.counts(sums, "predictions")
    rate_K = (_grouped(hits_B, group_B) + 0.5) / (_grouped(rows_B, group_B) + 1.0)
    predictions_K = _grouped(predictions_B, group_B)
    num_hits = float((predictions_K * rate_K).sum())
    return np.array([num_hits, predictions_B.sum() - num_hits])


def _came_late(layout: Layout, worst: int, due: Mapping[int, Judged], past: Sequence[PastBlock], since_ms: int) -> float:
    """Share of the labels of the class, of blocks since the fault began, that came after those blocks were judged."""
    came = total = 0.0
    for block in past:
        if block.start_ms >= since_ms and block.start_ms in due:
            before = due[block.start_ms]
            hits_now, labels_now = _hits(layout, block.sums), layout.value(block.sums, "num_labels")
            now_2 = (hits_now, labels_now - hits_now)
            then_2 = (before.num_hits, before.num_labels - before.num_hits)
            came, total = came + now_2[worst] - then_2[worst], total + now_2[worst]
    return came / total if total >= 1 else 0.0


# --- labels that say something else ---


def _by_score(
    layout: Layout, sums: Floats, usual: Sequence[PastBlock], since: Sequence[PastBlock], since_ms: int
) -> list[Found]:
    """The explanation of the labels by score: of this block, and with those since they are not as usual."""
    if layout.value(sums, "num_labels") < _MIN_LABELS:
        return []
    alone = _explained(layout, [sums], usual, since_ms)
    if alone is None:
        return []
    together = _explained(layout, [*(block.sums for block in since[1 - _MIN_BLOCKS :]), sums], usual, since_ms)
    faults = [one for one in (alone, together) if one is not None and one.kind != MOVED]
    return [max(faults, key=lambda one: one.confidence)] if faults else [alone]


def _explained(layout: Layout, blocks: Sequence[Floats], usual: Sequence[PastBlock], since_ms: int) -> Found | None:
    group_B = _groups(np.sum([layout.counts(one.sums, "labels") for one in usual], axis=0))
    sums = np.sum(blocks, axis=0)
    rows_K, hits_K = (_grouped(layout.counts(sums, name), group_B) for name in ("labels", "hits"))
    rows_HK = np.array([_grouped(layout.counts(one.sums, "labels"), group_B) for one in usual])
    hits_HK = np.array([_grouped(layout.counts(one.sums, "hits"), group_B) for one in usual])
    rate_K = (hits_HK.sum(axis=0) + 0.5) / (rows_HK.sum(axis=0) + 1.0)
    firmness = min(MOST_CONCENTRATION, _firmness(rows_HK, hits_HK) * len(blocks))
    evidence = _evidence(layout, rows_K, hits_K, rows_HK, hits_HK, rate_K, firmness)
    if not _is_complete(layout, sums, usual):
        evidence.pop("labels_one_class", None)
    chances = posterior(evidence, {kind: _PRIOR[kind] for kind in evidence})
    kind = max(chances, key=lambda one: chances[one])
    if kind == "usual":
        return None
    if kind != MOVED and (chances[kind] < CREDIBLE or float(np.ptp(rate_K)) < 0.1):  # scores that say nothing show nothing
        kind = MOVED
    rate, before = hits_K.sum() / rows_K.sum(), hits_HK.sum() / rows_HK.sum()
    rows = (
        EvidenceRow(name="event rate now", value=round(float(rate), 4), unit="share"),
        EvidenceRow(name="event rate before", value=round(float(before), 4), unit="share"),
        EvidenceRow(name="probability of this explanation", value=chances[kind], bound=CREDIBLE),
        EvidenceRow(name="probability that the world moved", value=chances[MOVED], bound=1 - CREDIBLE),
    )
    return Found(
        kind=kind, subject=LABELS, words=_WORDS[kind], confidence=round(chances[kind], 4), since_ms=since_ms, rows=rows,
        is_certain=kind == "labels_one_class" and hits_K.sum() in (0.0, rows_K.sum()),
    )  # fmt: skip


def _is_complete(layout: Layout, sums: Floats, usual: Sequence[PastBlock]) -> bool:
    """About as many predictions have a label as usual: none of a class is missing."""
    before = sum(layout.value(one.sums, "num_labels") for one in usual) / max(
        1.0, sum(layout.value(one.sums, "num_predictions") for one in usual)
    )
    return layout.value(sums, "num_labels") >= (1 - _KEPT) * before * layout.value(sums, "num_predictions")


def _evidence(
    layout: Layout, rows_K: Floats, hits_K: Floats, rows_HK: Floats, hits_HK: Floats, rate_K: Floats, firmness: float
) -> dict[str, float]:
    def foretold(rate_K: Floats, rows: float = firmness) -> float:
        return log_evidence_of_rates(hits_K, rows_K, rate_K, rows)

    last_K = (hits_HK[-1] + firmness * rate_K) / (rows_HK[-1] + firmness)
    worlds = [foretold(sigmoid(slope * logit(rate_K) + move)) for slope in _SLOPES for move in _MOVES]
    anything = foretold(np.full(len(rate_K), 0.5), LEAST_CONCENTRATION)
    found = {"usual": mixed([foretold(rate_K), foretold(last_K)]), MOVED: mixed([mixed(worlds), anything])}
    if layout.profile.task == "binary":
        overall = float(hits_HK.sum() / rows_HK.sum())
        found["labels_flipped"] = foretold(1 - rate_K)
        found["labels_misjoined"] = foretold(np.full(len(rate_K), overall))
        found["labels_one_class"] = mixed([foretold(np.full(len(rate_K), one)) for one in (_ONE_CLASS, 1 - _ONE_CLASS)])
    else:
        flat = [foretold(np.full(len(rate_K), one)) for one in np.linspace(0.05, 0.95, 19) if one < rate_K.min()]
        found["labels_misjoined"] = mixed(flat) if flat else -np.inf
    return {kind: log for kind, log in found.items() if np.isfinite(log)}


def _firmness(rows_HK: Floats, hits_HK: Floats) -> float:
    """How firmly a group's rate is known for one block, in rows: from the blocks' spread around the pooled rate.

    Source: moments of the beta-binomial, as `likelihood.concentration_of`.
    """
    rate_K = (hits_HK.sum(axis=0) + 0.5) / (rows_HK.sum(axis=0) + 1.0)
    variance_HK = np.maximum(rows_HK * rate_K * (1 - rate_K), 1e-9)
    is_used = rows_HK >= 5
    degrees = max(1, int(is_used.sum()) - len(rate_K))
    excess = float((((hits_HK - rows_HK * rate_K) ** 2 / variance_HK)[is_used]).sum() / degrees)
    mean_rows = float(rows_HK[is_used].mean()) if is_used.any() else 1.0
    if excess <= 1.0:
        return MOST_CONCENTRATION
    return min(MOST_CONCENTRATION, max(LEAST_CONCENTRATION, (mean_rows - excess) / (excess - 1.0)))


def _groups(rows_B: Floats) -> npt.NDArray[np.int64]:
    """Group of each score bin, so that each holds about as many past labels."""
    below_B = np.cumsum(rows_B) - rows_B / 2
    group_B: npt.NDArray[np.int64] = (below_B * _NUM_GROUPS / max(1.0, rows_B.sum())).astype(np.int64)
    return np.minimum(_NUM_GROUPS - 1, group_B)


def _grouped(values_B: Floats, group_B: npt.NDArray[np.int64]) -> Floats:
    return np.bincount(group_B, values_B, _NUM_GROUPS).astype(np.float64)


def _hits(layout: Layout, sums: Floats) -> float:
    return float(layout.counts(sums, "hits").sum())


def judged_of(layout: Layout, sums: Floats, start_ms: int) -> Judged:
    """The labels of a block as they stand when it is judged."""
    num_labels = round(layout.value(sums, "num_labels"))
    return Judged(start_ms=start_ms, num_labels=num_labels, num_hits=round(_hits(layout, sums)))
