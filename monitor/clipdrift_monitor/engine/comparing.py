"""Rows of two versions that are compared: a candidate beside the model in service, or the version that it replaced."""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.columns import Column
from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.intake.pair_book import Pairs, Rows, Side, answers_of, labels_of
from clipdrift_monitor.rollout.compared import Served
from clipdrift_monitor.rollout.comparison import Comparison, Part, sums_of, with_rows, with_served
from clipdrift_monitor.rollout.course import SHADOW
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.windows.window import losses_of

_MAX_RECEIPT_SCORES = 16  # above so many classes a receipt carries the largest, and spreads the rest evenly


class Comparing:
    """Adds rows to the comparison of their model, by version, role and generation.

    Args:
        config: Of the monitor.
        memory: Holds the rows of a shadow that wait for their label.
    """

    def __init__(self, config: MonitorConfig, memory: Memory) -> None:
        self._window_ms = config.window_ms
        self._at_most = config.policy.rollout.max_waiting_rows
        self._memory = memory

    def take_served(self, batch: PredictionBatch) -> bool:
        """Count how requests fared, as an event says; whether anything was changed."""
        state = self._memory.states.get(batch.model)
        if state is None or state.rollout is None or state.comparison is None:
            return False
        if state.comparison.part_of(batch.version, batch.role, batch.generation) is None:
            return False
        is_shadow = (
            state.comparison.stages[batch.generation] == SHADOW
        )  # its runs are no requests: rows are counted, and no time
        num_answered = len(batch.sequence) if is_shadow else sum(batch.latency_histogram.values())
        served = Served(
            num_answered=num_answered,
            num_failed=batch.num_failed,
            latency_histogram={} if is_shadow else dict(batch.latency_histogram),
        )
        state.comparison = with_served(state.comparison, batch.generation, batch.role, served)
        return True

    def take_answers(self, state: ModelState, batch: PredictionBatch) -> None:
        """What a shadow answered: its rows wait for their labels, or have been waited for."""
        comparison = state.comparison
        if comparison is None or comparison.part_of(batch.version, batch.role, batch.generation) != "pairs":
            return
        rows = answers_of(batch)
        self._pair(state, comparison, "answers", batch.epoch, batch.generation, rows)

    def take_labels(self, state: ModelState, batch: LabelBatch, chosen_N: npt.NDArray[np.bool_]) -> None:
        """Labels that count for the first time."""
        comparison = state.comparison
        if comparison is None or not chosen_N.any():
            return
        part = comparison.part_of(batch.version, batch.role, batch.generation)
        if part == "pairs":
            rows = labels_of(batch, chosen_N)
            self._pair(state, comparison, "labels", batch.epoch, batch.generation, rows)
        elif part is not None:
            loss_N, error_N = _losses(self._profile(state, batch.version), batch, chosen_N)
            slice_N = self._slices(state, comparison, batch.version, batch.slice_index.array()[chosen_N])
            time_N = batch.event_time_ms.array()[chosen_N].astype(np.int64)
            self._add(state, part, batch.generation, time_N, slice_N, loss_N, error_N)

    def _pair(self, state: ModelState, comparison: Comparison, side: Side, epoch: str, generation: int, rows: Rows) -> None:
        rows = rows[rows["time_ms"] >= comparison.weighed_until_ms]
        if not len(rows):
            return
        place = f"{generation}/{epoch}"  # a pair is of one generation: a row that only one side has there is none
        found, num_left_out = self._memory.pairs.add(state.model, place, side, rows, self._at_most)
        if num_left_out:
            state.comparison = msgspec.structs.replace(comparison, num_left_out=comparison.num_left_out + num_left_out)
        if len(found.shadow):
            self._add_pairs(state, comparison, generation, found)

    def _add_pairs(self, state: ModelState, comparison: Comparison, generation: int, pairs: Pairs) -> None:
        champion, all_N = pairs.champion, np.ones(len(pairs.champion), np.bool_)
        shadow = pairs.shadow.copy()
        shadow["label"] = champion["label"]
        if shadow["scores"].shape[1] > _MAX_RECEIPT_SCORES:
            shadow["scores"] = as_receipts_carry(shadow["scores"])
        theirs = _losses(self._profile(state, comparison.other), _as_batch(shadow), all_N)
        mine = _losses(self._profile(state, comparison.champion), _as_batch(champion), all_N)
        slice_N = champion["slice"].astype(np.int64)
        time_N = champion["time_ms"].astype(np.int64)
        self._add(state, "pairs", generation, time_N, slice_N, theirs[0] - mine[0], theirs[1] - mine[1])

    def _add(
        self,
        state: ModelState,
        part: Part,
        generation: int,
        time_N: npt.NDArray[np.int64],
        slice_N: npt.NDArray[np.int64],
        loss_N: npt.NDArray[np.float64],
        error_N: npt.NDArray[np.float64],
    ) -> None:
        comparison = state.comparison
        assert comparison is not None
        start_N = time_N // self._window_ms * self._window_ms
        for start_ms in np.unique(start_N).tolist():
            chosen = start_N == start_ms
            sums = sums_of(slice_N[chosen], loss_N[chosen], error_N[chosen], len(comparison.slice_names))
            comparison = with_rows(comparison, part, generation, start_ms, sums)
        state.comparison = comparison

    def _slices(
        self, state: ModelState, comparison: Comparison, version: str, slice_N: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """Slices of a version under the numbers that the champion's profile has for them; -1 where it has none."""
        place = {name: index for index, name in enumerate(comparison.slice_names)}
        number_of = np.array([place.get(name, -1) for name in self._profile(state, version).slice_names], np.int64)
        found: npt.NDArray[np.int64] = number_of[slice_N.astype(np.int64)] if len(number_of) else slice_N.astype(np.int64)
        return found

    def _profile(self, state: ModelState, version: str) -> ReferenceProfile:
        return self._memory.layout(state.model, version).profile


def as_receipts_carry(scores_NK: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores of many classes as a receipt would carry them, so that both sides of a pair are told alike.

    Example:
        >>> scores = np.array([[0.5, 0.25] + [0.25 / 16] * 16], np.float32)
        >>> round(float(as_receipts_carry(scores).sum()), 6)
        1.0
    """
    num_classes = scores_NK.shape[1]
    top_NT = np.argsort(-scores_NK, axis=1, kind="stable")[:, :_MAX_RECEIPT_SCORES]
    share_NT = np.take_along_axis(scores_NK, top_NT, axis=1)
    left_N = np.maximum(0.0, 1.0 - share_NT.sum(axis=1)) / (num_classes - _MAX_RECEIPT_SCORES)
    carried_NK: npt.NDArray[np.float32] = np.repeat(left_N[:, None], num_classes, axis=1).astype(np.float32)
    np.put_along_axis(carried_NK, top_NT, share_NT, axis=1)
    return carried_NK


def _losses(
    profile: ReferenceProfile, batch: LabelBatch, chosen_N: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Loss in 0..1 and whether the row is an error; of values, which are neither right nor wrong, errors are 0."""
    found = losses_of(profile, batch, chosen_N)
    if profile.task == "regression":
        return found.brier, np.zeros(len(found.brier))
    scale = 1.0 if profile.task == "binary" else 0.5
    return np.clip(scale * found.brier, 0.0, 1.0), (~found.is_correct).astype(np.float64)


def _as_batch(rows: Rows) -> LabelBatch:
    column = {name: Column.of(np.ascontiguousarray(rows[name])) for name in rows.dtype.names or ()}
    return LabelBatch(
        model="", version="", epoch="", sequence=column["sequence"], event_time_ms=column["time_ms"],
        slice_index=column["slice"], predicted=column["predicted"], scores=column["scores"], label=column["label"],
        label_time_ms=column["time_ms"],
    )  # fmt: skip
