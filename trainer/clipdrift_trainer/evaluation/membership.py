"""Does the model give away which rows it was trained on? Membership inference by the loss, the simplest attack there is.

Axes: N rows, K outputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from clipdrift_contract.events import Membership
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.ranking import auc_interval
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.tasks.fitting import predict_logits
from clipdrift_trainer.tasks.task import Rows, Task, encode

_FALSE_POSITIVE_RATE = 0.01
_MOST_ROWS = 20_000  # of each side


def model_losses(logits_NK: npt.NDArray[Any], label_N: Floats, kind: TaskKind, temperature: float = 1.0) -> Floats:
    """The loss of each row, >= 0: minus the log of the label's probability in nats, not cut off; squared error for regression.

    Example:
        >>> model_losses(np.array([[0.0, 0.0], [0.0, 20.0]]), np.array([1.0, 0.0]), "binary").round(4).tolist()
        [0.6931, 20.0]
    """
    if kind == "regression":
        squared: Floats = (logits_NK[:, 0].astype(np.float64) - label_N) ** 2
        return squared
    scaled_NK = logits_NK.astype(np.float64) / temperature
    scaled_NK = scaled_NK - scaled_NK.max(axis=1, keepdims=True)
    chosen_N = np.take_along_axis(scaled_NK, label_N.astype(np.int64)[:, None], axis=1)[:, 0]
    loss: Floats = np.log(np.exp(scaled_NK).sum(axis=1)) - chosen_N
    return loss


def infer_membership(
    member_loss_N: Floats,
    other_loss_N: Floats,
    member_time_ms: npt.NDArray[np.int64],
    other_time_ms: npt.NDArray[np.int64],
    seed: int = 0,
) -> Membership | None:
    """How well "the loss is low" tells rows that were trained on from others, as many of each; None where a side is empty.

    An AUC of .5 and a true-positive rate of 1 % at 1 % false positives are what guessing gives. The second says what can be
    told of the rows that are easiest to tell, and a model may keep the first low and fail there.

    Beware of time: the two sides are of different days. Held-out days that lie between trained ones (as training holds them
    out) differ little; days after the training differ by drift too, and an AUC above .5 may then be nothing but drift. The
    interval is over days, so it knows that days differ, and not that they differ in one direction.

    This attack is weak. A figure near .5 says that it fails, not that others do; epsilon of private training bounds them all.

    Args:
        member_loss_N: Losses of rows that were trained on.
        other_loss_N: Losses of rows that were not.
        member_time_ms: When each of the first happened.
        other_time_ms: When each of the others happened.
        seed: Of the choice of rows, where a side has more than the other or more than 20,000.

    Raises:
        ValueError: A loss is NaN, or losses and times differ in number.

    Source: Yeom, Giacomelli, Fredrikson, Jha 2018 (arXiv 1709.01604), adversary 1, for every threshold; the true-positive rate
    at a low false-positive rate: Carlini et al. 2022 (arXiv 2112.03570). Interval: see `auc_interval`.

    Example:
        >>> days = np.arange(4) * 86_400_000
        >>> found = infer_membership(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.35, 0.7, 0.8]), days, days)
        >>> found.auc, found.tpr_at_fpr_1, found.num_members
        (0.9375, 0.75, 4)
    """
    for loss_N, time_N in ((member_loss_N, member_time_ms), (other_loss_N, other_time_ms)):
        if np.isnan(loss_N).any() or len(loss_N) != len(time_N):
            raise ValueError(
                f"each loss needs a time and must be a number, got {len(loss_N)} losses, {int(np.isnan(loss_N).sum())} of them "
                f"NaN, and {len(time_N)} times"
            )
    num = min(len(member_loss_N), len(other_loss_N), _MOST_ROWS)
    if not num:
        return None
    generator = np.random.default_rng(seed)
    members, others = (np.sort(generator.permutation(len(loss_N))[:num]) for loss_N in (member_loss_N, other_loss_N))
    member_N, other_N = member_loss_N[members], other_loss_N[others]
    likeness_N = -np.concatenate([member_N, other_N])
    is_member_N = np.arange(2 * num) < num
    days = Days(np.concatenate([member_time_ms[members], other_time_ms[others]]))
    area = auc_interval(np.stack([-likeness_N, likeness_N], axis=1), is_member_N.astype(np.int64), days)
    assert area is not None  # both sides have rows
    return Membership(
        auc=area.value,
        auc_low=area.low,
        auc_high=area.high,
        tpr_at_fpr_1=_true_positive_rate(member_N, other_N),
        num_members=num,
        num_others=num,
    )


def _true_positive_rate(member_N: Floats, other_N: Floats) -> float:
    """Share of members found by the highest threshold that takes at most 1 % of the others for members."""
    num_allowed = int(_FALSE_POSITIVE_RATE * len(other_N) + 1e-9)
    return float((member_N < np.sort(other_N)[num_allowed]).mean())


def measure_membership(
    task: Task,
    module: nn.Module,
    trained: Rows,
    held_out: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    temperature: float = 1.0,
) -> Membership | None:
    """`infer_membership` for a fitted model: rows it was trained on against rows that were held out."""
    trained, held_out = _fewer(trained), _fewer(held_out)
    member_N, other_N = (
        model_losses(predict_logits(module, encode(task, rows, vocabularies)), rows.label, task.kind, temperature)
        for rows in (trained, held_out)
    )
    return infer_membership(member_N, other_N, trained.time_ms, held_out.time_ms)


def _fewer(rows: Rows) -> Rows:
    """At most 20,000 of the rows, evenly over time."""
    return rows if len(rows) <= _MOST_ROWS else rows.select(np.linspace(0, len(rows) - 1, _MOST_ROWS).astype(np.int64))
