"""A single feature that gives the label away: it was made from the label, or is known only once the label is."""

import msgspec
import numpy as np

from clipdrift_trainer.evaluation.scores import area_under_roc
from clipdrift_trainer.quality.finding import Finding, Level, listed, passed, skipped, worst
from clipdrift_trainer.quality.intervals import auc_interval, wilson
from clipdrift_trainer.quality.table import Column, Floats, Ints, Table

_MIN_ROWS = 30  # of each class (of all for a regression): fewer can be told apart by chance
_LOOK_CLOSER = 0.9  # below this AUC by bins, or agreement by bins, the exact figure cannot reach a threshold
_SHRINK = 1.0  # rows of the overall mean that each bin is given


class SingleFeaturePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much one feature alone may tell about the label of held-out rows."""

    enabled: bool = True
    """Off: not looked for."""
    warn_auc: float = 0.98
    """Two classes: area under the ROC curve, by the lower end of its 95 % interval, from which on it warns."""
    stop_auc: float = 0.995
    """Two classes: area from which on training makes no sense, where the interval too lies above `warn_auc`."""
    warn_agreement: float = 0.95
    """Several classes: agreement beyond chance (kappa), by the lower end of its interval, from which on it warns."""
    stop_agreement: float = 0.99
    """Several classes: agreement from which on training makes no sense, where the interval too lies above `warn_agreement`."""
    warn_r2: float = 0.995
    """Regression: share of the label's variance that one feature explains, from which on it warns."""
    stop_r2: float = 0.9999
    """Regression: share from which on training makes no sense."""
    allow: tuple[str, ...] = ()
    """Features that may tell the label, because they are known when the prediction is made."""

    def __post_init__(self) -> None:
        for name in ("auc", "agreement", "r2"):
            warn, stop = getattr(self, f"warn_{name}"), getattr(self, f"stop_{name}")
            if not 0 < warn <= stop:
                raise ValueError(f"single_feature needs 0 < warn_{name} <= stop_{name}, got {warn!r} and {stop!r}")


def check_single_feature(table: Table, policy: SingleFeaturePolicy) -> Finding:
    """Each feature alone, fitted on training rows and judged on held-out ones: numbers by their order and by bins, categories
    by their mean label, several classes by the nearest training value."""
    lack = _lack_of_rows(table)
    if lack:
        return skipped(lack)
    judged = [(column, *_judge(table, column, policy)) for column in table.columns if column.feature not in policy.allow]
    if not judged:
        return skipped("every feature is allowed to tell the label")
    judged.sort(key=lambda one: (one[2], one[3]), reverse=True)
    strongest, level, value, low = judged[0][0], worst([one[1] for one in judged]), judged[0][2], judged[0][3]
    name = {"binary": "auc", "multiclass": "agreement", "regression": "r2"}[table.task.kind]
    figures = {name: value, f"{name}_low": low}
    if level == "pass":
        return passed(f"the strongest single feature is {strongest.name} ({name} {value:.3f})", **figures)
    found = [one for one in judged if one[1] != "pass"]
    return Finding(
        level=level,
        words=f"{listed([f'{column.name} ({name} {value:.4f})' for column, _, value, _ in found])} alone nearly tells the "
        "label of held-out rows: is it known when the prediction is made? Leave it out, or name it in single_feature.allow",
        figures=figures,
        features=tuple(dict.fromkeys(column.feature for column, *_ in found)),
        is_unmistakable=True,
    )


def _lack_of_rows(table: Table) -> str:
    counts = [int((table.sampled_held_out == side).sum()) for side in (True, False)]
    if min(counts) < _MIN_ROWS:
        return f"{counts[0]} held-out and {counts[1]} training rows are too few to tell"
    if table.task.kind == "binary" and np.bincount(table.sampled_classes, minlength=2).min() < _MIN_ROWS:
        return f"fewer than {_MIN_ROWS} rows of one class: chance can tell them apart"
    return ""


def _judge(table: Table, column: Column, policy: SingleFeaturePolicy) -> tuple[Level, float, float]:
    """Level, figure and lower end of its interval."""
    if table.task.kind == "binary":
        return _judge_area(table, column, policy)
    if table.task.kind == "multiclass":
        return _judge_agreement(table, column, policy)
    value = explained_variance(table, column)
    return _level(value, value, policy.warn_r2, policy.stop_r2), value, value


def _level(value: float, low: float, warn: float, stop: float) -> Level:
    """The interval must lie above the warning, the figure above the stop."""
    if not low >= warn:
        return "pass"
    return "stop" if value >= stop else "warn"


def _known(area: float | None) -> float:
    """Chance where one class is absent; 0 is a perfect, turned round order and stays 0."""
    return 0.5 if area is None else area


def _judge_area(table: Table, column: Column, policy: SingleFeaturePolicy) -> tuple[Level, float, float]:
    held_out = np.flatnonzero(table.sampled_held_out)
    binned = _known(area_under_roc(bin_means(table, column)[column.bins[held_out]], table.sampled_labels[held_out]))
    if column.is_category or binned < _LOOK_CLOSER:
        return _area(binned, table.sampled_labels[held_out], policy)
    # no fit is needed to order rows by a number, so all rows may judge
    present = np.flatnonzero(~column.is_missing)
    ordered = _known(area_under_roc(column.values[present], table.sampled_labels[present]))
    by_order = _area(max(ordered, 1 - ordered), table.sampled_labels[present], policy)
    by_bins = _area(binned, table.sampled_labels[held_out], policy)
    return by_order if len(present) == len(table.sampled_labels) and by_order[1:] > by_bins[1:] else by_bins


def _area(area: float, label: Floats, policy: SingleFeaturePolicy) -> tuple[Level, float, float]:
    num_positive = int(label.sum())
    if min(num_positive, len(label) - num_positive) < 1:
        return "pass", area, 0.0
    low, _ = auc_interval(area, num_positive, len(label) - num_positive)
    return _level(area, low, policy.warn_auc, policy.stop_auc), area, low


def bin_means(table: Table, column: Column) -> Floats:
    """Mean label of the training rows by the column's bin, drawn towards the overall mean where a bin holds few rows [B]."""
    train = ~table.sampled_held_out
    label, bin_T = table.sampled_labels[train], column.bins[train]
    num_bins = int(column.bins.max(initial=0)) + 1
    mean = float(label.mean())
    return (np.bincount(bin_T, label, num_bins) + _SHRINK * mean) / (np.bincount(bin_T, minlength=num_bins) + _SHRINK)


def explained_variance(table: Table, column: Column) -> float:
    """Share of the held-out labels' variance that the column explains, by bins or by a straight line, whichever is more."""
    held_out = table.sampled_held_out
    label = table.sampled_labels[held_out]
    variance = float(((label - label.mean()) ** 2).sum())
    if variance <= 0:
        return 0.0
    binned = 1 - float(((label - bin_means(table, column)[column.bins[held_out]]) ** 2).sum()) / variance
    is_there = held_out & ~column.is_missing
    value = column.values[is_there]
    if column.is_category or is_there.sum() < held_out.sum() or value.std() <= 0:
        return binned
    return max(binned, float(np.corrcoef(value, label)[0, 1] ** 2))


def _judge_agreement(table: Table, column: Column, policy: SingleFeaturePolicy) -> tuple[Level, float, float]:
    held_out, train = np.flatnonzero(table.sampled_held_out), np.flatnonzero(~table.sampled_held_out)
    class_H = table.sampled_classes[held_out]
    share_K = np.bincount(class_H) / len(class_H)
    chance = float((share_K**2).sum())
    if chance >= 1:
        return "pass", 0.0, 0.0
    hits = int((_by_majority(table, column, train)[column.bins[held_out]] == class_H).sum())
    if not column.is_category and hits / len(class_H) > _LOOK_CLOSER * (1 - chance) * 0.5 + chance:
        hits = max(hits, int((_by_nearest(column, table.sampled_classes, train, held_out) == class_H).sum()))
    low, _ = wilson(hits, len(class_H))
    value, bound = ((share - chance) / (1 - chance) for share in (hits / len(class_H), low))
    return _level(value, bound, policy.warn_agreement, policy.stop_agreement), value, bound


def _by_majority(table: Table, column: Column, train: Ints) -> Ints:
    num_bins, num_classes = int(column.bins.max(initial=0)) + 1, int(table.sampled_classes.max(initial=0)) + 1
    count_BK = np.bincount(column.bins[train] * num_classes + table.sampled_classes[train], minlength=num_bins * num_classes)
    majority: Ints = count_BK.reshape(num_bins, num_classes).argmax(axis=1)
    return majority


def _by_nearest(column: Column, class_S: Ints, train: Ints, held_out: Ints) -> Ints:
    """Class of the training row whose value is nearest."""
    train = train[~column.is_missing[train]]
    order = train[np.argsort(column.values[train], kind="stable")]
    known = column.values[order]
    asked = np.nan_to_num(column.values[held_out], nan=float(known[0]) if len(known) else 0.0)
    if not len(known):
        return np.full(len(held_out), -1)
    above = np.clip(np.searchsorted(known, asked), 0, len(known) - 1)
    below = np.maximum(above - 1, 0)
    nearest = np.where(np.abs(known[above] - asked) <= np.abs(asked - known[below]), above, below)
    guessed: Ints = class_S[order[nearest]]
    return guessed
