"""Features that are the mean label of a group, taken over the very rows that they describe."""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_trainer.quality.finding import Finding, listed, passed
from clipdrift_trainer.quality.intervals import chi_square_tail
from clipdrift_trainer.quality.table import Column, Floats, Table

_MIN_ROWS_A_VALUE = 5
_MIN_VALUES = 10
_MIN_EXPECTED = 3.0  # n p (1 - p) of a group, below which a chi-square is not one
_CHANCE = 1e-4  # how seldom an honest number may scatter as little


class TargetEncodingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that predict the mean label of their rows more exactly than chance allows anyone to."""

    enabled: bool = True
    """Off: not looked for."""
    warn_dispersion: float = 0.3
    """Squared distance of the mean labels from what the number says, over what chance alone brings about: about 1 for a number
    that was known before, 0 for one that was made from these rows. From here down it warns."""
    stop_dispersion: float = 0.05
    """From here down it stops, in mode enforce."""

    def __post_init__(self) -> None:
        if not 0 <= self.stop_dispersion <= self.warn_dispersion < 1:
            raise ValueError(
                "target_encoding needs 0 <= stop_dispersion <= warn_dispersion < 1, "
                f"got {self.stop_dispersion!r} and {self.warn_dispersion!r}"
            )


def check_target_encoding(table: Table, policy: TargetEncodingPolicy) -> Finding:
    """The rows of one value of a number have a mean label that scatters by chance around what the number says, if it was known
    before. It does not where the number was made from these labels: those of the training rows, or of all rows."""
    found: list[tuple[str, float]] = []
    lowest = 1.0
    for column in table.columns:
        if column.name != column.feature or column.is_category:
            continue
        if _MIN_VALUES <= column.num_distinct <= len(column.values) / _MIN_ROWS_A_VALUE:
            ratio = encoding_dispersion(table, column)
            lowest = min(lowest, ratio)
            if ratio <= policy.warn_dispersion:
                found.append((column.feature, ratio))
    if not found:
        return passed("no number follows the labels of its rows more exactly than chance allows", dispersion=lowest)
    found.sort(key=lambda one: one[1])
    return Finding(
        level="stop" if found[0][1] <= policy.stop_dispersion else "warn",
        words=f"{listed([f'{name} (dispersion {ratio:.3f})' for name, ratio in found])} was made from the labels of the rows "
        "that it describes: encode a group by the labels of earlier rows only",
        figures={"dispersion": found[0][1]},
        features=tuple(name for name, _ in found),
    )


def encoding_dispersion(table: Table, column: Column) -> float:
    """The lowest dispersion of any class, on training rows or all rows; 1 where chance explains it, or values have few rows."""
    number_N = table.rows.features[column.feature]
    is_there_N = np.isfinite(number_N)
    lowest = 1.0
    for chosen_N in (is_there_N & ~table.is_held_out_N, is_there_N):
        value_G, group, count_G = np.unique(number_N[chosen_N], return_inverse=True, return_counts=True)
        for target in _targets(table, chosen_N):
            mean_G = np.bincount(group, target, len(value_G)) / count_G
            within = float(((target - mean_G[group]) ** 2).sum() / max(1, len(target) - len(value_G)))
            pooled = within if table.task.kind == "regression" else None
            lowest = min(lowest, dispersion(value_G.astype(np.float64), mean_G, count_G.astype(np.float64), pooled))
    return lowest


def _targets(table: Table, chosen_N: npt.NDArray[np.bool_]) -> Iterator[Floats]:
    """What an encoding may be the mean of: the label, or whether it is one of the classes."""
    label = table.rows.label[chosen_N]
    if table.task.kind == "multiclass":
        yield from ((label == index).astype(np.float64) for index in range(len(table.task.classes)))
    else:
        yield label


def dispersion(value_G: Floats, mean_G: Floats, count_G: Floats, variance: float | None = None) -> float:
    """Mean squared distance of the groups' mean labels from the best straight line through them, over what chance brings about;
    1 where chance explains it, or too few groups have enough rows.

    Args:
        value_G: The number of each group.
        mean_G: The mean label of its rows.
        count_G: How many they are.
        variance: Of a row's label; None: the label is 0 or 1, so the line gives it.

    Source: Pearson's chi-square over its degrees of freedom, groups less two; its lower tail must be below 1e-4.

    Example:
        >>> rate = np.linspace(0.2, 0.8, 30)
        >>> dispersion(rate, rate, np.full(30, 100.0)) < 1e-12
        True
    """
    is_large = count_G >= _MIN_ROWS_A_VALUE
    value_G, mean_G, count_G = value_G[is_large], mean_G[is_large], count_G[is_large]
    if len(value_G) < _MIN_VALUES:
        return 1.0
    line_G = _line(value_G, mean_G, count_G)
    variance_G = np.clip(line_G, 0, 1) * (1 - np.clip(line_G, 0, 1)) if variance is None else np.full(len(line_G), variance)
    # chosen by what is expected, never by what was seen: groups without a rare label would all be left out
    used = (count_G * variance_G >= _MIN_EXPECTED) if variance is None else variance_G > 0
    if used.sum() < _MIN_VALUES:
        return 1.0
    weight_G = count_G[used] / variance_G[used]
    statistic = float((weight_G * (mean_G[used] - _line(value_G[used], mean_G[used], weight_G)) ** 2).sum())
    degrees = int(used.sum()) - 2
    is_chance = 1 - chi_square_tail(statistic, degrees) > _CHANCE
    return 1.0 if is_chance else statistic / degrees


def _line(value_G: Floats, mean_G: Floats, weight_G: Floats) -> Floats:
    """The weighted least-squares line through the means, at each value."""
    total = weight_G.sum()
    value_mean, mean_mean = (weight_G * value_G).sum() / total, (weight_G * mean_G).sum() / total
    spread = (weight_G * (value_G - value_mean) ** 2).sum()
    slope = (weight_G * (value_G - value_mean) * (mean_G - mean_mean)).sum() / spread if spread > 0 else 0.0
    fitted: Floats = mean_mean + slope * (value_G - value_mean)
    return fitted
