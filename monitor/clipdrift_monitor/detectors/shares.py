"""Shares of rows that say something about the data and not about the world: missing values, categories that training never saw.

Axes: K bins of a feature, the last for missing values; of a categorical one the last but one for all categories not listed.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from clipdrift_contract.profile import FeatureProfile
from clipdrift_monitor.detectors.detector import Bins, Floats
from clipdrift_monitor.detectors.null import shares_p_value
from clipdrift_monitor.risk.e_values import discoveries, e_of_p


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A share that is proven to have changed by more than is worth mentioning."""

    feature: str
    what: str  # missing, new_categories
    share: float
    reference_share: float
    p_value: float
    words: str


def moved_shares(pairs: Sequence[tuple[FeatureProfile, Floats]], min_change: float, level: float) -> tuple[Moved, ...]:
    """Which shares have changed, of all features together.

    A share of missing values that falls is told too, since somebody may have begun to fill them in; one of unlisted categories
    that falls is not.

    Args:
        pairs: Each feature with the window's counts [K].
        min_change: Smallest change of a share that is worth mentioning.
        level: Chance that any is told falsely, by e-BH, whatever hangs together.
    """
    found = [one for feature, counts_K in pairs if counts_K.sum() for one in _shares(feature, counts_K)]
    is_proven = discoveries([e_of_p(one.p_value) for one in found], level)
    return tuple(
        one
        for one, proven in zip(found, is_proven, strict=True)
        if proven
        and (abs(one.share - one.reference_share) if one.what == "missing" else one.share - one.reference_share) >= min_change
    )


def _shares(feature: FeatureProfile, counts_K: Floats) -> Iterator[Moved]:
    reference_K = np.array([*feature.counts, feature.num_missing], float)
    bins = Bins(reference_K, counts_K, spread=feature.spread)
    if bins.is_empty:
        return
    yield _moved(feature.spec.name, "missing", bins, -1, "is missing in {now} of rows (reference {was})")
    if feature.spec.kind == "categorical":
        yield _moved(
            feature.spec.name, "new_categories", bins, -2, "has categories that training did not list in {now} of rows ({was})"
        )


def _moved(name: str, what: str, bins: Bins, place: int, words: str) -> Moved:
    was, now = (float(side[place] / side.sum()) for side in (bins.reference_K, bins.current_K))
    return Moved(
        feature=name,
        what=what,
        share=now,
        reference_share=was,
        p_value=shares_p_value(bins, place),
        words=f"{name} {words.format(now=f'{now:.1%}', was=f'{was:.1%}')}.",
    )
