"""Gathers the facts of a block that a diagnosis looks at, from sums."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import RetrainOutcome, RunEnd
from clipdrift_monitor.clipping.association import Association
from clipdrift_monitor.clipping.evidence import evidence_of
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.faults import Found
from clipdrift_monitor.diagnosis.rules import Approval, Facts, Probabilities, SliceFacts
from clipdrift_monitor.diagnosis.split import split_loss
from clipdrift_monitor.risk.challengers import logit, recalibration, sigmoid
from clipdrift_monitor.risk.harm import Statement
from clipdrift_monitor.risk.repairable import paired
from clipdrift_monitor.windows.view import View
from clipdrift_monitor.windows.window import Floats, Layout

_MIN_SLICE_LABELS = 200
_MIN_BLOCKS, _MIN_BLOCK_LABELS = 5, 50  # that show how much a gain differs from block to block


def gather(
    run: RunEnd,
    layout: Layout,
    *,
    statements: Mapping[str, Statement],
    open_tests: tuple[str, ...],
    drift: DriftReport,
    live: View,
    in_view: Mapping[int, Floats],
    tried: RetrainOutcome | None,
    margin: float,
    faults: tuple[Found, ...] = (),
    is_searched: bool = False,
    first_ms: int | None = None,
    exploration_slice: str = "",
    approvals: tuple[Approval, ...] | None = None,
    association: Association | None = None,
    blocks: Sequence[Floats] = (),
) -> Facts:
    """The facts of a block.

    Args:
        run: That made the version in service.
        layout: Of the sums.
        statements: What the harm tests say of the block, by test.
        open_tests: Harm tests whose signals are open.
        drift: Of the block.
        live: Figures over the sliding view that ends with the block.
        in_view: Sums over the same, by slice.
        tried: The last shadow retrain of this version; None where there was none.
        margin: Brier score by which another arm must beat the old policy before clipping is called harmful.
        faults: Of features and labels, in the block.
        is_searched: There were enough past blocks to search them by.
        first_ms: Start of the version's first block.
        exploration_slice: Decided without the model, as declared.
        approvals: By people, as recorded.
        association: Of drift and harm with clipping, over the model's versions.
        blocks: Sums of the newest blocks, one by one, all slices together.
    """
    validated = {one.slice: (one.num_rows, one.num_correct) for one in run.validation if one.slice}
    names = layout.profile.slice_names
    by_slice = {
        names[index] if index < len(names) else str(index): (
            round(layout.value(sums, "num_labels")), round(layout.value(sums, "num_correct"))
        )
        for index, sums in in_view.items()
    }  # fmt: skip
    if not validated and run.validation:
        overall = run.validation[0]
        validated = {"all": (overall.num_rows, overall.num_correct)}
    return Facts(
        clipping=evidence_of(run, tried),
        split=split_loss(validated, by_slice),
        drift=drift,
        statements=statements,
        open_tests=open_tests,
        validated_ece=run.validation[0].ece if run.validation else 0.0,
        live_ece=live.ece,
        num_labels=live.num_labels,
        margin=margin,
        falls=falls_of(validated, by_slice),
        faults=faults,
        slices=_slices(run, by_slice),
        probabilities=_probabilities(run, layout, live, in_view, blocks),
        days_to_first_block=None if first_ms is None else max(0.0, (first_ms - run.data_end_ms) / MS_PER_DAY),
        exploration_slice=exploration_slice,
        approvals=approvals,
        is_searched=is_searched,
        association=association,
    )


def _slices(run: RunEnd, live: Mapping[str, tuple[int, int]]) -> dict[str, SliceFacts]:
    return {
        one.slice: SliceFacts(
            num_validated=one.num_rows, num_validated_correct=one.num_correct, num_train=one.num_train,
            num_live=live.get(one.slice, (0, 0))[0], num_live_correct=live.get(one.slice, (0, 0))[1],
        )
        for one in run.validation
        if one.slice
    }  # fmt: skip


def _probabilities(
    run: RunEnd, layout: Layout, live: View, in_view: Mapping[int, Floats], blocks: Sequence[Floats]
) -> Probabilities | None:
    """Of two classes; None without labels."""
    if layout.profile.task != "binary" or not live.num_labels or live.brier is None or not run.validation:
        return None
    overall, sums = run.validation[0], np.sum(list(in_view.values()), axis=0)
    _, labels_B, hits_B = _by_score(layout, sums)
    counts = layout.profile.label_counts
    return Probabilities(
        validated_brier=overall.brier_sum / max(1, overall.num_rows), live_brier=live.brier,
        recalibrated_brier=live.brier - _gain(layout, sums, sums), validated_auc=overall.auc, live_auc=live.auc,
        num_hits=round(float(hits_B.sum())), num_misses=round(float((labels_B - hits_B).sum())),
        validated_rate=counts[1] / max(1, sum(counts)) if len(counts) > 1 else None,
        regained_error=_error_of_gain(layout, blocks), foretold_loss=_foretold_loss(layout, sums),
    )  # fmt: skip


def _by_score(layout: Layout, sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean score, labels and hits of each score bin; shapes [B]."""
    labels_B, hits_B, score_sum_B = (layout.counts(sums, name) for name in ("labels", "hits", "score_sum"))
    return np.divide(score_sum_B, labels_B, out=np.full(len(labels_B), 0.5), where=labels_B > 0), labels_B, hits_B


def _gain(layout: Layout, fitted: Floats, judged: Floats) -> float:
    """Brier score a label that a recalibration fitted to some sums gains on others."""
    slope, shift = recalibration(*_by_score(layout, fitted))
    score_B, labels_B, hits_B = _by_score(layout, judged)
    gain, _ = paired(labels_B, hits_B, score_B, sigmoid(slope * logit(score_B) + shift))
    return gain


def _error_of_gain(layout: Layout, blocks: Sequence[Floats]) -> float | None:
    """Standard error of the gain over blocks, each judged by a line fitted to the others."""
    labelled = [one for one in blocks if layout.value(one, "num_labels") >= _MIN_BLOCK_LABELS]
    if len(labelled) < _MIN_BLOCKS:
        return None
    whole = np.sum(labelled, axis=0)
    gains = np.array([_gain(layout, whole - one, one) for one in labelled])
    return float(gains.std(ddof=1) / math.sqrt(len(gains)))


def _foretold_loss(layout: Layout, sums: Floats) -> float:
    """Validated minus live accuracy by the scores alone, from the bins of the reference profile."""
    edges = (0.0, *layout.profile.score_edges, 1.0)
    centre_K = (np.array(edges[:-1]) + np.array(edges[1:])) / 2
    right_K = np.maximum(centre_K, 1 - centre_K)
    before_K, now_K = np.array(layout.profile.score_counts, float), sums[layout.score_reference]
    if not before_K.sum() or not now_K.sum():
        return 0.0
    return float(before_K @ right_K / before_K.sum() - now_K @ right_K / now_K.sum())


def falls_of(validated: Mapping[str, tuple[int, int]], live: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Validated minus live accuracy by slice, from (labels, hits), where both sides have at least 200 labels.

    Example:
        >>> falls_of({"a": (200, 180), "b": (200, 180)}, {"a": (400, 200), "b": (10, 0)})
        {'a': 0.4}
    """
    enough = [name for name in validated if min(validated[name][0], live.get(name, (0, 0))[0]) >= _MIN_SLICE_LABELS]
    return {name: validated[name][1] / validated[name][0] - live[name][1] / live[name][0] for name in enough}
