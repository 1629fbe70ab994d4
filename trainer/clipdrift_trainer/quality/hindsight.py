"""Feature values that change with what is known later: loaded as of an earlier time, the same row reads differently."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_trainer.evaluation.scores import area_under_roc
from clipdrift_trainer.quality.finding import Finding, level_of, listed, passed, skipped
from clipdrift_trainer.quality.row_keys import row_keys
from clipdrift_trainer.quality.table import Floats, Table
from clipdrift_trainer.tasks.task import Rows, load_as_of

_MIN_ROWS = 20
_CLOSE = 1e-4  # relative: sums taken in another order differ by less
_SHARE_OF_WINDOW = 0.5
_GAIN = 0.05  # of the AUC: hindsight that helps the model and will not be there in production
_SAME_DELAY = 0.999  # share of the label's delay that a feature explains


class HindsightPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the first half of the window are loaded once more, as of its middle, and compared with how they read now."""

    enabled: bool = True
    """Off: the task's `load` is not called a second time."""
    warn_share: float = 0.001
    """Share of these rows with a feature that reads differently, from which on it warns."""
    stop_share: float = 0.05
    """Share from which on training makes no sense, where the later value also tells more about the label than the earlier."""
    max_load_seconds: float = 2.0
    """A load that took longer than this the first time is not repeated."""

    def __post_init__(self) -> None:
        if not 0 < self.warn_share <= self.stop_share:
            raise ValueError(f"hindsight needs 0 < warn_share <= stop_share, got {self.warn_share!r} and {self.stop_share!r}")


def check_hindsight(table: Table, policy: HindsightPolicy, load_seconds: float = 0.0) -> Finding:
    """Also warns of a number that equals the label's delay: how long the answer took is known when the answer is."""
    delays = _delays(table)
    if delays:
        return Finding(
            level="warn",
            words=f"{listed(delays)} says how long the label took to come: that is known only when the label is; leave it out",
            features=tuple(delays),
        )
    if load_seconds > policy.max_load_seconds:
        return skipped(f"load() took {load_seconds:.1f} s; it is not called again beyond {policy.max_load_seconds:g} s")
    if len(table) < 2 * _MIN_ROWS:
        return skipped("too few rows to compare two loads")
    start_ms, end_ms = int(table.rows.time_ms[0]) // MS_PER_DAY * MS_PER_DAY, int(table.rows.time_ms[-1]) + 1
    # at a midnight: a task may take its rows day by day
    middle_ms = (start_ms + int((end_ms - start_ms) * _SHARE_OF_WINDOW)) // MS_PER_DAY * MS_PER_DAY
    earlier = load_as_of(table.task, start_ms, middle_ms, middle_ms)
    later_N = np.flatnonzero((table.rows.time_ms < middle_ms) & (table.rows.label_time_ms <= middle_ms))
    return compare(table, later_N, earlier, policy)


def compare(table: Table, later_N: npt.NDArray[np.int64], earlier: Rows, policy: HindsightPolicy) -> Finding:
    """Compare rows as known now (positions `later_N`) with the same rows as known earlier."""
    later = table.rows.select(later_N)
    if min(len(later), len(earlier)) < _MIN_ROWS:
        return skipped("too few rows were known at the middle of the window")
    left_L, left_E = _without_equals(table, later_N, later, earlier)
    revised = later.select(left_L), earlier.select(left_E)
    if not _same_events(*revised):
        share = max(len(left_L), len(left_E)) / max(len(later), len(earlier))
        return Finding(
            level=level_of(share, policy.warn_share, np.inf),
            words=f"{share:.1%} of the rows have other times or labels, or are not there, when they are loaded as of an earlier"
            " time: what was known at a time must not change later",
            figures={"share": share},
            rows=later_N[left_L],
        )
    changed = {spec.name: _changed(*(rows.features[spec.name] for rows in revised)) for spec in table.task.features}
    share_of = {name: float(is_changed.sum()) / len(later) for name, is_changed in changed.items()}
    found = [name for name, share in share_of.items() if share >= policy.warn_share]
    if not found:
        words = f"{len(later):,} rows read the same now and as of the middle of the window"
        return passed(words, share=max(share_of.values(), default=0.0))
    gain = max(_tells(table, revised[0], name) - _tells(table, revised[1], name) for name in found)
    is_certain = gain >= _GAIN
    told = f" and then tells more about the label (AUC {gain:+.2f})" if is_certain else ""
    share = max(share_of[name] for name in found)
    return Finding(
        level=level_of(share, policy.warn_share, policy.stop_share if is_certain else np.inf),
        words=f"{listed([f'{name} ({share_of[name]:.1%} of rows)' for name in found])} changes with what becomes known after "
        f"the row{told}: make it from what was known at the row's own time, whatever the window and `as_of` are",
        figures={"share": share, "auc_gain": gain},
        features=tuple(found),
        rows=later_N[left_L[np.any([changed[name] for name in found], axis=0)]],
        is_unmistakable=is_certain,
    )


def _without_equals(
    table: Table, later_N: npt.NDArray[np.int64], later: Rows, earlier: Rows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the rows that have no equal on the other side, each side in the order of times and label."""
    left = []
    keys = table.keys[later_N] ^ _event_keys(later), row_keys(table.task, earlier) ^ _event_keys(earlier)
    for rows, own, other in ((later, keys[0], keys[1]), (earlier, keys[1], keys[0])):
        position = np.flatnonzero(~np.isin(own, other))
        order = np.lexsort((rows.label[position], rows.label_time_ms[position], rows.time_ms[position]))
        left.append(position[order])
    return left[0], left[1]


def _event_keys(rows: Rows) -> npt.NDArray[np.uint64]:
    """Of times and label, mixed so that they cannot cancel against a row's features."""
    parts = (rows.time_ms.view(np.uint64), rows.label_time_ms.view(np.uint64), rows.label.view(np.uint64))
    factors = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
    mixed = np.zeros(len(rows), np.uint64)
    for part, factor in zip(parts, factors, strict=True):
        mixed = (mixed ^ (part * factor)) * np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def _same_events(later: Rows, earlier: Rows) -> bool:
    return all(np.array_equal(getattr(later, name), getattr(earlier, name)) for name in ("time_ms", "label_time_ms", "label"))


def _changed(later: npt.NDArray[Any], earlier: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if later.dtype == object or not len(later):
        return np.asarray(later != earlier, bool).reshape(len(later))
    later_ND, earlier_ND = (column.reshape(len(column), -1).astype(np.float64) for column in (later, earlier))
    slack = 1e-6 * float(np.nanstd(later_ND))
    is_close_ND = np.asarray(np.isclose(later_ND, earlier_ND, rtol=_CLOSE, atol=slack, equal_nan=True))
    return np.asarray(~is_close_ND.all(axis=1), bool)


def _tells(table: Table, rows: Rows, name: str) -> float:
    """How well the number alone orders the labels, as an AUC from .5 on; .5 for what has no order."""
    column = rows.features[name]
    if column.dtype == object:
        return 0.5
    number = np.nan_to_num(column.reshape(len(column), -1).astype(np.float64)).mean(axis=1)
    above = rows.label > (np.median(rows.label) if table.task.kind == "regression" else 0)
    area = area_under_roc(number, above)
    return 0.5 if area is None else max(area, 1 - area)


def _delays(table: Table) -> list[str]:
    delay_S = (table.rows.label_time_ms - table.rows.time_ms)[table.sample].astype(np.float64)
    if len(delay_S) < _MIN_ROWS or len(np.unique(delay_S)) < _MIN_ROWS:
        return []  # the same delay for all rows, or nearly: nothing to recognise
    return [
        column.feature
        for column in table.columns
        if not column.is_category and column.name == column.feature and _explains(column.values, delay_S) >= _SAME_DELAY
    ]


def _explains(value_S: Floats, delay_S: Floats) -> float:
    is_there = np.isfinite(value_S)
    if is_there.mean() < 0.5 or value_S[is_there].std() <= 0 or delay_S[is_there].std() <= 0:
        return 0.0
    return float(np.corrcoef(value_S[is_there], delay_S[is_there])[0, 1] ** 2)
