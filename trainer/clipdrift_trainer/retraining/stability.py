"""Whether a run that may clip less stayed stable, by its own telemetry. Validation alone may miss what a later run of the same
policy will not survive."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import GradWindow

# Generous, since validation comes on top: in the runs of bench/threshold.py at a tuned learning rate with batch clipping, the
# loss of a window seldom rose to 1.3 times the lowest before it, and norms did not grow to three times.
_LOSS_LEAP = 2.0
_NORM_GROWTH = 10.0
_NONFINITE_SHARE = 0.01


def instability(windows: Sequence[GradWindow], same: Sequence[GradWindow]) -> str:
    """Why a run that may clip less is not trusted, in words; "" where nothing speaks against it.

    What the run with the old rule shows too is not held against the other. A run of fewer than three windows tells
    nothing but its non-finite steps.

    Args:
        windows: Of the run that may clip less, in order.
        same: Of the run with the rule in service, on the same rows; empty where that one diverged and excuses nothing.

    Example:
        >>> same = dict(run_id="", model="", started_at_ms=0, ended_at_ms=0, step_first=0, num_clipped=0, norm_sum=50.0)
        >>> def run(*losses: float) -> list[GradWindow]:
        ...     return [GradWindow(**same, num_steps=50, loss_sum=50 * loss) for loss in losses]
        >>> instability(run(0.7, 0.5, 1.1), run(0.7, 0.6, 0.6))
        'its loss leapt to 2.2 times what it had been'
    """
    share = _nonfinite_share(windows)
    if share > max(_NONFINITE_SHARE, _nonfinite_share(same)):
        return f"{share:.1%} of its steps were not finite"
    if len(windows) < 3:
        return ""
    loss_W = _means(windows, [window.loss_sum for window in windows])
    leap = _leap(loss_W)
    if leap > max(_LOSS_LEAP, _leap(_means(same, [window.loss_sum for window in same]))):
        return f"its loss leapt to {leap:.1f} times what it had been"
    growth = _growth(windows)
    if growth > max(_NORM_GROWTH, _growth(same)):
        return f"its gradient norms grew to {growth:.0f} times what they had been"
    return ""


def _means(windows: Sequence[GradWindow], sums: Sequence[float]) -> npt.NDArray[np.float64]:
    num_W = np.array([max(1, window.num_steps - window.num_nonfinite) for window in windows], np.float64)
    return np.array(sums, np.float64) / num_W


def _nonfinite_share(windows: Sequence[GradWindow]) -> float:
    return sum(window.num_nonfinite for window in windows) / max(1, sum(window.num_steps for window in windows))


def _leap(loss_W: npt.NDArray[np.float64]) -> float:
    """The largest rise of a window's loss over the lowest before it; 0 where losses are not positive, as some tasks' are."""
    if len(loss_W) < 2 or not (loss_W > 0).all():
        return 0.0
    return float((loss_W[1:] / np.minimum.accumulate(loss_W)[:-1]).max())


def _growth(windows: Sequence[GradWindow]) -> float:
    """Mean norm of the last quarter of the run over that of the first."""
    norm_W = _means(windows, [window.norm_sum for window in windows])
    quarter = max(1, len(norm_W) // 4)
    first = float(norm_W[:quarter].mean()) if len(norm_W) else 0.0
    return float(norm_W[-quarter:].mean()) / first if first > 0 else 0.0
