"""Is the candidate good enough, or worse? Evidence that may be looked at after every block, and acted on at any time.

Promote: for all rows and for each tested slice, in errors and in loss, "worse by the margin or more" is rejected, each at
`wrong_promotion`. All must be rejected, so a candidate that is worse by a margin somewhere passes with at most that chance,
without a correction for how many are tested (intersection-union test, Berger 1982).

Roll back: the weighted mean of all evidence of "worse", over all rows, slices, failed requests and latency, reaches 1 /
`wrong_rollback`. Each has mean at most 1 while nothing is worse, and so has their weighted mean under any dependence.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_monitor.rollout.compared import ComparedBlock, ServedBlock, SideSums, Sums, joined
from clipdrift_monitor.rollout.differences import NUM_SPREADS, grown, interval, log_best, log_mixture
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig
from clipdrift_monitor.rollout.finding import EvidenceVerdict, Finding, Shown
from clipdrift_monitor.rollout.series import MEASURES, Measure, Series, add_pairs, add_sides
from clipdrift_monitor.rollout.serving import ServingMemory, step_serving, watched_of_serving
from clipdrift_monitor.rollout.telling import with_words
from clipdrift_monitor.windows.window import Floats

REST = "(rest)"  # the slices that are not tested on their own, together
_FIRST_ROWS = 300  # of the first block at least, since it says which slices are large enough to be tested
_INTERVAL_ALPHA = 0.05
_LITTLE_HARM = 0.5  # of the evidence that a rollback needs; with more, no more traffic is given
_GROWTH_F = 1.0 + np.geomspace(0.05, 50.0, 24)  # times as many labels, to foretell when it is decided


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence remembers; `Memory()` is none. Its size does not grow with the blocks."""

    series: tuple[Series, ...] = ()
    """All rows first, then the tested slices."""
    serving: ServingMemory = ServingMemory()
    has_errors: bool = True
    waiting: ComparedBlock | None = None
    """Blocks that together are still too small to be the first."""
    compared_until_ms: int = 0
    served_until_ms: int = 0
    stage: str = ""
    labels_of_stage: float = 0.0
    blocks_of_stage: int = 0


def step(memory: Memory, block: ComparedBlock | ServedBlock, config: EvidenceConfig) -> tuple[Memory, Finding]:
    """One more block, and what is shown by now. The memory that was handed in stays as it was.

    Args:
        memory: From the step before; `Memory()` at first.
        block: In time order within its kind; one that ends no later than the last of its kind changes nothing.
        config: The same at every step.

    Example:
        >>> from clipdrift_monitor.rollout.compared import PairedSums
        >>> def day(number, wrong):  # 4,000 rows that both answered; on so many one of the two errs, half of them each
        ...     both = PairedSums(slice="", num_rows=4000, loss_sum=0, loss_sq_sum=wrong / 4, error_sum=0, error_sq_sum=wrong)
        ...     return ComparedBlock(start_ms=number, end_ms=number + 1, stage="shadow", pairs=(both,))
        >>> memory, verdicts = Memory(), []
        >>> for number in range(9):
        ...     memory, finding = step(memory, day(number, 400), EvidenceConfig())
        ...     verdicts.append(finding.verdict)
        >>> verdicts.index("promote") + 1
        4
    """
    if isinstance(block, ServedBlock):
        if block.end_ms > memory.served_until_ms:
            serving = step_serving(memory.serving, block, config)
            memory = msgspec.structs.replace(memory, serving=serving, served_until_ms=block.end_ms)
    elif block.end_ms > memory.compared_until_ms:
        memory = _compared(memory, block, config)
    return memory, judge(memory, config)


def judge(memory: Memory, config: EvidenceConfig) -> Finding:
    """What is shown by now."""
    tests = _tests(memory, config)
    served = watched_of_serving(memory.serving)
    log_harm_K = np.array([*tests.log_harm_K, *(one.log_evidence for one in served)])
    weight_K = np.array([*tests.weight_K, *(config.served_weight / len(served) for _ in served)])
    bar = math.log(1 / config.wrong_rollback)
    log_all = float(np.logaddexp.reduce(log_harm_K + np.log(weight_K)))
    level_K = log_harm_K / (bar - np.log(weight_K))
    labels = _shown(memory, tests, level_K, config)
    shown = (*labels, *(one.shown(level) for one, level in zip(served, level_K[len(labels) :], strict=True)))
    needed = [one for one in labels if one.margin is not None]
    open_ones = [one for one in needed if not one.is_within]
    verdict = _verdict(memory, needed, is_harm_proven=log_all >= bar, config=config)
    harm_level = min(1.0, max(0.0, log_all / bar))
    progress = min((one.good_level for one in needed), default=0.0)
    return with_words(
        Finding(
            verdict=verdict,
            may_step=_may_step(memory, progress, harm_level, config),
            stage=memory.stage,
            num_labels=round(memory.series[0].num_labels) if memory.series else 0,
            num_blocks=memory.series[0].num_blocks if memory.series else 0,
            labels_of_stage=round(memory.labels_of_stage),
            blocks_of_stage=memory.blocks_of_stage,
            progress=progress,
            more_labels=_more_labels(memory, needed),
            harm_level=harm_level,
            culprit=shown[int(np.argmax(log_harm_K + np.log(weight_K)))],
            slowest=min(open_ones, key=lambda one: one.good_level) if open_ones else None,
            shown=shown,
        ),
        config,
    )


class _Tests(NamedTuple):
    """Everything that labels tell, K tests: by series, within it by measure."""

    watched: list[tuple[Series, Measure]]
    sums_KJ: Floats
    margin_K: Floats
    weight_K: Floats  # share of the chance of a wrong rollback
    log_good_K: Floats  # evidence against "worse by the margin or more"
    log_harm_K: Floats  # evidence against "no worse"


def _tests(memory: Memory, config: EvidenceConfig) -> _Tests:
    measures = MEASURES if memory.has_errors else MEASURES[1:]
    watched = [(one, measure) for one in memory.series for measure in measures]
    if not watched:
        nothing = np.zeros(0)
        return _Tests([], np.zeros((0, NUM_SPREADS, 4)), nothing, nothing, nothing, nothing)
    sums_KJ = np.array([one.sums(measure) for one, measure in watched]).reshape(len(watched), NUM_SPREADS, 4)
    margin_K = np.array([config.margin(measure, is_slice=bool(one.slice)) for one, measure in watched])
    num_slices = len(memory.series) - 1
    of_slices = config.slice_weight if num_slices else 0.0
    weight_K = np.array(
        [(of_slices / num_slices if one.slice else 1 - of_slices - config.served_weight) / len(measures) for one, _ in watched]
    )
    mixed_K = log_mixture(sums_KJ, margin_K)
    return _Tests(
        watched, sums_KJ, margin_K, weight_K, mixed_K - log_best(sums_KJ, margin_K, 1.0), mixed_K - log_best(sums_KJ, -1.0, 0.0)
    )


def _shown(memory: Memory, tests: _Tests, level_K: Floats, config: EvidenceConfig) -> list[Shown]:
    bar = math.log(1 / config.wrong_promotion)
    middle_K, low_K, high_K = interval(tests.sums_KJ, tests.margin_K, _INTERVAL_ALPHA)
    growth_K = _growth(tests, bar)
    return [
        Shown(
            watched=measure,
            slice=one.slice,
            estimate=float(middle_K[k]),
            low=float(low_K[k]) if one.num_blocks else None,
            high=float(high_K[k]) if one.num_blocks else None,
            margin=float(tests.margin_K[k]) if not one.slice or config.needs_slice_proof else None,
            num_labels=round(one.num_labels),
            num_blocks=one.num_blocks,
            good_level=min(1.0, max(0.0, float(tests.log_good_K[k]) / bar)),
            harm_level=min(1.0, max(0.0, float(level_K[k]))),
            more_labels=round((growth_K[k] - 1) * one.num_labels) if math.isfinite(growth_K[k]) and one.num_blocks else None,
        )
        for k, (one, measure) in enumerate(tests.watched)
    ]


def _growth(tests: _Tests, bar: float) -> Floats:
    """How many times as many labels [K] it takes to show what a promotion needs; infinite where they would not."""
    sums_FKJ = grown(tests.sums_KJ, _GROWTH_F)
    log_FK = log_mixture(sums_FKJ, tests.margin_K) - log_best(sums_FKJ, tests.margin_K, 1.0)
    is_shown_FK = log_FK >= bar
    found_K = np.where(is_shown_FK.any(axis=0), _GROWTH_F[is_shown_FK.argmax(axis=0)], np.inf)
    return np.where(tests.log_good_K >= bar, 1.0, found_K)


def _more_labels(memory: Memory, needed: Sequence[Shown]) -> int | None:
    """Labels of all rows until the slowest is shown: a slice's own, in the proportion that they come in."""
    if not needed or any(one.more_labels is None for one in needed):
        return None
    total = memory.series[0].num_labels
    return round(max((one.more_labels or 0) * total / max(1, one.num_labels) for one in needed))


def _verdict(memory: Memory, needed: Sequence[Shown], *, is_harm_proven: bool, config: EvidenceConfig) -> EvidenceVerdict:
    if is_harm_proven:
        return "roll_back"
    if needed and all(one.is_within for one in needed) and memory.series[0].num_blocks >= config.min_blocks:
        return "promote"
    return "go_on"


def _may_step(memory: Memory, progress: float, harm_level: float, config: EvidenceConfig) -> bool:
    is_enough = True
    if memory.stage.startswith("shadow"):
        is_enough = progress >= config.shadow_level and memory.series[0].num_blocks >= config.min_blocks
    return is_enough and harm_level < _LITTLE_HARM


def _compared(memory: Memory, block: ComparedBlock, config: EvidenceConfig) -> Memory:
    is_same = block.stage == memory.stage
    rows = _rows(block)
    memory = msgspec.structs.replace(
        memory,
        compared_until_ms=block.end_ms,
        stage=block.stage,
        labels_of_stage=rows.get("", 0.0) + (memory.labels_of_stage if is_same else 0.0),
        blocks_of_stage=bool(rows.get("")) + (memory.blocks_of_stage if is_same else 0),
        has_errors=block.has_errors,
    )
    if not memory.series:
        block = block if memory.waiting is None else _together(memory.waiting, block)
        rows = _rows(block)
        if rows.get("", 0.0) < _FIRST_ROWS:
            return msgspec.structs.replace(memory, waiting=block)
        names = ["", *_tested(rows, config)]
        memory = msgspec.structs.replace(memory, waiting=None, series=tuple(Series(slice=name) for name in names))
    return msgspec.structs.replace(memory, series=_grown(memory.series, block, config))


def _rows(block: ComparedBlock) -> dict[str, float]:
    """The candidate's rows by slice."""
    return {one.slice: one.num_rows for one in block.pairs or block.candidate}


def _tested(rows: dict[str, float], config: EvidenceConfig) -> list[str]:
    """Slices that are tested on their own, and "(rest)" where others are left. One slice alone is all rows again."""
    slices = {name: number for name, number in rows.items() if name}
    if len(slices) < 2:
        return []
    by_size = sorted(slices, key=lambda name: (-slices[name], name))
    large = [name for name in by_size if slices[name] >= config.min_slice_share * rows[""]][: config.max_slices]
    return [*sorted(large), *([REST] if len(large) < len(slices) else [])]


def _grown(series: tuple[Series, ...], block: ComparedBlock, config: EvidenceConfig) -> tuple[Series, ...]:
    names = {one.slice for one in series}
    if block.pairs:
        pairs = _by_series(block.pairs, names)
        return tuple(add_pairs(one, pairs[one.slice], config) if one.slice in pairs else one for one in series)
    ours, theirs = _by_series(block.candidate, names), _by_series(block.champion, names)
    return tuple(
        add_sides(one, ours.get(one.slice, _no_rows(one.slice)), theirs.get(one.slice, _no_rows(one.slice)), config)
        for one in series
    )


def _by_series(rows: Sequence[Sums], names: Collection[str]) -> dict[str, Sums]:
    """Slices as they are tested; those that are not on their own are the rest, together. The rest is nobody where none was at
    the beginning, so a slice that is new then counts among all rows alone."""
    found: dict[str, Sums] = {}
    for one in rows:
        name = one.slice if one.slice in names else REST
        if name in names:
            found[name] = joined(found[name], one, name) if name in found else msgspec.structs.replace(one, slice=name)
    return found


def _no_rows(name: str) -> SideSums:
    return SideSums(slice=name, num_rows=0.0, loss_sum=0.0, loss_sq_sum=0.0)


def _together(first: ComparedBlock, second: ComparedBlock) -> ComparedBlock:
    """Two periods as one; where one has pairs and the other sides the first is too small to be missed."""
    if bool(first.pairs) != bool(second.pairs):
        return second
    return msgspec.structs.replace(
        second,
        start_ms=first.start_ms,
        pairs=_sum_of(first.pairs, second.pairs),
        candidate=_sum_of(first.candidate, second.candidate),
        champion=_sum_of(first.champion, second.champion),
    )


def _sum_of(first: tuple[Sums, ...], second: tuple[Sums, ...]) -> tuple[Sums, ...]:
    found = {one.slice: one for one in first}
    for one in second:
        found[one.slice] = joined(found[one.slice], one, one.slice) if one.slice in found else one
    return tuple(found.values())
