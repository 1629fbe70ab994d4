"""How far a model's answers can be turned by small changes of its numbers: FGSM and PGD on the torch module.

Axes: N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.tasks.task import Rows, Task

Inputs = Mapping[str, torch.Tensor]
_OVERSHOOT = 2.5  # the steps together could go this many times across the ball


@dataclass(frozen=True)
class Ball:
    """Where a numeric feature may be moved to: within `radius` of its value, and not out of what training has seen.

    Each tensor has the feature's shape, so every channel and step of a sequence has its own.
    """

    radius: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


@dataclass(frozen=True)
class Attacked:
    """Of each row, how bad the answer is before and after: see `badness`. Later columns are never below earlier ones."""

    clean_N: npt.NDArray[np.float64]
    fgsm_N: npt.NDArray[np.float64]
    pgd_N: npt.NDArray[np.float64]


def balls_of(task: Task, trained: Rows, epsilon: float) -> dict[str, Ball]:
    """The ball of each numeric feature: `epsilon` of its standard deviations over the training rows, missing values left out.

    Features that never vary, or are never there, cannot be moved; categories are no numbers.

    Example:
        >>> from clipdrift_contract.profile import FeatureSpec
        >>> class Pumps:
        ...     features = (FeatureSpec(name="pressure", kind="numeric"),)
        >>> rows = Rows({"pressure": np.array([1.0, 3.0])}, np.zeros(2), np.zeros(2, np.int64), np.zeros(2, np.int64))
        >>> balls_of(Pumps, rows, epsilon=0.1)["pressure"].radius.item()
        0.10000000149011612
    """
    found = {}
    for spec in task.features:
        if spec.kind == "categorical":
            continue
        column = np.ma.masked_invalid(np.asarray(trained.features[spec.name], np.float64))
        spread, low, high = (
            np.ma.filled(figure, 0.0) for figure in (column.std(axis=0), column.min(axis=0), column.max(axis=0))
        )
        if np.any(np.asarray(spread) > 0):
            found[spec.name] = Ball(*(torch.as_tensor(np.asarray(x, np.float32)) for x in (epsilon * spread, low, high)))
    return found


def badness(output_NK: torch.Tensor, label_N: torch.Tensor, kind: TaskKind) -> torch.Tensor:
    """The highest logit of another class minus the label's (0 or more: the answer is wrong); for values the squared miss.

    The margin and not the log loss: where a model is sure, float32 rounds the slope of the log loss to 0, and an attack that
    follows it stands still. Source: the loss f6 of Carlini, Wagner 2017 (arXiv 1608.04644), without its cut-off.
    """
    if kind == "regression":
        return (output_NK[:, 0] - label_N) ** 2
    chosen_N1 = label_N.long()[:, None]
    others_NK = output_NK.scatter(1, chosen_N1, -torch.inf)
    return others_NK.amax(dim=1) - output_NK.gather(1, chosen_N1)[:, 0]


def attack(
    module: nn.Module,
    inputs: Inputs,
    label_N: npt.NDArray[np.float64],
    kind: TaskKind,
    balls: Mapping[str, Ball],
    num_steps: int,
) -> Attacked:
    """What FGSM and PGD make of the rows: each row's worst answer found, within the balls.

    A lower bound: no attack proves that there is nothing worse. Missing values stay missing; an answer that is NaN counts as
    infinitely bad. There is no chance in it: PGD starts at the row itself.

    Args:
        module: In evaluation mode; its parameters are not touched.
        inputs: Encoded rows.
        label_N: Class indices or values.
        kind: Of the task.
        balls: Of the features that may be moved; the others stay as they are.
        num_steps: Of PGD.

    Raises:
        ValueError: No feature can be moved.

    Source: FGSM, Goodfellow, Shlens, Szegedy 2015 (arXiv 1412.6572), equation in section 4; PGD in the L-infinity ball, Madry
    et al. 2018 (arXiv 1706.06083), equation 4. Both follow `badness`, and keep the worst point on their way. The ball is cut at
    the range of the training rows.
    """
    if not balls:
        raise ValueError("no numeric feature varies in the training rows, so there is nothing to attack")
    label = torch.from_numpy(np.ascontiguousarray(label_N))
    limits = {name: _limits(inputs[name], ball) for name, ball in balls.items()}
    step = _OVERSHOOT / num_steps
    at = {name: torch.zeros_like(inputs[name]) for name in balls}
    clean_N, slope = _slope(module, inputs, at, label, kind)
    fgsm_N = torch.maximum(clean_N, _slope(module, inputs, _moved(at, slope, balls, limits, 1.0), label, kind)[0])
    worst_N = fgsm_N
    for _ in range(num_steps):
        at = _moved(at, slope, balls, limits, step)
        bad_N, slope = _slope(module, inputs, at, label, kind)
        worst_N = torch.maximum(worst_N, bad_N)
    return Attacked(*(found_N.double().numpy() for found_N in (clean_N, fgsm_N, worst_N)))


def _limits(value: torch.Tensor, ball: Ball) -> tuple[torch.Tensor, torch.Tensor]:
    """How far a value may be moved down and up; one that is outside the range already may only come back."""
    down = torch.maximum(-ball.radius, torch.minimum(ball.low - value, torch.zeros_like(value)))
    up = torch.minimum(ball.radius, torch.maximum(ball.high - value, torch.zeros_like(value)))
    return torch.nan_to_num(down), torch.nan_to_num(up)


def _moved(
    at: Inputs, slope: Inputs, balls: Mapping[str, Ball], limits: Mapping[str, tuple[torch.Tensor, torch.Tensor]], step: float
) -> dict[str, torch.Tensor]:
    """A step of `step` radii uphill, brought back into the ball."""
    return {
        name: torch.clamp(at[name] + step * ball.radius * torch.nan_to_num(slope[name]).sign(), *limits[name])
        for name, ball in balls.items()
    }


def _slope(
    module: nn.Module, inputs: Inputs, at: Inputs, label_N: torch.Tensor, kind: TaskKind
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Badness of each row moved by `at`, and its slope there."""
    with torch.enable_grad():
        moved = {name: shift.detach().clone().requires_grad_() for name, shift in at.items()}
        bad_N = badness(module({**inputs, **{name: inputs[name] + moved[name] for name in moved}}), label_N, kind)
        slopes = torch.autograd.grad(bad_N.sum(), list(moved.values()), allow_unused=True)
    named = zip(moved, slopes, strict=True)
    slope = {name: torch.zeros_like(at[name]) if found is None else found for name, found in named}
    return torch.nan_to_num(bad_N.detach(), nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), slope
