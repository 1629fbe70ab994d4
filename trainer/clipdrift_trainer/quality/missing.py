"""Missing values: how many, more than the model in service knew, in which rows, and whether what is missing tells the label."""

from collections.abc import Iterator

import msgspec
import numpy as np

from clipdrift_trainer.quality.finding import Finding, Level, level_of, listed, passed, skipped, worst
from clipdrift_trainer.quality.intervals import normal_tail
from clipdrift_trainer.quality.table import Column, Floats, Ints, Table

_SIGNIFICANCE = 0.01  # for all features and classes together
_MIN_MISSING = 20
_MIN_COULD_MISS = 3


class MissingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be missing."""

    enabled: bool = True
    """Off: not looked for."""
    warn_share: float = 0.5
    """Share of a feature's values from which on it warns, where no model in service says what is usual."""
    warn_rise: float = 0.1
    """By how much the share may lie above that of the model in service, from which on it warns."""
    stop_rise: float = 0.5
    """Rise from which on it stops, in mode enforce."""
    warn_empty_rows: float = 0.02
    """Share of rows that lack more than half of what can be missing, from which on it warns."""

    def __post_init__(self) -> None:
        for name in ("warn_share", "warn_rise", "warn_empty_rows"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"missing.{name} must be in 0..1 and above 0, got {getattr(self, name)!r}")
        if self.stop_rise < self.warn_rise:
            raise ValueError(f"missing needs warn_rise <= stop_rise, got {self.warn_rise!r} and {self.stop_rise!r}")


def check_missing(table: Table, policy: MissingPolicy) -> Finding:
    """Counted over all rows; a sequence misses what all its elements miss, a category what only says that it is missing."""
    if not len(table):
        return skipped("there are no rows")
    levels: list[Level] = []
    words, features = [], []
    share_of = {spec.name: _share(table, spec.name) for spec in table.task.features}
    for name, share in share_of.items():
        usual = _usual_share(table, name)
        level = level_of(share, policy.warn_share, np.inf) if usual is None else "pass"
        if usual is not None:
            level = level_of(share - usual, policy.warn_rise, policy.stop_rise)
        if level != "pass":
            levels.append(level)
            features.append(name)
            words.append(f"{name} is missing in {share:.0%} of the rows{f' (usual: {usual:.0%})' if usual is not None else ''}")
    rows = _mostly_empty(table, share_of)
    figures = {"highest_share": max(share_of.values(), default=0.0), "mostly_empty_share": len(rows) / len(table)}
    if len(rows) >= policy.warn_empty_rows * len(table):
        levels.append("warn")
        words.append(f"{len(rows) / len(table):.1%} of the rows lack more than half of what can be missing")
    if not levels:
        name = max(share_of, key=lambda one: share_of[one], default="")
        return passed(f"at most {share_of.get(name, 0.0):.1%} of a feature is missing ({name})", **figures)
    return Finding(level=worst(levels), words="; ".join(words[:5]), figures=figures, features=tuple(features), rows=rows)


def _share(table: Table, name: str) -> float:
    return float(table.frame[name if name in table.frame.columns else f"{name}:mean"].null_count() / len(table))


def _usual_share(table: Table, name: str) -> float | None:
    """The share in the profile; None where there is none. A profile has no missing categories, only a category of that name."""
    known = table.profile_of(name)
    if known is None:
        return None
    total = sum(known.counts) + known.num_missing
    return known.num_missing / total if total and known.spec.kind != "categorical" else None


def _mostly_empty(table: Table, share_of: dict[str, float]) -> Ints:
    names = [name if name in table.frame.columns else f"{name}:mean" for name, share in share_of.items() if share > 0]
    could_miss = [spec for spec in table.task.features if spec.nullable or share_of[spec.name] > 0]
    if len(could_miss) < _MIN_COULD_MISS or not names:
        return np.zeros(0, np.int64)
    num_missing_N = sum(table.frame[name].is_null().to_numpy().astype(np.int64) for name in names)
    is_empty_N = num_missing_N > len(could_miss) / 2
    positions = np.flatnonzero(is_empty_N)
    order = np.argsort(-np.asarray(num_missing_N)[positions], kind="stable")
    return positions[order]


class MissingPatternPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Missing values that tell the label: they are not missing by chance, and a repaired sensor changes what the model sees."""

    enabled: bool = True
    """Off: not looked for."""
    warn_difference: float = 0.25
    """By how much a class's share among the rows that lack a feature may differ from that among the others (regression: the
    mean label, in standard deviations), from which on it warns. Weather stations that fail in storms show less."""
    warn_rate_difference: float = 0.2
    """By how much a feature may be missing more often in one class than in the others (regression: above the median than
    below), from which on it warns."""
    stop_difference: float = 0.6
    """Either difference from which on it stops, in mode enforce."""

    def __post_init__(self) -> None:
        if not 0 < max(self.warn_difference, self.warn_rate_difference) <= self.stop_difference:
            raise ValueError(
                "missing_pattern needs 0 < warn_difference, warn_rate_difference <= stop_difference, "
                f"got {self.warn_difference!r}, {self.warn_rate_difference!r} and {self.stop_difference!r}"
            )


def check_missing_pattern(table: Table, policy: MissingPatternPolicy) -> Finding:
    """Each feature against each class, days as the unit of evidence, at 1 % for all of them together.

    Source: score test of a difference with the sandwich variance over clusters (Liang, Zeger 1986): sum over days of
    u_d = sum (m - mean m)(y - mean y), over the root of the sum of u_d^2; Bonferroni over all that were tested. Few days cannot
    reach significance, since |z| <= sqrt(days).
    """
    tested = list(_associations(table))
    if not tested:
        return passed("nothing is missing often enough to tell", difference=0.0)
    level_each = _SIGNIFICANCE / len(tested)
    found = [
        one
        for one in tested
        if one.p_value < level_each
        and (abs(one.label_difference) >= policy.warn_difference or abs(one.rate_difference) >= policy.warn_rate_difference)
    ]
    strongest = max(found or tested, key=lambda one: max(abs(one.label_difference), abs(one.rate_difference)))
    figures = {
        "label_difference": strongest.label_difference, "rate_difference": strongest.rate_difference,
        "p_value": strongest.p_value, "num_tested": float(len(tested)),
    }  # fmt: skip
    if not found:
        chance = "" if strongest.p_value < level_each else ", which chance explains"
        name = strongest.column.name
        return passed(f"labels differ most where {name} is missing, by {strongest.label_difference:+.2f}{chance}", **figures)
    names = dict.fromkeys(f"{one.column.name} (labels {one.label_difference:+.2f})" for one in found)
    size = max(abs(strongest.label_difference), abs(strongest.rate_difference))
    return Finding(
        level=level_of(size, 0.0, policy.stop_difference),
        words=f"where {listed(list(names))} is missing, labels differ: it is not missing by chance; see that serving misses it "
        "for the same reason, or give the reason as a feature",
        figures=figures,
        features=tuple(dict.fromkeys(one.column.feature for one in found)),
        rows=table.first(np.flatnonzero(strongest.column.is_missing)),
    )


class _Association(msgspec.Struct, frozen=True, kw_only=True):
    """How a column's missing values go with a class (or with the label of a regression)."""

    column: Column
    label_difference: float  # mean outcome where it is missing, less that elsewhere
    rate_difference: float  # share missing in the class (above the median), less that elsewhere
    p_value: float


def _associations(table: Table) -> Iterator[_Association]:
    """For each column with missing values and each class (the label itself in a regression)."""
    days, day_S = np.unique(table.days[table.sample], return_inverse=True)
    for column in table.columns:
        num_missing = int(column.is_missing.sum())
        is_whole = column.name in (column.feature, f"{column.feature} (mean)")  # of a sequence only its mean is tested
        if not is_whole or min(num_missing, len(column.values) - num_missing) < _MIN_MISSING:
            continue
        missing_S = column.is_missing.astype(np.float64)
        for outcome_S in _outcomes(table):
            score_D = np.bincount(day_S, (missing_S - missing_S.mean()) * (outcome_S - outcome_S.mean()), len(days))
            spread = float(np.sqrt((score_D**2).sum()))
            is_high = outcome_S > (np.median(outcome_S) if table.task.kind == "regression" else 0)
            yield _Association(
                column=column,
                label_difference=float(outcome_S[column.is_missing].mean() - outcome_S[~column.is_missing].mean()),
                rate_difference=_mean(missing_S[is_high]) - _mean(missing_S[~is_high]),
                p_value=normal_tail(float(score_D.sum()) / spread) if spread > 0 else 1.0,
            )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _outcomes(table: Table) -> Iterator[Floats]:
    if table.task.kind == "regression":
        spread = float(table.sampled_labels.std())
        yield table.sampled_labels / (spread if spread > 0 else 1.0)
        return
    first = 1 if table.task.kind == "binary" else 0
    for index in range(first, len(table.task.classes)):
        yield (table.sampled_labels == index).astype(np.float64)
