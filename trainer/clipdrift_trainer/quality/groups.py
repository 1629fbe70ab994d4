"""Groups that straddle the split and give the label away: one patient, device or order on both sides, under one label."""

import msgspec
import numpy as np

from clipdrift_trainer.quality.finding import Finding, Level, listed, passed, worst
from clipdrift_trainer.quality.table import Column, Floats, Ints, Table


class GroupsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Features whose values are like names of groups: many values, each with a few rows, on both sides of the split."""

    enabled: bool = True
    """Off: not looked for."""
    min_groups: int = 50
    """A feature with fewer values on both sides of the split is no name of groups."""
    min_straddling: float = 0.1
    """Share of the held-out rows whose group is among the training rows, below which it does not matter."""
    warn_agreement: float = 0.8
    """Agreement beyond chance of the labels of a group's held-out and training rows, from which on it warns."""
    stop_agreement: float = 0.95
    """Agreement from which on it stops, in mode enforce."""
    allow: tuple[str, ...] = ()
    """Features that may be such names, because the same groups come again in production."""

    def __post_init__(self) -> None:
        if self.min_groups < 2:
            raise ValueError(f"groups.min_groups must be >= 2, got {self.min_groups!r}")
        if not 0 < self.warn_agreement <= self.stop_agreement <= 1:
            raise ValueError(
                f"groups need 0 < warn_agreement <= stop_agreement <= 1, got {self.warn_agreement!r}, {self.stop_agreement!r}"
            )


def check_groups(table: Table, policy: GroupsPolicy) -> Finding:
    """Of pairs of a held-out and a training row of one group, how many have the same label, beyond chance.

    A feature that orders the rows, such as a measurement, is no name of groups: the labels of its neighbouring values agree as
    well as those of one value, and then nothing is said (the single-feature check judges it).
    """
    found: list[tuple[Column, Level, float, float]] = []
    strongest = 0.0
    for column in table.columns:
        if column.feature in policy.allow or not policy.min_groups <= column.num_distinct <= len(column.values) * 0.9:
            continue
        num_groups, straddling, agreement = straddle(table, column)
        if num_groups < policy.min_groups or straddling < policy.min_straddling:
            continue
        strongest = max(strongest, agreement)
        if agreement >= policy.warn_agreement:
            found.append((column, "stop" if agreement >= policy.stop_agreement else "warn", agreement, straddling))
    if not found:
        return passed("no feature names groups whose label is known from the other side of the split", agreement=strongest)
    names = [f"{column.name} (agreement {agreement:.2f}, {share:.0%} of the rows)" for column, _, agreement, share in found]
    return Finding(
        level=worst([level for _, level, _, _ in found]),
        words=f"rows with the same {listed(names)} stand on both sides of the split under one label: the held-out figures say "
        "how well the groups are remembered; leave the feature out, or name it in groups.allow if the same groups come again",
        figures={"agreement": found[0][2], "straddling": found[0][3]},
        features=tuple(dict.fromkeys(column.feature for column, *_ in found)),
    )


def straddle(table: Table, column: Column) -> tuple[int, float, float]:
    """Number of groups on both sides, share of the held-out rows in them, agreement (kappa) of labels across the split."""
    is_there = ~column.is_missing
    _, group = np.unique(column.values[is_there], return_inverse=True)
    class_S, held_out = table.sampled_classes[is_there], table.sampled_held_out[is_there]
    num_groups, num_classes = int(group.max(initial=-1)) + 1, int(table.sampled_classes.max(initial=0)) + 1
    train_GK, held_GK = (_counts(group[side], class_S[side], num_groups, num_classes) for side in (~held_out, held_out))
    num_train_G, num_held_G = train_GK.sum(axis=1), held_GK.sum(axis=1)
    on_both = (num_train_G > 0) & (num_held_G > 0)
    num_pairs = float((num_train_G * num_held_G).sum())
    chance = float((_shares(train_GK) * _shares(held_GK)).sum())
    if not num_pairs or chance >= 1:
        return int(on_both.sum()), 0.0, 0.0
    # each group counts by its held-out rows, not by its pairs: a few large groups must not speak for all
    same_G = (train_GK * held_GK).sum(axis=1)[on_both] / num_train_G[on_both]
    agreement = float(same_G.sum() / num_held_G[on_both].sum())
    return int(on_both.sum()), float(num_held_G[on_both].sum() / max(1, held_out.sum())), (agreement - chance) / (1 - chance)


def _counts(group: Ints, class_S: Ints, num_groups: int, num_classes: int) -> Ints:
    return np.bincount(group * num_classes + class_S, minlength=num_groups * num_classes).reshape(num_groups, num_classes)


def _shares(count_GK: Ints) -> Floats:
    shares: Floats = count_GK.sum(axis=0) / max(1, count_GK.sum())
    return shares
