"""Would a simple repair do better? The model against challengers that are fitted on past production labels, block by block."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipdrift_monitor.risk.block import Block
from clipdrift_monitor.risk.challengers import base_rate, logit, recalibration, sigmoid
from clipdrift_monitor.risk.confidence import mean_interval
from clipdrift_monitor.risk.evidence import Evidence
from clipdrift_monitor.windows.window import Floats

CHALLENGERS = {"recalibrated": 0.8, "base_rate": 0.2}  # share of the evidence that each may bring
_KAPPAS = (0.3, 0.6, 0.9)


class PairStep(NamedTuple):
    """What a block did."""

    is_alarm: bool
    level: float
    challenger: str  # that with the most evidence before this block
    gain_of_block: float
    gain: float  # its mean gain over the blocks that are remembered, with an interval that holds at every look
    gain_low: float | None
    gain_high: float | None
    gains: list[float]  # to be handed in with the next block


def start_pair(bound: float) -> Evidence:
    """No evidence yet."""
    return Evidence(
        sums=[0.0] * (len(_KAPPAS) * len(CHALLENGERS)),
        weights=[share / len(_KAPPAS) for share in CHALLENGERS.values() for _ in _KAPPAS],
        bound=bound,
    )


def step_pair(evidence: Evidence, history: Sequence[Block], gains: Sequence[float], block: Block, max_gains: int) -> PairStep:
    """Paired betting: e = 1 + kappa D / B, D = mean loss(model) - loss(challenger), B = mean 2 |p - q| known before the labels.

    The model's scores are those of their bins' means, so |D| <= B holds exactly and every factor is >= 1 - kappa > 0. Labels
    that are still to come count as won by the model, whatever they will be.

    Args:
        evidence: Of the test; changed. After an alarm it begins again.
        history: Past blocks, whose labels the challengers are fitted on.
        gains: What the challenger that led before each past block would have gained in it.
        block: To be judged.
        max_gains: Gains that are remembered.
    """
    labels_B, hits_B, score_B = _binned(block)
    past_labels = np.sum([past.labels for past in history], axis=0)
    past_hits = np.sum([past.hits for past in history], axis=0)
    past_score = np.sum([past.score_sum for past in history], axis=0)
    past_mean = np.divide(past_score, past_labels, out=score_B.copy(), where=past_labels > 0)
    share_come = block.num_labels / (block.num_labels + block.num_missing)
    factors, gains_of_block = [], []
    for name in CHALLENGERS:
        rival_B = _rival(name, score_B, past_mean, past_labels, past_hits)
        gain, scale = paired(labels_B, hits_B, score_B, rival_B)
        ratio = gain / scale * share_come - (1 - share_come) if scale > 1e-9 else 0.0
        factors.append(1.0 + np.asarray(_KAPPAS) * ratio)
        gains_of_block.append(gain)
    leader = _leader(evidence)
    is_alarm = evidence.add(np.concatenate(factors))
    level = evidence.level
    kept = [*gains, gains_of_block[leader]][-max_gains:]
    mean, low, high = mean_interval(kept)
    if is_alarm:
        evidence.restart()
    return PairStep(is_alarm, level, list(CHALLENGERS)[leader], gains_of_block[leader], mean, low, high, kept)


def _leader(evidence: Evidence) -> int:
    """The challenger with the most evidence before this block: to pick by this block's labels would flatter its gain."""
    by_challenger = np.reshape(evidence.sums, (len(CHALLENGERS), len(_KAPPAS))).sum(axis=1)
    return int(np.argmax(by_challenger))


def _rival(name: str, score_B: Floats, past_score_B: Floats, past_labels_B: Floats, past_hits_B: Floats) -> Floats:
    """A challenger's scores [B] for today's bins, from past labels alone."""
    if name == "base_rate":
        return base_rate(score_B, past_labels_B, past_hits_B)
    slope, shift = recalibration(past_score_B, past_labels_B, past_hits_B)
    return sigmoid(slope * logit(score_B) + shift)


def paired(labels_B: Floats, hits_B: Floats, score_B: Floats, rival_B: Floats) -> tuple[float, float]:
    """Mean gain of the rival in Brier score over the model, and the most that it could have been.

    Example:
        >>> one = np.array([10.0]), np.array([5.0]), np.array([0.9]), np.array([0.5])
        >>> [round(x, 3) for x in paired(*one)]
        [0.16, 0.8]
    """
    num_labels = labels_B.sum()
    model = (labels_B * score_B**2 - 2 * score_B * hits_B).sum()
    rival = (labels_B * rival_B**2 - 2 * rival_B * hits_B).sum()
    scale = (2 * labels_B * np.abs(score_B - rival_B)).sum()
    return float((model - rival) / num_labels), float(scale / num_labels)


def _binned(block: Block) -> tuple[Floats, Floats, Floats]:
    labels_B, hits_B, sums_B = np.asarray(block.labels), np.asarray(block.hits), np.asarray(block.score_sum)
    centre_B = (np.arange(len(labels_B)) + 0.5) / len(labels_B)
    return labels_B, hits_B, np.divide(sums_B, labels_B, out=centre_B, where=labels_B > 0)
