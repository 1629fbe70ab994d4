"""Whether the labels are at fault rather than the model, from one block to the next.

What the scores foretell is known from the blocks before: how often the event came in each group of scores. Labels that were
turned round, that belong to other predictions, or that are all the same leave marks there which no world leaves at once, and
which all slices show. Of classification only; which class a label names is known for two classes.

Axes: B score bins, K groups of them, H past blocks.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clipdrift_contract.events import EvidenceRow
from clipdrift_monitor.diagnosis.coverage import missing_class
from clipdrift_monitor.diagnosis.faults import (
    CREDIBLE,
    LABELS,
    MOVED,
    Found,
    Judged,
    Look,
    PastBlock,
    Span,
    prior_of,
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
from clipdrift_monitor.diagnosis.scores import UsualRates, hits_of, label_counts, logit_moved, usual_rates
from clipdrift_monitor.windows.window import Floats, Layout

_MIN_LABELS = 50
_MIN_BLOCKS = 7  # a week: what labels say must be known well before they are called wrong
_MIN_SLICE_LABELS = 20
_KEPT = 0.25  # of the labels: with more missing, labels of one class are those of the other that did not come
_SPEAKING = 0.1  # spread of the rates from which scores say something
_SLOPES, _MOVES = (1.5, 0.7, 0.4), (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # of log-odds: what worlds do to rates
_SLOPES_TURNED = (1.5, 1.0, 0.7, 0.4)  # a broken feature beside it blurs the scores, and slices differ
_DAYS = 14  # past blocks that show what moves are usual
_ONE_CLASS = 0.002  # of labels that are of the other class all the same
# Before looking: one look at each of 3 models on each of 90 days is 270 looks, and all of them together may bring one false
# page. What jumps is the world, most often.
_PRIOR: Mapping[str, float] = {
    "usual": 0.98, MOVED: 0.02, "labels_flipped": 1e-4, "labels_misjoined": 1e-4, "labels_one_class": 1e-4,
}  # fmt: skip
_FIRMNESS_OF_SLICES = 30.0  # rows: their rates differ from those of all rows together
_SPOKEN_FOR = math.log(20)  # odds that all slices together must give a fault
_NO_FAULT = ("usual", MOVED)
_WORDS: Mapping[str, str] = {
    "labels_flipped": "the labels look turned round: what was foretold as likely now comes seldom, and the other way",
    "labels_misjoined": "the labels no longer depend on the scores at all: they look joined to other predictions than theirs",
    "labels_one_class": "all labels are of one class, and there are as many of them as before",
    MOVED: "the rates by score changed from one block to the next, in no way that a label pipeline is known for",
}


def label_faults(look: Look, by_slice: Mapping[int, Floats] | None = None) -> list[Found]:
    """What is wrong with the labels of a block, which are due: nothing, or the explanation that fits best.

    Args:
        look: At which block; those before it hold all labels that have come since.
        by_slice: The sums of the judged block by slice: a pipeline that breaks breaks for all of them.
    """
    layout, sums, past, memory = look.layout, look.sums, look.past, look.memory
    usual = [one for one in usual_blocks(memory, LABELS, past) if layout.value(one.sums, "num_labels") >= _MIN_LABELS]
    if layout.profile.task == "regression" or len(usual) < _MIN_BLOCKS:
        return []
    span = span_of(memory, LABELS, look.start_ms, look.width_ms)
    since_ms, told = (look.start_ms, "") if span is None else (span.since_ms, span.kind)
    known = usual_rates(layout, usual)
    if layout.profile.task == "binary":
        missing = missing_class(layout, sums, usual, known, memory, past, since_ms, told)
        if missing is not None:
            return [missing]
    if layout.value(sums, "num_labels") < _MIN_LABELS:
        return []
    since = [*(block.sums for block in past if block.start_ms >= since_ms), sums][-_MIN_BLOCKS:]
    found = _told(layout, sums, since, usual, known, span, since_ms, list((by_slice or {}).values()))
    return [] if found is None else [found]


def _told(
    layout: Layout,
    sums: Floats,
    since: Sequence[Floats],
    usual: Sequence[PastBlock],
    known: UsualRates,
    span: Span | None,
    since_ms: int,
    slices: Sequence[Floats],
) -> Found | None:
    """The explanation of the labels by score: of this block, and with those since they are not as usual.

    Where a broken feature moved all scores, nothing is known of the rates at the scores that are left; then the explanation
    by their rank.
    """
    told = (span.kind,) if span is not None and span.kind in _PRIOR and span.kind != MOVED else ()
    is_complete = _is_complete(layout, sums, usual)
    alone = _chances(layout, known, [sums], prior_of(_PRIOR, told), is_complete=is_complete)
    if max(alone, key=lambda one: alone[one]) == "usual":
        return None
    kind, chances = MOVED, alone
    for by in (known, usual_rates(layout, usual, by_rank=True)):
        tried = [alone if by is known else _chances(layout, by, [sums], prior_of(_PRIOR, told), is_complete=is_complete)]
        if len(since) > 1:
            tried.append(_chances(layout, by, since, _PRIOR, is_complete=is_complete))
        best = max(tried, key=lambda one: max(chance for name, chance in one.items() if name not in _NO_FAULT))
        fault = max((one for one in best if one not in _NO_FAULT), key=lambda one: best[one])
        if best[fault] >= CREDIBLE and np.ptp(by.rate_K) >= _SPEAKING and not _is_contradicted(layout, by, fault, slices):
            kind, chances = fault, best
            break
    labels, hits = layout.value(sums, "num_labels"), hits_of(layout, sums)
    rows = (
        EvidenceRow(name="event rate now", value=round(hits / labels, 4), unit="share"),
        EvidenceRow(name="event rate before", value=round(float(known.hits_HK.sum() / known.rows_HK.sum()), 4), unit="share"),
        EvidenceRow(name="probability of this explanation", value=round(chances[kind], 4), bound=CREDIBLE),
        EvidenceRow(name="probability that the world moved", value=round(chances[MOVED], 4), bound=1 - CREDIBLE),
    )
    return Found(
        kind=kind, subject=LABELS, words=_WORDS[kind], confidence=round(chances[kind], 4), since_ms=since_ms, rows=rows,
        is_certain=kind == "labels_one_class" and hits in (0.0, labels),
    )  # fmt: skip


def _is_complete(layout: Layout, sums: Floats, usual: Sequence[PastBlock]) -> bool:
    """About as many predictions have a label as usual: none of a class is missing."""
    before = sum(layout.value(one.sums, "num_labels") for one in usual) / max(
        1.0, sum(layout.value(one.sums, "num_predictions") for one in usual)
    )
    return layout.value(sums, "num_labels") >= (1 - _KEPT) * before * layout.value(sums, "num_predictions")


def _chances(
    layout: Layout, known: UsualRates, blocks: Sequence[Floats], prior: Mapping[str, float], *, is_complete: bool
) -> dict[str, float]:
    """Probability of each explanation after some blocks, which are added up."""
    evidence = _evidence(layout, known, np.sum(blocks, axis=0), min(MOST_CONCENTRATION, known.firmness * len(blocks)))
    if not is_complete:
        evidence.pop("labels_one_class", None)
    return posterior(evidence, {kind: prior[kind] for kind in evidence})


def _is_contradicted(layout: Layout, known: UsualRates, kind: str, slices: Sequence[Floats]) -> bool:
    """The slices, each by itself, are better explained by what worlds do: one broken pipeline breaks them all."""
    spoken = [one for one in slices if layout.value(one, "num_labels") >= _MIN_SLICE_LABELS]
    if len(spoken) < 2:
        return False
    by_slice = [_evidence(layout, known, one, min(known.firmness, _FIRMNESS_OF_SLICES)) for one in spoken]
    gap = sum(mixed([one["usual"], one[MOVED]]) - one[kind] for one in by_slice)
    return gap > -_SPOKEN_FOR


def _evidence(layout: Layout, known: UsualRates, sums: Floats, firmness: float) -> dict[str, float]:
    """Log evidence of each explanation: rates by score, drawn around what it foretells."""
    rows_K, hits_K = label_counts(layout, sums, known.group_B)
    rate_K = known.rate_K

    def foretold(rate_K: Floats, rows: float = firmness) -> float:
        return log_evidence_of_rates(hits_K, rows_K, rate_K, rows)

    days = [0.0, *known.move_H[-_DAYS:].tolist()]
    worlds = [foretold(logit_moved(rate_K, slope, move)) for slope in _SLOPES for move in _MOVES]
    anything = foretold(np.full(len(rate_K), 0.5), LEAST_CONCENTRATION)
    found = {
        "usual": mixed([foretold(logit_moved(rate_K, 1.0, move)) for move in days]),
        MOVED: mixed([mixed(worlds), anything]),
    }
    overall_K = np.full(len(rate_K), float(known.hits_HK.sum() / known.rows_HK.sum()))
    if layout.profile.task == "binary":
        turned = [1 - logit_moved(rate_K, slope, move) for slope in _SLOPES_TURNED for move in _MOVES]
        found["labels_flipped"] = mixed([foretold(one_K) for one_K in turned])
        # those of another prediction of the day, and days differ
        found["labels_misjoined"] = mixed([foretold(logit_moved(overall_K, 1.0, move)) for move in _MOVES])
        found["labels_one_class"] = mixed([foretold(np.full(len(rate_K), one)) for one in (_ONE_CLASS, 1 - _ONE_CLASS)])
    else:
        flat = [foretold(np.full(len(rate_K), one)) for one in np.linspace(0.05, 0.95, 19) if one < rate_K.min()]
        found["labels_misjoined"] = mixed(flat) if flat else -np.inf
    return {kind: log for kind, log in found.items() if np.isfinite(log)}


def judged_of(layout: Layout, sums: Floats, start_ms: int) -> Judged:
    """The labels of a block as they stand when it is judged."""
    num_labels = round(layout.value(sums, "num_labels"))
    return Judged(start_ms=start_ms, num_labels=num_labels, num_hits=round(hits_of(layout, sums)))
