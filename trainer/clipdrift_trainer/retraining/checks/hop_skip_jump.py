"""As robustness, on the very files that are served: by an attack that only asks."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from clipdrift_contract.events import GateCheck
from clipdrift_trainer.evaluation.attacks import balls_of
from clipdrift_trainer.evaluation.blocks import Interval
from clipdrift_trainer.evaluation.hop_skip_jump import turning_distances
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.export import raw_columns
from clipdrift_trainer.inference import open_session
from clipdrift_trainer.retraining.bounds import Proof, Role, against_bound, checked, interval_words, require_at_least
from clipdrift_trainer.retraining.checks.case import Case, Side, spread_over
from clipdrift_trainer.retraining.contrast import contrast
from clipdrift_trainer.tasks.task import Rows

NAME = "hop_skip_jump"


class HopSkipJumpPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """HopSkipJump on both ONNX files; needs the extra `robustness`. Some tenths of a second a row."""

    role: Role = "off"
    """Decides, is on trial (shown), or is not measured (off)."""
    epsilon: float = 0.5
    """An answer counts as turned where the numbers need not change by more, in their standard deviations over the training
    rows. Larger than that of `robustness`: an attack that only asks finds less."""
    num_rows: int = 32
    """Rows that are attacked, evenly over the days."""
    max_iter: int = 10
    """Steps of an attack."""
    max_eval: int = 200
    """Points asked in a step."""
    margin: float = 0.1
    """By how much more of the rows may be turned."""
    budget_seconds: float = 30.0
    """For each of the two models; rows that it does not suffice for are left out."""

    def __post_init__(self) -> None:
        require_at_least("hop_skip_jump", 0.0, epsilon=self.epsilon, margin=self.margin, budget_seconds=self.budget_seconds)
        require_at_least("hop_skip_jump", 1, num_rows=self.num_rows, max_iter=self.max_iter, max_eval=self.max_eval)


def check_hop_skip_jump(
    case: Case, policy: HopSkipJumpPolicy, *, min_blocks: int, proof: Proof, timer: Callable[[], float] = time.perf_counter
) -> tuple[GateCheck, ...]:
    """The check; nothing for values, which have no other answer to turn to, and where no number varies.

    Raises:
        RobustnessExtraError: The extra is not installed.
    """
    balls = balls_of(case.task, case.trained, 1.0)
    rows = spread_over(case.judged, policy.num_rows)
    if case.task.kind == "regression" or not balls or not len(rows):
        return ()
    mine_N, theirs_N = (
        turning_distances(
            _asked(side), rows,
            {spec.name: balls[spec.name].radius.double().numpy() for spec in side.features if spec.name in balls},
            max_iter=policy.max_iter, max_eval=policy.max_eval, budget_seconds=policy.budget_seconds, timer=timer,
        )
        for side in (case.candidate, case.champion)
    )  # fmt: skip
    num = min(len(mine_N), len(theirs_N))
    mine_N, theirs_N = ((of_N[:num] <= policy.epsilon).astype(np.float64) for of_N in (mine_N, theirs_N))
    one = contrast("", "error", (mine_N - theirs_N)[None], rows.time_ms[:num])
    found = Interval(one.difference, one.low, one.high)
    outcome = against_bound(found, policy.margin, neutral=0.0, proof=proof) if one.num_blocks >= min_blocks else "inconclusive"
    words = (
        f"turned within {policy.epsilon:g} standard deviations: {mine_N.mean():.1%} of {num} rows, in service "
        f"{theirs_N.mean():.1%}; difference {interval_words(found, 3)}, {policy.margin:g} allowed"
    )
    return (checked(NAME, outcome, words, found, policy.margin, "", policy.role, num_rows=num, num_blocks=one.num_blocks),)


def _asked(side: Side) -> Callable[[Rows], Floats]:
    session = open_session(side.content)
    return lambda rows: np.asarray(session.run(None, raw_columns(side.features, rows))[0], np.float64)
