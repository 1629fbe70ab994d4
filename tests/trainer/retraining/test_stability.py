"""A looser bound must have shown that the run stays stable under it."""

import pytest

from clipdrift_contract.events import GradWindow
from clipdrift_trainer.retraining.stability import instability


def run(losses: list[float], norms: list[float] | None = None, num_nonfinite: int = 0) -> list[GradWindow]:
    return [
        GradWindow(
            run_id="", model="", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=50, num_clipped=0,
            num_nonfinite=num_nonfinite, loss_sum=(50 - num_nonfinite) * loss, norm_sum=(50 - num_nonfinite) * norm,
        )
        for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True)
    ]  # fmt: skip


CALM = run([0.7, 0.5, 0.45, 0.44])


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (run([0.7, 0.5, 0.45, 0.44]), ""),
        (run([0.7, 0.5, 0.99, 0.4]), ""),
        (run([0.7, 0.5, 1.01, 0.4]), "its loss leapt to 2.0 times"),
        (run([0.7, 0.5, 0.45, 0.44], [1.0, 2.0, 5.0, 9.9]), ""),
        (run([0.7, 0.5, 0.45, 0.44], [1.0, 2.0, 5.0, 10.1]), "its gradient norms grew to 10 times"),
        (run([0.7, 0.5, 0.45, 0.44], num_nonfinite=1), "2.0% of its steps were not finite"),
    ],
)
def test_what_speaks_against_a_run_is_said(windows: list[GradWindow], words: str) -> None:
    found = instability(windows, CALM)

    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_what_the_old_bound_showed_too_is_forgiven() -> None:
    wild = run([0.7, 0.5, 1.9, 0.4], [1.0, 2.0, 5.0, 50.0], num_nonfinite=3)

    assert instability(wild, wild) == ""


def test_too_short_a_run_and_losses_that_are_not_positive_prove_nothing() -> None:
    assert instability(run([0.1, 0.9]), CALM) == ""
    assert instability(run([-1.0, -0.2, -3.0]), CALM) == ""
    assert instability([], []) == ""
