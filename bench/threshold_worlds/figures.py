"""From what became of each model in service to regrets, promotions and their tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_trainer.evaluation.blocks import student_t
from threshold_worlds.cells import GRID, OPTIMIZERS, Life

POLICIES = ("chosen", "chosen by 2 seeds", "same", "q90", "autoclip_p10", "off")
_GRID = tuple(f"grid {number}" for number in range(len(GRID)))
Regime = tuple[str, str, str]  # clipping, optimizer, level


class Regret(NamedTuple):
    """Percentage points of accuracy behind the oracle, with the half width of the 95 % interval over seeds."""

    mean: float
    half: float
    fair: float
    """Against an oracle that picks its bound on the other half of the seeds: without the luck of the best of ten."""


RegretTable = dict[Regime, dict[str, dict[str, Regret]]]  # by regime, policy and data set


def regime_of(life: Life) -> Regime:
    return life.clipping, life.optimizer, life.level


def regimes(lives: Iterable[Life]) -> list[Regime]:
    """Those that were lived through, in the order of the tables."""
    kinds, levels = ("batch", "per sample"), ("heavy", "moderate")
    known = {regime_of(life) for life in lives}
    return [r for r in ((k, o, v) for k in kinds for o in OPTIMIZERS for v in levels) if r in known]


def regret(lives: Sequence[Life], policy: str) -> Regret:
    """Of one regime on one data set: the oracle is the bound of the grid that is best on the mean of all seeds' late rows."""
    chosen_S = np.array([life.accuracy[policy] for life in lives])
    grid_SG = np.array([[life.accuracy[name] for name in _GRID] for life in lives])
    lost_S = 100 * (grid_SG[:, grid_SG.mean(0).argmax()] - chosen_S)
    half = student_t(len(lost_S) - 1) * float(lost_S.std(ddof=1)) / len(lost_S) ** 0.5 if len(lost_S) > 1 else float("nan")
    return Regret(float(lost_S.mean()), half, _fair(grid_SG, chosen_S))


def _fair(grid_SG: npt.NDArray[np.float64], chosen_S: npt.NDArray[np.float64]) -> float:
    is_odd = np.arange(len(chosen_S)) % 2 == 1
    if not is_odd.any():
        return float("nan")
    lost = [(grid_SG[here, grid_SG[~here].mean(0).argmax()] - chosen_S[here]).sum() for here in (is_odd, ~is_odd)]
    return float(100 * sum(lost) / len(chosen_S))


def over_sets(found: Sequence[Regret]) -> Regret:
    """The mean over data sets, each of equal weight."""
    half = float(np.sqrt(sum(one.half**2 for one in found))) / len(found)
    return Regret(float(np.mean([one.mean for one in found])), half, float(np.mean([one.fair for one in found])))


def regret_table(lives: Sequence[Life]) -> RegretTable:
    """By regime, policy and data set; the set "" is the mean over all of them."""
    table: RegretTable = {}
    sets = list(dict.fromkeys(life.dataset for life in lives))
    for regime in regimes(lives):
        within = [life for life in lives if regime_of(life) == regime]
        table[regime] = {}
        for policy in POLICIES:
            by_set = {name: regret([life for life in within if life.dataset == name], policy) for name in sets}
            table[regime][policy] = {"": over_sets(list(by_set.values())), **by_set}
    return table


class Promotions(NamedTuple):
    """What the gate did."""

    passes: int
    false: int
    """Passes of a model whose accuracy is below that of the model in service with its whole interval."""
    better: int
    """Candidates above it with their whole interval."""
    missed: int
    """Those of them that did not pass."""


def promotions(lives: Iterable[Life], gain_of: Callable[[Life], tuple[float, float, float]]) -> Promotions:
    """Count by the gains, with their intervals (mean, low, high), that `gain_of` reads."""
    passes = false = better = missed = 0
    for life in lives:
        _, low, high = gain_of(life)
        has_passed = life.verdict == "pass"
        passes += has_passed
        false += has_passed and high < 0
        better += low > 0
        missed += low > 0 and not has_passed
    return Promotions(passes, false, better, missed)
