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
_SURE = 0.02  # a value whose rows nearly all have one label says nothing: there is no chance left to miss
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
            spread_G = np.bincount(group, (target - mean_G[group]) ** 2, len(value_G)) / np.maximum(count_G - 1, 1)
            lowest = min(lowest, _dispersion(value_G.astype(np.float64), mean_G, count_G.astype(np.float64), spread_G))
    return lowest


def _targets(table: Table, chosen_N: npt.NDArray[np.bool_]) -> Iterator[Floats]:
    """What an encoding may be the mean of: the label, or whether it is one of the classes."""
    label = table.rows.label[chosen_N]
    if table.task.kind == "multiclass":
        yield from ((label == index).astype(np.float64) for index in range(len(table.task.classes)))
    else:
        yield label


def _dispersion(value_G: Floats, mean_G: Floats, count_G: Floats, spread_G: Floats) -> float:
    """Mean squared distance of the groups' means from the best straight line through them, over what chance brings about.

    Source: Pearson's chi-square over its degrees of freedom, groups less two; the lower tail says whether it is too small.
    """
    scale = float((count_G * spread_G).sum() / max(1.0, count_G.sum()))
    used = (count_G >= _MIN_ROWS_A_VALUE) & (spread_G > _SURE * scale)
    num_used = int(used.sum())
    if num_used < _MIN_VALUES:
        return 1.0
    weight_G = np.sqrt(count_G[used] / spread_G[used])
    line_G2 = np.stack([value_G[used] - value_G[used].mean(), np.ones(num_used)], axis=1) * weight_G[:, None]
    solution, *_ = np.linalg.lstsq(line_G2, mean_G[used] * weight_G, rcond=None)
    statistic = float(((mean_G[used] * weight_G - line_G2 @ solution) ** 2).sum())
    degrees = num_used - 2
    is_chance = 1 - chi_square_tail(statistic, degrees) > _CHANCE
    return 1.0 if is_chance else statistic / degrees
