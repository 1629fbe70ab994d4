"""Which features are broken rather than drifting, from the bins of a block and of the blocks before it.

A world that changes moves several features, by degrees, and in shapes of its own. A pipeline that breaks moves one feature from
one block to the next, and in a way that has a name: another unit, a constant added, one value for all, values of an earlier
day. Each explanation foretells the block's bins; the one that foretold them best is told, with its probability.

Axes: H past blocks, K bins of a feature, the last one missing values.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import EvidenceRow
from clipdrift_contract.profile import FeatureProfile
from clipdrift_monitor.detectors.window_drift import MISSING_NOW, USUAL_BEFORE
from clipdrift_monitor.diagnosis.conversions import UNITS, Conversion, converted, shifts
from clipdrift_monitor.diagnosis.faults import (
    CREDIBLE,
    MOVED,
    Found,
    Look,
    span_of,
    unbroken_blocks,
    usual_blocks,
)
from clipdrift_monitor.diagnosis.likelihood import (
    LEAST_CONCENTRATION,
    MOST_CONCENTRATION,
    concentration_of,
    log_evidence_of_bins,
    mixed,
    posterior,
    shares_of,
)
from clipdrift_monitor.diagnosis.stale import CHANCE, repeat_of
from clipdrift_monitor.windows.window import Floats

_MIN_ROWS = 100
_WEEK = 7  # blocks
_VARIES = 0.9  # share of the fullest bin from which a feature is called constant within a block
_CONVERTED_ROWS = 60.0  # how firmly the bins after a conversion are known: within its bin, nobody knows where a row lies
_SOME = 1e-4  # share of a bin that is left after its zeros are taken
_ROUGH_ROWS = 10.0  # the world's own moves: anywhere near the usual, or anywhere at all
_LARGE_MOVE = 0.2  # share of rows in other bins: a normal moved by half its standard deviation; less is worth no page
_CERTAIN = 0.999  # of what was counted
# Times as far from the usual as the feature's own usual blocks ever were: weather moves by itself every day.
_UNLIKE_ITSELF = 2.0
_HALF = 0.5  # of the rows in one bin: a feature that never had so many does not get all of them there by itself
_AT_AN_END = 0.1  # weight of an open end bin where a value is stuck
_LOST_SHARES = tuple(i / 10 for i in range(2, 10))
# Before looking: most blocks are as usual, and what jumps is far more often the world than the pipeline. A look at each of 20
# features of 3 models on each of 90 days is 5,400 looks, and all of them together may bring one false page.
_PRIOR: Mapping[str, float] = {
    "usual": 0.98, MOVED: 0.02, "schema_change": 5e-6, "unit_change": 5e-6, "shifted_feature": 5e-6, "constant_feature": 5e-6,
}  # fmt: skip


class _Case(NamedTuple):
    """One feature in the judged block."""

    feature: FeatureProfile
    counts_K: Floats
    usual_HK: Floats
    """Of the usual past blocks; the reference profile where there are none."""
    since_HK: Floats
    """Of the blocks since the feature is not as usual, a week at most, this one the last."""
    before_HK: Floats
    """Of all past blocks until then in which nothing was broken, whether they moved or not."""
    since_ms: int
    is_from_first: bool
    usual_ms: tuple[int, ...]
    """Starts of the usual past blocks; () where there are none."""
    is_stale: bool
    """It was told as stale in the block before."""


def feature_faults(look: Look, *, has_mix_moved: bool = False) -> list[Found]:
    """The features that are not as before, each with the explanation that fits best: a fault, or a move of the world.

    Args:
        look: At which block.
        has_mix_moved: The slices have other shares than before: a shift of a feature may come from that.
    """
    if look.layout.value(look.sums, "num_predictions") < _MIN_ROWS:
        return []
    cases = [_case(look, feature) for feature in look.layout.profile.features]
    explained = [_explained(case) for case in cases]
    found = []
    for case, best in zip(cases, explained, strict=True):
        told = best if best is not None and best.kind != MOVED else _stale(case, len(cases)) or best
        if told is None or (told.kind == MOVED and case.is_from_first):
            continue  # a first day that is not like validation's mean is like most days
        if told.kind == "shifted_feature":
            others = [one for one in cases if one is not case]
            num_moved = sum(_has_moved(one, look, case.since_ms) for one in others) + has_mix_moved
            told = _beside(told, num_moved)
        found.append(told)
    return found


def _beside(told: Found, num_moved: int) -> Found:
    """A shift in the light of how many other features moved with it: the world moves several, a pipeline breaks one."""
    if not num_moved:
        return told
    words = f"{told.subject} moved together with {num_moved} others (features, or the slices' mix)"
    return msgspec.structs.replace(told, kind=MOVED, words=words)


def _has_moved(case: _Case, look: Look, since_ms: int) -> bool:
    """The feature left what was usual in about the same block: the bins say so now, or it was found then."""
    name, spans = case.feature.spec.name, look.memory.spans
    if any(one.subject == name and abs(one.since_ms - since_ms) <= look.width_ms for one in spans):
        return True
    usual_K = case.usual_HK.sum(axis=0)
    if not usual_K.sum() or not case.counts_K.sum() or _distance(usual_K, case.counts_K) < _LARGE_MOVE / 4:
        return False
    evidence, _ = _evidence(case, usual_K, _firmness(case))
    return evidence[MOVED] > evidence["usual"]


def _case(look: Look, feature: FeatureProfile) -> _Case:
    layout, past, memory, start_ms = look.layout, look.past, look.memory, look.start_ms
    name = feature.spec.name
    part, span = layout.features[name], span_of(memory, name, start_ms, look.width_ms)
    blocks = usual_blocks(memory, name, past)
    usual, full = [block.sums[part] for block in blocks], [block for block in blocks if block.sums[part].sum() >= _MIN_ROWS]
    rows = [block.sums[part] for block in full]
    is_from_first = span.is_from_first if span is not None else memory.first_ms in (None, start_ms) and not past
    if is_from_first or not rows:
        rows = [np.array([*feature.counts, feature.num_missing], float)]
    counts_K = look.sums[part]
    if usual and not any(one.any() for one in usual) and not counts_K.any():  # never recorded: that is no news
        rows = [np.zeros(len(counts_K))]
    since_ms = start_ms if span is None else span.since_ms
    since = [block.sums[part] for block in past if block.start_ms >= since_ms and block.sums[part].any()][1 - _WEEK :]
    before = [one.sums[part] for one in unbroken_blocks(memory, name, past) if one.start_ms < since_ms]
    return _Case(
        feature, counts_K, np.array(rows), np.array([*since, counts_K]), np.array([one for one in before if one.any()]),
        since_ms, is_from_first, tuple(block.start_ms for block in full), span is not None and span.kind == "stale_feature",
    )  # fmt: skip


def _found(case: _Case, kind: str, words: str, confidence: float, *rows: EvidenceRow, is_certain: bool = False) -> Found:
    return Found(
        kind=kind, subject=case.feature.spec.name, words=words, confidence=round(confidence, 4), since_ms=case.since_ms,
        is_from_first=case.is_from_first, is_certain=is_certain, rows=rows,
    )  # fmt: skip


def _explained(case: _Case) -> Found | None:
    """The explanation that fits best; None where that is "as usual"."""
    counted = _lost(case) if case.counts_K.sum() else _not_recorded(case)
    if counted is not None or not _is_comparable(case):
        return counted
    usual_K = case.usual_HK.sum(axis=0)
    distance = _distance(usual_K, case.counts_K)
    if distance < _LARGE_MOVE:
        return None
    evidence, details = _evidence(case, usual_K, _firmness(case))
    chances = posterior(evidence, {kind: _PRIOR[kind] for kind in evidence})
    if max(chances, key=lambda one: chances[one]) == "usual":
        return None
    # which fault it is may be open where that there is one is not
    faults = {kind: chance for kind, chance in chances.items() if kind not in ("usual", MOVED)}
    own = _own_distance(case)
    is_fault = sum(faults.values()) >= CREDIBLE and distance >= _UNLIKE_ITSELF * own
    kind = max(faults, key=lambda one: faults[one]) if is_fault else MOVED
    return _found(
        case, kind, _words(case, kind, details), chances[kind],
        EvidenceRow(name="distance from usual", value=round(distance, 3), unit="share of rows that moved", bound=_LARGE_MOVE),
        EvidenceRow(name="of its own usual blocks, at most", value=round(own, 3), unit="share of rows that moved"),
        EvidenceRow(name="probability of any fault", value=round(sum(faults.values()), 4), bound=CREDIBLE),
        EvidenceRow(name="probability of this one", value=round(chances[kind], 4)),
        is_certain=kind == "constant_feature" and _is_stuck(case, usual_K),
    )  # fmt: skip


def _is_stuck(case: _Case, usual_K: Floats) -> bool:
    """All rows in one closed bin, of which no half of the rows ever were: a day without rain has one value of rain, too."""
    is_one_bin = case.counts_K.max() == case.counts_K.sum() and not _is_beyond(case)
    most = max(float(block_K.max() / block_K.sum()) for block_K in (*case.usual_HK, usual_K))
    return bool(is_one_bin and most <= _HALF)


def _own_distance(case: _Case) -> float:
    """How far the feature's blocks lie from one another by themselves: from their mean, at most, before it moved and since.

    And by how much the days of validation differed: the mean distance of a block whose shares are drawn from a Dirichlet of
    that concentration. Source: E|x - p| = sqrt(2/pi) sd, near a normal.
    """
    shares_K = shares_of(np.array([*case.feature.counts, case.feature.num_missing], float))
    spread_K = np.sqrt(shares_K * (1 - shares_K) / (_validated_firmness(case.feature) + 1))
    own = [float(math.sqrt(2 / math.pi) * spread_K.sum() / 2)]
    for blocks_HK in (case.before_HK, case.since_HK):
        if len(blocks_HK) > 1:
            mean_K = blocks_HK.sum(axis=0)
            own += [_distance(mean_K, block_K) for block_K in blocks_HK]
    return max(own)


def _words(case: _Case, kind: str, details: Mapping[str, str]) -> str:
    name, counts_K = case.feature.spec.name, case.counts_K
    if kind == "constant_feature":
        return f"{name} has one value in {counts_K.max() / counts_K.sum():.0%} of rows, which it never had before"
    if kind == "schema_change":
        return f"{name} lost its values in {_gone(case):.0%} of rows"
    if kind == MOVED:
        return f"{name} moved from one block to the next, in no way that a pipeline is known for"
    if _is_beyond(case):
        return f"{name} lies beyond what validation saw in nearly all rows, as if {_as_told(details[kind])}"
    return f"{name} looks {details[kind]}"


def _as_told(how: str) -> str:
    return how if how.endswith("added to each") else f"it came {how}"


def _is_comparable(case: _Case) -> bool:
    """Not where a block has one value, as a day has one date: its moves say nothing."""
    rows_H = case.usual_HK.sum(axis=1)
    if not case.counts_K.sum() or not rows_H.all():
        return False
    return case.is_from_first or float(np.median(case.usual_HK.max(axis=1) / rows_H)) < _VARIES


def _not_recorded(case: _Case) -> Found | None:
    """A feature that was recorded and is not any more; one that never was is known from the start."""
    if case.is_from_first or not case.usual_HK.sum():
        return None
    row = EvidenceRow(name="rows with this feature", value=0.0, unit="rows", bound=1.0)
    return _found(case, "schema_change", f"{case.feature.spec.name} is not recorded any more", _CERTAIN, row, is_certain=True)


def _distance(one_K: Floats, other_K: Floats) -> float:
    """Share of the rows that lie in other bins (total variation)."""
    return float(np.abs(one_K / one_K.sum() - other_K / other_K.sum()).sum() / 2)


def _firmness(case: _Case) -> float:
    """How firmly the shares of the pooled blocks are known beforehand, in rows."""
    one_block = min(concentration_of(case.usual_HK), _validated_firmness(case.feature))
    return min(MOST_CONCENTRATION, one_block * len(case.since_HK))


def _validated_firmness(feature: FeatureProfile) -> float:
    """The concentration that the days of validation had; without them, as if they had not differed.

    Source: 1 + n total / (K - 1) of `BlockSpread` put equal to (n + A) / (1 + A) of the Dirichlet-multinomial, n large.
    """
    if not feature.spread.num_blocks or feature.spread.total <= 0:
        return MOST_CONCENTRATION
    return max(LEAST_CONCENTRATION, feature.num_bins / feature.spread.total - 1)


def _lost(case: _Case) -> Found | None:
    """Values that went missing, or that no category knows, nearly all at once: the same however the feature varies."""
    gone, before = _gone(case), _gone(case, is_usual=True)
    if gone <= MISSING_NOW or before >= USUAL_BEFORE:
        return None
    row = EvidenceRow(name="rows without a known value", value=round(gone, 3), unit="share", bound=MISSING_NOW)
    words = f"{case.feature.spec.name} has no known value in {gone:.0%} of rows (before {before:.0%})"
    return _found(case, "schema_change", words, _CERTAIN, row, is_certain=True)


def _gone(case: _Case, *, is_usual: bool = False) -> float:
    counts_K = case.usual_HK.sum(axis=0) if is_usual else case.counts_K
    num_unknown = counts_K[-2] if case.feature.spec.kind == "categorical" else 0.0
    return float((counts_K[-1] + num_unknown) / max(1.0, counts_K.sum()))


def _evidence(case: _Case, usual_K: Floats, firmness: float) -> tuple[dict[str, float], dict[str, str]]:
    counts_K, shares_K = case.since_HK.sum(axis=0), shares_of(usual_K)
    blocks = [firmness * shares_of(block_K) for block_K in case.usual_HK[-_WEEK:]]  # a week, each day with its own kind
    evidence = {
        "usual": mixed([log_evidence_of_bins(counts_K, alpha_K) for alpha_K in (firmness * shares_K, *blocks)]),
        MOVED: mixed([
            log_evidence_of_bins(counts_K, _ROUGH_ROWS * shares_K), log_evidence_of_bins(counts_K, np.ones(len(counts_K))),
        ]),
        "schema_change": mixed([log_evidence_of_bins(counts_K, firmness * one_K) for one_K in _with_lost(case, shares_K)]),
    }  # fmt: skip
    details = {}
    if (case.usual_HK.max(axis=1) / case.usual_HK.sum(axis=1)).max() < _VARIES:
        evidence["constant_feature"] = log_evidence_of_bins(counts_K, _spike(case))
    if case.feature.spec.kind != "categorical" and len(case.feature.edges) >= 2:
        firm = min(firmness, _CONVERTED_ROWS)
        for kind, tried in (("unit_change", UNITS), ("shifted_feature", tuple(shifts(np.array(case.feature.edges))))):
            found = [(_evidence_of(case, shares_K, one, firm), one.words) for one in tried]
            evidence[kind] = mixed([log for log, _ in found])
            details[kind] = max(found)[1]
    return evidence, details


def _spike(case: _Case) -> Floats:
    """Alpha of "all rows in one bin, whichever": half of the weight on the bin of 0, which most defaults are. The open ends get
    little: what lies beyond all that was validated is another unit more often than a stuck value."""
    weight_K = np.ones(case.counts_K.size)
    if case.feature.spec.kind != "categorical":
        weight_K[[0, -2]] = _AT_AN_END
        weight_K[_bin_of_zero(case)] += weight_K.sum()
    spike_K: Floats = 0.02 * weight_K / weight_K.sum()
    return spike_K


def _bin_of_zero(case: _Case) -> int:
    return int(np.searchsorted(np.array(case.feature.edges), 0.0, side="right"))


def _is_beyond(case: _Case) -> bool:
    """Nearly all rows lie in an open end bin, of which nobody knows how far it reaches."""
    return case.feature.spec.kind != "categorical" and max(case.counts_K[0], case.counts_K[-2]) >= _VARIES * case.counts_K.sum()


def _with_lost(case: _Case, shares_K: Floats) -> list[Floats]:
    """The usual bins with a share of the rows moved to "missing", and to "no category knows it"."""
    places = [-1, -2] if case.feature.spec.kind == "categorical" else [-1]
    found = []
    for place in places:
        nowhere_K = np.zeros(len(shares_K))
        nowhere_K[place] = 1.0
        found += [(1 - share) * shares_K + share * nowhere_K for share in _LOST_SHARES]
    return found


def _evidence_of(case: _Case, shares_K: Floats, conversion: Conversion, firmness: float) -> float:
    """Of a conversion; of a change of scale, too, that leaves many values of exactly 0 where they are."""
    edges_E, present_K = np.array(case.feature.edges), shares_K[:-1] / shares_K[:-1].sum()
    tried = [converted(edges_E, present_K, conversion)]
    if conversion.offset == 0 and conversion.scale > 0:
        is_zero_K = np.arange(len(present_K)) == _bin_of_zero(case)
        zeros = float(present_K[is_zero_K].sum())
        others_K = np.where(is_zero_K, _SOME, present_K)
        tried.append((1 - zeros) * converted(edges_E, others_K / others_K.sum(), conversion) + zeros * is_zero_K)
    floor, counts_K = 0.01 / len(shares_K), case.since_HK.sum(axis=0)
    foretold = [np.append(moved_K * (1 - shares_K[-1]), shares_K[-1]) for moved_K in tried]
    return mixed([log_evidence_of_bins(counts_K, firmness * np.maximum(one_K, floor)) for one_K in foretold])


def _stale(case: _Case, num_features: int) -> Found | None:
    """The feature repeats an earlier block's values."""
    if case.is_from_first:
        return None
    since_HK = case.since_HK[:-1] if case.is_stale else np.zeros((0, len(case.counts_K)))
    repeat = repeat_of(case.counts_K, case.usual_HK, since_HK, num_features)
    if repeat is None:
        return None
    since_ms, how_long = case.since_ms, f", for {repeat.num_blocks} blocks" if repeat.num_blocks > 1 else ""
    if how_long and not case.is_stale:  # found late: it stands still since the block after the one that it repeats
        since_ms = min(since_ms, case.usual_ms[1 - repeat.num_blocks])
    ago = f"{repeat.blocks_ago} block{'s' if repeat.blocks_ago > 1 else ''}"
    words = f"{case.feature.spec.name} repeats its values of {ago} before{how_long}"
    row = EvidenceRow(name="chance of such likeness", value=repeat.chance, unit="probability", bound=CHANCE)
    found = _found(case, "stale_feature", words, 1 - repeat.chance, row)
    return msgspec.structs.replace(found, since_ms=since_ms)
