"""The days that false alarms are rehearsed on, as the harm tests read them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import BlockScore, RunEnd, Severity
from clipdrift_monitor.decisions.judging import block_of, total
from clipdrift_monitor.decisions.subject import BySlice
from clipdrift_monitor.risk.block import Block, join
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import HarmConfig, HarmState, slice_of, start, step, step_slices
from clipdrift_monitor.risk.realised import StepTests, ordered_errors
from clipdrift_monitor.windows.window import NUM_SCORE_BINS, Floats, Layout


class Day(NamedTuple):
    """One block of a history, of all rows and of each slice that is tested."""

    block: Block
    by_slice: Mapping[str, Block]


def begin_tests(live: HarmState, allotment: Allotment, config: HarmConfig) -> StepTests[Day]:
    """The tests that run live, with no evidence yet."""
    state = start(live.reference, allotment, {name: one.reference for name, one in live.slices.items()})

    def step_tests(day: Day, number: int) -> Iterator[Severity]:
        block, by_slice = _moved(day.block, number), {name: _moved(one, number) for name, one in day.by_slice.items()}
        for one in [*step(state, block, config), *step_slices(state, by_slice, config)]:
            if one.is_alarm:
                yield allotment.severities.of(one.test)

    return step_tests


def lived_day(layout: Layout, tested: HarmState, by_slice: BySlice, start_ms: int, window_ms: int, lag1: float) -> Day:
    """A block of production, from its sums; in which order its errors came is drawn."""
    by_name: dict[str, dict[int, Floats]] = {}
    for index, sums in by_slice.items():
        name = slice_of(tested, layout.slice_name(index))
        if name:
            by_name.setdefault(name, {})[index] = sums

    def block(sums: Floats, number: int) -> Block:
        found = block_of(layout, sums, start_ms, start_ms + window_ms, b"")
        num_errors = layout.value(sums, "num_labels") - layout.value(sums, "num_correct")
        is_counted = layout.profile.task != "regression"
        return with_errors(found, num_errors if is_counted else found.num_errors, lag1, [start_ms // window_ms, number])

    named = {name: block(total(layout, sums), 1 + at) for at, (name, sums) in enumerate(sorted(by_name.items()))}
    return Day(block(total(layout, by_slice), 0), named)


def validated_days(run: RunEnd, tested: HarmState, window_ms: int) -> list[Day]:
    """The days of the version's validation. Of their scores nothing is kept, so what a challenger would do on them is not
    known: they stand for a model that is calibrated."""
    by_start: dict[int, dict[str, Block]] = {}
    for clustering in run.clustering:
        name = slice_of(tested, clustering.slice) if clustering.slice else ""
        if clustering.slice and not name:
            continue
        for day in clustering.days:
            blocks = by_start.setdefault(day.start_ms, {})
            one = _block_of_score(day, window_ms)
            blocks[name] = join(blocks[name], one) if name in blocks else one
    found = []
    for start_ms, blocks in sorted(by_start.items()):
        of_all = blocks.pop("", None)
        if of_all is not None:
            lag1, seed = tested.reference.lag1, start_ms // window_ms
            named = {
                name: with_errors(one, one.num_errors, lag1, [seed, 1 + at])
                for at, (name, one) in enumerate(sorted(blocks.items()))
            }
            found.append(Day(with_errors(of_all, of_all.num_errors, lag1, [seed, 0]), named))
    return found


def with_errors(block: Block, num_errors: float, lag1: float, seed: Sequence[int]) -> Block:
    """A block with its errors in an order that is drawn; without any where their number is not known."""
    if num_errors < 0:
        return block
    drawn = ordered_errors(round(block.num_labels), round(num_errors), min(lag1, 0.99), np.random.default_rng(list(seed)))
    return msgspec.structs.replace(block, errors=drawn.astype(np.uint8).tobytes(), num_errors=num_errors)


def _block_of_score(day: BlockScore, window_ms: int) -> Block:
    middle = np.zeros(NUM_SCORE_BINS)
    middle[NUM_SCORE_BINS // 2] = 1.0
    half = tuple((day.num_rows / 2 * middle).tolist())
    return Block(
        start_ms=day.start_ms, end_ms=day.start_ms + window_ms, num_labels=day.num_rows, brier_sum=day.brier_sum,
        labels=tuple((day.num_rows * middle).tolist()), hits=half, score_sum=half, errors=b"", num_errors=day.num_errors,
        log_loss_sum=day.nll_sum,
    )  # fmt: skip


def _moved(block: Block, number: int) -> Block:
    """The block at another time: replays have their own."""
    width = block.end_ms - block.start_ms
    return msgspec.structs.replace(block, start_ms=number * width, end_ms=(number + 1) * width)
