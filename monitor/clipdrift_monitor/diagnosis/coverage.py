"""Whether the labels of one class no longer come, while those of the other do.

Which predictions have no label yet is known score by score: where the labels of one class are missing, they are missing where
the scores foretell that class, on an easy day as on a hard one. Labels that are missing by chance are missing everywhere.
Of two classes.

Axes: B score bins, K groups of them, H past blocks, 2 hits and misses, 3 hits, misses, and no label.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from clipdrift_contract.events import EvidenceRow
from clipdrift_monitor.diagnosis.faults import CREDIBLE, LABELS, MOVED, FaultMemory, Found, Judged, PastBlock, prior_of
from clipdrift_monitor.diagnosis.likelihood import log_evidence_of_bins, mixed, posterior
from clipdrift_monitor.diagnosis.scores import UsualRates, grouped, hits_of, label_counts, logit_moved
from clipdrift_monitor.windows.window import Floats, Layout

_MIN_BLOCKS = 7  # a week: how many labels are there when they are due must be known well
_SHORT = 0.02  # of the labels that are due: with fewer missing, no half of a class that matters is
_LOST = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the labels of a class: fewer may be a slow day
_LOST_BY_CHANCE = (0.03, 0.06, 0.1, 0.2, 0.4, 0.6, 0.8)  # of all labels
_DAYS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # of log-odds: by how much more or less common the event is on a day
_FLOOR = 0.005
_LATE = 0.5  # of the labels that were missing when due
_PRIOR: Mapping[str, float] = {"usual": 0.98, MOVED: 0.02, "hits": 1e-4, "misses": 1e-4}  # see labels.py
_KINDS = ("labels_missing_for_class", "labels_delayed_by_class")


class _Case(NamedTuple):
    """The judged block by groups of scores, and what past blocks foretell of it."""

    counts_K3: Floats
    rate_K: Floats
    kept_2: Floats
    """Share of each class's labels that are there when they are due, usually."""
    firmness: float


def missing_class(
    layout: Layout,
    sums: Floats,
    usual: Sequence[PastBlock],
    rates: UsualRates,
    memory: FaultMemory,
    past: Sequence[PastBlock],
    since_ms: int,
    told: str = "",
) -> Found | None:
    """The class whose labels do not come, or come later; None where labels come as they usually do, or are missing by chance.

    Args:
        layout: Of the version; two classes.
        sums: Of the judged block, when its labels are due.
        usual: Past blocks with nothing wrong with their labels, which have come since.
        rates: What these say of rates by score.
        memory: With the labels of past blocks as they stood when they were due.
        past: All past blocks.
        since_ms: Start of the first block in which the labels were not as usual.
        told: The fault that was told of the block before; "" none.
    """
    due = {one.start_ms: one for one in memory.judged}
    known = [(due[block.start_ms], block) for block in usual if block.start_ms in due]
    if len(known) < _MIN_BLOCKS:
        return None
    case = _case(layout, sums, known, rates)
    foretold_2 = np.array([(case.counts_K3.sum(axis=1) * rate_K).sum() for rate_K in (case.rate_K, 1 - case.rate_K)])
    expected = float((foretold_2 * case.kept_2).sum())
    num_labels = float(case.counts_K3[:, :2].sum())
    if num_labels >= (1 - _SHORT) * expected:
        return None
    tried = _tried(case)
    evidence = {name: mixed([log for log, _ in meanings]) for name, meanings in tried.items()}
    chances = posterior(evidence, prior_of(_PRIOR, ("hits", "misses") if told in _KINDS else ()))
    is_hits = chances["hits"] >= chances["misses"]
    chance = chances["hits"] + chances["misses"]
    if chance < CREDIBLE:
        return None
    _, lost = max(tried["hits" if is_hits else "misses"])
    late = _came_late(layout, is_hits, due, past, since_ms)
    classes = layout.profile.classes or ("0", "1")
    rows = (
        EvidenceRow(name="labels that are due and missing", value=round(1 - num_labels / max(1.0, expected), 3), unit="share"),
        EvidenceRow(name="of this class, about", value=round(lost, 3), unit="share", bound=_LOST[0]),
        EvidenceRow(name="probability of this explanation", value=round(chance, 4), bound=CREDIBLE),
        EvidenceRow(name="of those missing before, came since", value=round(late, 3), unit="share", bound=_LATE),
    )
    kind = _KINDS[late >= _LATE]
    how = "come later than those of the other class" if late >= _LATE else "do not come, while those of the other class do"
    words = f"labels of the class {classes[int(is_hits)]!r} {how} (about {lost:.0%} are missing when they are due)"
    return Found(kind=kind, subject=LABELS, words=words, confidence=round(chance, 4), since_ms=since_ms, rows=rows)


def _case(layout: Layout, sums: Floats, known: Sequence[tuple[Judged, PastBlock]], rates: UsualRates) -> _Case:
    assert rates.group_B is not None
    group_B, rate_K = rates.group_B, rates.rate_K
    predictions_K = np.sum([grouped(layout.counts(block.sums, "predictions"), group_B) for _, block in known], axis=0)
    foretold_2 = np.array([(predictions_K * rate_K).sum(), (predictions_K * (1 - rate_K)).sum()])
    came_2 = np.sum([(one.num_hits, one.num_labels - one.num_hits) for one, _ in known], axis=0)
    now_K = grouped(layout.counts(sums, "predictions"), group_B)
    rows_K, hits_K = label_counts(layout, sums, group_B)
    counts_K3 = np.column_stack([hits_K, rows_K - hits_K, np.maximum(0.0, now_K - rows_K)])
    kept_2 = np.clip(came_2 / np.maximum(1.0, foretold_2), _FLOOR, 1.0)
    return _Case(counts_K3, rate_K, kept_2, rates.firmness)


def _tried(case: _Case) -> dict[str, list[tuple[float, float]]]:
    """Log evidence and the share that is lost, of all that each explanation may mean."""
    rates = [logit_moved(case.rate_K, 1.0, move) for move in _DAYS]

    def foretold(lost_hits: float, lost_misses: float) -> float:
        kept_2 = case.kept_2 * (1 - np.array([lost_hits, lost_misses]))
        return mixed([_log_evidence(case, rate_K, kept_2) for rate_K in rates])

    anything = sum(log_evidence_of_bins(counts_3, np.ones(3)) for counts_3 in case.counts_K3)
    return {
        "usual": [(foretold(0.0, 0.0), 0.0)],
        MOVED: [(foretold(lost, lost), lost) for lost in _LOST_BY_CHANCE] + [(anything, 0.0)],
        "hits": [(foretold(lost, 0.0), lost) for lost in _LOST],
        "misses": [(foretold(0.0, lost), lost) for lost in _LOST],
    }


def _log_evidence(case: _Case, rate_K: Floats, kept_2: Floats) -> float:
    came_K2 = np.column_stack([rate_K, 1 - rate_K]) * kept_2
    share_K3 = np.maximum(_FLOOR, np.column_stack([came_K2, 1 - came_K2.sum(axis=1)]))
    return sum(
        log_evidence_of_bins(counts_3, case.firmness * share_3)
        for counts_3, share_3 in zip(case.counts_K3, share_K3, strict=True)
    )


def _came_late(layout: Layout, is_hits: bool, due: Mapping[int, Judged], past: Sequence[PastBlock], since_ms: int) -> float:
    """Share of the labels of the class, of blocks since the fault began, that came after those blocks were judged."""
    came = total = 0.0
    for block in past:
        if block.start_ms >= since_ms and block.start_ms in due:
            before, num_hits = due[block.start_ms], hits_of(layout, block.sums)
            now = num_hits if is_hits else layout.value(block.sums, "num_labels") - num_hits
            then = before.num_hits if is_hits else before.num_labels - before.num_hits
            came, total = came + now - then, total + now
    return came / total if total >= 1 else 0.0
